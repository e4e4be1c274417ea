"""What the record of an attempt says of the whole attempt: plain JSON, means instead of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.models.generation import GenerationRecord


def attempt_summary(record: GenerationRecord) -> dict[str, Any]:
    """Return why an attempt ended, its length, the means over its tokens and its sources.

    Parameters
    ----------
    record
        The record of a `lm_eval_ext.models.generation.Generation`.

    Returns
    -------
    dict
        ``finish_reason`` and ``n_tokens``; ``mean_logprob``, ``mean_entropy`` and
        ``mean_self_certainty`` in nats and ``mean_margin``, where the model gives statistics;
        ``probabilities`` and ``uncertainties`` by name, where there are some. Tokens that a
        thinking budget forced are in no mean.
    """
    summary: dict[str, Any] = {"finish_reason": record.finish_reason, "n_tokens": record.n_tokens}
    if record.statistics is not None:
        statistics = record.statistics
        summary["mean_logprob"] = _mean(statistics.log_prob)
        summary["mean_entropy"] = _mean(statistics.entropy)
        summary["mean_self_certainty"] = _mean(statistics.self_certainty)
        summary["mean_margin"] = _mean(statistics.margin)
    if record.probabilities:
        summary["probabilities"] = _floats(record.probabilities)
    if record.uncertainties:
        summary["uncertainties"] = _floats(record.uncertainties)
    return summary


def _mean(values: NDArray[np.float32]) -> float:
    chosen = values[~np.isnan(values)]
    return float(np.mean(chosen, dtype=np.float64)) if chosen.size else math.nan


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}

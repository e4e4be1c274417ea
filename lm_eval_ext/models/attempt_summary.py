"""A summary of an attempt's record as plain JSON, with means instead of arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.metrics import lowest_window_logprob, tail_logprob
from lm_eval_ext.models.generation import GenerationRecord

_MEANS = ("mean_logprob", "mean_entropy", "mean_self_certainty", "mean_margin")
"""Names of the means, in the order of `lm_eval_ext.models.generation.TokenStatistics`."""


def attempt_summary(record: GenerationRecord) -> dict[str, Any]:
    """Return why an attempt ended, its length, means over its tokens, and its sources by name.

    Means of log-probability, entropy and self-certainty are in nats, and so are the lowest and the
    last mean log-probability of a tenth of the tokens. Tokens that a thinking budget forced are in
    none.
    """
    summary: dict[str, Any] = {"finish_reason": record.finish_reason, "n_tokens": record.n_tokens}
    if record.statistics is not None:
        for name, values in zip(_MEANS, record.statistics, strict=True):
            summary[name] = _mean(values)
        summary["lowest_window_logprob"] = lowest_window_logprob(record.statistics.log_prob)
        summary["tail_logprob"] = tail_logprob(record.statistics.log_prob)
    for kind in ("probabilities", "uncertainties"):
        if values := getattr(record, kind):
            summary[kind] = {name: float(value) for name, value in values.items()}
    return summary


def _mean(values: NDArray[np.float32]) -> float:
    chosen = values[~np.isnan(values)]
    return float(np.mean(chosen, dtype=np.float64)) if chosen.size else math.nan

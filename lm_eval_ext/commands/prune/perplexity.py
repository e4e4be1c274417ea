"""Perplexity of a model on token sequences, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from lm_eval_ext.methods.sinks.padded_batches import batches
from lm_eval_ext.metrics import t_interval
from lm_eval_ext.metrics.checks import FloatArray

# Logits are kept for every position of a batch.
_MAX_TOKENS = 2048


class Perplexity(NamedTuple):
    """Perplexity, exp of the mean negative log-likelihood of a predicted token (nats), at least 1.

    The interval has 95%, with sequences as the independent units.
    """

    estimate: float
    low: float
    high: float
    mean_nll: float
    n_sequences: int
    n_tokens: int


@torch.inference_mode()
def token_nll(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> list[FloatArray]:
    """Return the negative log-likelihood of every token but the first, nats, by sequence."""
    results: list[FloatArray] = [np.empty(0)] * len(sequences)
    for batch in batches(sequences, max_tokens=_MAX_TOKENS):
        ids = batch.input_ids.to(model.device)
        # Padding stands on the right, where no real token sees it.
        logits = model(input_ids=ids, use_cache=False).logits
        for i, row, row_ids in zip(batch.indices, logits, ids, strict=True):
            length = len(sequences[i])
            log_probs = torch.log_softmax(row[: length - 1].float(), dim=-1)
            chosen = log_probs.gather(-1, row_ids[1:length, None]).squeeze(-1)
            results[i] = -chosen.double().cpu().numpy()
    return results


def perplexity(nll: Sequence[FloatArray]) -> Perplexity:
    """Return the perplexity over all tokens.

    Examples
    --------
    >>> two = [np.log([2.0, 2.0]), np.log([2.0])]
    >>> round(perplexity(two).estimate, 6)
    2.0
    """
    clusters = np.repeat(np.arange(len(nll)), [len(values) for values in nll])
    interval = t_interval(np.concatenate(nll), clusters)
    low, estimate, high = np.exp([interval.low, interval.estimate, interval.high]).tolist()
    return Perplexity(estimate, low, high, interval.estimate, interval.n_questions, interval.n_rows)

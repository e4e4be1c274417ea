"""Describe next-token distributions by a few numbers, from one pass of exponentials."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_ext.engine.token_choice import NEGLIGIBLE, largest


def distribution_sums(logits: torch.Tensor) -> list[torch.Tensor]:
    """Return what the statistics of each row are computed from: six columns of shape (n_rows,).

    Parameters
    ----------
    logits
        The model's logits before any processor, shape (n_rows, vocabulary), float32. Entries of
        -inf are not part of the vocabulary.

    Returns
    -------
    list of torch.Tensor
        The largest logit and the second, and, of all logits less the largest: the sum of their
        exponentials, that sum weighted by them, their own sum and their number.
    """
    highest, second = largest(logits, 2)[0].unbind(dim=-1)
    # Less the maximum: a sum of exponentials neither overflows nor vanishes.
    less = logits - highest[:, None]
    total = less.sum(dim=-1)
    n_possible = torch.full_like(total, logits.shape[-1])
    # Where the values are at hand it costs less to ask whether any is so low than to clamp them.
    if logits.device.type != "cpu" or not bool(less.amin() > NEGLIGIBLE):
        possible = logits > -torch.inf
        n_possible = possible.sum(dim=-1).to(total.dtype)
        total = less.where(possible, 0.0).sum(dim=-1)
        less.clamp_min_(NEGLIGIBLE)
    weights = less.exp()
    sums = weights.sum(dim=-1)
    return [highest, second, sums, weights.mul_(less).sum(dim=-1), total, n_possible]


def statistics_from_sums(
    chosen: NDArray[np.floating], sums: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return log-prob, entropy, self-certainty and margin of each row, shape (n_rows, 4).

    Parameters
    ----------
    chosen
        Logits of the chosen tokens, shape (n_rows,).
    sums
        What `distribution_sums` returns, as columns.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 1.0, 0.0]]).log()
    >>> sums = torch.stack(distribution_sums(logits), dim=1).numpy()
    >>> statistics_from_sums(logits[:, 1].numpy(), sums).round(3).tolist()
    [[-1.3860000371932983, 0.5619999766349792, 0.14399999380111694, 0.5]]
    """
    highest, second, summed, weighted, total, n_possible = sums.astype(np.float64).T
    with np.errstate(all="ignore"):  # of logits that are not finite
        log_sum, most = np.log(summed), np.log(n_possible)
        # Rounding would put the entropy of a sure token a little outside its range.
        entropy = np.clip(log_sum - weighted / summed, 0.0, most)
        self_certainty = log_sum - total / n_possible - most
        # The most likely token weighs 1.
        margin = (1.0 - np.exp(second - highest)) / summed
        log_prob = chosen - highest - log_sum
    return np.stack([log_prob, entropy, self_certainty, margin], axis=1).astype(np.float32)

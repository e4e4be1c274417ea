"""Choose tokens from logits in few passes over the vocabulary.

Inverse-CDF sampling: the token whose interval of the cumulative distribution, in order of token ids
and in float64, holds the uniform. Where few tokens can be chosen (`top_k`, `top_p`, `min_p`) only
those are read; otherwise the sum is taken block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.generation.logits_process import TopPLogitsWarper

if TYPE_CHECKING:
    from lm_eval_ext.engine.sampling_settings import SamplingSettings

UNDECIDED = -1
"""Stands for a token that could not be chosen."""

NEGLIGIBLE = -80.0
"""Exponentials of less are left out in float32: what underflows takes 30 times as long."""

_NEGLIGIBLE_FLOAT64 = -700.0
_LEAST_TARGET = 1e-280
_BLOCK = 64
# A whole pass over a smaller vocabulary is faster than a search for its most likely tokens.
_SMALL_VOCABULARY = 4096
# Candidates where `top_k` does not say how many, and how many more than it in case of ties.
_CANDIDATES = 64
_TIES = 14
# Most candidates, as a share of the vocabulary.
_MOST_CANDIDATES = 1 / 8
# Transformers' filters compute probabilities in float32. Of one that lies no farther than this from
# a limit, relatively, rounding may decide on which side it is.
_ROUNDING = 1e-5
# Underflow of float32 has a say below this.
_LEAST_MIN_P = 1e-6


def _in_blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    """View rows (n_rows, vocabulary) as blocks (n_rows, n_blocks, size), filled up with -inf."""
    missing = -values.shape[-1] % size
    if missing:
        values = torch.nn.functional.pad(values, (0, missing), value=-torch.inf)
    return values.reshape(values.shape[0], -1, size)


def _take_blocks(blocks: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return blocks of each row, shape (n_rows, n_chosen, size)."""
    n_rows, n_blocks, size = blocks.shape
    first = n_blocks * torch.arange(n_rows, device=blocks.device)
    flat = (first[:, None] + chosen).flatten()
    return blocks.reshape(-1, size).index_select(0, flat).view(n_rows, -1, size)


def most_likely(scores: torch.Tensor) -> torch.Tensor:
    """Return the first of each row's largest entries, shape (n_rows,), int64."""
    if scores.shape[-1] <= _SMALL_VOCABULARY:
        return scores.argmax(dim=-1)
    blocks = _in_blocks(scores, _BLOCK)
    block = blocks.amax(dim=-1).argmax(dim=-1, keepdim=True)
    within = _take_blocks(blocks, block).squeeze(1).argmax(dim=-1)
    return block.squeeze(-1) * _BLOCK + within


def largest(scores: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the n largest entries of each row, falling, and their indices, shape (n_rows, n).

    They lie in the n blocks with the largest maxima, so the others are read once and not ordered.
    """
    vocabulary = scores.shape[-1]
    if vocabulary <= _SMALL_VOCABULARY or 2 * n * _BLOCK > vocabulary:
        return scores.topk(n, dim=-1)
    blocks = _in_blocks(scores, _BLOCK)
    chosen = blocks.amax(dim=-1).topk(n, dim=-1, sorted=False).indices
    values, indices = _take_blocks(blocks, chosen).flatten(1).topk(n, dim=-1)
    block, within = indices // _BLOCK, indices % _BLOCK
    # What fills up the last block is taken only where a row has too few entries above -inf.
    ids = (chosen.gather(-1, block) * _BLOCK + within).clamp_max(vocabulary - 1)
    return values, ids


def inverse_cdf(scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the token whose interval of the cumulative distribution holds the uniform.

    Parameters
    ----------
    scores
        Processed logits, shape (n_rows, vocabulary); excluded tokens are -inf.
    uniforms
        Shape (n_rows,), float64 in [0, 1).

    Returns
    -------
    torch.Tensor
        Shape (n_rows,), int64. Never a token of probability zero; `UNDECIDED` where scores are not
        finite.
    """
    if scores.shape[-1] <= _SMALL_VOCABULARY:
        token_ids, total = _interval(torch.softmax(scores, -1, dtype=torch.float64), uniforms)
        return token_ids.where(torch.isfinite(total), UNDECIDED)
    size = 4 * _BLOCK
    highest = scores.amax(dim=-1, keepdim=True)
    weights = _in_blocks(scores.clamp_min(highest + _NEGLIGIBLE_FLOAT64), size).to(torch.float64)
    weights.sub_(highest[:, :, None]).exp_()
    sums = weights.sum(dim=-1).cumsum(dim=-1)
    total = sums[:, -1:]
    target = uniforms[:, None] * total
    block = _search(sums, target)
    before = sums.gather(-1, (block - 1).clamp_min(0)).where(block > 0, 0.0)
    cumulative = _take_blocks(weights, block).squeeze(1).cumsum(dim=-1)
    within = _search(cumulative, target - before)
    token_ids = (block * size + within).squeeze(-1)
    return token_ids.where(torch.isfinite(total.squeeze(-1)), UNDECIDED)


def _inside(target: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Keep a target in (0, total), whatever the rounding, so that it is in the support.

    Tokens left out weigh a little more than nothing (see `_NEGLIGIBLE_FLOAT64`), but too little to
    change a sum above the lower bound.
    """
    below = torch.nextafter(total, torch.zeros_like(total))
    return torch.minimum(target.clamp_min(_LEAST_TARGET), below)


def _search(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    index = torch.searchsorted(cumulative, _inside(target, cumulative[:, -1:]), right=True)
    return index.clamp_max(cumulative.shape[-1] - 1)


def _interval(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index whose share of a row's weights holds the uniform, and the weights' sum."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    return _search(cumulative, (uniforms * total)[:, None]).squeeze(-1), total


def n_candidates(settings: SamplingSettings, vocabulary: int) -> int:
    """Return how many of the most likely tokens to try before all of them, or 0 for none."""
    if vocabulary <= _SMALL_VOCABULARY or not settings.do_sample or settings.typical_p < 1.0:
        return 0
    if 0 < (settings.min_p or 0) < _LEAST_MIN_P:
        return 0
    if settings.top_k:
        n = settings.top_k + _TIES
    else:
        n = _CANDIDATES if settings.top_p < 1.0 or settings.min_p else 0
    return n if n <= _MOST_CANDIDATES * vocabulary else 0


def from_candidates(
    scores: torch.Tensor, uniforms: torch.Tensor, settings: SamplingSettings
) -> torch.Tensor:
    """Choose among the most likely tokens, where it is certain that no other can be chosen.

    Parameters
    ----------
    scores
        Logits after repetition penalty and temperature, shape (n_rows, vocabulary), float32.
    uniforms
        Shape (n_rows,), float64 in [0, 1).
    settings
        Settings with `n_candidates` above 0.

    Returns
    -------
    torch.Tensor
        Shape (n_rows,), int64; `UNDECIDED` where more tokens could be chosen, or float32 rounding
        decides whether one can.
    """
    n = n_candidates(settings, scores.shape[-1])
    top = scores.amax(dim=-1, keepdim=True)
    total = None
    if settings.top_p < 1.0 and not settings.top_k:
        shares = (scores - top).clamp_min_(NEGLIGIBLE).exp_()
        total = shares.sum(dim=-1).double()
        # On a CPU the comparison is free, and saves a search in vain.
        rest = (1.0 - settings.top_p) * total
        if scores.device.type == "cpu" and bool((_besides(shares, n) > rest).all()):
            return torch.full_like(total, UNDECIDED, dtype=torch.int64)
    values, ids = largest(scores, n)
    weights = (values.double() - top).exp_()
    kept, certain = _kept(values, weights, total, settings, scores.shape[-1])
    ids, order = ids.sort(dim=-1)
    chosen, total = _interval((weights * kept).gather(-1, order), uniforms)
    token_ids = ids.gather(-1, chosen[:, None]).squeeze(-1)
    return token_ids.where(certain & torch.isfinite(total), UNDECIDED)


def _kept(
    values: torch.Tensor,
    weights: torch.Tensor,
    total: torch.Tensor | None,
    settings: SamplingSettings,
    vocabulary: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which candidates can be chosen, and the rows in which that set is certain.

    `total` is the weight of the whole vocabulary where `top_p` needs it.
    """
    kept = values > -torch.inf
    certain = torch.ones_like(kept[:, 0])
    if settings.top_k:
        kept = kept & (values >= values[:, settings.top_k - 1, None])
        certain = ~kept[:, -1]
    if settings.top_p < 1.0:
        n_summed = values.shape[-1] if total is None else vocabulary
        total = (weights * kept).sum(dim=-1) if total is None else total
        kept, certain_nucleus = _nucleus(values, weights * kept, total, settings.top_p, n_summed)
        certain = certain & certain_nucleus
    if settings.min_p:
        close = (weights - settings.min_p).abs() <= _ROUNDING * settings.min_p
        # The most likely token stays: its probability is at least a share of itself.
        close[:, 0] = False
        certain = certain & ~(close & kept).any(dim=-1)
        kept = kept & (weights >= settings.min_p)
    return kept, certain & ~kept[:, -1]


def _besides(weights: torch.Tensor, n: int) -> torch.Tensor:
    """Return a lower bound of the weight of each row outside its n largest entries.

    In all but n blocks even the maximum is outside.
    """
    maxima = _in_blocks(weights, _BLOCK).amax(dim=-1)
    return maxima.sum(dim=-1) - maxima.topk(min(n, maxima.shape[-1]), dim=-1).values.sum(dim=-1)


def _nucleus(
    values: torch.Tensor, weights: torch.Tensor, total: torch.Tensor, top_p: float, n_summed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which candidates `top_p` keeps, and the rows in which that is certain.

    A token stays while it and all that are less likely have more than 1 - top_p together. The sum
    that transformers divides by has `n_summed` terms, added up in float32 by 8 lanes or more.
    """
    shares = weights / total[:, None]
    rest = 1.0 - shares.cumsum(dim=-1) + shares
    possible = weights > 0.0
    kept = possible & (rest > 1.0 - top_p)
    kept[:, 0] = possible[:, 0]
    error = _ROUNDING + (1.0 - top_p) * n_summed / 8 * 2.0**-24
    close = possible & ((rest - (1.0 - top_p)).abs() <= error)
    # Which of equally likely tokens stay depends on how they are sorted.
    tied = (values[:, :-1] == values[:, 1:]) & possible[:, 1:] & (kept[:, :-1] != kept[:, 1:])
    return kept, ~(close[:, 1:].any(dim=-1) | tied.any(dim=-1))


class Nucleus(TopPLogitsWarper):
    """Transformers' `top_p` filter, with a sort of the scores alone on the CPU.

    Sorting with indices takes ten times as long there. Both add up the same float32 probabilities
    in the same order; rows with equally likely tokens on both sides of the limit go through
    transformers' own filter, as does every other device.
    """

    def __call__(self, input_ids: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of shape (n_rows, vocabulary) with all outside the nucleus at -inf."""
        if scores.device.type != "cpu":
            return super().__call__(input_ids, scores)
        ascending = torch.from_numpy(np.sort(scores.numpy(), axis=-1))
        cumulative = ascending.softmax(dim=-1).cumsum(dim=-1)
        limit = torch.full((len(scores), 1), 1 - self.top_p, dtype=cumulative.dtype)
        first = torch.searchsorted(cumulative, limit, right=True)
        first.clamp_max_(scores.shape[-1] - 1)
        lowest = ascending.gather(-1, first)
        below = ascending.gather(-1, (first - 1).clamp_min(0))
        tied = ((below == lowest) & (first > 0)).flatten()
        filtered = _from(scores, lowest)
        if bool(tied.any()):
            filtered[tied] = super().__call__(input_ids, scores[tied])
        return filtered


def _from(scores: torch.Tensor, lowest: torch.Tensor) -> torch.Tensor:
    """Set entries below their row's lowest to -inf; row by row ten times as fast."""
    limits = torch.nextafter(lowest, torch.full_like(lowest, -torch.inf)).flatten().tolist()
    kept = torch.empty_like(scores)
    for row, limit, out in zip(scores, limits, kept, strict=True):
        torch.threshold(row, limit, -torch.inf, out=out)
    return kept

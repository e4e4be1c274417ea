"""Attention over some of the keys, and the exact merge of two such parts."""

from __future__ import annotations

from typing import NamedTuple

import torch


class HiddenKeys(NamedTuple):
    """Which keys a query must not see.

    Parameters
    ----------
    first
        The keys before this one are visible to every query: scores are masked only from here on.
    mask
        True where hidden, for the keys from `first` on; broadcasts to (batch, kv_heads, ..., keys).
    """

    first: int
    mask: torch.Tensor

    @classmethod
    def where(cls, mask: torch.Tensor) -> HiddenKeys | None:
        """Return the hidden keys of a mask over all keys, or None if none is hidden."""
        columns = mask.flatten(0, -2).any(dim=0).nonzero()
        if not len(columns):
            return None
        first = int(columns[0])
        return cls(first, mask[..., first:])


class PartialAttention(NamedTuple):
    """Attention over some of the keys, not yet normalised; all float32.

    Parameters
    ----------
    weighted
        Sum of the values weighted by ``exp(score - largest)``, shape (..., head_dim).
    largest
        Largest score, shape (..., 1).
    total
        Sum of the weights, shape (..., 1); 0 where every key is hidden.
    """

    weighted: torch.Tensor
    largest: torch.Tensor
    total: torch.Tensor


def attend_partly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: HiddenKeys | None,
    softcap: float | None,
) -> PartialAttention:
    """Attend to some of the keys.

    Parameters
    ----------
    query
        Scaled queries, shape (batch, kv_heads, ..., head_dim) with any query dimensions.
    key, value
        Shape (batch, kv_heads, n_keys, head_dim).
    hidden
        The keys that are not visible, or None.
    softcap
        Scores are squashed to this range by tanh.
    """
    shape = query.shape
    stacked = query.flatten(2, -2)
    scores = torch.matmul(stacked, key.transpose(-1, -2)).float()
    scores = scores.unflatten(2, shape[2:-1])
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        # Layers of one model may lie on several devices.
        scores[..., hidden.first :].masked_fill_(hidden.mask.to(scores.device), -torch.inf)
    # A row that sees no key has total weight 0 and drops out of the merge.
    largest = scores.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).min)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    weighted = torch.matmul(weights.to(value.dtype).flatten(2, -2), value)
    return PartialAttention(weighted.unflatten(2, shape[2:-1]).float(), largest, total)


def merge_parts(first: PartialAttention, second: PartialAttention) -> torch.Tensor:
    """Return the attention over two disjoint sets of keys (exact; Hydragen, eq. 4).

    Parameters
    ----------
    first, second
        The two parts; every query sees a key in at least one of them.
    """
    largest = torch.maximum(first.largest, second.largest)
    weight_first = (first.largest - largest).exp_()
    weight_second = (second.largest - largest).exp_()
    total = first.total * weight_first + second.total * weight_second
    weighted = first.weighted * weight_first + second.weighted * weight_second
    return weighted / total


def softcapped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attend causally with capped scores, which SDPA cannot do.

    Parameters
    ----------
    query, key, value
        As in transformers' attention functions: (batch, heads, length, head_dim).
    attention_mask
        True where visible, shape (batch, 1, n_queries, n_keys); None is plain causal attention.
    scaling
        Factor on the scores; the inverse root of head_dim by default.
    softcap
        Range of the scores.

    Returns
    -------
    torch.Tensor
        Shape (batch, n_queries, heads, head_dim).
    """
    n_queries, n_keys = query.shape[2], key.shape[2]
    if attention_mask is None:
        visible = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        visible = visible.tril(n_keys - n_queries)[None, None, None]
    else:
        visible = attention_mask[:, :, None, :, :n_keys]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = (query * scale).unflatten(1, (key.shape[1], -1))
    weighted, _, total = attend_partly(grouped, key, value, HiddenKeys.where(~visible), softcap)
    return (weighted / total).to(value.dtype).flatten(1, 2).transpose(1, 2).contiguous()

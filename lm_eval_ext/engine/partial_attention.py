"""Attention over some of the keys, and the exact merge of such parts."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch

# Scores held at once, as numbers: what stays in the cache of a CPU, and what keeps a GPU busy.
_SCORES_ON_CPU = 2**18
_SCORES_ON_GPU = 2**27
# A pass over fewer queries than this is faster as plain matrix products.
_FUSED_QUERIES = 8


class HiddenKeys(NamedTuple):
    """Which keys a query must not see.

    The mask is True where a key is hidden, broadcasts to (batch, kv_heads, queries, keys) and
    begins at the key `first`; all keys before and after it are visible.
    """

    first: int
    mask: torch.Tensor

    @classmethod
    def where(cls, mask: torch.Tensor) -> HiddenKeys | None:
        """Return the hidden keys of a mask over all keys, or None if none is hidden."""
        columns = mask.flatten(0, -2).any(dim=0).nonzero()
        if not len(columns):
            return None
        first, last = int(columns[0]), int(columns[-1])
        return cls(first, mask[..., first : last + 1])

    def to(self, device: torch.device) -> HiddenKeys:
        """Return the same on another device."""
        return HiddenKeys(self.first, self.mask.to(device))

    def hide(self, scores: torch.Tensor, queries: slice) -> None:
        """Set scores of shape (batch, kv_heads, queries, keys) to ``-inf`` where hidden."""
        mask = self.mask if self.mask.shape[-2] == 1 else self.mask[..., queries, :]
        columns = slice(self.first, self.first + mask.shape[-1])
        # Layers of one model may lie on several devices.
        scores[..., columns].masked_fill_(mask.to(scores.device), -torch.inf)


class Scratch:
    """Memory for scores, the same for all layers of a pass: fresh memory costs page faults."""

    def __init__(self) -> None:
        self._held: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def take(self, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Return uninitialised memory, valid until the next call."""
        key, n = (like.device, like.dtype), math.prod(shape)
        if key not in self._held or len(self._held[key]) < n:
            self._held[key] = like.new_empty(n)
        return self._held[key][:n].view(shape)


class PartialAttention(NamedTuple):
    """Attention over some of the keys, not yet normalised; all float32.

    `weighted` is the sum of the values weighted by ``exp(score - largest)``, shape (..., head_dim);
    `largest` and `total`, the sum of the weights, have the shape (..., 1). The total is 0 where
    every key is hidden.
    """

    weighted: torch.Tensor
    largest: torch.Tensor
    total: torch.Tensor

    def normalised(self) -> torch.Tensor:
        """Return the attention over these keys alone, in the memory of the sum."""
        return self.weighted.div_(self.total)

    def take(self, indices: torch.Tensor, dim: int = 1) -> PartialAttention:
        """Return the parts at some indices of a dimension."""
        indices = indices.to(self.weighted.device)
        return PartialAttention(*(states.index_select(dim, indices) for states in self))


def attend_partly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: HiddenKeys | None = None,
    softcap: float | None = None,
    scratch: Scratch | None = None,
) -> PartialAttention:
    """Attend to some of the keys from scaled queries, shape (batch, kv_heads, n_queries, head_dim).

    Keys have the shape (batch, kv_heads, head_dim, n_keys), whose product is faster; values (batch,
    kv_heads, n_keys, head_dim). The two leading dimensions are any.
    """
    leading = query.shape[:2]
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))
    scratch = scratch or Scratch()
    size = _block_size(query, n_keys=key.shape[-1])
    if size >= query.shape[1]:
        flat = _attend(query, key, value, hidden, softcap, leading, slice(None), scratch)
    else:
        parts = []
        for first in range(0, query.shape[1], size):
            queries = slice(first, first + size)
            block = query[:, queries]
            parts.append(_attend(block, key, value, hidden, softcap, leading, queries, scratch))
        flat = PartialAttention(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))
    if leading[1] == 1:  # views of this kind are faster made
        return PartialAttention(flat[0][:, None], flat[1][:, None], flat[2][:, None])
    return PartialAttention(*(part.unflatten(0, leading) for part in flat))


def _block_size(query: torch.Tensor, n_keys: int) -> int:
    """Return at how many queries of shape (n, n_queries, head_dim) the scores stay small."""
    max_scores = _SCORES_ON_CPU if query.device.type == "cpu" else _SCORES_ON_GPU
    size = max(16, max_scores // max(1, n_keys * len(query)))
    n_blocks = -(-query.shape[1] // size)
    return -(-query.shape[1] // n_blocks) if n_blocks else 1  # blocks of one size


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: HiddenKeys | None,
    softcap: float | None,
    leading: torch.Size,
    queries: slice,
    scratch: Scratch,
) -> PartialAttention:
    scores = scratch.take(query, (*query.shape[:2], key.shape[-1]))
    torch.bmm(query, key, out=scores)
    if scores.dtype != torch.float32:
        scores = scores.float()
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    if hidden is not None:
        hidden.hide(scores.unflatten(0, leading), queries)
    largest = scores.amax(dim=-1, keepdim=True)
    if hidden is not None:
        # A row that sees no key has total weight 0 and drops out of the merge.
        largest.clamp_min_(torch.finfo(torch.float32).min)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    if weights.dtype != value.dtype:
        return PartialAttention(torch.bmm(weights.to(value.dtype), value).float(), largest, total)
    return PartialAttention(torch.bmm(weights, value), largest, total)


def attend_to_own(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: HiddenKeys | None,
    softcap: float | None,
    *,
    causal: bool,
    scratch: Scratch | None = None,
) -> PartialAttention:
    """Attend to keys that every row has for itself.

    Parameters
    ----------
    query
        Scaled queries, shape (n_rows, kv_heads, group, n_queries, head_dim), as of the result.
    key, value
        Shape (n_rows, kv_heads, n_keys, head_dim).
    hidden
        The keys that are not visible, of a shape that broadcasts to (n_rows, 1, n_queries, keys).
    causal
        Whether query i sees the keys up to the i-th and no others, which has a fast way.
    """
    group, n_queries = query.shape[2:4]
    if n_queries >= _FUSED_QUERIES and softcap is None:
        mask = None
        if hidden is not None:
            mask = query.new_zeros((*hidden.mask.shape[:-1], key.shape[-2]))
            hidden.hide(mask, slice(None))
        fused = _fused_attention(query.flatten(1, 2), key, value, mask=mask, causal=causal)
        if fused is not None:
            output, largest = (part.unflatten(1, query.shape[1:3]).float() for part in fused)
            largest = largest[..., None]
            return PartialAttention(output, largest, torch.ones_like(largest))
    if causal and hidden is None and n_queries > 1:
        columns = torch.arange(key.shape[-2], device=query.device)
        hidden = HiddenKeys(0, (columns > columns[:, None])[None, None])
    if hidden is not None and hidden.mask.shape[-2] > 1 and group > 1:
        hidden = HiddenKeys(hidden.first, hidden.mask.repeat(1, 1, group, 1))
    stacked, keys = query.flatten(2, 3), key.transpose(-1, -2)
    parts = attend_partly(stacked, keys, value, hidden, softcap, scratch)
    return PartialAttention(*(part.unflatten(2, (group, n_queries)) for part in parts))


@cache
def _operator() -> Any | None:
    """Return PyTorch's fused attention for CPUs, or None where it does not do what it should.

    Unlike `torch.nn.functional.scaled_dot_product_attention`, this private operator below it gives
    out the log-sum-exp that a merge with other keys needs.
    """
    operator = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if operator is None:
        return None
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 3, 8, generator=draws)
    key = torch.randn(1, 1, 3, 8, generator=draws)  # one head for both query heads
    mask = torch.zeros(1, 1, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    scores = query @ key.transpose(-1, -2) + mask
    try:
        for arguments in ({"attn_mask": mask}, {"is_causal": True}):
            output, largest = operator(query, key, key, scale=1.0, **arguments)
            torch.testing.assert_close(output, scores.softmax(-1) @ key)
            torch.testing.assert_close(largest, scores.logsumexp(-1))
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    return operator


def _fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the attention and the log-sum-exp of its scores, or None where it cannot be had.

    Parameters
    ----------
    query
        Scaled queries, shape (batch, heads, n_queries, head_dim), as of the attention.
    key, value
        Shape (batch, kv_heads, n_keys, head_dim); query heads that share one are adjacent.
    mask
        Added to the scores; broadcasts to (batch, heads, n_queries, n_keys). Every query must see
        a key.
    """
    operator = _operator() if query.device.type == "cpu" else None
    if operator is None or value.shape[-1] != query.shape[-1]:
        return None
    if mask is not None:
        mask = mask.expand(len(query), 1, query.shape[2], key.shape[2])
    # The operator wants the numbers of a vector side by side.
    states = (query.contiguous(), key.contiguous(), value.contiguous())
    output, largest = operator(*states, is_causal=causal, attn_mask=mask, scale=1.0)
    return output, largest


def merge_parts(first: PartialAttention, second: PartialAttention) -> PartialAttention:
    """Return the attention over two disjoint sets of keys (exact; Hydragen, eq. 4).

    The first part serves as memory for the result.
    """
    largest = torch.maximum(first.largest, second.largest)
    weight_first = torch.sub(first.largest, largest, out=first.largest).exp_()
    weight_second = torch.sub(second.largest, largest).exp_()
    return PartialAttention(
        first.weighted.mul_(weight_first).addcmul_(second.weighted, weight_second),
        largest,
        first.total.mul_(weight_first).addcmul_(second.total, weight_second),
    )


def softcapped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attend causally with capped scores, which SDPA cannot do.

    Shapes and `scaling` are those of transformers' attention functions: states (batch, heads,
    length, head_dim), the result (batch, n_queries, heads, head_dim). The mask is True where
    visible, shape (batch, 1, n_queries, n_keys); None is plain causal attention.
    """
    n_queries, n_keys = query.shape[2], key.shape[2]
    if attention_mask is None:
        visible = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        visible = visible.tril(n_keys - n_queries)[None, None]
    else:
        visible = attention_mask[:, :, :, :n_keys]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = (query * scale).unflatten(1, (key.shape[1], -1))
    hidden = HiddenKeys.where(~visible)
    part = attend_to_own(grouped, key, value, hidden, softcap, causal=False)
    return part.normalised().to(value.dtype).flatten(1, 2).transpose(1, 2).contiguous()

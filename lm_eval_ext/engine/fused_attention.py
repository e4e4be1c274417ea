"""PyTorch's fused attention on CPUs, with the log-sum-exp that a merge with other keys needs.

`torch.nn.functional.scaled_dot_product_attention` keeps the log-sum-exp to itself, so this calls
the operator below it, which is private to PyTorch: where it is missing or does something else,
nothing is returned.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


@cache
def _operator() -> Any | None:
    """Return the operator where it does what it should, else None."""
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


def fused_attention(
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
        Scaled queries, shape (batch, heads, n_queries, head_dim).
    key, value
        Shape (batch, kv_heads, n_keys, head_dim); query heads that share one stand together.
    mask
        Added to the scores; broadcasts to (batch, heads, n_queries, n_keys). Every query must see
        a key.

    Returns
    -------
    tuple or None
        Shapes (batch, heads, n_queries, head_dim) and (batch, heads, n_queries).
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

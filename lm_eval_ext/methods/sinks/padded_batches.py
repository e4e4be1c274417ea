"""Token sequences as padded batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from lm_eval_ext.engine.inputs import PaddingSide, padded


class Batch(NamedTuple):
    """The sequences of some indices, padded to one length, int64 of shape (n_rows, length)."""

    indices: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def batches(
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int = 8192,
    padding_side: PaddingSide = "right",
) -> Iterator[Batch]:
    """Yield sequences of at least one token in batches of similar length, longest first.

    A batch has at most `max_tokens` tokens, padding included; a longer sequence is one by itself.

    Examples
    --------
    >>> [batch.input_ids.tolist() for batch in batches([[5], [6, 7], [8]], max_tokens=4)]
    [[[6, 7], [5, 0]], [[8]]]
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        longest = len(sequences[order[0]])
        n_rows = max(1, max_tokens // longest)
        indices, order = order[:n_rows], order[n_rows:]
        ids, mask = padded([sequences[i] for i in indices], side=padding_side)
        yield Batch(indices, ids, mask)

"""Token sequences as padded batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

PaddingSide = Literal["left", "right"]


class Batch(NamedTuple):
    """Some of the sequences, padded to one length.

    Parameters
    ----------
    input_ids, attention_mask
        int64 tensors of shape (n_rows, length); the mask is 1 on real tokens.
    """

    places: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def batches(
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int = 8192,
    padding_side: PaddingSide = "right",
) -> Iterator[Batch]:
    """Yield the sequences in batches of similar length, longest first.

    Parameters
    ----------
    sequences
        Token ids of each, at least one.
    max_tokens
        Most tokens in a batch, padding included; a longer sequence is a batch by itself.
    padding_side
        Where shorter sequences are padded, with token 0.

    Examples
    --------
    >>> [batch.input_ids.tolist() for batch in batches([[5], [6, 7], [8]], max_tokens=4)]
    [[[6, 7], [5, 0]], [[8]]]
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        longest = len(sequences[order[0]])
        n_rows = max(1, max_tokens // longest)
        places, order = order[:n_rows], order[n_rows:]
        ids = torch.zeros((len(places), longest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, row_mask, place in zip(ids, mask, places, strict=True):
            length = len(sequences[place])
            real = slice(longest - length, None) if padding_side == "left" else slice(length)
            row[real] = torch.tensor(sequences[place], dtype=torch.int64)
            row_mask[real] = 1
        yield Batch(places, ids, mask)

"""Token sequences as padded batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from lm_eval_ext.engine.inputs import PaddingSide, padded


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
        ids, mask = padded([sequences[i] for i in places], side=padding_side)
        yield Batch(places, ids, mask)

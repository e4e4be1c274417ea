"""The inputs of a pass: token ids padded to one length, and the vectors injected among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from lm_eval_ext.engine.request import AttemptRequest

PaddingSide = Literal["left", "right"]


def padded(
    sequences: Sequence[Sequence[int]],
    *,
    side: PaddingSide = "right",
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids padded with token 0, and the mask, both int64 of shape (n_rows, longest).

    Examples
    --------
    >>> ids, mask = padded([[5], [6, 7]], side="left")
    >>> ids.tolist(), mask.tolist()
    ([[0, 5], [6, 7]], [[0, 1], [1, 1]])
    """
    rows = [torch.tensor(sequence, dtype=torch.int64) for sequence in sequences]
    ids = pad_sequence(rows, batch_first=True, padding_side=side)
    mask = pad_sequence(list(map(torch.ones_like, rows)), batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)


def embedded(
    model: PreTrainedModel,
    ids: torch.Tensor,
    requests: Sequence[AttemptRequest],
    starts: Iterable[int],
) -> torch.Tensor:
    """Return the embeddings of ids (n_rows, length), each row's vectors put in at its start."""
    embeddings = model.get_input_embeddings()(ids).clone()
    for row, request, first in zip(embeddings, requests, starts, strict=True):
        if request.vectors is not None:
            row[first : first + request.n_vectors] = request.vectors.draw().to(row)
    return embeddings


def private_inputs(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    continuations: Sequence[Sequence[int]] | None = None,
) -> torch.Tensor:
    """Return the private parts of prompts and their continuations, padded on the left.

    They are token ids, shape (n_rows, longest), or embeddings, shape (n_rows, longest, hidden),
    where any attempt has vectors.
    """
    after = continuations if continuations is not None else [()] * len(requests)
    rows = [
        [*([0] * request.n_vectors), *request.private_ids, *continuation]
        for request, continuation in zip(requests, after, strict=True)
    ]
    ids, _ = padded(rows, side="left", device=model.device)
    if all(request.vectors is None for request in requests):
        return ids
    return embedded(model, ids, requests, [ids.shape[1] - len(row) for row in rows])

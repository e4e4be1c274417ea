"""Stack what each attempt reads after its shared prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.request import AttemptRequest


def private_inputs(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    continuations: Sequence[Sequence[int]] | None = None,
) -> torch.Tensor:
    """Return the private inputs of attempts, padded on the left to equal length.

    Returns
    -------
    torch.Tensor
        Token ids, shape (n_rows, longest); embeddings, shape (n_rows, longest, hidden), where any
        attempt has vectors.
    """
    after = continuations if continuations is not None else [()] * len(requests)
    # Token 0 stands where the vectors go.
    rows = [
        [*([0] * request.n_vectors), *request.private_ids, *continuation]
        for request, continuation in zip(requests, after, strict=True)
    ]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=model.device)
    if all(request.vectors is None for request in requests):
        return ids
    embeddings = model.get_input_embeddings()(ids).clone()
    for place, request, row in zip(embeddings, requests, rows, strict=True):
        if request.vectors is not None:
            first = longest - len(row)
            place[first : first + request.n_vectors] = request.vectors.draw().to(place)
    return embeddings

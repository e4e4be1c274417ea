"""Next-token logits along given continuations, common beginnings of prompts read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.inputs import private_inputs
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.shared_prefix import forward, shared_prefix_mode


@torch.inference_mode()
def teacher_forced_logits(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    continuations: Sequence[Sequence[int]],
    *,
    max_rows: int,
) -> Iterator[torch.Tensor]:
    """Yield, for each attempt in order, the logits that predict its continuation.

    Parameters
    ----------
    model
        A causal model that `lm_eval_ext.engine.support.misfit` finds nothing against.
    continuations
        Tokens of each attempt, at least one.
    max_rows
        Most attempts in one forward pass.

    Yields
    ------
    torch.Tensor
        Shape (n_tokens, vocabulary).
    """
    n_positions = sum(map(len, continuations)) // max(1, len(continuations))
    rows = min(max_rows, len(requests)) * n_positions
    with packed_weights(model, rows=rows, passes=-(-len(requests) // max_rows)):
        yield from _forced_logits(model, requests, continuations, max_rows)


def _forced_logits(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    continuations: Sequence[Sequence[int]],
    max_rows: int,
) -> Iterator[torch.Tensor]:
    tree = PromptTree(requests)
    for start in range(0, len(requests), max_rows):
        asked = requests[start : start + max_rows]
        rows = [tree.placed(request) for request in asked]
        tokens = continuations[start : start + max_rows]
        # The last token predicts nothing that is asked for.
        inputs = private_inputs(model, rows, [continuation[:-1] for continuation in tokens])
        lengths = [
            request.private_length + len(continuation) - 1
            for request, continuation in zip(rows, tokens, strict=True)
        ]
        with shared_prefix_mode(model):
            tree.read(model, asked)
            logits = forward(
                model,
                inputs,
                prefix=tree.prefix(asked),
                cache=PrivateCache([inputs.shape[1] - length for length in lengths]),
                logits_to_keep=max(len(continuation) for continuation in tokens),
            )
        tree.release(asked)
        for row, continuation in zip(logits, tokens, strict=True):
            yield row[-len(continuation) :]

"""Next-token logits along given continuations, common beginnings of prompts read once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.inputs import padded, private_inputs
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.shared_prefix import forward, shared_prefix_mode


def following_logits(model: Any, contexts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the logits of what follows each context, shape (n_contexts, vocabulary).

    Parameters
    ----------
    model
        A causal model, with adapters or without.
    """
    base: Any = getattr(model, "get_base_model", lambda: model)()
    # On the right, where nothing attends to it.
    ids, mask = padded(contexts, device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    columns, places = (mask.sum(dim=1) - 1).unique(return_inverse=True)
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        # The vocabulary is wide: other positions never reach it.
        logits = model(**inputs, logits_to_keep=columns).logits
    else:
        logits = model(**inputs).logits[:, columns]
    return logits[torch.arange(len(ids), device=places.device), places]


@torch.inference_mode()
def teacher_forced_logits(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    continuations: Sequence[Sequence[int]],
    *,
    max_rows: int,
) -> Iterator[torch.Tensor]:
    """Yield, for each attempt in order, the logits that predict its continuation.

    Their shape is (n_tokens, vocabulary). Attempts of one prompt should stand together, and each
    needs a token to predict; `max_rows` of them are read in one pass of a model that fits
    (`lm_eval_ext.engine.support.misfit`).
    """
    n_positions = sum(map(len, continuations)) // max(1, len(continuations))
    n_rows, passes = min(max_rows, len(requests)), -(-len(requests) // max_rows)
    tree = PromptTree(requests)
    with packed_weights(model, rows=n_rows * n_positions, passes=passes):
        for start in range(0, len(requests), max_rows):
            asked = requests[start : start + max_rows]
            rows = [tree.placed(request) for request in asked]
            tokens = continuations[start : start + max_rows]
            # The last token predicts nothing that is asked for.
            read = [continuation[:-1] for continuation in tokens]
            inputs = private_inputs(model, rows, read)
            lengths = [row.private_length + len(ids) for row, ids in zip(rows, read, strict=True)]
            with shared_prefix_mode(model):
                tree.read(model, asked)
                logits = forward(
                    model,
                    inputs,
                    prefix=tree.prefix(asked),
                    cache=PrivateCache([inputs.shape[1] - length for length in lengths]),
                    logits_to_keep=max(map(len, tokens)),
                )
            tree.release(asked)
            for row_logits, continuation in zip(logits, tokens, strict=True):
                yield row_logits[-len(continuation) :]

"""Logits along finished responses, in one unpadded pass over prompts and responses.

Teacher forcing needs no cache and no steps: prompts and responses are laid out in a single row of
tokens (`lm_eval_ext.engine.packed_layout`), which only the attention function knows.

A response may be read several times at once: the further copies ("streams") see the first one's
keys before their own position and their own key at it, which is what noise on single tokens with a
clean context needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.attention_override import attention_override
from lm_eval_ext.engine.inputs import padded
from lm_eval_ext.engine.packed_layout import ForcedAttempt, PackedAttempts, Scoring
from lm_eval_ext.engine.support import misfit

ATTENTION_NAME = "lm_eval_ext_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed: PackedAttempts | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within a packed row, to states of shape (1, heads, n_tokens, head_dim)."""
    assert packed is not None
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    out = packed.attend(q, k, v, Scoring(scaling, sliding_window, softcap))
    return out[None], None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Build no mask: the layout of the row has it all."""


def packed_mode(*models: PreTrainedModel) -> AbstractContextManager[None]:
    """Let models attend through `packed_attention` until the end of the block."""
    return attention_override(
        *models, name=ATTENTION_NAME, attention=packed_attention, mask=_no_mask
    )


def packed_logits(model: PreTrainedModel, packed: PackedAttempts) -> torch.Tensor:
    """Return the logits that predict the response tokens, inside `packed_mode`.

    Their shape is (n_streams * n_response_tokens, vocabulary), attempts in order within a stream.
    """
    output = model(
        input_ids=packed.token_ids.to(model.device),
        position_ids=packed.positions.to(model.device),
        use_cache=False,
        logits_to_keep=packed.n_streams * packed.n_response_tokens,
        packed=packed,
    )
    return output.logits[0]


@torch.inference_mode()
def packed_misfit(model: PreTrainedModel) -> str | None:
    """Return why packed passes do not fit a model ("has ..."), or None."""
    reason = misfit(model)
    if reason is not None:
        return reason
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (12,), generator=draws).tolist()
    probe = ForcedAttempt(tuple(ids[:5]), tuple(ids[5:9]))
    other = ForcedAttempt(probe.prompt_ids, tuple(ids[9:]))
    try:
        with packed_mode(model):
            packed = packed_logits(model, PackedAttempts([probe, other])).float()
    except Exception as error:  # any failure means the same thing: use plain passes
        first_line = str(error).partition("\n")[0]
        return f"fails with packed responses ({type(error).__name__}: {first_line})"
    plain = plain_logits(model, [probe, other]).float()
    difference = float((packed - plain).square().mean().sqrt() / plain.std())
    if not difference <= (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1):
        return f"gives other logits when packed (off by {difference:.2g} of their spread)"
    return None


def plain_logits(model: PreTrainedModel, attempts: Sequence[ForcedAttempt]) -> torch.Tensor:
    """Return what `packed_logits` returns, from a padded pass with the model's own attention."""
    rows = [[*attempt.prompt_ids, *attempt.response_ids[:-1]] for attempt in attempts]
    # On the right, where causal layers of any kind keep padding from touching anything.
    ids, mask = padded(rows, device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    ends = [
        (len(attempt.prompt_ids) - 1, len(row)) for attempt, row in zip(attempts, rows, strict=True)
    ]
    return torch.cat([logits[i, first:last] for i, (first, last) in enumerate(ends)])

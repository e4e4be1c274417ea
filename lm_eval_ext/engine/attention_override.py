"""Let models attend through another function, and switch them back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask


@contextmanager
def attention_override(
    *models: PreTrainedModel,
    name: str,
    attention: Callable[..., Any] | None = None,
    mask: Callable[..., Any] = sdpa_mask,
) -> Iterator[None]:
    """Switch models to an attention function until the end of the block.

    Parameters
    ----------
    name
        Name in transformers' registry.
    attention
        Registered under this name, with the signature of transformers' attention functions; None
        for a name that transformers knows.
    mask
        Builds the mask that the function gets.
    """
    if attention is not None:
        AttentionInterface.register(name, attention)
        # Under the same name: without a mask function transformers builds no mask at all.
        AttentionMaskInterface.register(name, mask)
    previous = [(model, model.config._attn_implementation) for model in models]
    try:
        for model in models:
            model.set_attn_implementation(name)
        yield
    finally:
        for model, before in reversed(previous):
            model.set_attn_implementation(before)

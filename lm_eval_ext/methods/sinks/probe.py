"""Attention to the first token, read out of an ordinary attention call.

Every value vector gets one more entry, which is 1 at the first token of the row and 0 at all
others. The output of attention then has one more entry too: the weight of the first token, without
a matrix of queries x keys, whatever kernel, mask and grouping of heads the call uses. Queries and
keys get zeros there, which leaves their products as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lm_eval_ext.engine.attention_override import attention_override
from lm_eval_ext.engine.partial_attention import softcapped_attention
from lm_eval_ext.errors import UserError

ATTENTION_NAME = "lm_eval_ext_sink_probe"

# Entries are added in eights: fused kernels on GPUs want head sizes that are multiples of it.
_ADDED = 8

Receiver = Callable[[int, torch.Tensor, int | None], None]
"""Takes a layer's number, its weights of shape (n_rows, n_queries, heads), and its window."""


class _Probe:
    """State of the attention function while it is in use."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.first_keys: torch.Tensor | None = None  # (n_rows,)


_probe = _Probe()


def _probing_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' SDPA does, and report the weight of each row's first key."""
    if kwargs.get("s_aux") is not None:
        raise UserError(
            f"{type(module).__name__} has attention sinks of its own, beside the keys: the sink "
            "score of its heads is not defined"
        )
    assert _probe.first_keys is not None
    assert _probe.receiver is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    size = value.shape[-1]
    # Kernels want queries, keys and values of one size, which some attention does not have.
    width = max(size, query.shape[-1]) + _ADDED
    query, key, value = (
        F.pad(states, (0, width - states.shape[-1])) for states in (query, key, value)
    )
    rows = torch.arange(len(value), device=value.device)
    value[rows, :, _probe.first_keys.to(value.device), size] = 1
    if softcap is not None:
        output = softcapped_attention(query, key, value, attention_mask, scale, softcap)
    else:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scale, **kwargs
        )
    _probe.receiver(int(module.layer_idx), output[..., size], sliding_window)  # type: ignore[arg-type]
    return output[..., :size].contiguous(), None


@contextmanager
def sink_probe(model: PreTrainedModel, receiver: Receiver) -> Iterator[None]:
    """Let the model report its attention to the first token to `receiver`, layer by layer."""
    if not getattr(model, "_supports_attention_backend", False):
        raise UserError(
            f"{type(model).__name__} does not take attention functions from transformers' "
            "registry: its heads cannot be scored by the sink; choose another criterion"
        )
    _probe.receiver = receiver
    try:
        with attention_override(model, name=ATTENTION_NAME, attention=_probing_attention):
            yield
    finally:
        _probe.receiver = None


def probed_forward(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> None:
    """Run a batch of shape (n_rows, length), padded on either side, inside `sink_probe`."""
    _probe.first_keys = attention_mask.argmax(dim=1)
    try:
        plain_forward(model, input_ids, attention_mask)
    finally:
        _probe.first_keys = None


def plain_forward(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> Any:
    """Run a batch without cache and with logits of the last position only.

    Padding on the right needs no mask, since no real token comes after it; SDPA is then free to
    use its causal kernels, which keep no matrix of queries x keys.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids.to(model.device)}
    if not bool(attention_mask[:, 0].all()):
        mask = attention_mask.to(model.device)
        inputs["attention_mask"] = mask
        inputs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp_min(0)
    return model(**inputs, use_cache=False, logits_to_keep=1)

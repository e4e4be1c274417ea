"""The memory an attempt takes while it is decoded, and how many attempts fit at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.packed_weights import bytes_to_pack
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.errors import UserError

MAX_ROWS = 512
"""With more rows a step takes proportionally longer, on CPUs and GPUs alike."""

USABLE_SHARE = 0.5
"""Share of the free memory the rows may fill; the rest is for activations and fragmentation."""

# Working memory per row and vocabulary entry: logits, log-probs, probabilities in float32, the
# cumulative distribution and its softmax in float64.
_BYTES_PER_LOGIT = 32
# A growing private cache holds up to half of itself in spare columns, and a copy while it grows.
_PRIVATE_OVERHEAD = 2.5
# Beginnings that several prompts share: those of the rows that end, and of those that take over.
_BEGINNINGS = 2
# A prompt is held once by itself and once in the padded stack of its batch.
_PROMPT_COPIES = 2
# Rows of a model without a key/value cache to count: a state-space model.
_ROWS_WITHOUT_CACHE = 64


def layer_configurations(config: Any) -> list[Any]:
    """Return the configuration of every layer, which may differ in heads and widths."""
    if getattr(config, "is_heterogeneous", False):  # Gemma 4: its own values cannot be read
        return list(config.per_layer_config)
    return [config] * int(config.num_hidden_layers)


def has_attention(config: Any) -> bool:
    """Return whether a configuration names attention heads; those of state-space models do not."""
    varied = getattr(config, "is_heterogeneous", False)
    layers = layer_configurations(config) if varied else [config]
    return any(getattr(layer, "num_attention_heads", None) for layer in layers)


def key_value_numbers_per_token(config: Any) -> int:
    """Return how many numbers one token adds to the key/value cache, over all layers.

    Layers that read the keys and values of an earlier one (Gemma 3n) add nothing.

    Parameters
    ----------
    config
        Text configuration of a causal model with attention, as transformers has it.

    Raises
    ------
    UserError
        If the configuration lacks the sizes of its heads.
    """
    try:
        layers = layer_configurations(config)
        own = len(layers) - int(getattr(config, "num_kv_shared_layers", None) or 0)
        return sum(2 * _key_value_heads(layer) * _head_width(layer) for layer in layers[:own])
    except (AttributeError, RuntimeError, TypeError, ZeroDivisionError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the key/value cache of a {kind} model cannot be counted from its configuration "
            f"({reason}): give a number of attempts, such as --batch_size 16, instead of auto"
        ) from error


def _head_width(layer: Any) -> int:
    return int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)


def _key_value_heads(layer: Any) -> int:
    """Return the heads of a layer whose keys transformers caches."""
    if getattr(layer, "new_decoder_architecture", False):
        return int(layer.num_attention_heads)  # Falcon-40B: repeated before they are cached
    if getattr(layer, "multi_query", False):  # Falcon-7B, GPT-BigCode
        return 1
    return int(getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads)


def key_value_bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes one token adds to the key/value cache."""
    return key_value_numbers_per_token(model.config.get_text_config()) * model.dtype.itemsize


def bytes_per_row(
    bytes_per_token: float,
    *,
    own_tokens: float,
    prompt_tokens: float,
    attempts_per_prompt: float,
    vocabulary: int,
) -> float:
    """Return the memory of one attempt in flight, its share of the prompt included.

    A token adds `bytes_per_token` to the key/value cache; the attempt itself has at most
    `own_tokens`, and shares those of the prompt with others.
    """
    return (
        _PRIVATE_OVERHEAD * own_tokens * bytes_per_token
        + _PROMPT_COPIES * prompt_tokens * bytes_per_token / attempts_per_prompt
        + _BYTES_PER_LOGIT * vocabulary
    )


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        # What PyTorch has reserved and does not use is free for us too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def fitting_rows(
    model: PreTrainedModel,
    requests: Sequence[AttemptRequest],
    *,
    max_new_tokens: int,
    limit: int | None = None,
    shares_beginnings: bool = True,
) -> int:
    """Return how many attempts to decode at once, from 1 to `limit` or the number of requests.

    `shares_beginnings` says whether the decoder holds once what several prompts have in common.
    """
    max_rows = min(MAX_ROWS if limit is None else int(limit), len(requests))
    config = model.config.get_text_config()
    if not has_attention(config):
        return max(1, min(max_rows, _ROWS_WITHOUT_CACHE))
    per_token = key_value_bytes_per_token(model)
    size = PromptTree(requests).size
    if not shares_beginnings:
        longest = max(len(request.shared_ids) for request in requests)
        private = max(request.private_length for request in requests)
        size = size._replace(common=0, own=longest, private=private)
    per_row = bytes_per_row(
        per_token,
        own_tokens=size.private + max_new_tokens,
        prompt_tokens=size.own,
        attempts_per_prompt=size.attempts_per_prompt,
        vocabulary=config.vocab_size,
    )
    free = free_bytes(model.device) - bytes_to_pack(model)
    usable = USABLE_SHARE * free - _BEGINNINGS * size.common * per_token
    return max(1, min(max_rows, int(usable / per_row)))

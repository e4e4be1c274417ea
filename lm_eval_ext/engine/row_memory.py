"""The memory an attempt takes while it is decoded: one estimate for the engine and the planner."""

from __future__ import annotations

from typing import Any

from lm_eval_ext.errors import UserError

MOST_ROWS = 512
"""Beyond this many rows a step takes proportionally longer, on CPUs and GPUs alike."""

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


def head_width(layer: Any) -> int:
    """Return the numbers of one head's key, from the configuration of a layer."""
    return int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)


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
        If the configuration does not say.
    """
    try:
        layers = layer_configurations(config)
        own = len(layers) - int(getattr(config, "num_kv_shared_layers", None) or 0)
        return sum(2 * _key_value_heads(layer) * head_width(layer) for layer in layers[:own])
    except (AttributeError, RuntimeError, TypeError, ZeroDivisionError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the key/value cache of a {kind} model cannot be counted from its configuration "
            f"({reason}): give a number of attempts, such as --batch_size 16, instead of auto"
        ) from error


def _key_value_heads(layer: Any) -> int:
    """Return the heads of a layer whose keys transformers caches."""
    if getattr(layer, "new_decoder_architecture", False):
        return int(layer.num_attention_heads)  # Falcon-40B: repeated before they are cached
    if getattr(layer, "multi_query", False):  # Falcon-7B, GPT-BigCode
        return 1
    return int(getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads)


def bytes_per_row(
    bytes_per_token: float,
    *,
    own_tokens: float,
    prompt_tokens: float,
    attempts_per_prompt: float,
    vocabulary: int,
) -> float:
    """Return the memory of one attempt in flight, its share of the prompt included.

    Parameters
    ----------
    bytes_per_token
        Bytes one token adds to the key/value cache.
    own_tokens
        Tokens of the attempt itself, at most.
    prompt_tokens
        Tokens of the prompt that the attempts of a question share.
    attempts_per_prompt
        Attempts that share one prompt.
    """
    return (
        _PRIVATE_OVERHEAD * own_tokens * bytes_per_token
        + _PROMPT_COPIES * prompt_tokens * bytes_per_token / attempts_per_prompt
        + _BYTES_PER_LOGIT * vocabulary
    )


def common_bytes(bytes_per_token: float, common_tokens: float) -> float:
    """Return the memory of what prompts have in common, however many attempts there are.

    Parameters
    ----------
    bytes_per_token
        Bytes one token adds to the key/value cache.
    common_tokens
        Most tokens that a prompt shares with others.
    """
    return _BEGINNINGS * common_tokens * bytes_per_token

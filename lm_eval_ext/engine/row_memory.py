"""The memory an attempt takes while it is decoded: one estimate for the engine and the planner."""

from __future__ import annotations

from typing import Any

MOST_ROWS = 512
"""Beyond this many rows a step takes proportionally longer, on CPUs and GPUs alike."""

USABLE_SHARE = 0.5
"""Share of the free memory the rows may fill; the rest is for activations and fragmentation."""

# Working memory per row and vocabulary entry: logits, log-probs, probabilities in float32, the
# cumulative distribution and its softmax in float64.
_BYTES_PER_LOGIT = 32
# A growing private cache holds up to half of itself in spare columns, and a copy while it grows.
_PRIVATE_OVERHEAD = 2.5
# A prompt is held once by itself and once in the padded stack of its batch.
_PROMPT_COPIES = 2


def key_value_numbers_per_token(config: Any) -> int:
    """Return how many numbers one token adds to the key/value cache, over all layers.

    Parameters
    ----------
    config
        Text configuration of a causal model with attention, as transformers has it.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_dim)


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
    vocabulary
        Entries of the model's vocabulary.
    """
    return (
        _PRIVATE_OVERHEAD * own_tokens * bytes_per_token
        + _PROMPT_COPIES * prompt_tokens * bytes_per_token / attempts_per_prompt
        + _BYTES_PER_LOGIT * vocabulary
    )

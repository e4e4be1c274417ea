"""How many attempts fit in memory at once."""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.request import AttemptRequest

# Beyond this many rows a step takes proportionally longer, on CPUs and GPUs alike.
_MOST_ROWS = 512
# Share of the free memory the estimate may fill; the rest is for activations and fragmentation.
_USABLE_SHARE = 0.5
# Working memory per row and vocabulary entry: logits, log-probs, probabilities in float32, the
# cumulative distribution and its softmax in float64.
_BYTES_PER_LOGIT = 32
# A growing private cache holds up to half of itself in spare columns, and a copy while it grows.
_PRIVATE_OVERHEAD = 2.5
# A prompt is held once by itself and once in the padded stack of its batch.
_PROMPT_COPIES = 2


def key_value_bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes one token adds to the key/value cache.

    Parameters
    ----------
    model
        A causal model with attention.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize


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
) -> int:
    """Return how many attempts to decode at once.

    Parameters
    ----------
    model
        The model, loaded.
    requests
        The attempts to decode.
    max_new_tokens
        Most tokens an attempt may have.
    limit
        Upper bound, or None.

    Returns
    -------
    int
        At least 1, at most the number of requests.
    """
    most = min(_MOST_ROWS if limit is None else int(limit), len(requests))
    config = model.config.get_text_config()
    if not getattr(config, "num_attention_heads", None):
        return max(1, min(most, 64))  # no key/value cache to count: a state-space model
    per_token = key_value_bytes_per_token(model)
    attempts_per_prompt = len(requests) / len({request.shared_ids for request in requests})
    longest_prompt = max(len(request.shared_ids) for request in requests)
    private = max(request.private_length for request in requests) + max_new_tokens
    per_row = (
        _PRIVATE_OVERHEAD * private * per_token
        + _PROMPT_COPIES * longest_prompt * per_token / attempts_per_prompt
        + _BYTES_PER_LOGIT * config.vocab_size
    )
    fitting = int(_USABLE_SHARE * free_bytes(model.device) / per_row)
    return max(1, min(most, fitting))

"""How many attempts fit in memory at once."""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.packed_weights import bytes_to_pack
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.row_memory import (
    MOST_ROWS,
    USABLE_SHARE,
    bytes_per_row,
    common_bytes,
    has_attention,
    key_value_numbers_per_token,
)


def key_value_bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes one token adds to the key/value cache."""
    return key_value_numbers_per_token(model.config.get_text_config()) * model.dtype.itemsize


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
    """Return how many attempts to decode at once.

    Parameters
    ----------
    max_new_tokens
        Most tokens an attempt may have.
    limit
        Upper bound, or None.
    shares_beginnings
        Whether the decoder holds once what several prompts have in common.

    Returns
    -------
    int
        At least 1, at most the number of requests.
    """
    most = min(MOST_ROWS if limit is None else int(limit), len(requests))
    config = model.config.get_text_config()
    if not has_attention(config):
        return max(1, min(most, 64))  # no key/value cache to count: a state-space model
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
    usable = USABLE_SHARE * free - common_bytes(per_token, size.common)
    fitting = int(usable / per_row)
    return max(1, min(most, fitting))

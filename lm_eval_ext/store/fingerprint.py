"""What a model and a tokenizer are, in a few characters that change when they do.

The fingerprint of a model covers its class, its configuration, the settings of its adapters, and
every bit of every parameter and buffer with its name, shape and dtype: adapters, merged deltas and
quantized weights are among them. It does not cover code (a model's own, hooks somebody registered)
and weights that are offloaded to the disk, of which only name, shape and dtype count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from lm_eval_ext.store.key import canonical, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Settings that say where a model came from, not what it computes.
_PROVENANCE = ("_name_or_path", "transformers_version", "base_model_name_or_path", "revision")
# 64-bit words per step of the checksum: 32 MB and as much again for the products.
_WORDS = 2**22
# Twice an odd number near 2**63 over the golden ratio: multipliers of places differ in all bits.
_SPREAD = 2 * 5700357409661599241


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return the fingerprint of a loaded model.

    Parameters
    ----------
    model
        The model, with its adapters.
    """
    config = _without_provenance(model.config.to_dict())
    adapters = {
        name: _without_provenance(settings.to_dict())
        for name, settings in getattr(model, "peft_config", {}).items()
    }
    about = {
        "class": type(model).__qualname__,
        "config": config,
        "adapters": adapters,
        "active": str(getattr(model, "active_adapter", None)) if adapters else None,
    }
    return digest("model", canonical(about), weights_fingerprint(model.state_dict().items()))


def fingerprints(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the fingerprints of a model and its tokenizer, by these names."""
    return {"model": model_fingerprint(model), "tokenizer": tokenizer_fingerprint(tokenizer)}


def weights_fingerprint(named: Iterable[tuple[str, Any]]) -> str:
    """Return the fingerprint of named tensors, every bit of them.

    Parameters
    ----------
    named
        As in a model's ``state_dict()``; what is no tensor counts by its ``repr``.
    """
    found = hashlib.blake2b(digest_size=16)
    known: dict[tuple[Any, ...], int] = {}  # tied weights are read once
    for name, value in named:
        if not isinstance(value, torch.Tensor):
            found.update(f"{name}:{value!r};".encode())
            continue
        place = (value.data_ptr(), value.dtype, tuple(value.shape), tuple(value.stride()))
        if value.device.type == "meta":
            checksum = 0
        elif value.numel() and place in known:
            checksum = known[place]
        else:
            checksum = known[place] = tensor_checksum(value)
        found.update(f"{name}:{value.dtype}:{tuple(value.shape)}:{checksum};".encode())
    return found.hexdigest()


@torch.inference_mode()
def tensor_checksum(tensor: torch.Tensor) -> int:
    """Return a checksum of a tensor's bits, computed where the tensor is.

    It is a sum of 64-bit words, each times an odd number of its place, modulo 2**64: it does not
    depend on the order of summation, so not on the device or the number of threads, and any change
    within one word changes it.

    Parameters
    ----------
    tensor
        Any tensor.

    Examples
    --------
    >>> ones, other = torch.ones(5), torch.tensor([1, 1, 1, 1, 1 + 2**-23])
    >>> [tensor_checksum(ones) == tensor_checksum(tensor) for tensor in (ones.clone(), other)]
    [True, False]
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    for start in range(0, len(data), 8 * _WORDS):
        part = data[start : start + 8 * _WORDS]
        padded = part.new_zeros((len(part) + 7) // 8 * 8)
        padded[: len(part)] = part
        words = padded.view(torch.int64)
        first = start // 8
        places = torch.arange(first, first + len(words), dtype=torch.int64, device=data.device)
        total += (words * (places * _SPREAD + 1)).sum()
    return int(total)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the fingerprint of a tokenizer: vocabulary, rules, special tokens, chat template.

    Parameters
    ----------
    tokenizer
        The tokenizer.
    """
    rules: Any = type(tokenizer).__qualname__
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # Left over from the last call.
        rules = {k: v for k, v in rules.items() if k not in ("truncation", "padding")}
    about = {
        "rules": rules,
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
        "chat_template": tokenizer.chat_template,
        "add_bos": getattr(tokenizer, "add_bos_token", None),
    }
    return digest("tokenizer", canonical(about))


def _without_provenance(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in _PROVENANCE}

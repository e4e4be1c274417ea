"""Fingerprints of a model and a tokenizer: a few characters that change when they do.

The fingerprint of a model covers its class, its configuration, the settings of its adapters, and
every bit of every parameter and buffer with its name, shape and dtype, adapters, merged deltas and
quantized weights among them. It does not cover code (a model's own, registered hooks) and the
values of weights that are offloaded to the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from lm_eval_ext.models.digests import canonical, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Settings about the origin of a model, which do not change its results.
_PROVENANCE = ("_name_or_path", "transformers_version", "base_model_name_or_path", "revision")
# 64-bit words per step of the checksum: on a CPU what stays in its cache, elsewhere what keeps a
# device busy.
_WORDS_CPU, _WORDS_ELSEWHERE = 2**16, 2**22
# Times its index added to each word, so that equal words are mixed differently: 2**64 over the
# golden ratio.
_SPREAD = 0x9E3779B97F4A7C15
# The multipliers of SplitMix64 (Steele, Lea & Flood 2014).
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return the fingerprint of a loaded model."""
    config = without_provenance(model.config.to_dict())
    adapters = {
        name: without_provenance(settings.to_dict())
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
    """Return the fingerprint of all bits of named tensors; other values count by their ``repr``."""
    result = hashlib.blake2b(digest_size=16)
    known: dict[tuple[Any, ...], int] = {}  # tied weights are read once
    for name, value in named:
        if not isinstance(value, torch.Tensor):
            result.update(f"{name}:{value!r};".encode())
            continue
        memory = (value.data_ptr(), value.dtype, tuple(value.shape), tuple(value.stride()))
        if value.device.type == "meta":
            checksum = 0
        elif value.numel() and memory in known:
            checksum = known[memory]
        else:
            checksum = known[memory] = tensor_checksum(value)
        result.update(f"{name}:{value.dtype}:{tuple(value.shape)}:{checksum};".encode())
    return result.hexdigest()


@torch.inference_mode()
def tensor_checksum(tensor: torch.Tensor) -> int:
    """Return a checksum of a tensor's bits, computed where the tensor is.

    It is a sum modulo 2**64 of 64-bit words, each mixed with its index before. The mixing is one to
    one and not linear, so any change within one word changes the sum, and changes of several words,
    such as flipped signs, cancel by chance only. The order of summation, and so the device and the
    number of threads, make no difference.

    Examples
    --------
    >>> ones, other = torch.ones(5), torch.tensor([1, 1, 1, 1, 1 + 2**-23])
    >>> [tensor_checksum(ones) == tensor_checksum(tensor) for tensor in (ones.clone(), other)]
    [True, False]
    >>> tensor_checksum(ones) == tensor_checksum(ones * torch.tensor([1, -1, 1, -1, 1]))
    False
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    size = _WORDS_CPU if data.device.type == "cpu" else _WORDS_ELSEWHERE
    size = max(1, min(size, -(-len(data) // 8)))
    keys = torch.arange(size, dtype=torch.int64, device=data.device) * _signed(_SPREAD)
    mixed, scratch = torch.empty_like(keys), torch.empty_like(keys)
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    for start in range(0, len(data), 8 * size):
        words = _words(data[start : start + 8 * size])
        n = len(words)
        torch.add(words, keys[:n], out=mixed[:n])
        mixed[:n] += _signed(start // 8 * _SPREAD)
        total += _mix(mixed[:n], scratch[:n]).sum()
    return int(total)


def _words(data: torch.Tensor) -> torch.Tensor:
    """Return bytes as 64-bit words, filled up with zeros, copied only where they must be."""
    if len(data) % 8 == 0 and data.storage_offset() % 8 == 0:
        return data.view(torch.int64)
    padded = data.new_zeros((len(data) + 7) // 8 * 8)
    padded[: len(data)] = data
    return padded.view(torch.int64)


def _mix(words: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """Mix the bits of each word in place: upper half into lower half, times a constant, thrice."""
    for multiplier in (*_MULTIPLIERS, None):
        torch.bitwise_right_shift(words, 32, out=scratch)
        scratch.bitwise_and_(0xFFFFFFFF)  # the shift repeats the sign
        words.bitwise_xor_(scratch)
        if multiplier is not None:
            words.mul_(_signed(multiplier))
    return words


def _signed(number: int) -> int:
    """Return a number modulo 2**64 as a signed one."""
    return (number + 2**63) % 2**64 - 2**63


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the fingerprint of a tokenizer: vocabulary, rules, special tokens, chat template."""
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


def without_provenance(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without settings about the model's origin."""
    return {k: v for k, v in settings.items() if k not in _PROVENANCE}

"""Generations as JSON and back, bit for bit."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from lm_eval_ext.models.generation import Generation, GenerationRecord, TokenStatistics


def encode_generation(generation: Generation) -> dict[str, Any]:
    """Return a generation as plain JSON values.

    Arrays are kept as their bytes in base64; Python's JSON writes a float with as many digits as
    give it back.
    """
    record = generation.record
    statistics = record.statistics
    return {
        "text": str(generation),
        "attempt": record.attempt,
        "token_ids": [int(i) for i in record.token_ids],
        "finish_reason": record.finish_reason,
        "n_prompt_tokens": record.n_prompt_tokens,
        "n_truncated_prompt_tokens": record.n_truncated_prompt_tokens,
        "statistics": None if statistics is None else _encode_arrays(statistics._asdict()),
        "probabilities": {name: float(value) for name, value in record.probabilities.items()},
        "uncertainties": {name: float(value) for name, value in record.uncertainties.items()},
        "token_scores": _encode_arrays(record.token_scores),
        "extra": dict(record.extra),
    }


def decode_generation(value: Mapping[str, Any]) -> Generation:
    """Return the generation that `encode_generation` was given.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else.
    """
    # Thought and answer are not kept: they follow from prompt and tokens.
    names = {field.name for field in fields(GenerationRecord)} - {"thought", "answer"}
    record = {name: value[name] for name in names}
    record["token_ids"] = tuple(map(int, record["token_ids"]))
    record["token_scores"] = _decode_arrays(record["token_scores"])
    if record["statistics"] is not None:
        record["statistics"] = TokenStatistics(**_decode_arrays(record["statistics"]))
    return Generation(value["text"], GenerationRecord(**record))


def _encode_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for name, values in arrays.items():
        array = np.ascontiguousarray(values)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        result[name] = {
            "dtype": little.dtype.str,
            "shape": list(array.shape),
            "base64": base64.b64encode(little.tobytes()).decode("ascii"),
        }
    return result


def _decode_arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for name, value in values.items():
        dtype = np.dtype(value["dtype"])
        flat = np.frombuffer(base64.b64decode(value["base64"]), dtype=dtype)
        # A copy: arrays of a decoder can be written to, and so can these.
        result[name] = flat.reshape(value["shape"]).astype(dtype.newbyteorder("="))
    return result

"""What a request tells the sampler inside vLLM's worker, as plain values that can be sent there.

vLLM hands ``SamplingParams.extra_args`` to logits processors as they are, but through msgpack: only
numbers, strings, lists and dictionaries arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lm_eval_ext.engine.sampling_settings import SamplingSettings

NAME = "lm_eval_ext"
"""Entry of ``extra_args`` that holds an instruction."""


def sampling_instruction(
    key: str,
    settings: SamplingSettings,
    stream: np.random.Generator,
    prompt_ids: Sequence[int],
) -> dict[str, Any]:
    """Return the instruction to sample an attempt from the present state of its random stream.

    Stop strings are vLLM's to find, and the prompt's tokens are sent only where a repetition
    penalty looks at them.
    """
    how = asdict(settings)
    del how["stop"]
    penalized = settings.repetition_penalty != 1.0
    return {
        "key": key,
        "settings": how,
        "stream": stream_state(stream),
        "prompt_ids": list(prompt_ids) if penalized else [],
    }


def readout_instruction(key: str, token_ids: Sequence[int]) -> dict[str, Any]:
    """Return the instruction to read logits after a prompt."""
    return {"key": key, "readout_ids": list(token_ids)}


def stream_state(stream: np.random.Generator) -> list[int]:
    """Return the state of an attempt's random stream.

    Examples
    --------
    >>> from lm_eval_ext.engine.random_stream import attempt_stream
    >>> stream = attempt_stream(0, "2 + 2 =", 0, purpose="tokens")
    >>> _ = stream.random(3)
    >>> copy = restored_stream(stream_state(stream))
    >>> bool((copy.random(9) == stream.random(9)).all())
    True
    """
    state: Any = stream.bit_generator.state
    words = [*state["state"]["counter"], *state["state"]["key"], *state["buffer"]]
    return [int(word) for word in (*words, state["buffer_pos"])]


def restored_stream(state: Sequence[int]) -> np.random.Generator:
    """Return a random stream in the state that `stream_state` gave."""
    generator = np.random.Philox()
    generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array(state[:4], dtype=np.uint64),
            "key": np.array(state[4:6], dtype=np.uint64),
        },
        "buffer": np.array(state[6:10], dtype=np.uint64),
        "buffer_pos": state[10],
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(generator)

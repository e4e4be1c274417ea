"""What requests tell the sampler inside vLLM: it arrives as it was, and through JSON."""

import json

import pytest

from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.vllm_engine.instructions import (
    restored_stream,
    sampling_instruction,
    stream_state,
)


@pytest.mark.parametrize("n_drawn", range(10))
def test_stream_goes_on_where_it_was(n_drawn):
    stream = attempt_stream(7, "a prompt", 3, purpose="tokens")
    stream.random(n_drawn)
    copy = restored_stream(json.loads(json.dumps(stream_state(stream))))
    # In parts as the sampler draws, and one by one as the engine does.
    assert copy.random(5).tolist() + copy.random(4).tolist() == [stream.random() for _ in range(9)]


def test_settings_arrive_without_stop_strings():
    settings = SamplingSettings(9, ("stop",), True, temperature=0.7, top_k=5, min_p=0.1)
    stream = attempt_stream(0, "p", 0, purpose="tokens")
    instruction = json.loads(json.dumps(sampling_instruction("k", settings, stream, (1, 2))))
    expected = SamplingSettings(9, (), True, temperature=0.7, top_k=5, min_p=0.1)
    assert SamplingSettings(**instruction["settings"]) == expected
    assert instruction["prompt_ids"] == []


def test_a_repetition_penalty_sees_the_prompt():
    settings = SamplingSettings(9, repetition_penalty=1.2)
    stream = attempt_stream(0, "p", 0, purpose="tokens")
    assert sampling_instruction("k", settings, stream, (1, 2))["prompt_ids"] == [1, 2]

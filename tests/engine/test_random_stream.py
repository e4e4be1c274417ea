"""Every attempt has a stream of its own."""

import itertools

import numpy as np

from lm_eval_ext.engine.random_stream import attempt_stream


def test_streams_of_different_keys_differ():
    keys = list(itertools.product((0, 1, -1), ("", "a", "ab"), (0, 1, 12), ("tokens", "other")))
    first = [
        attempt_stream(seed, prompt, attempt, purpose=purpose).random()
        for seed, prompt, attempt, purpose in keys
    ]
    assert len(set(first)) == len(keys)


def test_parts_of_the_key_do_not_run_together():
    one = attempt_stream(1, "1", 1, purpose="x").random()
    other = attempt_stream(11, "", 1, purpose="x").random()
    assert one != other


def test_stream_is_pinned():
    """A change here changes every sampled result that was ever published."""
    draws = attempt_stream(1234, "Question: 1+1?", 3, purpose="tokens").random(3)
    assert draws.tolist() == [0.23548848627072172, 0.5257997448719836, 0.5846247273750717]


def test_draws_are_uniform_over_attempts():
    draws = [attempt_stream(0, "q", attempt, purpose="tokens").random() for attempt in range(4000)]
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert abs(counts - 400).max() < 4 * np.sqrt(400)

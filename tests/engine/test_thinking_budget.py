"""Thoughts that are ended by force."""

import numpy as np
import pytest

from lm_eval_ext.engine.fallback import FallbackDecoder
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sampled import SampledLM

SETTINGS = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_gen_toks": 8}
SETTINGS["until"] = ["\n\n"]


@pytest.fixture
def ask(thinking_model):
    """Return a function that samples 24 attempts at one question."""

    def run(*, opens=True, settings=None, decoder=None, **arguments):
        lm = SampledLM(thinking_model(opens=opens), seed=3, **arguments)
        if decoder is not None:
            lm._decoder_class = decoder
        prompt = lm.apply_chat_template([{"role": "user", "content": "Q"}])
        return harness.complete(lm, [prompt] * 24, **{**SETTINGS, **(settings or {})})

    return run


def n_before_tag(text):
    """Return how many tokens of the model stand before the closing tag."""
    thought = text.partition("</think>")[0]
    words = (" hm", "\n\n", " So the answer is 18. Wait, let me check.")
    return sum(thought.count(word) for word in words)


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("budget", [1, 3, 5])
def test_no_thought_is_longer(ask, budget, opens):
    plain, ended = ask(opens=opens), ask(opens=opens, thinking_budget=budget)
    forced = 0
    for one, other in zip(plain, ended, strict=True):
        if other.record.thought is None:  # none of its own
            assert one == other
            continue
        assert other.record.thought.finished
        assert n_before_tag(other) <= budget
        assert other.endswith(("is 18.", "is 7."))
        thinks_longer = n_before_tag(one) >= budget or "</think>" not in one
        assert other.record.chosen.all() != thinks_longer
        if not thinks_longer:
            assert one.startswith(other) or other.startswith(one)
            continue
        forced += 1
        # The tag is one token here; its statistics are left out, and it took no draw.
        assert np.isnan(np.stack(other.record.statistics)).sum() == 4
        assert other.startswith(one[: len(other.partition("</think>")[0])])
    assert forced > 3


def test_the_limit_is_budget_and_answer_together(ask):
    ended = ask(thinking_budget=3, settings={"max_gen_toks": 1})
    assert max(one.record.n_tokens for one in ended) == 4
    assert any(not one.record.chosen.all() for one in ended)


def test_a_budget_that_is_never_reached_changes_nothing(ask):
    long = {"max_gen_toks": 200}
    plain, ended = ask(settings=long), ask(settings=long, thinking_budget=150)
    assert all(one.record.thought.n_tokens < 150 for one in plain)
    assert list(plain) == list(ended)
    for one, other in zip(plain, ended, strict=True):
        assert one.record.token_ids == other.record.token_ids
        assert other.record.chosen.all()


def test_refills_and_the_fallback_give_the_same(ask):
    expected = ask(thinking_budget=3)
    assert list(ask(thinking_budget=3, batch_size=5)) == list(expected)

    def fallback(model, **arguments):
        return FallbackDecoder(model, expand_cache=True, **arguments)

    ours = ask(thinking_budget=3, decoder=fallback)
    for one, other in zip(ours, expected, strict=True):
        assert one == other
        assert one.record.token_ids == other.record.token_ids
        assert (one.record.chosen == other.record.chosen).all()


def test_a_thought_that_is_switched_off_has_no_budget(thinking_model):
    lm = SampledLM(thinking_model(), seed=3, thinking_budget=3)
    prompt = "<|user|>Q<|assistant|><think>\n\n</think>"
    plain = SampledLM(thinking_model(), seed=3)
    ours, expected = (harness.complete(m, [prompt] * 4, **SETTINGS) for m in (lm, plain))
    assert list(ours) == list(expected)
    assert all(one.record.n_tokens <= 8 and one.record.chosen.all() for one in ours)


@pytest.mark.parametrize("budget", [0, -1, "many", 2.5])
def test_a_budget_is_a_whole_number_above_zero(thinking_model, budget):
    with pytest.raises(UserError, match="thinking_budget"):
        SampledLM(thinking_model(), thinking_budget=budget)


def test_stop_strings_do_not_end_a_thought(ask):
    stopped = ask(settings={"until": ["\n\n", "18"], "max_gen_toks": 30})
    blank = [one for one in stopped if "\n\n" in one.partition("</think>")[0]]
    assert len(blank) > 4
    for one in stopped:
        _, tag, answer = one.partition("</think>")
        assert bool(tag) == one.record.thought.finished
        assert not {"\n\n", "18"} & {answer[i : i + 2] for i in range(len(answer))}
        assert one.record.thought.finished or one.record.finish_reason == "length"
    assert any(one.record.finish_reason == "stop" for one in blank)

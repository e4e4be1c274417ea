"""A store of attempts from before stop strings waited for the end of a thought."""

import pytest

from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers import attempt_sampling
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.thoughts import ThoughtFormats

SETTINGS = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_gen_toks": 12}


@pytest.fixture
def ask(thinking_model, tmp_path):
    """Return a function that samples 24 attempts into a store."""

    def run(*, store=True, opens=True, until=("\n\n",), **arguments):
        if store:
            arguments["store"] = tmp_path / "store"
        lm = SampledLM(thinking_model(opens=opens), seed=3, **arguments)
        prompt = lm.apply_chat_template([{"role": "user", "content": "Q"}])
        generations = harness.complete(lm, [prompt] * 24, until=list(until), **SETTINGS)
        return generations, 0 if lm.store is None else lm.store.n_appended

    return run


@pytest.fixture
def blind(monkeypatch):
    """Return a function that knows of no thoughts, as version 0.1 did, until it is undone."""

    def be_blind():
        nothing = ThoughtFormats()
        nothing.all = ()
        for module in ("lm_eval_ext.engine.attempt_texts", attempt_sampling.__name__):
            monkeypatch.setattr(f"{module}.thought_formats", lambda lm: nothing)
        return monkeypatch.undo

    return be_blind


@pytest.mark.parametrize("opens", [True, False])
def test_only_attempts_that_were_stopped_inside_their_thought_are_drawn_again(ask, blind, opens):
    undo = blind()
    before, n_drawn = ask(opens=opens)
    assert n_drawn == 24
    undo()
    cut = [
        one.record.finish_reason == "stop" and "is 18.\n" not in one + "\n" and "7." not in one
        for one in before
    ]
    assert 3 < sum(cut) < 20
    after, n_drawn = ask(opens=opens)
    assert n_drawn == sum(cut)
    fresh, _ = ask(opens=opens, store=False)
    assert list(after) == list(fresh)
    for one, other, drawn_again in zip(before, after, cut, strict=True):
        assert drawn_again or one.record.token_ids == other.record.token_ids
        assert other.record.thought == fresh[other.record.attempt].record.thought
    assert ask(opens=opens)[1] == 0


def test_without_a_stop_string_everything_is_kept(ask, blind):
    undo = blind()
    before, _ = ask(until=())
    undo()
    after, n_drawn = ask(until=())
    assert (list(after), n_drawn) == (list(before), 0)
    assert all(one.record.thought is not None for one in after)


def test_a_budget_has_attempts_of_its_own_only_where_it_acts(ask, tiny_tokenizer):
    _, plain = ask()
    _, ended = ask(thinking_budget=3)
    assert (plain, ended) == (24, 24)
    assert ask(thinking_budget=3)[1] == 0
    assert ask(thinking_budget=4)[1] == 24
    assert ask()[1] == 0

"""Thoughts and their budget in vLLM: the attempts of our own engine."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

SETTINGS = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_gen_toks": 12}


@pytest.fixture(scope="module")
def thinking_vllm(thinking_model):
    from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM

    return SampledVLLM(thinking_model(opens=False), seed=3, max_model_len=256, dtype="float32")


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("budget", [None, 1, 3])
@pytest.mark.parametrize("until", [["\n\n"], ["18", "hm\n\n"]], ids=str)
def test_attempts(thinking_vllm, thinking_model, opens, budget, until):
    from lm_eval_ext.harness import requests as harness
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    ours = SampledLM(thinking_model(opens=False), seed=3, thinking_budget=budget)
    prompt = "<|user|>Q<|assistant|>" + ("<think>\n" if opens else "")
    thinking_vllm.thinking_budget = budget
    asked = [prompt] * 24
    mine, theirs = (
        harness.complete(lm, asked, until=until, **SETTINGS) for lm in (ours, thinking_vllm)
    )
    for one, other in zip(mine, theirs, strict=True):
        assert one == other
        for name in ("token_ids", "finish_reason", "thought"):
            assert getattr(one.record, name) == getattr(other.record, name), name
        assert (one.record.chosen == other.record.chosen).all()
    # Stop strings stand inside thoughts too.
    thoughts = [one.partition("</think>")[0] for one in mine if one.record.thought is not None]
    assert any(stop in thought for thought in thoughts for stop in until) == (budget != 1)

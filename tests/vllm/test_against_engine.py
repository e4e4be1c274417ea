"""vLLM gives the attempts of our own engine: texts, tokens, annotations."""

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")


def assert_same(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        assert one == other
        mine, theirs = one.record, other.record
        for name in ("attempt", "token_ids", "finish_reason", "n_prompt_tokens"):
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.n_truncated_prompt_tokens == theirs.n_truncated_prompt_tokens
        for values, wanted in zip(mine.statistics, theirs.statistics, strict=True):
            np.testing.assert_allclose(values, wanted, atol=1e-4)
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "top_k": 0},
        {"top_p": 0.8, "min_p": 0.02, "typical_p": 0.9},
        {"repetition_penalty": 1.3},
        {"until": ["a", "1", "\n"]},
        {"max_gen_toks": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [0, 4])
def test_sampled_attempts(rsp_vllm, rsp, varied, ask, settings, length):
    ours = ask(varied(rsp_vllm, length=length), **settings)
    assert_same(ours, ask(varied(rsp, length=length), **settings))
    assert len(set(ours)) > 4


def test_attempts_end_in_every_way(rsp_vllm, rsp, varied, ask):
    settings = {"until": ["8"], "max_gen_toks": 40, "temperature": 1.0}
    ours = ask(varied(rsp_vllm, length=0), n_attempts=8, **settings)
    assert_same(ours, ask(varied(rsp, length=0), n_attempts=8, **settings))
    assert {one.record.finish_reason for one in ours} == {"stop", "eos", "length"}


@pytest.mark.parametrize("length", [0, 4])
def test_greedy_decoding(rsp_vllm, rsp, varied, ask, length):
    settings = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 60, "n_attempts": 1}
    ours = ask(varied(rsp_vllm, length=length), **settings)
    assert_same(ours, ask(varied(rsp, length=length), **settings))


@pytest.mark.parametrize("box_completion", [False, True])
@pytest.mark.parametrize("length", [0, 4])
def test_confidence(rsp_vllm, rsp, varied, ask, length, box_completion):
    """`epicar-vllm`, and `self_eval=true` after injected vectors; equal texts are read once."""
    also = {"self_eval": True, "box_completion": box_completion, "length": length}
    mine, theirs = varied(rsp_vllm, **also), varied(rsp, **also)
    ours = ask(mine, n_attempts=6, max_gen_toks=40)
    assert_same(ours, ask(theirs, n_attempts=6, max_gen_toks=40))
    assert all(0 < one.record.probabilities["self_eval"] < 1 for one in ours)
    for part in ("self_evaluation", "box_completion"):
        assert mine.run_record().get(part) == theirs.run_record().get(part)


def test_long_prompts_are_cut_from_the_left(rsp_vllm, rsp, varied, ask):
    prompts = [" ".join(str(i) for i in range(n)) + " Question: What is next?" for n in (500, 600)]
    also = {"self_eval": True}
    ours = ask(varied(rsp_vllm, **also), prompts)
    assert_same(ours, ask(varied(rsp, **also), prompts))
    record = ours[0].record
    assert record.n_prompt_tokens == 768 - 24 - 4
    assert record.n_truncated_prompt_tokens > 0


@pytest.mark.parametrize("position", ["auto", "prefix", "after_prompt"])
def test_vectors_in_a_chat(rsp_vllm, rsp, varied, ask, position):
    mine, theirs = (varied(lm, position=position, self_eval=True) for lm in (rsp_vllm, rsp))
    chat = mine.apply_chat_template([{"role": "user", "content": "How many is 3 + 4?"}])
    assert chat == theirs.apply_chat_template([{"role": "user", "content": "How many is 3 + 4?"}])
    assert_same(ask(mine, [chat]), ask(theirs, [chat]))


@pytest.mark.parametrize(
    "settings",
    [
        {"control": "real_tokens"},
        {"control": "placeholder"},
        {"control": "mean"},
        {"distribution": "per_dim"},
        {"resample": "run", "scale": 0.5},
    ],
    ids=str,
)
def test_vectors_are_those_of_rsp(rsp_vllm, rsp, varied, ask, settings):
    mine, theirs = varied(rsp_vllm, **settings), varied(rsp, **settings)
    np.testing.assert_allclose(mine.draw("a", 1), theirs.draw("a", 1), atol=1e-6)
    assert_same(ask(mine, n_attempts=2), ask(theirs, n_attempts=2))


def test_loglikelihood_is_that_of_the_plain_model(rsp_vllm, rsp, varied):
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", {}, ("Question: What is 3 + 4?\nAnswer:", text), i)
        for i, text in enumerate((" 7", " 3+4=7", " no"))
    ]
    with pytest.raises(ValueError, match="random soft prompts are not defined for loglikelihood"):
        rsp_vllm.loglikelihood(requests, True)
    ours = varied(rsp_vllm, _answers_loglikelihood=True).loglikelihood(requests, True)
    expected = varied(rsp, _answers_loglikelihood=True).loglikelihood(requests, True)
    for (value, greedy), (wanted, wanted_greedy) in zip(ours, expected, strict=True):
        assert value == pytest.approx(wanted, abs=1e-3)
        assert greedy == wanted_greedy


def test_record_of_the_run(rsp_vllm, rsp):
    mine, theirs = rsp_vllm.get_model_info()["lm_eval_ext"], rsp.run_record()
    assert mine["decoder"] == "vllm"
    assert mine["vllm"]["dtype"] == "float32"
    assert mine["soft_prompt"].keys() == theirs["soft_prompt"].keys()
    for name in ("mu", "sigma", "rows", "length", "seed"):
        assert mine["soft_prompt"][name] == pytest.approx(theirs["soft_prompt"][name])

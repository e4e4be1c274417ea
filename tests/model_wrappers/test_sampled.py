"""``sampled`` against stock ``hf``, and what the fallback says."""

import json
import logging
import math
import re

import pytest
from lm_eval.models.huggingface import HFLM

from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM


@pytest.fixture(scope="module")
def prompts_64():
    return [prompt("gsm8k", doc) for doc in load_split("gsm8k", "validation", size=64)]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox", "mistral"])
def test_greedy_equals_stock_hf_on_64_prompts(
    random_model, tiny_tokenizer, make_requests, prompts_64, architecture
):
    model = random_model(architecture)
    settings = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 24, "until": ["\n", " 1"]}
    requests = make_requests(prompts_64, n_attempts=1, **settings)
    ours = SampledLM(model, tokenizer=tiny_tokenizer, batch_size=24)
    stock = HFLM(model, tokenizer=tiny_tokenizer, batch_size=16)
    expected = stock.generate_until(requests, disable_tqdm=True)
    assert ours.generate_until(requests, disable_tqdm=True) == expected
    assert len(set(expected)) > 32


@pytest.mark.parametrize("batch_size", [2, "auto"])
def test_loglikelihood_is_stock(random_model, tiny_tokenizer, batch_size):
    from lm_eval.api.instance import Instance

    model = random_model("llama")
    requests = [
        Instance("loglikelihood", {}, (context, " 7"), i)
        for i, context in enumerate(["3 + 4 =", "Question: what is 14 / 2?\nAnswer:"])
    ]
    ours = SampledLM(model, tokenizer=tiny_tokenizer, batch_size=batch_size, max_length=64)
    stock = HFLM(model, tokenizer=tiny_tokenizer, batch_size=2)
    assert ours.loglikelihood(requests, disable_tqdm=True) == stock.loglikelihood(
        requests, disable_tqdm=True
    )


@pytest.mark.parametrize(
    ("architecture", "consequence"),
    [("bloom", "share one prefill per prompt"), ("mamba", "each reads its own prompt")],
)
def test_fallback_is_said_once(
    random_model, tiny_tokenizer, make_requests, caplog, architecture, consequence
):
    with caplog.at_level(logging.WARNING):
        lm = SampledLM(random_model(architecture), tokenizer=tiny_tokenizer, batch_size=8)
        lm.generate_until(make_requests(), disable_tqdm=True)
        lm.generate_until(make_requests(temperature=0.5), disable_tqdm=True)
    said = [r.getMessage() for r in caplog.records if "generate" in r.getMessage()]
    assert len(said) == 1
    assert consequence in said[0]
    assert lm.run_record()["decoder"] == "generate"


def test_default_seed_is_the_one_lm_eval_sets(random_model, tiny_tokenizer):
    import torch

    torch.manual_seed(77)
    assert SampledLM(random_model("llama"), tokenizer=tiny_tokenizer).seed == 77


def test_lm_evals_response_cache_is_refused(random_model, tiny_tokenizer, tmp_path):
    from lm_eval.api.model import CachingLM

    lm = SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, batch_size=8)
    with pytest.raises(UserError, match=r"--use_cache: .*--model_args store=FOLDER") as error:
        CachingLM(lm, str(tmp_path / "cache.db"))
    assert "\n" not in str(error.value)


def test_a_run_says_where_its_time_went(random_model, tiny_tokenizer, make_requests):
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    # A logger below lm-eval's: its command shows those under its own verbosity.
    shown = logging.getLogger("lm_eval.lm_eval_ext.model_wrappers.attempt_sampling")
    shown.addHandler(handler)
    shown.setLevel(logging.INFO)
    try:
        lm = SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, batch_size=8, seed=0)
        lm.generate_until(make_requests(), disable_tqdm=True)
        assert lines == []  # a step of something else, as in training
        generations = lm.generate_until(make_requests())
    finally:
        shown.removeHandler(handler)
        shown.setLevel(logging.NOTSET)
    written = sum(one.record.n_tokens for one in generations)
    timing = lm.get_model_info()["lm_eval_ext"]["timing"]
    assert list(timing) == ["prefill", "decode", "token choice", "everything else"]
    # Of the last run only, though it is the second.
    assert timing["token choice"]["tokens"] == written
    (line,) = lines
    assert re.fullmatch(
        r"12 attempts: prefill [\d.]+ s \([\d,]+ tokens/s\), decode [\d.]+ s \([\d,]+ tokens/s\), "
        r"token choice [\d.]+ s \([\d,]+ tokens/s\), everything else [\d.]+ s",
        line,
    )
    assert "timing" not in lm.run_record()  # what is needed to repeat the run


def test_judgments_and_kept_attempts_have_their_own_time(
    random_model, tiny_tokenizer, make_requests, tmp_path, capsys
):
    arguments = {"tokenizer": tiny_tokenizer, "batch_size": 8, "seed": 0, "self_eval": True}
    model = random_model("llama")
    lm = SampledLM(model, store=tmp_path, **arguments)
    generations = lm.generate_until(make_requests())
    written = sum(one.record.n_tokens for one in generations)
    timing = lm.get_model_info()["lm_eval_ext"]["timing"]
    assert timing["annotation"]["tokens"] == timing["token choice"]["tokens"] == written
    capsys.readouterr()
    again = SampledLM(model, store=tmp_path, **arguments)
    assert again.generate_until(make_requests()) == generations
    assert list(again.get_model_info()["lm_eval_ext"]["timing"]) == ["everything else"]
    assert "12/12 attempts, 0 tokens]" in capsys.readouterr().err


CALIBRATOR = {
    "format": "lm_eval_ext.calibrator/1",
    "sources": ["mean_logprob", "length"],
    "n_attempts": 4,
    "questions": [],
    "prompts": [],
    "model": {
        "center": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "layers": [{"weights": [[1.0], [0.1]], "bias": [0.5]}],
        "steps": None,
    },
}


@pytest.fixture
def make_calibrated(random_model, tiny_tokenizer, tmp_path):
    """Return a function that loads a model, with the calibrator above where changes are named."""

    def make(changes=None, **arguments):
        if changes is not None:
            path = tmp_path / "calibrator.json"
            path.write_text(json.dumps({**CALIBRATOR, **changes}))
            arguments["calibrator"] = str(path)
        model = random_model("llama")
        return SampledLM(model, tokenizer=tiny_tokenizer, batch_size=8, seed=0, **arguments)

    return make


def test_a_calibrator_adds_a_probability_to_attempts_also_from_a_store(
    make_calibrated, make_requests, tmp_path
):
    store = str(tmp_path / "store")
    plain = make_calibrated(store=store).generate_until(make_requests())
    found = make_calibrated({}, store=store).generate_until(make_requests())
    assert found == plain
    for before, after in zip(plain, found, strict=True):
        assert "calibrated" not in before.record.probabilities
        score = float(after.record.statistics.log_prob.mean()) + 0.1 * after.record.n_tokens + 0.5
        expected = 1 / (1 + math.exp(-score))
        assert after.record.probabilities["calibrated"] == pytest.approx(expected, abs=1e-6)


def test_prompts_that_a_calibrator_was_fitted_on_are_refused(make_calibrated, make_requests):
    lm = make_calibrated({"prompts": [text_hash("x")]})
    with pytest.raises(UserError, match="was fitted on 1 of the 4 questions of this run"):
        lm.generate_until(make_requests())

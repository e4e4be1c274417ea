"""A calibrator's file, and the probability it gives an attempt."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.calibrator import (
    FORMAT,
    attempt_values,
    calibrated,
    read_attempt_calibrator,
    read_calibrator,
)
from lm_eval_ext.models.generation import Generation, GenerationRecord, TokenStatistics

RECORD = {
    "format": FORMAT,
    "method": "logistic",
    "sources": ["mean_logprob", "self_eval"],
    "n_attempts": 4,
    "questions": ["aa"],
    "prompts": ["bb"],
    "model": {
        "center": [-0.5, 0.0],
        "scale": [0.25, 2.0],
        "layers": [{"weights": [[1.5], [0.5]], "bias": [0.2]}],
        "steps": None,
    },
}


@pytest.fixture
def write(tmp_path):
    def written(**changes):
        path = tmp_path / "calibrator.json"
        model = {**RECORD["model"], **changes.pop("model", {})}
        path.write_text(json.dumps({**RECORD, "model": model, **changes}))
        return path

    return written


def generation(log_prob, **probabilities):
    values = np.array(log_prob, np.float32)
    statistics = TokenStatistics(values, -values, -values, -values)
    record = GenerationRecord(
        token_ids=(1,) * len(values), statistics=statistics, probabilities=probabilities
    )
    return Generation("4", record)


def test_the_probability_is_that_of_the_formula(write):
    found = read_calibrator(write()).probability([[-0.25, 1.0], [-0.75, -3.0]])
    expected = expit([1.5 * 1 + 0.5 * 0.5 + 0.2, 1.5 * -1 + 0.5 * -1.5 + 0.2])
    np.testing.assert_allclose(found, expected)


def test_layers_and_steps(write):
    layers = [
        {"weights": [[1.0, -1.0], [0.0, 0.0]], "bias": [0.0, 0.0]},
        {"weights": [[2.0], [3.0]], "bias": [1.0]},
    ]
    steps = {"score": [0.0, 4.0], "probability": [0.1, 0.9]}
    model = {"center": [0, 0], "scale": [1, 1], "layers": layers}
    values = [[0.5, 9.0], [-0.5, 9.0], [5.0, 9.0]]  # scores 2, 2.5 and 11
    found = read_calibrator(write(model=model)).probability(values)
    np.testing.assert_allclose(found, expit([2, 2.5, 11]))
    found = read_calibrator(write(model={**model, "steps": steps})).probability(values)
    np.testing.assert_allclose(found, [0.5, 0.6, 0.9])


def test_an_attempt_of_a_run_has_what_its_logged_details_give(write):
    calibrator = read_calibrator(write())
    known, unknown, _ = attempts = calibrated(
        calibrator,
        [generation([-0.5, -1.0], self_eval=0.75), generation([-0.5]), Generation("4")],
    )
    details = {"mean_logprob": -0.75, "n_tokens": 2, "probabilities": {"self_eval": 0.75}}
    values = attempt_values(details, calibrator.sources)
    np.testing.assert_allclose(values, [-0.75, logit(0.75)])
    expected = float(calibrator.probability(values))
    assert known.record.probabilities == {"self_eval": 0.75, "calibrated": pytest.approx(expected)}
    assert unknown.record.probabilities == {}
    assert [str(one) for one in attempts] == ["4", "4", "4"]
    assert calibrated(None, attempts) == attempts


def test_every_source_of_an_attempt_has_a_value():
    details = {
        **{"n_tokens": 10, "mean_logprob": -0.1, "mean_entropy": 0.3, "mean_margin": 0.8},
        **{"mean_self_certainty": 5.0, "uncertainties": {"draft_eu": 2.0}},
        **{"lowest_window_logprob": -0.7, "tail_logprob": -0.2, "answer_logprob": -0.05},
        "probabilities": {"sure": 1.0, "calibrated": 0.5},
    }
    names = ["mean_logprob", "total_logprob", "perplexity", "mean_entropy", "self_certainty"]
    values = attempt_values(details, [*names, "mean_margin", "length", "draft_eu", "calibrated"])
    np.testing.assert_allclose(values, [-0.1, -1.0, np.exp(0.1), 0.3, 5.0, 0.8, 10.0, 2.0, np.nan])
    names = ["lowest_window_logprob", "tail_logprob", "answer_logprob"]
    assert attempt_values(details, names) == [-0.7, -0.2, -0.05]
    assert 10 < attempt_values(details, ["sure"])[0] < 20
    assert np.isnan(attempt_values({"mean_logprob": float("nan")}, ["mean_logprob"])[0])
    assert np.isfinite(attempt_values({"mean_logprob": -1e6}, ["perplexity"])[0])


def test_questions_it_was_fitted_on_are_refused(write):
    calibrator = read_calibrator(write())
    calibrator.refuse(["cc", "dd"], "samples.jsonl")
    for known in ("aa", "bb"):
        with pytest.raises(UserError, match=r"fitted on 1 of the 2 questions of samples\.jsonl"):
            calibrator.refuse([known, "cc"], "samples.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "lm_eval_ext.result/1"}, "not a file of lm-eval-ext train calibrator"),
        ({"sources": ["mean_logprob"]}, "do not fit its sources"),
        ({"questions": None}, "not a file of"),
        ({"model": {"layers": []}}, "do not fit its sources"),
        ({"model": {"scale": [0.0, 1.0]}}, "not finite"),
        ({"model": {"center": [float("nan"), 1.0]}}, "not finite"),
        ({"model": {"layers": [{"weights": [[1.0]], "bias": [0.0]}]}}, "do not fit"),
    ],
)
def test_damaged_files_are_named(write, changes, message):
    path = write(**changes)
    with pytest.raises(UserError, match=message):
        read_calibrator(path)


def test_other_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file; write one with"):
        read_calibrator(tmp_path / "none.json")
    for text in ("{", "[1]", "3"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="calibrator="):
            read_calibrator(tmp_path / "bad.json")


def test_a_run_cannot_use_what_exists_after_grading(write):
    assert read_attempt_calibrator(None) is None
    assert read_attempt_calibrator(write()).sources == ("mean_logprob", "self_eval")
    with pytest.raises(UserError, match="use lm-eval-ext score --calibrator"):
        read_attempt_calibrator(write(sources=["mean_logprob", "answer_share"]))
    with pytest.raises(UserError, match="reads answer_logprob, which exist only when"):
        read_attempt_calibrator(write(sources=["mean_logprob", "answer_logprob"]))

"""The drafts' uncertainty on the scale of the reference, fitted on other questions."""

import json

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.fitted import EUFit, fit_eu, read_eu_fit
from lm_eval_ext.training.tuning.eu_fit import cross_fitted_rmse


def attempt(rng, n=40):
    """The reference is 0.5 jsd + 0.01 kl + 0.002 and noise; kl is what drafts have not learned."""
    jsd, kl = rng.exponential(0.02, n), rng.exponential(0.3, n)
    reference = 0.5 * jsd + 0.01 * kl + 0.002 + rng.normal(0, 0.001, n)
    scores = {"jsd": jsd, "kl": kl, "eu": jsd + kl, "reference_eu": reference}
    return {name: values.tolist() for name, values in scores.items()}


@pytest.fixture
def questions():
    rng = np.random.default_rng(0)
    return [[attempt(rng)] for _ in range(30)]


def test_the_fit_finds_the_weights_of_the_parts(questions):
    fit = fit_eu((one for question in questions for one in question), "reference_eu")
    np.testing.assert_allclose(fit[:3], [0.5, 0.01, 0.002], rtol=0.1)


def test_the_estimate_is_never_negative():
    fit = EUFit(1.0, 0.5, -0.5)
    found = fit.estimate({"jsd": [0.0, 1.0], "kl": [0.5, 1.0]})
    assert found.tolist() == [0.0, 1.0]
    assert found.dtype == np.float32


def test_on_unseen_questions_the_fit_beats_zero_and_mean_but_not_by_chance(questions):
    found = cross_fitted_rmse(questions)
    for yardstick in ("zero", "mean"):
        assert found["fitted"]["rmse"] < found[yardstick]["rmse"]
        assert found[yardstick]["difference"][2] < 0
    rng = np.random.default_rng(1)
    for question in questions:
        rng.shuffle(question[0]["reference_eu"])
    assert cross_fitted_rmse(questions)["mean"]["difference"][2] > 0


@pytest.fixture
def run_folder(write_run, questions):
    made = [
        [{"attempt": 0, "answer": "4", "correct": True, "token_scores": q[0]}] for q in questions
    ]
    return write_run(made)


def test_the_command_writes_what_a_run_reads(run_folder, questions, tmp_path, capsys):
    path = tmp_path / "fit.json"
    assert main(["train", "eu-fit", str(run_folder), "--output", str(path)]) == 0
    assert "fitted less this -" in capsys.readouterr().out
    fit = read_eu_fit(path)
    expected = fit_eu((one for question in questions for one in question), "reference_eu")
    assert fit[:3] == expected[:3]
    assert len(fit.prompts) == len(questions)
    with pytest.raises(UserError, match="fitted on 1 of the prompts"):
        fit.refuse([next(iter(fit.prompts)), "other"])


def test_other_files_and_runs_are_named(write_run, tmp_path, capsys):
    assert read_eu_fit(None) is None
    bad = tmp_path / "bad.json"
    for text, message in (
        ("{", "not a fit"),
        ("{}", "not a fit"),
        ('{"format": "x"}', "format 'x'"),
    ):
        bad.write_text(text)
        with pytest.raises(UserError, match=message):
            read_eu_fit(bad)
    with pytest.raises(UserError, match="no such file"):
        read_eu_fit(tmp_path / "none.json")
    bare = write_run([[{"attempt": 0, "answer": "4", "correct": True}]] * 6)
    assert main(["train", "eu-fit", str(bare), "--output", str(tmp_path / "fit.json")]) == 2
    assert "carry no drafts and reference" in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    record = {"format": "lm_eval_ext.eu_fit/1", "jsd": float("nan"), "kl": 0, "intercept": 0}
    (tmp_path / "fit.json").write_text(json.dumps({**record, "prompts": []}))
    with pytest.raises(UserError, match="not finite"):
        read_eu_fit(tmp_path / "fit.json")

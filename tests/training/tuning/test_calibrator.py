"""Calibrators: fitted like scikit-learn, cross-fitted by question, and never on what is scored."""

import json
from typing import get_args

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from lm_eval_ext.__main__ import main
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.calibrator import read_calibrator
from lm_eval_ext.metrics import auroc, cluster_bootstrap, ece, nll, within_question_auroc
from lm_eval_ext.training.tuning.calibrator import training_data
from lm_eval_ext.training.tuning.calibrator_fit import cross_fitted, fit
from lm_eval_ext.training.tuning.options import Method
from lm_eval_ext.training.tuning.tuning_run import read_tuning_run

N_QUESTIONS, N_ATTEMPTS = 120, 6


def attempts_at(number, draws):
    """The higher an attempt's mean log-probability, the likelier it is correct."""
    ability = draws.normal(0, 1)
    question = []
    for i in range(N_ATTEMPTS):
        skill = ability + draws.normal(0, 1)
        correct = bool(draws.random() < 1 / (1 + np.exp(-2 * skill)))
        question.append(
            {
                **{"attempt": i, "answer": "4" if correct else str(5 + i % 2), "correct": correct},
                **{"mean_logprob": -np.exp(-skill / 3), "mean_entropy": float(draws.random())},
                **{"n_tokens": 10 + number % 3, "finish_reason": "eos"},
            }
        )
    return question


@pytest.fixture
def made_up():
    draws = np.random.default_rng(0)
    return [attempts_at(number, draws) for number in range(N_QUESTIONS)]


@pytest.fixture
def run_of(write_run):
    """Return a function that writes a run, its questions' texts beside the attempts."""

    def write(questions, texts=None):
        folder = write_run(questions)
        (samples,) = folder.rglob("samples_*.jsonl")
        rows = [json.loads(line) for line in samples.open()]
        for i, row in enumerate(rows):
            row["doc"] = {"question": texts[i] if texts else f"question {'x' * i}"}
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (results,) = folder.rglob("results_*.json")
        found = json.loads(results.read_text())
        found["configs"]["task"]["metadata"] = {"attempts": len(questions[0]), "vote_ks": [2]}
        results.write_text(json.dumps(found))
        return folder

    return write


def arrays(n=400):
    draws = np.random.default_rng(1)
    x = draws.normal(3, 2, (n, 3))
    return x, (draws.random(n) < 1 / (1 + np.exp(3 - x[:, 0]))).astype(float)


def test_logistic_regression_and_network_are_scikit_learns():
    x, y = arrays()
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    reference = LogisticRegression(max_iter=1_000).fit(standard, y).predict_proba(standard)[:, 1]
    np.testing.assert_allclose(fit(x, y, "logistic").probability(x), reference, atol=1e-9)
    network = MLPClassifier((16,), solver="lbfgs", alpha=1.0, max_iter=2_000, random_state=3)
    reference = network.fit(standard, y).predict_proba(standard)[:, 1]
    np.testing.assert_allclose(fit(x, y, "mlp", seed=3).probability(x), reference, atol=1e-9)


def test_isotonic_regression_keeps_the_order_and_is_never_certain():
    x, y = arrays()
    score, found = (fit(x, y, method).probability(x) for method in ("logistic", "isotonic"))
    assert (np.diff(found[np.argsort(score)]) >= -1e-12).all()
    assert 0 < found.min() < found.max() < 1
    assert ece(found, y) < 0.02


def test_a_source_that_is_constant_says_nothing():
    x, y = arrays()
    found = fit(np.ones((len(x), 1)), y, "logistic").probability(np.ones((2, 1)))
    np.testing.assert_allclose(found, y.mean(), atol=1e-3)


def test_twins_are_in_one_fold():
    """A group with an outcome of its own cannot be known to a fit that has not seen it."""
    draws = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 10)
    y = np.repeat(draws.integers(0, 2, 20), 10).astype(float)
    x = np.eye(20)[groups]  # one source per group: all that a fit could know it by
    held_out = cross_fitted(x, y, groups, "logistic")
    alone = cross_fitted(x, y, np.arange(200), "logistic")
    assert auroc(y, confidence=alone) > 0.95
    assert auroc(y, confidence=held_out) < 0.6


def test_questions_that_differ_in_numbers_are_twins(made_up, run_of):
    texts = [f"Ann has {i} pens." for i in range(60)] + [f"Question {'x' * i}" for i in range(60)]
    data = training_data([read_tuning_run(run_of(made_up, texts))], ["mean_logprob"])
    assert len(np.unique(data.groups)) == 61
    assert len(np.unique(data.questions)) == N_QUESTIONS
    assert data.n_attempts == N_ATTEMPTS


@pytest.mark.parametrize("method", get_args(Method))
def test_labels_shuffled_by_question_leave_nothing_to_know(method, made_up):
    """What leaks, such as an attempt's own verdict, would still be found."""
    names = ["mean_logprob", "mean_entropy"]
    order = np.random.default_rng(5).permutation(N_QUESTIONS)
    x = np.array([[a[name] for name in names] for question in made_up for a in question])
    right = np.array([[a["correct"] for a in question] for question in made_up], float)
    groups = np.repeat(np.arange(N_QUESTIONS), N_ATTEMPTS)
    for shuffled, y in ((False, right.ravel()), (True, right[order].ravel())):
        found = cross_fitted(x, y, groups, method)
        for metric in (auroc, within_question_auroc):
            data = {"confidence": found, "correct": y}
            interval = cluster_bootstrap(metric, data, clusters=groups)
            if shuffled:
                assert interval.low < 0.5 < interval.high
            else:
                assert interval.low > 0.6


def test_command_fits_and_score_adds_the_source(made_up, run_of, tmp_path, capsys):
    folder, file = run_of(made_up), tmp_path / "c.json"
    words = ["train", "calibrator", str(folder), "--sources", "mean_logprob,mean_entropy"]
    assert main([*words, "--output", str(file)]) == 0
    table = capsys.readouterr().out
    assert "| calibrated " in table
    assert "| base rate " in table
    written = json.loads(file.read_text())
    quality = written["cross_fitted"]
    difference, low, high = quality["mean_entropy"]["nll_difference"]
    assert difference == pytest.approx(
        quality["calibrated"]["nll"][0] - quality["mean_entropy"]["nll"][0]
    )
    assert low < high < 0  # entropy is noise here
    assert quality["calibrated"]["nll"][0] < quality["base rate"]["nll"][0] - 0.1
    assert written["n_attempts"] == N_ATTEMPTS
    assert len(written["questions"]) == N_QUESTIONS
    # The run it was fitted on.
    assert main(["score", str(folder), "--calibrator", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"was fitted on {N_QUESTIONS} of the {N_QUESTIONS} questions" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("sources", ["mean_logprob", "mean_logprob,answer_share,answer_groups"])
def test_other_questions_get_the_probability(sources, made_up, run_of, tmp_path, capsys):
    file, output = tmp_path / "c.json", tmp_path / "scores.json"
    folder = run_of(made_up)
    words = ["train", "calibrator", str(folder), "--sources", sources, "--output", str(file)]
    assert main(words) == 0
    (samples,) = folder.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.open()]
    for row in rows:
        row["doc"]["question"] += "?"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", str(folder), "--calibrator", str(file), "--output", str(output)]) == 0
    found = json.loads(output.read_text())["tasks"]["task"]["metrics"]
    assert {"brier:calibrated", "cisc@2:calibrated", "within_question_auroc:calibrated"} <= set(
        found
    )
    if sources == "mean_logprob":
        p = read_calibrator(file).probability(
            [[a["mean_logprob"]] for question in made_up for a in question]
        )
        y = [a["correct"] for question in made_up for a in question]
        assert found["nll:calibrated"]["value"] == pytest.approx(nll(p, y))
    elif main(["score", str(folder), "--calibrator", str(file), "--attempts", "4"]) == 2:
        assert "score with --attempts 6" in capsys.readouterr().err
    else:
        pytest.fail("fitted at 6 attempts")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sources", "self_eval"], "--sources=self_eval: no attempt has it .there are: length"),
        (["--sources", "length,length"], "name each source once"),
        (["--sources", "calibrated"], "no attempt has it"),
        (["--attempts", "7"], "--attempts=7 must be from 1 to 6"),
        (["--output", "/no/such/folder/c.json"], "no folder /no/such/folder"),
    ],
)
def test_user_errors(words, message, made_up, run_of, tmp_path, capsys):
    folder = run_of(made_up)
    usual = ["--sources", "mean_logprob", "--output", str(tmp_path / "c.json")]
    assert main(["train", "calibrator", str(folder), *usual, *words]) == 2
    assert message.replace(".there", "(there") in capsys.readouterr().err


def test_too_few_questions_and_one_outcome_are_told():
    x, y = arrays(40)
    with pytest.raises(UserError, match="4 different questions .* too few for 5 folds"):
        cross_fitted(x, y, np.arange(40) % 4, "logistic")
    with pytest.raises(UserError, match="one outcome only"):
        cross_fitted(x, np.ones(40), np.arange(40), "logistic")

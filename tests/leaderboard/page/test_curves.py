"""The numbers behind the charts are those of the metrics and of the tables."""

import numpy as np
import pytest

from lm_eval_ext import metrics
from lm_eval_ext.harness.attempt_settings import read_settings
from lm_eval_ext.leaderboard.page.curves import N_POINTS, SourceRows, k_curves, source_curves
from lm_eval_ext.scoring.confidence_sources import Source
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.scores import score


@pytest.fixture(scope="module")
def questions():
    rng = np.random.default_rng(0)
    made = []
    for _ in range(80):
        right = rng.random(8) < rng.random()
        wrong = rng.integers(0, 3, 8)
        answers = [
            "4" if r else (None if w == 2 else str(w)) for r, w in zip(right, wrong, strict=True)
        ]
        made.append(
            [{"attempt": i, "answer": a, "correct": a == "4"} for i, a in enumerate(answers)]
        )
    return made


def test_curves_over_k_are_the_metrics_of_the_tables(questions):
    settings = read_settings({"attempts": 8, "vote_ks": [1, 2, 4, 8]})
    curves = k_curves(questions, settings)
    table = suite("passn", settings)
    for name, curve in curves.items():
        assert curve["k"] == [1, 2, 4, 8]
        for i, k in enumerate(curve["k"]):
            metric = table[name.replace("@k", f"@{k}")]
            values = [metric.value(question) for question in questions]
            expected = score(values, metric.aggregation, True)
            assert curve["value"][i] == pytest.approx(expected.value, abs=1e-12)
            assert curve["low"][i] == pytest.approx(expected.low, abs=1e-12)
            assert curve["high"][i] == pytest.approx(expected.high, abs=1e-12)
            assert curve["n"][i] == 80


def test_votes_for_equivalent_answers_with_different_verdicts(questions):
    """Only sizes and verdicts of the groups matter, whatever the answers are called."""
    renamed = [
        [{**a, "answer": None if a["answer"] is None else f"x{a['answer']}"} for a in question]
        for question in reversed(questions)
    ]
    settings = read_settings({"attempts": 8, "vote_ks": [1, 3, 8]})
    first, second = k_curves(questions, settings), k_curves(renamed, settings)
    assert first["maj@k"]["value"] == pytest.approx(second["maj@k"]["value"], abs=1e-12)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    made = SourceRows(True)
    for question in range(200):
        confidence = rng.random(4).round(2)
        correct = rng.random(4) < confidence
        made.add(Source(confidence.tolist(), correct.tolist(), [1.0] * 4, True), question)
    return made


def test_source_curves_are_the_metrics(rows):
    curves = source_curves(rows, n_bins=10)
    confidence, correct = np.array(rows.confidence), np.array(rows.correct)
    assert curves["n"] == 800
    assert curves["auroc"] == metrics.auroc(correct, confidence=confidence)
    x, y = (np.array(curves["roc"][axis]) for axis in "xy")
    area = ((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum()
    assert area == pytest.approx(curves["auroc"], abs=1e-5)
    risk = curves["risk_coverage"]
    assert len(risk["x"]) <= N_POINTS
    assert risk["x"][-1] == 1
    assert risk["y"][-1] == pytest.approx(1 - correct.mean(), abs=1e-6)
    bins = curves["reliability"]
    gaps = np.abs(np.array(bins["accuracy"]) - np.array(bins["confidence"]))
    weights = np.array(bins["n_rows"]) / 800
    assert gaps @ weights == pytest.approx(metrics.ece(confidence, correct), abs=1e-5)
    assert sum(bins["n_rows"]) == 800
    histogram = curves["histogram"]
    assert sum(histogram["correct"]) == correct.sum()
    assert sum(histogram["wrong"]) == 800 - correct.sum()


def test_thresholds_keep_the_shares(rows):
    curves = source_curves(rows, n_bins=10)
    confidence = np.array(rows.confidence)
    for share, threshold in curves["thresholds"].items():
        assert (confidence >= threshold).mean() == pytest.approx(float(share), abs=0.02)


def test_one_class_has_no_roc_and_the_rest_is_there():
    rows = SourceRows(False, [-3.0, -1.0, -2.0], [False] * 3, [0, 1, 2])
    with pytest.warns(metrics.UndefinedMetricWarning):
        curves = source_curves(rows, n_bins=10)
    assert curves["roc"] is None
    assert "reliability" not in curves
    assert curves["histogram"]["edges"][0] == -3
    assert curves["risk_coverage"]["y"] == [1, 1, 1]

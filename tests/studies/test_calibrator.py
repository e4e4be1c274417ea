"""The study of calibrators: its plan, its pairing over families, its votes."""

import argparse
import json

import numpy as np
import pytest

from lm_eval_ext.methods.calibrator import Calibrator, Layer
from lm_eval_ext.metrics import brier, maj_at_k


@pytest.fixture
def study(study_module):
    return study_module("calibrator")


def test_the_plan_holds_the_sizes_and_the_sources(study, tmp_path):
    options = argparse.Namespace(smoke=False, questions=500, train_questions=300)
    plan = study.plan_of(study.Settings.of(options), 1234)
    assert plan.primary.treatment == "calibrated"
    assert "answer_logprob" in plan.settings["of_attempts"]
    plan.keep(tmp_path)
    other = argparse.Namespace(smoke=False, questions=100, train_questions=300)
    with pytest.raises(ValueError, match=r"settings\.questions=500, not 100"):
        study.plan_of(study.Settings.of(other), 1234).keep(tmp_path)


def arrays(rng, n_questions, good):
    correct = rng.integers(0, 2, n_questions * 4).astype(float)
    confidence = np.abs(correct - 0.3) if good else np.full(len(correct), 0.5)
    return {"confidence": confidence, "correct": correct, "questions": np.arange(len(correct)) // 4}


def test_families_are_joined_with_their_own_questions(study):
    parts = [arrays(np.random.default_rng(i), n, True) for i, n in enumerate((5, 7))]
    whole = study.joined(parts)
    assert len(np.unique(whole["questions"])) == 12
    assert np.bincount(whole["questions"]).tolist() == [4] * 12


def test_differences_leave_out_attempts_without_a_confidence(study):
    ours = arrays(np.random.default_rng(0), 40, True)
    other = {**arrays(np.random.default_rng(0), 40, False)}
    other["confidence"][:3] = np.nan
    found = study.paired(brier, ours, other)(0.95)
    assert found.difference == pytest.approx(0.09 - 0.25)
    rows = study.table_rows({"calibrated": ours, "constant": other})
    assert rows["constant"]["n"] == 157
    assert rows["constant"]["brier_less"][2] < 0
    json.dumps(rows)
    lines = study.quality_tables(
        [{"model": "m", "family": "f", "from": k, "best": False, **v} for k, v in rows.items()]
    )
    assert sum(line.startswith("| c") for line in lines) == 2


def test_votes_of_a_calibrator_that_knows_nothing_are_the_majority(study):
    layers = (Layer(np.zeros((1, 1)), np.zeros(1)),)
    nothing = frozenset()
    one = np.ones(1)
    blind = Calibrator("c", ("answer_share",), 3, one, one, layers, None, nothing, nothing)
    answers = ["4", "4", "5", "6", None]
    question = [{"answer": a, "correct": a == "4"} for a in answers]
    (row,) = study.votes_of([question], blind, 3, 1.0)
    assert row[0] == pytest.approx(row[1])
    assert row[0] == pytest.approx(maj_at_k(answers, [a == "4" for a in answers], 3).score)
    assert row[2] == pytest.approx(1 - 1 / 10)
    line = study.vote_row("m", "f", np.array([[0.4, 0.6, 0.8], [0.5, 0.5, 1.0]]), 1.0)
    assert "| +22% (" in line

"""The study of random soft prompts: its questions, its plan, and the lines about the mechanism."""

import argparse
import json

import numpy as np
import pytest


@pytest.fixture
def rsp(study_module):
    return study_module("rsp")


def options(**changes):
    usual = {"smoke": False, "full": False, "questions": None, "choose": 100, "harder": 200}
    return argparse.Namespace(**{**usual, **changes})


def test_sizes_are_in_the_plan(rsp, tmp_path):
    plans = [
        rsp.plan_of(rsp.Settings.of(options(questions=n)), "smollm2", 1234) for n in (150, None)
    ]
    assert [plan.settings["questions"] for plan in plans] == [150, None]
    assert plans[0].primary.metric == "pass@16"
    assert {one.margin for one in plans[0].family} == {rsp.MARGIN}
    plans[0].keep(tmp_path)
    with pytest.raises(ValueError, match=r"settings\.questions=150, not None"):
        plans[1].keep(tmp_path)
    full = rsp.plan_of(rsp.Settings.of(options(full=True)), "smollm2", 1234)
    assert (full.primary.metric, full.settings["large"]) == ("pass@64", "gsm8k_passn")


def test_questions_of_the_parts_do_not_meet(rsp, study_module):
    study = study_module("study")
    docs = study.docs_of("tiny_gsm8k_passn")

    def chosen(n, without=()):
        return study.questions_of(
            "tiny_gsm8k_passn", n, seed=1, among=lambda doc: doc["question"] not in without
        )

    twelve, more = chosen(12), chosen(40)
    assert twelve == more[:12]
    assert len(set(more)) == 40
    assert chosen(12) == twelve != sorted(twelve)
    taken = {docs[i]["question"] for i in twelve}
    assert not {docs[i]["question"] for i in chosen(None, taken)} & taken
    assert study.questions_of("tiny_gsm8k_passn", 12, seed=2, among=lambda doc: True) != twelve


def early(value):
    """Return early tokens of 8 questions and 3 positions, the last of them unknown in one."""
    values = np.tile(np.array(value, dtype=float), (8, 1))
    values += np.linspace(-0.01, 0.01, 8)[:, None]
    rows = values.tolist()
    rows[0][2] = None
    return rows


def test_each_step_of_the_mechanism_has_a_line(rsp):
    metrics = ("attention", "entropy", "within", "between", "distinct")
    flat = {name: early([0.5, 0.5, 0.5]) for name in metrics}
    raised = {**flat, "entropy": early([1.5, 0.9, 0.5]), "attention": early([0.7, 0.7, 0.7])}
    lines, records = rsp.mechanism({1: {"rsp": raised, "without": flat}})
    by_metric = {one["metric"]: one for one in records}
    assert by_metric["entropy"]["first_token_at_baseline"] == 3
    assert by_metric["attention"]["first_token_at_baseline"] is None
    assert by_metric["within"]["first_token_at_baseline"] == 1
    assert by_metric["entropy"]["per_token"][0][0] == pytest.approx(1.0)
    assert len(lines) == 4 + len(metrics)
    assert "| 1 | 8 | +1.000 (+1.000, +1.000) | +0.000 (" in "\n".join(lines)
    json.dumps(records)

"""``lm-eval-ext plan --detect``: attempts and questions for a difference."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.plan.detect import ATTEMPTS
from lm_eval_ext.metrics import minimum_detectable_effect

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))


@pytest.fixture(scope="module")
def pilots(tmp_path_factory):
    """Return folders of two made-up runs on 60 questions x 8 attempts."""
    from synthetic_runs import RunPlan, write_run

    folder = tmp_path_factory.mktemp("runs")
    return [
        str(write_run(folder, RunPlan(name, 60, 8, skill, seed=i)))
        for i, (name, skill) in enumerate({"better": 0.5, "worse": 0.0}.items())
    ]


def sizes(capsys, *words):
    assert main(["plan", "--detect", "0.02", "--json", "--pilot", *words]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    return {int(n): questions for n, questions in found.items()}


def test_more_attempts_need_fewer_questions_down_to_what_the_questions_make(pilots, capsys):
    found = sizes(capsys, ",".join(pilots))
    assert list(found) == list(ATTEMPTS)
    needed = np.array(list(found.values()))
    assert (np.diff(needed) < 0).all()
    one = sizes(capsys, pilots[0])
    # Of one run only attempts make noise: twice as many halve the questions.
    assert one[1] / one[128] == pytest.approx(128, rel=0.05)


def test_as_many_questions_as_there_are_are_needed_for_what_can_be_seen(pilots, capsys):
    assert main(["leaderboard", "compare", *pilots, "--json"]) == 0
    noise = json.loads(capsys.readouterr().out)["noise"]
    difference = next(row for row in noise if " - " in row["of"] and row["metric"] == "pass@1")
    error = (difference["attempts"] + difference["questions"]) ** 0.5
    seen = float(minimum_detectable_effect(error))
    assert main(["plan", "--detect", f"{seen:.6f}", "--json", "--pilot", ",".join(pilots)]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["8"] in (60, 61)


def test_the_text_and_what_is_missing(pilots, tmp_path, capsys):
    assert main(["plan", "--detect", "0.02", "--pilot", pilots[0]]) == 0
    assert "questions to see a difference of 0.02" in capsys.readouterr().out
    for words, message in (
        (["--detect", "2", "--pilot", pilots[0]], "must be between 0 and 1"),
        (["--detect", "0.02"], "needs --pilot RUN,BASELINE"),
        ([], "give a model, or --detect"),
        (["--detect", "0.02", "--pilot", str(tmp_path / "none")], "no such folder"),
    ):
        assert main(["plan", *words]) == 2
        assert message in capsys.readouterr().err

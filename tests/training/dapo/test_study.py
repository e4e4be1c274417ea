"""The study's script keeps answers, and only those of the same models and vectors."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lm_eval_ext.errors import UserError

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "dapo_study.py"


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Return a function that evaluates the untrained model, and what it had to evaluate."""
    spec = importlib.util.spec_from_file_location("dapo_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluated = []

    def evaluate(model, read, temperature, args):
        evaluated.append((model, read, temperature))
        return np.ones((args.questions, args.attempts), dtype=bool)

    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the script sets its own

    def run(*more):
        words = ["--output", str(tmp_path), "--arms", "untrained", "--questions", "2", *more]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--temperatures", "1.0"])
        module.main()

    return run, evaluated


def test_answers_are_kept(study, tmp_path):
    run, evaluated = study
    run()
    assert evaluated == [("tiny", "plain", 1.0), ("tiny", "rsp", 1.0)]
    kept = json.loads((tmp_path / "answers" / "settings.json").read_text())
    assert kept == {"pretrained": "tiny", "vectors": 8}
    run()
    assert len(evaluated) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--vectors", "4"), "vectors=8, not 4"),
        (("--pretrained", "tiny-star"), "pretrained='tiny', not"),
    ],
)
def test_answers_of_other_models_and_vectors_are_refused(study, more, message):
    run, evaluated = study
    run()
    with pytest.raises(UserError, match=f"holds a run with {message}"):
        run(*more)
    assert len(evaluated) == 2


def test_answers_of_a_run_without_settings_are_used(study, tmp_path):
    run, evaluated = study
    (tmp_path / "answers").mkdir()
    for read in ("plain", "rsp"):
        name = f"untrained-{read}-1-2x16.npy"
        np.save(tmp_path / "answers" / name, np.zeros((2, 16), dtype=bool))
    run()
    assert not evaluated

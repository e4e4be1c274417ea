"""The temperatures that a run leaves beside its model."""

import json
import random

import pytest

from lm_eval_ext.metrics import apply_temperature, fit_temperature
from lm_eval_ext.training.self_training.calibrate import calibrate, written
from lm_eval_ext.training.self_training.folders import Stage, write_lines
from lm_eval_ext.training.tuning.tau import choose_tau


@pytest.fixture
def answered(tmp_path):
    """Return a function that writes overconfident answers to 30 held-out problems."""

    def make(n_attempts):
        rng = random.Random(0)
        lines = []
        for problem in range(30):
            for attempt in range(n_attempts):
                correct = rng.random() < 0.4
                answer = "1" if correct else str(rng.randrange(2, 4))
                confidence = min(0.999, max(0.001, rng.gauss(0.9 if correct else 0.7, 0.25)))
                lines.append(
                    {
                        "problem": problem, "attempt": attempt, "answer": answer,
                        "correct": correct, "probabilities": {"self_eval": confidence},
                    }
                )  # fmt: skip
        stage = Stage(tmp_path, 2, held_out=True)
        stage.folder.mkdir(exist_ok=True)
        write_lines(stage.folder / "labelled.jsonl", lines)
        stage.report("generate").write_text('{"self_evaluation": {}}')
        return stage, lines

    return make


def test_tau_is_chosen_with_and_without_the_temperature(make_run, answered, tmp_path):
    stage, lines = answered(6)
    calibrate(make_run(attempts=6), stage)
    confidence = [line["probabilities"]["self_eval"] for line in lines]
    temperature = fit_temperature(confidence, [line["correct"] for line in lines])
    assert abs(temperature - 1) > 0.2
    assert json.loads((tmp_path / "temperature.json").read_text())["temperature"] == temperature
    found = json.loads((tmp_path / "tau.json").read_text())
    tuned = apply_temperature(confidence, temperature)
    for stated, values in ((found, confidence), (found["with_temperature"], tuned)):
        changed = [
            {**line, "probabilities": {"self_eval": value}}
            for line, value in zip(lines, values, strict=True)
        ]
        questions = [changed[i : i + 6] for i in range(0, len(changed), 6)]
        best = choose_tau(questions, "self_eval", 6)
        assert (stated["tau"], stated["score"]) == (best.tau, pytest.approx(best.score))
    assert found["with_temperature"]["temperature"] == temperature


@pytest.mark.parametrize("n_attempts", [1, 2])
def test_votes_of_two_give_no_tau(make_run, answered, tmp_path, caplog, n_attempts):
    stage, _ = answered(n_attempts)
    calibrate(make_run(attempts=n_attempts), stage)
    assert [path.name for path in written(tmp_path)] == ["temperature.json"]
    assert "tau.json is not written" in caplog.text
    assert stage.report("calibrate").exists()

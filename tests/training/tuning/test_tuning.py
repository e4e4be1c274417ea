"""What is tuned on training problems: the temperature of a confidence, and that of the vote."""

import json
import logging

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.confidence import read_temperature
from lm_eval_ext.metrics import apply_temperature
from lm_eval_ext.training.tuning import tau, temperature
from lm_eval_ext.training.tuning.options import TauOptions, TemperatureOptions
from lm_eval_ext.training.tuning.tuning_run import read_tuning_run


def attempt(answer, correct, probability, **extra):
    details = {"attempt": 0, "answer": answer, "correct": correct}
    return {**details, "probabilities": {"self_eval": probability}, "extra": extra}


@pytest.fixture
def overconfident():
    """True probabilities p, stated as if at temperature 1/3."""
    draws = np.random.default_rng(0)
    p = draws.uniform(0.2, 0.9, (2000, 4))
    stated = apply_temperature(p, 1 / 3)
    correct = draws.random(p.shape) < p
    return [
        [attempt(str(c), bool(c), float(s)) for c, s in zip(*rows, strict=True)]
        for rows in zip(correct, stated, strict=True)
    ]


def test_the_temperature_that_undoes_overconfidence_is_found_written_and_read(
    overconfident, write_run, capsys
):
    folder = write_run(overconfident)
    assert temperature.run(TemperatureOptions(folder)) == 0
    written = json.loads((folder / "temperature.json").read_text())
    assert written["temperature"] == pytest.approx(3, rel=0.08)
    assert written["tuned"]["nll"] < written["untuned"]["nll"]
    assert written["tuned"]["ece"] < 0.03 < written["untuned"]["ece"]
    assert (written["n_questions"], written["n_attempts"]) == (2000, 8000)
    for stated in (str(folder), str(folder / "temperature.json")):
        assert read_temperature(stated).value == written["temperature"]
    assert "calibration_temperature=" in capsys.readouterr().out


def test_a_run_that_had_a_temperature_is_fitted_on_what_was_before(overconfident, write_run):
    tuned = []
    for question in overconfident:
        stated = [a["probabilities"]["self_eval"] for a in question]
        tuned.append(
            [
                attempt(a["answer"], a["correct"], 0.5, self_eval_untuned=p)
                for a, p in zip(question, stated, strict=True)
            ]
        )
    found = temperature.temperature_record(read_tuning_run(write_run(tuned)), "self_eval")
    assert found["temperature"] == pytest.approx(3, rel=0.08)


def test_a_test_split_is_warned_about(overconfident, write_run, caplog):
    with caplog.at_level(logging.WARNING):
        read_tuning_run(write_run(overconfident[:3], test_split="test"))
    assert "task was run on its test split" in caplog.text


def test_missing_probability_and_tasks_are_named(write_run):
    folder = write_run([[{"attempt": 0, "answer": "1", "correct": True}]])
    with pytest.raises(UserError, match="--tasks=other: the run has task"):
        read_tuning_run(folder, ["other"])
    with pytest.raises(UserError, match="--source=self_eval: an attempt has no such probability"):
        temperature.temperature_record(read_tuning_run(folder), "self_eval")


def test_tau_is_small_where_the_most_confident_attempt_is_right():
    minority = [attempt("4", True, 0.9), attempt("5", False, 0.5), attempt("5", False, 0.5)]
    best = tau.choose_tau([minority] * 3, "self_eval", 3)
    assert (best.score, best.majority) == (1, 0)
    # e^(0.9/tau) must outweigh 2 e^(0.5/tau): tau < 0.4 / ln 2.
    assert best.tau == max(t for t in tau.TAUS if t < 0.4 / np.log(2))


def test_tau_is_large_where_confidence_misleads():
    misled = [attempt("4", False, 0.9), attempt("5", True, 0.5), attempt("5", True, 0.5)]
    best = tau.choose_tau([misled], "self_eval", 3)
    assert (best.tau, best.score, best.majority) == (max(tau.TAUS), 1, 1)


def test_tau_of_a_run(write_run, capsys):
    minority = [attempt("4", True, 0.9), attempt("5", False, 0.5), attempt("5", False, 0.5)]
    folder = write_run([minority])
    assert tau.run(TauOptions(folder)) == 0
    assert "cisc@3 1.0000, maj@3 0.0000 on 1 questions" in capsys.readouterr().out
    with pytest.raises(UserError, match="--k=4 must be from 3 to 3"):
        tau.run(TauOptions(folder, k=4))


def test_votes_of_two_decide_nothing(write_run):
    pair = [attempt("4", True, 0.9), attempt("5", False, 0.5)]
    with pytest.raises(UserError, match="no question has 3 attempts or more, and tau decides"):
        tau.run(TauOptions(write_run([pair])))


@pytest.mark.parametrize(
    ("votes", "note"),
    [
        # Two of three are right, and the most confident one is not.
        ([(True, 0.5), (True, 0.5), (False, 0.9)], "tau=10 is the largest tried"),
        # One of three is right, and hardly more confident: e^(0.007 / tau) must exceed 2.
        ([(True, 0.507), (False, 0.5), (False, 0.5)], "tau=0.01 is the smallest tried"),
        ([(True, 0.9), (False, 0.5), (False, 0.5)], None),
    ],
)
def test_a_tau_at_the_end_of_the_grid_is_said(write_run, capsys, votes, note):
    question = [attempt("4" if correct else "5", correct, p) for correct, p in votes]
    assert tau.run(TauOptions(write_run([question]))) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert [line.partition(":")[0] for line in notes] == ["note"] * bool(note)
    assert all(note in line for line in notes)


def test_a_vote_below_the_majority_is_said():
    """Where wrong attempts are more confident, every tau may break the majority's ties wrongly."""
    tied = [attempt("4", True, 0.5), attempt("5", False, 0.9), attempt("6", False, 0.1)]
    best = tau.choose_tau([tied], "self_eval", 3)
    assert best.score < best.majority
    assert any("below the majority at every tau" in note for note in best.notes)


@pytest.mark.parametrize("sure", [0.999, 0.5])
def test_an_ece_that_got_worse_is_said(write_run, capsys, sure):
    """Nine of ten confidences are right as they are; the tenth costs much NLL if too sure."""
    questions = [
        [*(attempt("4", (9 * i + j) % 5 > 0, 0.8) for j in range(9)), attempt("4", i < 5, sure)]
        for i in range(10)
    ]
    folder = write_run(questions)
    temperature.run(TemperatureOptions(folder))
    written = json.loads((folder / "temperature.json").read_text())
    assert written["tuned"]["nll"] <= written["untuned"]["nll"]
    said = "note: ECE got worse, 0.0499 ->" in capsys.readouterr().out
    assert said == (sure == 0.999)


def test_tasks_of_the_same_questions_count_once(write_run, caplog):
    """The run of docs/epicar.md: one greedy answer beside the sampled ones."""
    sampled = [[attempt("4", True, 0.9)] * 3, [attempt("5", False, 0.5)] * 3]
    folder = write_run(sampled)
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    for row in rows:
        row["attempts"] = row["attempts"][:1]
    greedy = samples.with_name(samples.name.replace("samples_task", "samples_task_calib"))
    greedy.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(results.read_text())
    found["configs"]["task_calib"] = found["configs"]["task"]
    found["n-samples"]["task_calib"] = found["n-samples"]["task"]
    results.write_text(json.dumps(found))
    with caplog.at_level(logging.INFO, "lm_eval_ext"):
        tuning = read_tuning_run(folder)
    assert [len(question) for question in tuning.all_questions] == [3, 3]
    assert "task_calib is left out: another task asks its questions" in caplog.text
    assert list(read_tuning_run(folder, ["task_calib"]).questions) == ["task_calib"]
    assert tau.run(TauOptions(folder)) == 0


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (0, "must be a number above 0"),
        (-1.5, "must be a number above 0"),
        (True, "must be a number above 0"),
        (float("inf"), "must be a number above 0"),
        ("nowhere.json", "nowhere.json: no such file; give a number"),
    ],
)
def test_temperatures_that_cannot_be(stated, message):
    with pytest.raises(UserError, match=message):
        read_temperature(stated)


def test_a_file_without_a_temperature_is_named(tmp_path):
    (tmp_path / "t.json").write_text("[1]")
    with pytest.raises(UserError, match=r"t.json holds no temperature"):
        read_temperature(tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"temperature": 0}')
    with pytest.raises(UserError, match="temperature=0 must be a number above 0"):
        read_temperature(tmp_path / "t.json")

"""Scores of a run from its samples: the run's own numbers, until something is changed."""

import json
import shutil
from dataclasses import replace

import lm_eval
import numpy as np
import pytest
from lm_eval.api.metrics import pooled_sample_stderr
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_ext.__main__ import main
from lm_eval_ext.leaderboard.rescoring import group_score
from lm_eval_ext.metrics import ece
from lm_eval_ext.models.generation import Generation, Thought
from lm_eval_ext.scoring.confidence_sources import confidence_sources
from lm_eval_ext.scoring.scores import Score
from lm_eval_ext.task import AttemptsTask

N_DOCS, N_ATTEMPTS = 24, 8


def sums(**metadata):
    import datasets

    rows = [{"question": f"{i} + 0?", "answer": f"#### {i}"} for i in range(N_DOCS)]
    return {"test": datasets.Dataset.from_list(rows)}


def task(name, **changes):
    return {
        "task": name,
        "class": AttemptsTask,
        "custom_dataset": sums,
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "grader": "gsm8k",
        "generation_kwargs": {"until": ["\n"], "do_sample": True, "temperature": 0.7},
        "metadata": {"version": 1.0},
        **changes,
    }


@pytest.fixture(scope="module")
def finished_run(scripted_lm, tmp_path_factory):
    """Return the folder of a run of two tasks, and its results."""

    def script(question, attempt):
        rng = np.random.default_rng([question % N_DOCS, attempt])
        return f"#### {question % N_DOCS if rng.random() < 0.3 else rng.integers(20, 24)}"

    folder = tmp_path_factory.mktemp("run")
    tracker = EvaluationTracker(output_path=str(folder))
    results = lm_eval.simple_evaluate(
        model=scripted_lm(script, with_records=True),
        tasks=[task("sums"), task("sums_calib", metrics="calib")],
        task_manager=TaskManager(include_defaults=False, metadata={"attempts": N_ATTEMPTS}),
        evaluation_tracker=tracker,
        bootstrap_iters=1000,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name, rows in samples.items():
        tracker.save_results_samples(name, rows)
    return folder, results["results"]


def scored(folder, *options, tmp_path):
    output = tmp_path / "scores.json"
    assert main(["score", str(folder), "--output", str(output), *options]) == 0
    return json.loads(output.read_text())["tasks"]


def logged(folder, task):
    (path,) = folder.rglob(f"samples_{task}_2*.jsonl")
    return [json.loads(line)["attempts"] for line in path.read_text().splitlines()]


def test_the_numbers_are_those_of_the_run(finished_run, tmp_path, capsys):
    folder, results = finished_run
    tasks = scored(folder, tmp_path=tmp_path)
    for name in ("sums", "sums_calib"):
        reported = {
            key.removesuffix(",none"): value
            for key, value in results[name].items()
            if key.endswith(",none") and "_stderr" not in key
        }
        assert tasks[name]["metrics"].keys() == reported.keys()
        assert len(reported) > 10 or name == "sums_calib"
        for metric, value in reported.items():
            score = tasks[name]["metrics"][metric]
            known = np.nan if score["value"] is None else score["value"]
            assert known == pytest.approx(value, rel=1e-12, nan_ok=True)
            error = results[name][f"{metric}_stderr,none"]
            if error != "N/A":
                known = np.nan if score["standard_error"] is None else score["standard_error"]
                assert known == pytest.approx(error, rel=1e-9, nan_ok=True)
    table = capsys.readouterr().out
    assert f"{results['sums']['pass@1,none']:.4f}" in table
    assert "sums_calib, attempts at each question: 1" in table


def test_other_options_need_no_new_run(finished_run, tmp_path):
    folder, results = finished_run
    options = ["--tasks", "sums", "--ks", "3,8", "--vote-ks", "3,5", "--bins", "3"]
    tasks = scored(folder, *options, tmp_path=tmp_path)
    assert list(tasks) == ["sums"]
    metrics = tasks["sums"]["metrics"]
    assert {"pass@3", "pass@8", "maj@3", "maj@5"} < metrics.keys()
    assert not {"pass@1", "maj@8"} & metrics.keys()
    assert metrics["pass@8"]["value"] == pytest.approx(results["sums"]["pass@8,none"])
    rows = [confidence_sources(attempts)["vote_share"] for attempts in logged(folder, "sums")]
    confidence = [row.confidence[0] for row in rows]
    correct = [row.correct[0] for row in rows]
    expected = ece(confidence, correct, n_bins=3)
    assert expected != ece(confidence, correct, n_bins=10)
    assert metrics["ece:vote_share"]["value"] == pytest.approx(expected)
    assert tasks["sums"]["settings"]["n_bins"] == 3


def test_fewer_attempts_are_the_first_of_each_question(finished_run, tmp_path):
    folder, _ = finished_run
    task = scored(folder, "--attempts", "2", tmp_path=tmp_path)["sums"]
    assert task["n_attempts"] == 2
    expected = np.mean(
        [[a["correct"] for a in question[:2]] for question in logged(folder, "sums")]
    )
    assert task["metrics"]["pass@1"]["value"] == pytest.approx(expected)
    assert "pass@4" not in task["metrics"]


def edited(folder, tmp_path, change):
    """Return a copy of the run whose samples of ``sums`` went through ``change``."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (path,) = copy.rglob("samples_sums_2*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(sample)) + "\n" for sample in lines))
    return copy


def test_verdicts_are_made_again_only_when_asked(finished_run, tmp_path):
    folder, results = finished_run

    def all_wrong(sample):
        for attempt in sample["attempts"]:
            attempt.update(answer=None, correct=False)
        return sample

    copy = edited(folder, tmp_path, all_wrong)
    assert scored(copy, tmp_path=tmp_path)["sums"]["metrics"]["pass@8"]["value"] == 0
    again = scored(copy, "--regrade", tmp_path=tmp_path)["sums"]["metrics"]
    assert again["pass@1"]["value"] == pytest.approx(results["sums"]["pass@1,none"])
    assert again["maj@8"]["value"] == pytest.approx(results["sums"]["maj@8,none"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attempts", "9"], "attempts=9: the run made 8 per question"),
        (["--attempts", "0"], "attempts must be a whole number of at least 1"),
        (["--ks", "9"], r"ks=[9] asks for k=9 of 8 attempts"),
        (["--bins", "0"], "n_bins must be"),
        (["--tau", "-1"], "tau must be a number above 0"),
        (["--tasks", "chess"], "--tasks=chess: the run has sums, sums_calib"),
    ],
)
def test_impossible_options_end_in_one_line(finished_run, capsys, options, message):
    assert main(["score", str(finished_run[0]), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_programs_are_run_only_with_consent(finished_run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(finished_run[0], copy)
    (path,) = copy.rglob("results_*.json")
    results = json.loads(path.read_text())
    results["configs"]["sums"]["metadata"]["grader"] = "mbpp"
    path.write_text(json.dumps(results))
    assert main(["score", str(copy), "--regrade"]) == 2
    assert "add --confirm-run-unsafe-code" in capsys.readouterr().err


def test_a_run_without_attempts_is_refused(finished_run, tmp_path, capsys):
    def without_attempts(sample):
        del sample["attempts"]
        return sample

    copy = edited(finished_run[0], tmp_path, without_attempts)
    assert main(["score", str(copy), "--tasks", "sums"]) == 2
    assert "hold no attempts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attempts", "message"),
    [
        (None, "line 1: damaged attempts"),
        ([], "line 1: damaged attempts"),
        ([{"attempt": 0}] * N_ATTEMPTS, "its attempts cannot be scored (no 'correct')"),
        ([{"attempt": 0, "correct": 2, "answer": "1"}] * N_ATTEMPTS, "cannot be scored"),
    ],
)
def test_damaged_attempts_are_refused_in_one_line(
    finished_run, tmp_path, capsys, attempts, message
):
    copy = edited(finished_run[0], tmp_path, lambda sample: {**sample, "attempts": attempts})
    assert main(["score", str(copy)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("results", [{}, {"n-samples": 3}, {"n-samples": {}}])
def test_a_results_file_without_tasks_is_refused(finished_run, tmp_path, capsys, results):
    copy = tmp_path / "run"
    shutil.copytree(finished_run[0], copy)
    (path,) = copy.rglob("results_*.json")
    path.write_text(json.dumps(results))
    assert main(["score", str(copy)]) == 2
    assert "names no tasks" in capsys.readouterr().err


def test_a_record_the_grader_cannot_read_is_one_line(finished_run, tmp_path, capsys):
    copy = edited(finished_run[0], tmp_path, lambda sample: {**sample, "doc": {}})
    assert main(["score", str(copy), "--regrade"]) == 2
    assert "its attempts cannot be scored" in capsys.readouterr().err


def test_what_is_impossible_is_refused_before_any_work(finished_run, tmp_path, capsys, monkeypatch):
    def no_work(*arguments, **keywords):
        raise AssertionError

    monkeypatch.setattr("lm_eval_ext.leaderboard.score.score_task", no_work)
    for options in (["--ks", "9"], ["--output", str(tmp_path / "nowhere" / "x.json")]):
        assert main(["score", str(finished_run[0]), *options]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_file_cut_off_in_a_line_names_the_line(finished_run, tmp_path, capsys):
    copy = edited(finished_run[0], tmp_path, lambda sample: sample)
    (path,) = copy.rglob("samples_sums_2*.jsonl")
    path.write_text(path.read_text()[:-40])
    assert main(["score", str(copy)]) == 2
    assert f"line {N_DOCS}: not a complete sample (cut off?)" in capsys.readouterr().err


def test_a_group_is_averaged_as_lm_eval_does():
    scores = [
        Score(value, error, 0, 1, n, True) for value, error, n in [(0.2, 0.1, 5), (0.6, 0.05, 20)]
    ]
    value, error = group_score((score, score.n_questions) for score in scores)
    assert value == pytest.approx((0.2 * 5 + 0.6 * 20) / 25)
    assert error == pytest.approx(pooled_sample_stderr([0.1, 0.05], [5, 20]))


@pytest.mark.parametrize("thought", ["", "7? </think>"])
def test_grading_again_what_a_filter_has_left(scripted_lm, tmp_path, thought):
    """Neither the thought nor the cut end is in the filtered text."""

    class Thinking(scripted_lm):
        def generate_until(self, requests):
            about = Thought(finished=True, n_tokens=1, n_characters=len(thought))
            return [
                Generation(one, replace(one.record, thought=about if thought else None))
                for one in super().generate_until(requests)
            ]

    pattern = {"function": "regex", "regex_pattern": r"(The answer is \d+)"}
    filters = [{"name": "sentence", "filter": [pattern, {"function": "take_first"}]}]
    folder = tmp_path / "run"
    tracker = EvaluationTracker(output_path=str(folder))
    results = lm_eval.simple_evaluate(
        model=Thinking(lambda n, _: f"{thought}The answer is {n}, and", with_records=True),
        tasks=[task("sums", filter_list=filters)],
        task_manager=TaskManager(include_defaults=False, metadata={"attempts": 4}),
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    rows = results.pop("samples")["sums"]
    assert all(one["correct"] for row in rows for one in row["attempts"])
    tracker.save_results_aggregated(results=results, samples={"sums": rows})
    tracker.save_results_samples("sums", rows)
    metrics = scored(folder, "--regrade", tmp_path=tmp_path)["sums"]["metrics"]
    assert metrics["pass@1"]["value"] == 1


@pytest.mark.parametrize("model_args", [{}, {"think_end_token": "</think>"}])
def test_grading_again_sees_thoughts_that_were_not_logged(scripted_lm, tmp_path, model_args):
    """Runs of version 0.1 took the last words of a cut thought for an answer."""

    def script(question, attempt):
        return f"So #### {question}" if attempt % 2 else f"7?</think>\n#### {question}"

    folder = tmp_path / "run"
    tracker = EvaluationTracker(output_path=str(folder))
    metadata = {"attempts": 4, "pretrained": "m", **model_args}
    results = lm_eval.simple_evaluate(
        model=scripted_lm(script),
        tasks=[task("sums", doc_to_text="{{question}}<think>\n", target_delimiter="")],
        task_manager=TaskManager(include_defaults=False, metadata=metadata),
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    rows = results.pop("samples")["sums"]
    for row in rows:
        for attempt in row["attempts"]:
            attempt.pop("unfinished_thought", None)
            attempt.update(answer="0", correct=True)
    tracker.save_results_aggregated(results=results, samples={"sums": rows})
    tracker.save_results_samples("sums", rows)
    metrics = scored(folder, "--regrade", tmp_path=tmp_path)["sums"]["metrics"]
    # With the tag, a thought that ended and one that did not look alike.
    assert metrics["pass@1"]["value"] == (1.0 if model_args else 0.5)

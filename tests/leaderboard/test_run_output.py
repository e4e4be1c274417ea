"""Runs read from lm_eval's output folders."""

import json
import math

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.rescoring import score_task
from lm_eval_ext.leaderboard.run_files import files_of, newest_run, results_files
from lm_eval_ext.leaderboard.run_output import read_run, run_of
from lm_eval_ext.leaderboard.task_samples import HEADLINE

TASK = "synthetic_passn"


def sample_file(folder):
    (path,) = folder.rglob("samples_*.jsonl")
    return path


def test_every_metric_is_that_of_score(made_up_runs):
    folder = made_up_runs["average"]
    run = read_run(folder, pooled=["*"])
    files = newest_run(folder)
    metadata = files.results["configs"][TASK]["metadata"]
    scored = score_task(files.samples[TASK], metadata, changes={}).scores
    assert run.tasks[TASK].metrics.keys() == scored.keys()
    assert len(scored) > 40
    for name, expected in scored.items():
        np.testing.assert_array_equal(run.tasks[TASK].metrics[name], expected, err_msg=name)


def test_pooled_metrics_are_computed_where_asked_for(made_up_runs):
    folder = made_up_runs["able"]
    plain = read_run(folder).tasks[TASK]
    assert not [name for name in plain.metrics if ":" in name and "@" not in name]
    assert not plain.replicates
    usual = read_run(folder, pooled=HEADLINE).tasks[TASK]
    assert "brier:self_eval" in usual.metrics
    assert "prr:self_eval" not in usual.metrics
    assert usual.replicates["brier:self_eval"].shape == (1000,)


def test_settings_and_cost(made_up_runs):
    task = read_run(made_up_runs["able"]).tasks[TASK]
    tokens = sum(
        attempt["n_tokens"]
        for line in sample_file(made_up_runs["able"]).open()
        for attempt in json.loads(line)["attempts"]
    )
    details = task.details
    assert (details.attempts, details.temperature, details.num_fewshot) == (4, 0.7, 0)
    assert details.tokens == tokens
    assert details.seconds == 100.0
    assert details.tokens_per_second == pytest.approx(tokens / 100)
    assert details.invalid_rate == task.metrics["invalid_rate"].value


def test_no_time_of_a_task_where_the_run_has_several(new_run, edited):
    folder = new_run()
    path = sample_file(folder)
    path.with_name(path.name.replace(TASK, "other")).write_bytes(path.read_bytes())

    def add_task(results):
        for block in results.values():
            if isinstance(block, dict) and TASK in block:
                block["other"] = block[TASK]

    run = read_run(edited(folder, add_task))
    assert [task.details.seconds for task in run.tasks.values()] == [None, None]
    assert run.seconds == 100.0


def test_samples_of_another_run_are_refused(new_run, edited):
    folder = edited(new_run(), lambda r: r["results"][TASK].update({"pass@1,none": 0.123}))
    with pytest.raises(UserError, match=r"pass@1 is 0\.\d+ in the samples and 0.123 in results_"):
        read_run(folder)


def test_a_part_of_the_samples_is_refused(new_run):
    folder = new_run()
    path = sample_file(folder)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(UserError, match="holds 17 of 20 questions"):
        read_run(folder)


def test_samples_written_twice_are_refused(new_run):
    folder = new_run()
    path = sample_file(folder)
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserError, match="question 0 is there twice"):
        read_run(folder)


def test_without_samples_the_results_have_values_and_standard_errors(new_run):
    folder = new_run()
    sample_file(folder).unlink()
    run = run_of(files_of(results_files(folder)[-1]), label="a")
    task = run.tasks[TASK]
    rows = run.results["results"][TASK]
    score = task.metrics["pass@1"]
    assert score.value == rows["pass@1,none"]
    assert score.high - score.value == pytest.approx(1.959964 * rows["pass@1_stderr,none"])
    assert math.isnan(task.metrics["brier:self_eval"].low)  # its standard error is "N/A"
    assert task.questions == task.values == {}
    with pytest.raises(UserError, match="run lm_eval with --log_samples"):
        read_run(folder)


def stock_run(folder, samples, rows):
    """Write a run of one of lm-eval's own tasks: no attempts, several filters."""
    folder.mkdir()
    stamp = "2026-01-01T00-00-00.000000"
    n = len({sample["doc_id"] for sample in samples})
    results = {
        "results": {"stock": {"alias": "stock", **rows}},
        "configs": {"stock": {"generation_kwargs": {"do_sample": False}, "num_fewshot": 5}},
        "higher_is_better": {"stock": {"exact_match": True, "perplexity": False}},
        "n-samples": {"stock": {"original": n, "effective": n}},
        "total_evaluation_time_seconds": "5",
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(results))
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / f"samples_stock_{stamp}.jsonl").write_text(lines)
    return folder


def test_a_task_of_lm_eval_with_several_filters(tmp_path):
    samples = [
        {
            "doc_id": i,
            "doc_hash": f"h{i}",
            "filter": name,
            "metrics": ["exact_match"],
            "exact_match": float(i % divisor == 0),
        }
        for name, divisor in (("strict", 2), ("flexible", 1))
        for i in range(10)
    ]
    rows = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.16}
    rows |= {"exact_match,flexible": 1.0, "exact_match_stderr,flexible": 0.0}
    task = read_run(stock_run(tmp_path / "run", samples, rows)).tasks["stock"]
    assert list(task.metrics) == ["exact_match,strict", "exact_match,flexible"]
    assert task.metrics["exact_match,strict"].value == 0.5
    assert task.metrics["exact_match,strict"].higher_is_better
    assert sum(task.values["exact_match,strict"].values()) == 5
    assert task.details.temperature == 0
    assert task.details.num_fewshot == 5
    assert task.details.tokens is None


def test_a_metric_that_is_no_mean_keeps_lm_evals_number(tmp_path):
    samples = [
        {"doc_id": i, "doc_hash": f"h{i}", "filter": "none", "metrics": ["f1"], "f1": i / 10}
        for i in range(10)
    ]
    rows = {"f1,none": 0.8, "f1_stderr,none": 0.1}
    task = read_run(stock_run(tmp_path / "run", samples, rows)).tasks["stock"]
    assert task.metrics["f1"].value == 0.8
    assert task.metrics["f1"].low == pytest.approx(0.8 - 0.1959964)
    assert task.values == {}
    assert len(task.questions) == 10


def test_predict_only_has_no_metrics(tmp_path):
    samples = [
        {"doc_id": i, "doc_hash": f"h{i}", "filter": "none", "metrics": ["bypass"], "bypass": None}
        for i in range(3)
    ]
    task = read_run(stock_run(tmp_path / "run", samples, {"bypass,none": 999})).tasks["stock"]
    assert task.metrics == {}


def test_verdicts_that_are_booleans_have_values_of_questions(new_run):
    folder = new_run()
    (path,) = folder.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["pass@2"] = bool(row["pass@2"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = read_run(folder).tasks["synthetic_passn"].values["pass@2"]
    assert list(values.values()) == [float(row["pass@2"]) for row in rows]


@pytest.mark.parametrize("change", [{"config": "x"}, {"n-samples": {"synthetic_passn": 3}}])
def test_results_of_another_form_are_told_in_one_line(new_run, edited, change):
    folder = edited(new_run(), lambda results: results.update(change))
    with pytest.raises(UserError, match="damaged"):
        read_run(folder)

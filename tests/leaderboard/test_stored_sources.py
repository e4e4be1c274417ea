"""Sources that need each token's log-probability, added to a run that was logged without them."""

import json
import shutil

import lm_eval
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_ext.__main__ import main
from lm_eval_ext.model_wrappers.sampled import SampledLM

NEW = ("lowest_window_logprob", "tail_logprob", "answer_logprob")
TASK = "tiny_gsm8k_passn"


@pytest.fixture(scope="module")
def run_with_store(tmp_path_factory):
    """Return the output of a run of the shipped model, and its store."""
    folder = tmp_path_factory.mktemp("run")
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    lm = SampledLM("tiny", seed=0, batch_size=16, store=str(folder / "store"))
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=[TASK],
        limit=4,
        task_manager=TaskManager(metadata={"attempts": 3}),
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(TASK, samples[TASK])
    return folder / "out", folder / "store"


@pytest.fixture
def older_run(run_with_store, tmp_path):
    """Return a copy of the run as it was logged before there were these sources."""
    folder = shutil.copytree(run_with_store[0], tmp_path / "older")

    def change(edit):
        (path,) = folder.rglob("samples_*.jsonl")
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for sample in samples:
            for attempt in sample["attempts"]:
                edit(sample, attempt)
        path.write_text("".join(json.dumps(one) + "\n" for one in samples), encoding="utf-8")
        return folder

    change(lambda sample, attempt: [attempt.pop(name, None) for name in NEW])
    return change


def scored(folder, *options, tmp_path):
    output = tmp_path / "scores.json"
    assert main(["score", str(folder), "--output", str(output), *map(str, options)]) == 0
    return json.loads(output.read_text())["tasks"][TASK]["metrics"]


def test_an_older_run_gets_what_a_new_one_logs(run_with_store, older_run, tmp_path):
    out, store = run_with_store
    expected = scored(out, tmp_path=tmp_path)
    for name in NEW:
        assert f"within_question_auroc:{name}" in expected
    older = older_run(lambda sample, attempt: None)
    without = scored(older, tmp_path=tmp_path)
    assert not any(name.endswith(NEW) for name in without)
    assert json.dumps(scored(older, "--store", store, tmp_path=tmp_path)) == json.dumps(expected)


def test_a_store_that_lacks_attempts_says_so(older_run, run_with_store, tmp_path, caplog):
    def another(sample, attempt):
        if sample["doc_id"] == 0 and attempt["attempt"] == 1:
            attempt["mean_logprob"] -= 0.5

    scored(older_run(another), "--store", run_with_store[1], tmp_path=tmp_path)
    assert "--store lacks 1 of 12 attempts" in caplog.text


def test_a_store_of_another_run_is_refused(older_run, run_with_store, tmp_path, capsys):
    def other_text(sample, attempt):
        sample["resps"][0] = ["another"] * 3

    folder = older_run(other_text)
    assert main(["score", str(folder), "--store", str(run_with_store[1])]) == 2
    assert "holds none of the attempts" in capsys.readouterr().err
    assert main(["score", str(folder), "--store", str(tmp_path)]) == 2
    assert "is not a store" in capsys.readouterr().err

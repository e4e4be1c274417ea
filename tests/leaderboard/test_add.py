"""Stored entries: what is in them, and what happens to files that are not sound."""

import json
import os

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard import add
from lm_eval_ext.leaderboard.entry import SCHEMA, entry_of, read_entry, write_entry, write_whole
from lm_eval_ext.leaderboard.options import AddOptions
from lm_eval_ext.leaderboard.run_arguments import resolve
from lm_eval_ext.leaderboard.run_comparison import compare_tasks
from lm_eval_ext.leaderboard.run_output import read_run

TASK = "synthetic_passn"


def add_runs(*folders, store, label=None, replace=False):
    return add.run(AddOptions(folders, results=store, label=label, replace=replace))


def test_an_entry_read_again_is_the_run(made_up_runs, tmp_path):
    run = read_run(made_up_runs["able"], pooled=["*"])
    path = write_entry(run, tmp_path / "store")
    stored = read_entry(path)
    assert stored.label == "able"
    before, after = run.tasks[TASK], stored.tasks[TASK]
    assert after.details == before.details
    assert after.questions == before.questions
    assert after.metrics.keys() == before.metrics.keys()
    for name, score in before.metrics.items():
        np.testing.assert_array_equal(after.metrics[name], score)
    for name, values in before.values.items():
        assert after.values[name] == pytest.approx(values, abs=1e-6)
    # The same run, read from its folder and stored, differs nowhere.
    test = compare_tasks(after, before, "pass@1")
    assert (test.difference, test.p_value, test.ties) == (0, 1, 40)


def test_an_entry_is_lm_evals_schema_and_one_block(made_up_runs, tmp_path):
    path = write_entry(read_run(made_up_runs["able"], pooled=["*"]), tmp_path)
    entry = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    (results_file,) = made_up_runs["able"].rglob("results_*.json")
    results = json.loads(results_file.read_text())
    own = entry.pop("lm_eval_ext")
    assert own["schema"] == SCHEMA
    assert entry.keys() <= results.keys()
    assert entry["results"] == results["results"]
    assert entry["n-samples"] == results["n-samples"]
    task = own["tasks"][TASK]
    assert task["decoding"]["k"] == [1, 2, 4]
    assert task["metrics"]["pass@1"]["value"] == results["results"][TASK]["pass@1,none"]
    assert "take" not in path.read_text()  # no text of the model
    assert path.stat().st_size < 40_000


def test_folders_of_the_machine_are_not_published(new_run, edited, tmp_path):
    def add_paths(results):
        results["config"]["model_args"] = {"pretrained": "/home/somebody/models/good"}
        results["config"]["extra"] = "pretrained=/home/somebody/models/good,revision=main"
        results["configs"][TASK]["metadata"]["config_source"] = "/home/somebody/tasks/a.yaml"

    text = json.dumps(entry_of(read_run(edited(new_run(), add_paths))))
    assert "somebody" not in text
    assert '"pretrained": "good"' in text
    assert "pretrained=good,revision=main" in text


def test_damaged_files_are_told_and_the_rest_is_added(new_run, made_up_runs, tmp_path, capsys):
    store = tmp_path / "store"
    (results,) = new_run("cut_results").rglob("results_*.json")
    results.write_text(results.read_text()[:200])
    (samples,) = new_run("cut_samples", seed=1).rglob("samples_*.jsonl")
    samples.write_text(samples.read_text()[:-50])
    (results,) = new_run("no_results", seed=2).rglob("results_*.json")
    results.unlink()
    (samples,) = new_run("no_samples", seed=3).rglob("samples_*.jsonl")
    samples.unlink()
    assert add_runs(results.parents[2], made_up_runs["able"], store=store) == 1
    out, err = capsys.readouterr()
    names = [line.split()[1].split("/")[-1].rpartition("-")[0] for line in out.splitlines()]
    assert sorted(names) == ["able", "no_samples"]
    assert f"(no samples of {TASK}: no paired tests)" in out
    assert len(list(store.glob("*.json"))) == 2
    lines = err.splitlines()
    # The samples beside the two broken results files are named as well.
    assert any("cut_results" in line and "not valid JSON" in line for line in lines)
    assert any("cut_samples" in line and "not a complete sample" in line for line in lines)
    assert any("no_results" in line and "beside it" in line for line in lines)
    assert "Traceback" not in err


def test_a_run_is_stored_once(made_up_runs, tmp_path, capsys):
    folder, store = made_up_runs["able"], tmp_path / "store"
    assert add_runs(folder, store=store) == 0
    assert add_runs(folder, store=store, label="other") == 1
    assert "is stored already, as" in capsys.readouterr().err
    assert len(list(store.iterdir())) == 1


def test_a_label_is_replaced_on_request(made_up_runs, tmp_path):
    store = tmp_path / "store"
    add_runs(made_up_runs["able"], store=store, label="nightly")
    add_runs(made_up_runs["weak"], store=store, label="nightly")
    assert len(list(store.iterdir())) == 2
    add_runs(made_up_runs["average"], store=store, label="nightly", replace=True)
    (path,) = store.iterdir()
    assert read_entry(path).model == "model_average"


def test_a_label_for_several_runs_is_refused(made_up_runs, tmp_path):
    with pytest.raises(UserError, match="names one run, and 3 were found"):
        add_runs(made_up_runs["able"].parent, store=tmp_path, label="a")


def test_labels_are_the_folders_given_to_lm_eval(new_run, tmp_path):
    # lm_eval puts the files into a folder named after the model.
    folder = new_run("mine")
    assert (folder / "model").is_dir()
    assert add_runs(folder, store=tmp_path / "store") == 0
    (path,) = (tmp_path / "store").iterdir()
    assert read_entry(path).label == "mine"


def test_a_label_cannot_leave_the_store(made_up_runs, tmp_path):
    store = tmp_path / "a" / "store"
    assert add_runs(made_up_runs["able"], store=store, label="../../evil\n=1") == 0
    (path,) = tmp_path.rglob("*.json")
    assert path.parent == store
    assert read_entry(path).label == "../../evil =1"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-30], "not valid JSON"),
        (lambda text: "[]", "no stored entry"),
        (lambda text: '{"results": {}}', "no stored entry"),
        (lambda text: text.replace("result/1", "result/9"), "has schema 'lm_eval_ext.result/9'"),
        (lambda text: text.replace('"hashes": [', '"hashes": ["more",'), "damaged entry"),
        (lambda text: text.replace('"value": ', '"valu": '), "damaged entry"),
        (lambda text: text.replace('"tasks": {', '"tasks": 3, "t": {'), "damaged entry"),
    ],
)
def test_damaged_entries_are_one_line(made_up_runs, tmp_path, damage, message):
    path = write_entry(read_run(made_up_runs["able"]), tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        read_entry(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_runs_are_found_by_name(made_up_runs, tmp_path):
    path = write_entry(read_run(made_up_runs["able"]), tmp_path)
    for name in (str(path), path.name, path.stem):
        assert resolve(name, results=tmp_path).label == "able"
    assert resolve(str(made_up_runs["weak"]), results=tmp_path).label == "weak"
    with pytest.raises(UserError, match="no such folder or file"):
        resolve("nothing", results=tmp_path)


def test_replace_can_be_repeated_and_spares_namesakes(new_run, tmp_path, capsys):
    folders = []
    for i, skill in enumerate((0.0, 1.0)):
        folder = new_run(f"model_{i}", skill=skill, seed=i).rename(tmp_path / f"model_{i}")
        (tmp_path / f"m{i}").mkdir()
        folders.append(folder.rename(tmp_path / f"m{i}" / "out"))
    arguments = ["leaderboard", "add", *map(str, folders), "--replace"]
    arguments += ["--results", str(tmp_path / "store")]
    for _ in range(2):
        assert main(arguments) == 0
        assert len(list((tmp_path / "store").glob("out-*.json"))) == 2

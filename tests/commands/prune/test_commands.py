"""The ``prune`` commands on the shipped model: what they save, print and refuse."""

import importlib
import json
import types

import click
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_ext.commands.options import parse
from lm_eval_ext.commands.prune import options
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.masks import pruned
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM

SMALL = ["--calibration-size", "12"]


@pytest.fixture
def command(tmp_path):
    """Return a function that runs a command with its output in a folder of the test."""

    def run(name, *words, output="out"):
        module = importlib.import_module(f"lm_eval_ext.commands.prune.{name}")
        folder = tmp_path / output
        kind = getattr(options, f"{name.title()}Options")
        assert module.run(parse(kind, [*words, "--output", str(folder)])) == 0
        return folder

    return run


@pytest.fixture
def fake_task(monkeypatch):
    """Replace lm-eval's evaluation by one that judges four questions by what is removed."""
    calls = []

    def simple_evaluate(model, tasks, **options):
        calls.append(options)
        n_removed = len(model.plan.removal.heads)
        samples = [
            {"doc_id": i, "filter": name, "metrics": ["acc", "text"], "acc": value, "text": "x"}
            for name, right in (("none", 1.0), ("other", 0.0))
            for i, value in enumerate([right, 0.0, float(n_removed < 3), 1.0])
        ]
        return {
            "samples": {tasks[0]: samples},
            "higher_is_better": {tasks[0]: {"acc": True}},
        }

    monkeypatch.setattr("lm_eval.simple_evaluate", simple_evaluate)
    manager = types.SimpleNamespace(all_tasks=["fake"])
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: manager)
    return calls


def test_score_saves_what_the_wrapper_reads(command, capsys):
    folder = command("score", *SMALL, "--lengths", "8,32", "--seed", "3")
    report = json.loads((folder / "sink_scores.json").read_text())
    assert (folder / "sink_scores.png").read_bytes().startswith(b"\x89PNG")
    assert (report["n_layers"], report["n_heads"], report["n_kv_heads"]) == (6, 8, 4)
    assert np.shape(report["sink"]["by_length"]) == (2, 6, 8)
    assert report["sink"]["queries"] == "all"
    assert report["calibration"]["n_prompts"] == 12
    printed = capsys.readouterr().out
    highest = np.argmax(report["heads"]["sink"])
    line = next(
        row
        for row in printed.splitlines()
        if row.split()[:2] == list(map(str, divmod(int(highest), 8)))
    )
    assert float(line.split()[2]) == pytest.approx(np.max(report["heads"]["sink"]), abs=1e-4)
    file = str(folder / "sink_scores.json")
    for unit, criterion in (("head", "wanda"), ("block", "shortgpt")):
        plan = {"ratio": 0.2, "unit": unit, "criterion": criterion}
        read = SinkPrunedLM("tiny", scores=file, **plan).plan.removal
        live = SinkPrunedLM("tiny", calibration_size=12, **plan).plan.removal
        assert read == live
    with pytest.raises(ValueError, match="criterion=random: the file holds one draw"):
        SinkPrunedLM("tiny", scores=file, ratio=0.2, criterion="random")


@pytest.mark.parametrize(
    ("form", "pruning"),
    [
        ("structural", "unit=kv_group,allocation=even"),
        ("structural", "unit=head,allocation=even,criterion=ahon,ratio=0.5"),
        ("structural", "unit=block"),
        ("zeroed", "unit=head"),
    ],
)
def test_export_loads_with_plain_transformers(command, capsys, form, pruning):
    args = f"pretrained=tiny,ratio=0.25,calibration_size=12,{pruning}"
    args = args.replace("ratio=0.25,", "") if "ratio=0.5" in args else args
    folder = command("export", "--model-args", args, "--form", form)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("Question: Ann has 3 apples.", return_tensors="pt")
    from lm_eval_ext.harness import requests as harness

    lm = SinkPrunedLM(**harness.parse_model_args(args))
    with torch.inference_mode(), pruned(lm.model, lm.plan.removal):
        expected = lm.model(input_ids=inputs["input_ids"]).logits
        ours = loaded(input_ids=inputs["input_ids"]).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    record = json.loads((folder / "pruning.json").read_text())
    assert record["form"] == form
    assert record["pruning"]["removed_heads"] == [list(p) for p in lm.plan.removal.heads]
    printed = capsys.readouterr().out
    assert f"-> {loaded.num_parameters():,} parameters" in printed
    if form == "structural":
        assert loaded.num_parameters() < lm.model.num_parameters()


@pytest.mark.parametrize(
    ("args", "form", "line"),
    [
        ("ratio=0.25", "structural", "add allocation=even, or export the zeroed form"),
        ("ratio=0", "structural", "removes nothing"),
        ("ratio=0.2,unit=block", "zeroed", "form=structural"),
        ("ratio=0.2,mean_compensation=true", "zeroed", "cannot be exported"),
    ],
)
def test_export_refuses_in_one_line(command, args, form, line):
    args = f"pretrained=tiny,calibration_size=6,{args}"
    with pytest.raises(UserError, match=line):
        command("export", "--model-args", args, "--form", form)


def test_export_writes_into_no_folder_with_files(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty"):
        command("export", "--model-args", "pretrained=tiny,ratio=0.2")


def test_sweep_measures_each_cell_once_and_goes_on(command, fake_task, capsys):
    words = [*SMALL, "--text-size", "6", "--criteria", "sink,random", "--seeds", "0,1"]
    words += ["--tasks", "fake", "--limit", "4"]
    folder = command("sweep", *words, "--ratios", "0.05")
    cells = {path.stem: json.loads(path.read_text()) for path in folder.glob("cells/*.json")}
    assert set(cells) == {"dense", "sink_0.05", "random_0.05_0", "random_0.05_1"}
    assert len(fake_task) == 4
    assert cells["dense"]["metrics"]["fake/acc"]["estimate"] == 0.75
    assert cells["sink_0.05"]["metrics"]["fake/acc"]["values"] == [1.0, 0.0, 1.0, 1.0]
    assert len(cells["sink_0.05"]["removed_heads"]) == 2
    sink = cells["sink_0.05"]["metrics"]["perplexity"]
    assert 1 < sink["low"] < sink["estimate"] < sink["high"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "sweep.md").read_text()
    assert page in capsys.readouterr().out
    rows = [row.split("|")[1:-1] for row in page.splitlines() if row.startswith("| random")]
    seeds = [cells[f"random_0.05_{i}"]["metrics"]["perplexity"]["estimate"] for i in (0, 1)]
    assert f"{np.exp(np.mean(np.log(seeds))):.3f}" in rows[0][1]
    # A further ratio: only its cells are measured.
    command("sweep", *words, "--ratios", "0.05,0.25")
    assert len(fake_task) == 4 + 3
    page = (folder / "sweep.md").read_text()
    (row,) = [r for r in page.splitlines() if r.startswith("| random | +0.000")]
    assert row.split("|")[2:4] == [" +0.000 ± 0.000 "] * 2  # fake accuracy, sink - random
    with pytest.raises(UserError, match="holds a sweep with limit=4, this one has 5"):
        command("sweep", *words[:-1], "5", "--ratios", "0.05")


def test_sweep_refuses_an_impossible_ratio_before_it_begins(command, tmp_path):
    with pytest.raises(UserError, match="only 32 are outside"):
        command("sweep", *SMALL, "--ratios", "0.1,0.9", "--criteria", "magnitude")
    assert not (tmp_path / "out" / "cells").exists()
    with pytest.raises(click.UsageError, match="'a' is not a valid float"):
        command("sweep", "--ratios", "a,b")
    with pytest.raises(UserError, match="criterion='nope'"):
        command("sweep", "--criteria", "nope")


def test_tasks_report_what_has_a_value_per_question(fake_task):
    lm = SinkPrunedLM("tiny", ratio=0)
    measured = TaskRunner("fake", None).run(lm)
    assert list(measured) == ["fake/acc"]  # texts have no mean; the first filter counts
    assert measured["fake/acc"]["values"] == [1.0, 0.0, 1.0, 1.0]
    assert measured["fake/acc"]["higher_is_better"] is True
    assert TaskRunner("", None).run(lm) == {}
    with pytest.raises(UserError, match="tasks=chess: not a task"):
        TaskRunner("fake,chess", None)


def test_analyse_sets_ablations_against_scores(command, fake_task, capsys):
    folder = command("analyse", *SMALL, "--text-size", "3", "--lengths", "8,16,32", "--tasks",
                     "fake", "--metrics", "acc")  # fmt: skip
    report = json.loads((folder / "analysis.json").read_text())
    assert (folder / "analysis.png").read_bytes().startswith(b"\x89PNG")
    heads = report["heads"]
    assert np.shape(heads["score"]) == np.shape(heads["change of loss"]) == (6, 8)
    assert not np.any(heads["change of acc"])  # one head less changes nothing there
    from scipy.stats import spearmanr

    value = report["correlations"]["sink score and change of loss"]
    expected = spearmanr(np.ravel(heads["score"]), np.ravel(heads["change of loss"])).statistic
    assert value["estimate"] == pytest.approx(expected)
    assert value["low"] < value["estimate"] < value["high"]
    assert len(report["layers"]["loss_without_attention"]) == 6
    lengths = np.array(report["lengths"]["score"])
    np.testing.assert_allclose(
        heads["variation_over_length"], lengths.std(axis=0, ddof=1) / lengths.mean(axis=0)
    )
    assert f"{value['estimate']:+.2f}" in capsys.readouterr().out


def test_analyse_names_the_metrics_it_could_use(command, fake_task):
    with pytest.raises(UserError, match="--metrics=f1 has no value per question in fake; use acc"):
        command("analyse", *SMALL, "--text-size", "3", "--tasks", "fake", "--metrics", "f1")


def test_options_of_lm_eval_are_not_taken_for_the_commands(command):
    with pytest.raises(UserError, match="--model-args: ratio=0.5 is for lm_eval"):
        command("score", "--model-args", "pretrained=tiny,ratio=0.5")

"""The regression guard: what fails, and with which exit status."""

import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.options import parse
from lm_eval_ext.leaderboard import check
from lm_eval_ext.leaderboard.entry import write_entry
from lm_eval_ext.leaderboard.options import CheckOptions
from lm_eval_ext.leaderboard.run_output import read_run


@pytest.fixture(scope="module")
def store(made_up_runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for path in made_up_runs.values():
        write_entry(read_run(path, pooled=["*"]), folder)
    return folder


@pytest.fixture
def checked(store, capsys):
    """Return a function that runs the command: exit status and output."""

    def run(*words):
        status = check.run(parse(CheckOptions, [*map(str, words), "--results", str(store)]))
        return status, capsys.readouterr().out

    return run


def entry(store, label):
    (path,) = store.glob(f"{label}-*.json")
    return path


def test_a_worse_run_fails_and_shows_what_moved(checked, store, made_up_runs):
    status, out = checked(made_up_runs["weak"], "--baseline", entry(store, "able"))
    assert status == 1
    row = next(line for line in out.splitlines() if "pass@1 " in line)
    assert "worse" in row
    assert "<0.001*" in row
    assert "FAILED: weak against able" in out
    assert "mean_tokens" not in out  # no direction: neither better nor worse


def test_a_better_run_passes(checked, store, made_up_runs):
    status, out = checked(made_up_runs["able"], "--baseline", entry(store, "weak"))
    assert status == 0
    assert "better" in out
    assert "passed: able against weak" in out


@pytest.mark.parametrize("as_folder", [True, False])
def test_the_same_run_passes(checked, store, made_up_runs, as_folder):
    baseline = made_up_runs["average"] if as_folder else entry(store, "average").stem
    status, out = checked(made_up_runs["average"], "--baseline", baseline)
    assert status == 0
    assert "0 are significantly worse, 0 better" in out


def test_only_the_metrics_asked_for(checked, store, made_up_runs):
    arguments = made_up_runs["weak"], "--baseline", entry(store, "able")
    assert checked(*arguments, "--metrics", "invalid_rate")[0] == 0
    status, out = checked(*arguments, "--metrics", "pass@1,invalid_rate", "--all")
    assert status == 1
    assert "of 2 metrics 1 are" in out
    assert "invalid_rate" in out


def test_alpha(checked, store, made_up_runs):
    arguments = made_up_runs["average"], "--baseline", entry(store, "able"), "--metrics", "pass@1"
    assert checked(*arguments)[0] == 1
    assert checked(*arguments, "--alpha", "1e-12")[0] == 0
    with pytest.raises(ValueError, match="--alpha=2 must be between 0 and 1"):
        checked(*arguments, "--alpha", "2")


def test_metrics_of_attempts_are_paired_between_folders(checked, made_up_runs):
    arguments = made_up_runs["weak"], "--baseline", made_up_runs["able"]
    _, out = checked(*arguments, "--metrics", "brier:self_eval", "--all")
    assert "~ " not in out.replace("~ not paired", "")


def test_user_errors(checked, store, new_run, made_up_runs):
    with pytest.raises(ValueError, match="no such folder"):
        checked("nothing", "--baseline", entry(store, "able"))
    with pytest.raises(ValueError, match="no such metric"):
        checked(made_up_runs["able"], "--baseline", entry(store, "able"), "--metrics", "chess")
    with pytest.raises(ValueError, match="differ in 20 questions"):
        checked(new_run(), "--baseline", entry(store, "able"))


def test_a_metric_that_became_undefined_fails(checked, store, new_run, edited, made_up_runs):
    import json

    folder = new_run("fewer", n_questions=40, n_attempts=4)
    (path,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in path.open()]
    lines[0]["pass@4"] = float("nan")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = "synthetic_passn"
    edited(folder, lambda r: r["results"][task].update({"pass@4,none": float("nan")}))
    status, out = checked(folder, "--baseline", entry(store, "average"), "--metrics", "pass@4")
    assert status == 1
    assert "undefined" in out


def test_what_cannot_be_checked_is_told(made_up_runs, new_run, capsys):
    able = str(made_up_runs["able"])
    assert main(["leaderboard", "check", able, "--baseline", able, "--metrics", "mean_tokens"]) == 2
    assert "no metric with a direction" in capsys.readouterr().err
    short = str(new_run("short", n_questions=40, n_attempts=2))
    arguments = ["leaderboard", "check", short, "--baseline", able, "--metrics", "pass@1,pass@4"]
    assert main(arguments) in (0, 1)
    assert "short lacks best_of@4:mean_entropy, " in (out := capsys.readouterr().out)
    assert "pass@4, pass^4." in out

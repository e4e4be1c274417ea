"""Phases as processes: their errors, their parent's death, and two of them at once."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from safetensors.torch import load_file

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.self_training import phase
from lm_eval_ext.training.self_training.folders import Stage
from lm_eval_ext.training.self_training.job import PhaseFailedError, _launch, self_train
from lm_eval_ext.training.self_training.phase import run_phase
from lm_eval_ext.training.self_training.settings import SelfTrainingRuntime


class EnoughError(Exception):
    pass


def train_until(last, run, output):
    """Run the phases before one, and return its stage."""

    def launch(wanted, stage, runtime):
        if wanted == last:
            raise EnoughError
        run_phase(wanted, stage, runtime)

    with pytest.raises(EnoughError):
        self_train(run, output, runtime=SelfTrainingRuntime(attempts_per_save=20), launch=launch)
    return Stage(output, 1)


def test_phase_reports_its_error_in_one_line(make_run, tmp_path, capfd):
    stage = train_until("label", make_run(), tmp_path)
    attempts = stage.folder / "attempts-0.jsonl"
    attempts.write_text("no record\n" + attempts.read_text())
    capfd.readouterr()
    with pytest.raises(PhaseFailedError):
        _launch(1, "label", stage, SelfTrainingRuntime())
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("lm-eval-ext: error: ")
    assert "attempts-0.jsonl, line 1 is damaged" in line


def test_missing_attempts_are_noticed_and_made_again(make_run, tmp_path):
    stage = train_until("label", make_run(), tmp_path)
    attempts = stage.folder / "attempts-0.jsonl"
    whole = attempts.read_text().splitlines()
    attempts.write_text("".join(line + "\n" for line in whole[1:]))
    with pytest.raises(UserError, match=f"has {len(whole) - 1} attempts, and {len(whole)} were"):
        run_phase("label", stage, SelfTrainingRuntime())
    stage.report("generate").unlink()
    train_until("label", make_run(), tmp_path)
    assert sorted(attempts.read_text().splitlines()) == sorted(whole)
    run_phase("label", stage, SelfTrainingRuntime())


@pytest.mark.parametrize(("correct", "label"), [(True, "yes"), (False, "no")])
def test_labels_of_one_kind_are_warned_of(make_run, tmp_path, monkeypatch, caplog, correct, label):
    def alike(family, questions):
        for texts, *_ in questions:
            yield [Attempt(text, correct) for text in texts]

    monkeypatch.setattr("lm_eval_ext.training.self_training.labels.grade_questions", alike)
    stage = train_until("tune", make_run(), tmp_path)
    assert f"so every label is {label}" in caplog.text
    assert (stage.counts("rows")["reason"] > 0) == correct


def test_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(phase, "run_phase", full)
    monkeypatch.setattr(phase, "die_with_parent", lambda: None)
    assert phase.main(["label", "--output", str(tmp_path), "--number", "1"]) == phase.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "no space left on the device; make room" in line


def test_phase_that_dies_can_be_continued(make_run, tmp_path, monkeypatch):
    stage = Stage(tmp_path, 1)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(UserError, match="round 1: phase label ended with status 1; the same"):
        _launch(1, "label", stage, SelfTrainingRuntime())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_phase_dies_with_the_command(tmp_path):
    script = (
        "import subprocess\n"
        "from lm_eval_ext.training.self_training.phase import die_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=die_with_parent)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_command_inside_a_launch_is_refused(make_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="give --num-processes"):
        self_train(make_run(), tmp_path)


def test_two_processes_train_as_one_with_accumulated_passes(make_run, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    common = {"alpha": 0.4, "steps": 4, "held_out_share": 0, "rounds": 1}
    one = train_until("tune", make_run(**common, gradient_accumulation=2), tmp_path / "one")
    run_phase("tune", one, SelfTrainingRuntime())
    two = train_until("tune", make_run(**common, num_processes=2), tmp_path / "two")
    assert (one.folder / "rows.jsonl").read_bytes() == (two.folder / "rows.jsonl").read_bytes()
    partial(_launch, 2)("tune", two, SelfTrainingRuntime())
    mine, its = (load_file(stage.folder / "model" / "model.safetensors") for stage in (one, two))
    assert mine.keys() == its.keys()
    assert max((mine[name] - its[name]).abs().max() for name in mine) < 1e-3
    curves = [json.loads(stage.report("tune").read_text())["loss_curve"] for stage in (one, two)]
    for left, right in zip(*curves, strict=True):
        assert left == pytest.approx(right, abs=1e-3)


def test_two_processes_share_the_attempts(make_run, tmp_path, monkeypatch):
    from lm_eval_ext.training import processes
    from lm_eval_ext.training.self_training.folders import read_attempts

    whole = train_until("label", make_run(), tmp_path / "whole")
    shared = train_until("generate", make_run(), tmp_path / "shared")
    for rank in (0, 1):
        monkeypatch.setattr(processes, "join_processes", lambda: processes.Processes(rank, 2))  # noqa: B023
        run_phase("generate", shared, SelfTrainingRuntime(attempts_per_save=8))
    assert len(list(shared.folder.glob("attempts-*.jsonl"))) == 2

    def texts(stage):
        return {(line["problem"], line["attempt"]): line["text"] for line in read_attempts(stage)}

    assert texts(shared) == texts(whole)
    assert os.path.getsize(shared.folder / "attempts-1.jsonl") > 0

"""SIGKILL in each phase, then the same command: the files of an unbroken run, byte for byte."""

import json
import os
import signal
import subprocess
import sys

import pytest

from lm_eval_ext.training.run import flat

# Forks of one process that has everything imported, so that dying is cheap.
SCRIPT = """
import json, os, signal, sys, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.self_training import attempts, calibrate, folders, job, labels, rows, tune
from lm_eval_ext.training.self_training.phase import run_phase
from lm_eval_ext.training.self_training.settings import SelfTrainingRuntime, from_flat
from lm_eval_ext.training.self_training.trainer import RowTrainer
from lm_eval_ext.training import saved_model
from lm_eval_ext.model_wrappers.sampled import SampledLM

values, root = json.loads(sys.argv[1]), Path(sys.argv[2])

def grade(family, questions):
    for texts, record, *_ in questions:
        number = int(record["answer"].split()[-1])
        yield [Attempt(text or None, (len(text) + number) % 4 == 0) for text in texts]

labels.grade_questions = grade

def die(*ignored, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(owner, name, call):
    plain, calls = getattr(owner, name), []
    def counted(*given, **named):
        calls.append(name)
        return die() if len(calls) == call else plain(*given, **named)
    setattr(owner, name, counted)

def tear(output):
    path = next(output.glob("round-1/attempts-0.jsonl"))
    plain, calls = harness.complete, []
    def torn(*given, **named):
        calls.append(1)
        if len(calls) == 2:
            with path.open("a") as file:
                file.write('{"problem": 7, "att')
            die()
        return plain(*given, **named)
    harness.complete = torn

KILLS = {
    "generate": lambda out: die_at(harness, "complete", 2),
    "generate, a line cut off": tear,
    "label": lambda out: die_at(folders.os, "replace", 2),
    "rows": lambda out: die_at(folders.os, "replace", 3),
    "tune, between checkpoints": lambda out: die_at(RowTrainer, "compute_loss", 6),
    "tune, while saving": lambda out: die_at(RowTrainer, "_save_rng_state", 1),
    "tune, while exporting": lambda out: die_at(saved_model, "_replace", 1),
    "second round, tune": lambda out: die_at(RowTrainer, "compute_loss", 4),
    "held-out, label": lambda out: die_at(labels, "write_lines", 1),
    "calibrate": lambda out: die_at(calibrate, "choose_tau", 1),
}

def run(output, kill=None):
    pid = os.fork()
    if not pid:
        try:
            if kill:
                output.mkdir(exist_ok=True)
                kill(output)
            runtime = SelfTrainingRuntime(attempts_per_save=8, checkpoint_steps=3)
            job.self_train(from_flat(values), output, runtime=runtime,
                           launch=run_phase)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)

codes = {"whole": run(root / "whole")}
for name, kill in KILLS.items():
    codes[name] = run(root / "broken", kill)
    files = [str(p.relative_to(root / "broken")) for p in (root / "broken").rglob("*.json")]
    codes[name + " reports"] = sorted(files)
codes["broken"] = run(root / "broken")
(root / "codes.json").write_text(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    script = folder / "run_and_kill.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(flat(make_run())), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads((folder / "codes.json").read_text())
    return folder, codes, done.stderr


def test_every_kill_struck_in_its_phase(runs):
    _, codes, errors = runs
    assert codes["whole"] == codes["broken"] == 0, errors[-3000:]
    killed = {name for name, code in codes.items() if code == -signal.SIGKILL}
    assert len(killed) == 10, errors[-3000:]
    done = {name.removesuffix(" reports"): set(v) for name, v in codes.items() if "reports" in name}
    assert "round-1/generate.json" not in done["generate, a line cut off"]
    assert "round-1/generate.json" in done["label"]
    assert "round-1/label.json" not in done["label"]
    assert "round-1/label.json" in done["rows"]
    assert "round-1/rows.json" not in done["rows"]
    for name in ("between checkpoints", "while saving", "while exporting"):
        assert "round-1/rows.json" in done[f"tune, {name}"]
        assert "round-1/tune.json" not in done[f"tune, {name}"]
    assert "round-2/rows.json" in done["second round, tune"]
    assert "round-2/tune.json" not in done["second round, tune"]
    assert "held-out/generate.json" in done["held-out, label"]
    assert "held-out/label.json" in done["calibrate"]
    assert "tau.json" not in done["calibrate"]
    assert "is incomplete and is removed" in errors
    assert "the last line was cut off" in errors


def test_the_files_are_those_of_an_unbroken_run(runs):
    folder, _, _ = runs

    def files(name):
        root = folder / name
        return {p.relative_to(root): p for p in root.rglob("*") if p.is_file()}

    whole, broken = files("whole"), files("broken")
    assert whole.keys() == broken.keys()
    assert len(whole) > 25
    different = [name for name, p in whole.items() if p.read_bytes() != broken[name].read_bytes()]
    assert different == []

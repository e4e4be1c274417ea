"""Two processes share the work and give the drafts of one; so does SIGKILL."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

COMMAND = """
import sys, torch
from lm_eval_ext.commands.options import parse
from lm_eval_ext.training.drafts import train_drafts as drafts
from lm_eval_ext.training.drafts.settings import DraftOptions
torch.set_num_threads(1)
drafts.run(parse(DraftOptions, sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path, target_folder, prompts_file):
    """Return a function that gives the words to run the command on few prompts."""
    script = tmp_path / "train_drafts.py"
    script.write_text(COMMAND)

    def words(output, *launcher):
        small = {
            "pretrained": target_folder, "problems": prompts_file, "draft-init": "first:1",
            "num-drafts": 3, "steps": 40, "batch-size": 4, "max-new-tokens": 10,
            "checkpoint-steps": 3, "output": output,
        }  # fmt: skip
        options = [str(word) for name, value in small.items() for word in (f"--{name}", value)]
        return [sys.executable, *launcher, str(script), *options]

    return words


# `accelerate launch --cpu` starts one process whatever --num_processes says; torchrun does not.
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
}


def run(words):
    subprocess.run(words, check=True, env=ENVIRONMENT, capture_output=True, timeout=300)


def drafts(folder):
    manifest = json.loads((folder / "drafts.json").read_text())
    return manifest, [load_file(folder / d / "model.safetensors") for d in manifest["drafts"]]


def assert_equal_drafts(one, other):
    (manifest, left), (its_manifest, right) = drafts(one), drafts(other)
    assert manifest == its_manifest
    for mine, its in zip(left, right, strict=True):
        assert all(torch.equal(mine[name], its[name]) for name in mine)


def test_two_processes_and_a_killed_run_give_the_drafts_of_one(command, tmp_path):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    run(command(one))
    run(
        command(
            two, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        )
    )  # fmt: skip
    assert {p.name for p in two.glob("responses-*")} == {"responses-0.jsonl", "responses-1.jsonl"}
    assert_equal_drafts(one, two)

    process = subprocess.Popen(
        command(killed), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not list(killed.glob("checkpoints/draft-1.pt")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "drafts.json").exists()
    run(command(killed))
    assert_equal_drafts(one, killed)

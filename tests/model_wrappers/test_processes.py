"""Two processes under accelerate give the attempts of one, with an uneven share of questions."""

import json
import os
import subprocess
import sys


def attempts(folder, *launcher):
    """Run the command on three questions and return their texts by question."""
    subprocess.run(
        [
            sys.executable, "-m", *launcher, "lm_eval", "--model", "rsp",
            "--model_args", "pretrained=tiny,length=2", "--tasks", "tiny_gsm8k_passn",
            "--limit", "3", "--metadata", '{"attempts": 2}', "--gen_kwargs", "max_gen_toks=10",
            "--batch_size", "4", "--log_samples", "--output_path", str(folder),
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=300,
    )  # fmt: skip
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return {line["doc_id"]: line["resps"] for line in lines}


def test_two_processes_give_the_attempts_of_one(tmp_path):
    two = attempts(
        tmp_path / "two", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
        "--main_process_port", "0", "-m",
    )  # fmt: skip
    one = attempts(tmp_path / "one")
    assert sorted(one) == [0, 1, 2]
    assert two == one

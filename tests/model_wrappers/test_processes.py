"""Two processes give the attempts and the metrics of one, with an uneven share of questions."""

import json
import os
import subprocess

from kept_index import LM_EVAL


def attempts(folder, *launcher):
    """Run the command on three questions; return their attempts, the metrics, and what it said."""
    run = subprocess.run(
        [
            LM_EVAL[0], *launcher, LM_EVAL[1], "--model", "rsp",
            "--model_args", "pretrained=tiny,length=2", "--tasks", "tiny_gsm8k_passn",
            "--limit", "3", "--metadata", '{"attempts": 2}', "--gen_kwargs", "max_gen_toks=10",
            "--batch_size", "4", "--log_samples", "--output_path", str(folder),
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    (results,) = folder.rglob("results_*.json")
    metrics = json.loads(results.read_text())["results"]["tiny_gsm8k_passn"]
    answers = {
        line["doc_id"]: (line["resps"], [(a["answer"], a["correct"]) for a in line["attempts"]])
        for line in lines
    }
    return answers, metrics, run.stderr


def test_two_processes_give_the_attempts_of_one(tmp_path):
    # `accelerate launch --cpu --num_processes 2` starts a single process (accelerate 1.15).
    two, metrics_of_two, said = attempts(
        tmp_path / "two", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"
    )
    one, metrics_of_one, _ = attempts(tmp_path / "one")
    assert "on rank 1" in said
    assert sorted(one) == [0, 1, 2]
    assert two == one
    assert metrics_of_two == metrics_of_one
    assert {"pass@1,none", "pass@2,none"} <= set(metrics_of_one)

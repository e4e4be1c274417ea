"""Every wrapper through the real ``lm_eval`` command."""

import json
import os
import re
import subprocess

import pytest
from kept_index import LM_EVAL


def lm_eval(folder, model, arguments, *options):
    """Run the command and return its results and samples."""
    model_args = ",".join(["pretrained=tiny", *(f"{k}={v}" for k, v in arguments.items())])
    finished = subprocess.run(
        [
            *LM_EVAL, "--model", model, "--model_args", model_args,
            "--tasks", "tiny_gsm8k_passn", "--limit", "3", "--metadata", '{"attempts": 3}',
            "--gen_kwargs", "max_gen_toks=12", "--batch_size", "auto", "--log_samples",
            "--output_path", str(folder), *options,
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        cwd=folder,
    )  # fmt: skip
    said = finished.stderr.decode()
    assert re.search(r"INFO .* 9 attempts: prefill [\d.]+ s .* decode [\d.]+ s ", said)
    assert re.search(r"INFO .* tiny_gsm8k_passn: 9 attempts: grading [\d.]+ s ", said)
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), sorted(lines, key=lambda line: line["doc_id"])


@pytest.fixture(scope="session")
def control(tmp_path_factory):
    """Return what ``sampled`` gives."""
    return lm_eval(tmp_path_factory.mktemp("control"), "sampled", {})


def test_wrapper_fills_the_table(wrapper_name, arguments, control, tmp_path):
    results, samples = (
        control if wrapper_name == "sampled" else lm_eval(tmp_path, wrapper_name, arguments)
    )
    rows = results["results"]["tiny_gsm8k_passn"]
    for row in ("pass@1", "pass@2", "pass@3", "maj@3", "invalid_rate", "truncated_rate"):
        assert 0 <= rows[f"{row},none"] <= 1
    assert 1 <= rows["mean_tokens,none"] <= 12
    ours = results["config"]["lm_eval_ext"]
    assert ours["decoder"] == "shared_prefix"
    n_tokens = sum(a["n_tokens"] for sample in samples for a in sample["attempts"])
    assert ours["timing"]["token choice"]["tokens"] == n_tokens
    graded = results["configs"]["tiny_gsm8k_passn"]["timing"]["grading"]
    assert graded["tokens"] == n_tokens
    assert [len(sample["attempts"]) for sample in samples] == [3, 3, 3]
    assert all(a["mean_logprob"] <= 0 for sample in samples for a in sample["attempts"])


def test_neutral_method_gives_the_controls_texts(neutral_wrapper, control, tmp_path):
    name, neutral_arguments = neutral_wrapper
    _, samples = lm_eval(tmp_path, name, neutral_arguments)
    assert [s["resps"] for s in samples] == [s["resps"] for s in control[1]]


def test_user_error_is_one_line(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as failure:
        lm_eval(tmp_path, "rsp", {"control": "noise"})
    last = failure.value.stderr.decode().strip().splitlines()[-1]
    assert "error: control='noise' is unknown: use one of none, mean" in last
    assert b"Traceback" not in failure.value.stderr

"""From the ``lm_eval`` command to the temperature fitted on its output, and back."""

import json
import os
import subprocess

import pytest
from kept_index import LM_EVAL

from lm_eval_ext.training.tuning.temperature import temperature_record
from lm_eval_ext.training.tuning.tuning_run import read_tuning_run


def lm_eval(folder, model, arguments):
    subprocess.run(
        [
            *LM_EVAL, "--model", model,
            "--model_args", json.dumps({"pretrained": "tiny", **arguments}),
            "--tasks", "tiny_math_passn,tiny_math_calib", "--limit", "4",
            "--metadata", '{"attempts": 3}', "--gen_kwargs", "max_gen_toks=16",
            "--batch_size", "auto", "--log_samples", "--output_path", str(folder),
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=300,
    )  # fmt: skip
    (results,) = folder.rglob("results_*.json")
    return json.loads(results.read_text())


@pytest.mark.filterwarnings("ignore:the fitted temperature is at its bound")
def test_confidence_from_the_command_to_a_fitted_temperature_and_back(tmp_path):
    first = lm_eval(tmp_path / "first", "epicar", {"box_completion": True})
    rows = first["results"]["tiny_math_passn"]
    assert 0 <= rows["ece:self_eval,none"] <= 1
    assert {"cisc@3:self_eval,none", "linear@3:self_eval,none"} <= rows.keys()
    assert 0 <= first["results"]["tiny_math_calib"]["brier:self_eval,none"] <= 1
    record = first["config"]["lm_eval_ext"]
    assert record["self_evaluation"]["attempts"]["judged"] == 4 * 3 + 4
    assert record["box_completion"]["completed"] > 0  # 16 tokens do not reach the box

    tuning = read_tuning_run(tmp_path / "first", ["tiny_math_passn"])
    assert len(tuning.all_questions) == 4
    found = temperature_record(tuning, "self_eval")
    path = tmp_path / "temperature.json"
    path.write_text(json.dumps({**found, "temperature": 3.0}))

    arguments = {"self_eval": True, "calibration_temperature": str(path), "length": 2}
    second = lm_eval(tmp_path / "second", "rsp", arguments)
    assert second["config"]["lm_eval_ext"]["self_evaluation"]["temperature"] == 3
    assert second["config"]["lm_eval_ext"]["soft_prompt"]["length"] == 2
    (samples,) = (tmp_path / "second").rglob("samples_tiny_math_calib*.jsonl")
    for line in samples.read_text().splitlines():
        (attempt,) = json.loads(line)["attempts"]
        tuned = attempt["probabilities"]["self_eval"]
        untuned = attempt["extra"]["self_eval_untuned"]
        odds = [p / (1 - p) for p in (tuned, untuned)]
        assert abs(odds[0] ** 3 / odds[1] - 1) < 1e-6

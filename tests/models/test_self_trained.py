"""The shipped models trained on their own answers: one of them knows when it is right."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from kept_index import LM_EVAL

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.grading.families import grade
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.metrics import auroc, brier
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.models.shipped import SHIPPED, model_path

NAMES = ("tiny-star", "tiny-epicar")


@pytest.fixture(scope="module")
def judged():
    """Verdict and confidence of greedy answers to validation problems, by model."""
    docs = load_split("math", "validation", 120)
    found = {}
    for name in NAMES:
        lm = EpiCaRLM(name, batch_size=64)
        answers = harness.complete(
            lm, [prompt("math", doc) for doc in docs], until=["Problem:"], max_gen_toks=128
        )
        correct = [grade("math", a, d).correct for a, d in zip(answers, docs, strict=True)]
        confidence = [answer.record.probabilities["self_eval"] for answer in answers]
        found[name] = np.array(correct), np.array(confidence)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_is_shipped_small_and_of_the_shape_of_tiny(name):
    assert name in SHIPPED
    folder, tiny = Path(model_path(name)), Path(model_path("tiny"))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4e6
    for file in ("tokenizer.json", "config.json"):
        assert (folder / file).read_bytes() == (tiny / file).read_bytes()


def test_both_solve_problems(judged):
    right = {name: correct.mean() for name, (correct, _) in judged.items()}
    assert min(right.values()) > 0.5
    assert abs(right["tiny-epicar"] - right["tiny-star"]) < 0.1


def test_epicar_judges_its_answers_and_star_does_not(judged):
    area = {name: auroc(y, confidence=c) for name, (y, c) in judged.items()}
    assert area["tiny-epicar"] > 0.8
    assert area["tiny-star"] < area["tiny-epicar"] - 0.1
    score = {name: brier(confidence=c, correct=y) for name, (y, c) in judged.items()}
    assert score["tiny-epicar"] < score["tiny-star"]


def test_temperature_is_that_of_training_problems():
    stated = json.loads((Path(model_path("tiny-epicar")) / "temperature.json").read_text())
    assert 0.5 < stated["temperature"] < 4


@pytest.mark.parametrize("name", ["tiny-epicar", "tiny"])
def test_command_runs_offline_and_fills_the_rows(name, tmp_path):
    subprocess.run(
        [
            *(*LM_EVAL, "--model", "epicar"),
            *("--model_args", f"pretrained={name}", "--limit", "6", "--batch_size", "auto"),
            *("--tasks", "tiny_gsm8k_calib,tiny_gsm8k_passn", "--metadata", '{"attempts": 2}'),
            *("--output_path", str(tmp_path)),
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=600,
    )
    (path,) = tmp_path.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    for task in ("tiny_gsm8k_calib", "tiny_gsm8k_passn"):
        assert 0 <= results[task]["brier:self_eval,none"] <= 1
        assert 0 <= results[task]["ece:self_eval,none"] <= 1
    assert "cisc@2:self_eval,none" in results["tiny_gsm8k_passn"]

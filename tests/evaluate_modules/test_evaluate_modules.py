"""The scripts for Hugging Face `evaluate`, loaded by path into a cache of their own."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lm_eval_ext
from lm_eval_ext import metrics

NAMES = ("auroc_hallucination", "brier", "ece", "pass_at_k")
CONFIDENCE = [0.95, 0.9, 0.4, 0.35, 0.8, 0.6, 0.6]
CORRECT = [1, 1, 0, 1, 0, 1, 0]


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Return the package, with its caches in a temporary folder and scripts not yet imported."""
    package = pytest.importorskip("evaluate")
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package.config, "HF_MODULES_CACHE", str(cache / "modules"))
        patch.setattr(package.config, "HF_METRICS_CACHE", str(cache / "metrics"))
        patch.setattr(sys, "path", list(sys.path))
        for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
            patch.delitem(sys.modules, name)
        yield package
        for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
            del sys.modules[name]


@pytest.fixture
def load(evaluate):
    def load(name, *options):
        return evaluate.load(lm_eval_ext.evaluate_module(name), *options)

    return load


def test_every_script_has_a_path():
    folder = Path(lm_eval_ext.__file__).with_name("evaluate_modules")
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == set(NAMES)
    for name in NAMES:
        assert Path(lm_eval_ext.evaluate_module(name)).is_file()


@pytest.mark.parametrize("name", ["accuracy", "__init__", "../ece", ""])
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        lm_eval_ext.evaluate_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_info_and_features(load, name):
    module = load(name)
    assert module.name == name
    assert module.module_type == "metric"
    assert set(module.features) == {"predictions", "references"}
    for text in (module.description, module.citation, module.inputs_description):
        assert text.strip()
    assert module.description in inspect.getdoc(type(module))
    assert ">>> " in module.inputs_description


def test_values_are_those_of_the_library(load):
    answers = {"predictions": CONFIDENCE, "references": CORRECT}
    assert load("ece").compute(**answers) == {"ece": metrics.ece(CONFIDENCE, CORRECT)}
    assert load("brier").compute(**answers) == {"brier": metrics.brier(CONFIDENCE, CORRECT)}
    area = metrics.auroc(CORRECT, confidence=CONFIDENCE)
    assert load("auroc_hallucination").compute(**answers) == {"auroc_hallucination": area}


def test_options_reach_the_library(load):
    answers = {"predictions": CONFIDENCE, "references": CORRECT}
    for options in ({"n_bins": 3}, {"norm": "max"}, {"n_bins": 2, "binning": "mass"}):
        expected = metrics.ece(CONFIDENCE, CORRECT, **options)
        assert expected != metrics.ece(CONFIDENCE, CORRECT)
        assert load("ece").compute(**answers, **options) == {"ece": expected}


def test_the_configuration_gives_the_direction_of_the_score(load):
    answers = {"predictions": CONFIDENCE, "references": CORRECT}
    area = metrics.auroc(CORRECT, confidence=CONFIDENCE)
    by_confidence = load("auroc_hallucination", "confidence").compute(**answers)
    by_uncertainty = load("auroc_hallucination", "uncertainty").compute(**answers)
    assert area != 0.5
    assert by_confidence == {"auroc_hallucination": area}
    assert by_uncertainty["auroc_hallucination"] == pytest.approx(1 - area)
    with pytest.raises(ValueError, match="confidence or uncertainty, got 'entropy'"):
        load("auroc_hallucination", "entropy")


def test_pass_at_k_counts_the_questions_that_have_k_attempts(load):
    counts = {"predictions": [0, 1, 2], "references": [4, 4, 2]}
    result = load("pass_at_k").compute(**counts, k=[1, 4, 8])
    assert result.pop("pass@8") != result.get("pass@8")  # NaN
    assert result == {
        "pass@1": pytest.approx((0 + 0.25 + 1) / 3),
        "pass@1_questions": 3,
        "pass@4": 0.5,
        "pass@4_questions": 2,
        "pass@8_questions": 0,
    }
    assert set(load("pass_at_k").compute(**counts)) == {"pass@1", "pass@1_questions"}


def test_batches_and_single_rows_add_up(load):
    ece = load("ece")
    ece.add_batch(predictions=np.array(CONFIDENCE[:3]), references=np.array(CORRECT[:3], bool))
    ece.add_batch(predictions=CONFIDENCE[3:5], references=CORRECT[3:5])
    for confidence, correct in zip(CONFIDENCE[5:], CORRECT[5:], strict=True):
        ece.add(prediction=confidence, reference=correct)
    assert ece.compute() == {"ece": metrics.ece(CONFIDENCE, CORRECT)}


def test_they_combine(evaluate, load):
    expected = {
        "ece": metrics.ece(CONFIDENCE, CORRECT),
        "brier": metrics.brier(CONFIDENCE, CORRECT),
        "auroc_hallucination": metrics.auroc(CORRECT, confidence=CONFIDENCE),
    }
    combined = evaluate.combine([load(name) for name in expected])
    assert combined.compute(predictions=CONFIDENCE, references=CORRECT) == expected
    combined.add_batch(predictions=CONFIDENCE, references=CORRECT)
    assert combined.compute() == expected
    paths = {name: lm_eval_ext.evaluate_module(name) for name in ("ece", "brier")}
    prefixed = evaluate.combine(paths, force_prefix=True)
    assert prefixed.compute(predictions=CONFIDENCE, references=CORRECT) == {
        f"{name}_{name}": expected[name] for name in paths
    }


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("ece", [0.5, 1.5], [1, 0], r"confidence must be probabilities in \[0, 1\]"),
        ("brier", [0.5, 0.5], [1, 0.7], "correct must hold only 0 and 1"),
        ("auroc_hallucination", [0.5, float("nan")], [1, 0], "confidence has 1 NaN of 2"),
        ("pass_at_k", [3], [2], "n_correct must not exceed n_attempts"),
        ("pass_at_k", [0.5], [2], "n_correct must be whole numbers"),
    ],
)
def test_bad_input_is_named_and_leaves_the_module_usable(
    load, name, predictions, references, message
):
    module = load(name)
    with pytest.raises(ValueError, match=message):
        module.compute(predictions=predictions, references=references)
    assert module.compute(predictions=[1, 0], references=[1, 0])


def test_they_load_without_a_network(tmp_path):
    """With empty caches, in a process where every connection fails."""
    code = f"""
import socket
def refuse(*arguments): raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate, lm_eval_ext
for name in {NAMES}:
    module = evaluate.load(lm_eval_ext.evaluate_module(name))
    print(module.name, len(module.compute(predictions=[1, 0], references=[1, 1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*(f"{name} 1" for name in NAMES[:-1]), "pass_at_k 2"]


def test_asking_for_a_path_imports_nothing_heavy():
    code = """
import sys, lm_eval_ext
lm_eval_ext.evaluate_module("ece")
print([name for name in ("evaluate", "datasets", "numpy", "lm_eval") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr

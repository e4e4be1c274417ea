"""``lm-eval-ext train temperature``: fit the temperature of a confidence on training problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lm_eval_ext.methods.self_evaluation.confidence import FILE_NAME
from lm_eval_ext.metrics import apply_temperature, ece, fit_temperature, nll
from lm_eval_ext.training.tuning.options import TemperatureOptions
from lm_eval_ext.training.tuning.tuning_run import TuningRun, probabilities, read_tuning_run


def run(options: TemperatureOptions) -> int:
    """Fit, print and write the temperature."""
    found = temperature_record(read_tuning_run(options.run, options.tasks), options.source)
    output = options.output or options.run / FILE_NAME
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    before, after = found["untuned"], found["tuned"]
    print(
        f"temperature {found['temperature']:.4g} from {found['n_attempts']} attempts at "
        f"{found['n_questions']} questions: NLL {before['nll']:.4f} -> {after['nll']:.4f}, "
        f"ECE {before['ece']:.4f} -> {after['ece']:.4f}"
    )
    for note in notes(found):
        print(f"note: {note}")
    print(f"use: --model_args ...,calibration_temperature={output}")
    return 0


def temperature_record(tuning: TuningRun, source: str) -> dict[str, Any]:
    """Fit the temperature and describe where it comes from.

    Parameters
    ----------
    source
        Name of the probability; that of the self-evaluation is taken as it was before any
        temperature.

    Returns
    -------
    dict
        ``temperature``, and for the reader: the source, tasks and counts, NLL and ECE on these
        same attempts before and after, and the model.
    """
    questions = tuning.all_questions
    confidence = np.array(
        [p for question in questions for p in probabilities(question, source, untuned=True)]
    )
    correct = np.array([attempt["correct"] for question in questions for attempt in question])
    temperature = fit_temperature(confidence, correct)
    results = tuning.files.results
    return {
        "temperature": temperature,
        "source": source,
        "tasks": list(tuning.questions),
        "n_questions": len(questions),
        "n_attempts": len(confidence),
        "untuned": _quality(confidence, correct),
        "tuned": _quality(apply_temperature(confidence, temperature), correct),
        "model": results.get("model_name"),
        "self_evaluation": results.get("config", {}).get("lm_eval_ext", {}).get("self_evaluation"),
    }


def notes(record: Mapping[str, Any]) -> list[str]:
    """Return what to know before using the temperature of a record."""
    before, after = record["untuned"]["ece"], record["tuned"]["ece"]
    if after <= before:
        return []
    return [
        f"ECE got worse, {before:.4f} -> {after:.4f}, though the NLL is lower: one temperature "
        "does not calibrate this confidence, lm-eval-ext train calibrator may"
    ]


def _quality(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    return {"nll": float(nll(confidence, correct)), "ece": float(ece(confidence, correct))}

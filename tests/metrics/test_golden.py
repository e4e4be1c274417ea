"""Small worked examples of every public function, kept in golden/*.json.

Each example has the function's name, its arguments by name, and the expected result; `note` says
how to check it by hand. null stands for NaN, and ``{"$metric": name, "options": {...}}`` for a
metric with fixed options. Examples that draw random numbers state a tolerance, because NumPy may
change its streams; all others hold to 1e-12.
"""

import inspect
import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lm_eval_ext import metrics

FOLDER = Path(__file__).parent / "golden"
EXAMPLES = [
    pytest.param(example, id=f"{path.stem}-{i}-{example['function']}")
    for path in sorted(FOLDER.glob("*.json"))
    for i, example in enumerate(json.loads(path.read_text(encoding="utf-8")))
]


def decode(value):
    """Turn a JSON argument into what the function takes."""
    if isinstance(value, dict) and "$metric" in value:
        return partial(getattr(metrics, value["$metric"]), **decode(value.get("options", {})))
    if isinstance(value, dict) and "$fit" in value:
        return metrics.AffineFit(*value["$fit"])
    if isinstance(value, dict):
        return {name: decode(entry) for name, entry in value.items()}
    return value


def encode(result):
    """Turn a result into plain numbers, strings and lists."""
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        return {name: encode(entry) for name, entry in result._asdict().items()}
    if isinstance(result, np.ndarray):
        return [encode(entry) for entry in result]
    return result.item() if isinstance(result, np.generic) else result


def agrees(actual, expected, tolerance):
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(
            agrees(actual[name], expected[name], tolerance) for name in expected
        )
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(
            agrees(a, e, tolerance) for a, e in zip(actual, expected, strict=True)
        )
    if expected is None:
        return np.isnan(actual)
    if isinstance(expected, float):
        return actual == pytest.approx(expected, abs=tolerance, rel=tolerance)
    return actual == expected and type(actual) is type(expected)


@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_example(example):
    function = getattr(metrics, example["function"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        result = encode(function(**decode(example["arguments"])))
    assert agrees(result, example["expected"], example.get("tolerance", 1e-12)), result


def test_every_public_function_has_a_worked_example():
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions - {example.values[0]["function"] for example in EXAMPLES} == set()

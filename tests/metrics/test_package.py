"""The package as a whole: doctests, imports and documentation."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lm_eval_ext import metrics

MODULES = [info.name for info in pkgutil.iter_modules(metrics.__path__)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    module = importlib.import_module(f"{metrics.__name__}.{name}")
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_import_is_light():
    heavy = ("torch", "lm_eval", "transformers", "scipy", "sklearn", "pandas")
    code = "import sys, time; start = time.process_time(); import lm_eval_ext.metrics;"
    code += f"print(time.process_time() - start, [m for m in {heavy} if m in sys.modules])"
    seconds = []
    for _ in range(3):  # the first may find no compiled files
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        of_cpu, _, found = done.stdout.strip().partition(" ")
        assert found == "[]", done.stderr
        seconds.append(float(of_cpu))
    assert min(seconds) < 0.25


def test_public_names_are_sorted_and_documented_in_full():
    assert metrics.__all__ == sorted(metrics.__all__)
    for name in metrics.__all__:
        thing = getattr(metrics, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert ">>>" in thing.__doc__, f"{name} has no example"
            assert inspect.signature(thing).return_annotation is not inspect.Signature.empty


@pytest.fixture(scope="module")
def document():
    if not DOCUMENT.exists():
        pytest.skip("the documentation is not part of an installed package")
    return DOCUMENT.read_text(encoding="utf-8")


def test_every_public_function_is_in_the_document(document):
    mentioned = set(re.findall(r"`(\w+)`", document))
    functions = {n for n in metrics.__all__ if inspect.isfunction(getattr(metrics, n))}
    assert functions - mentioned == set()


def test_examples_in_the_document_run(document):
    blocks = re.findall(r"^ *```python\n(.*?)```", document, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    names = {}
    for block in blocks:
        exec(textwrap.dedent(block), names)

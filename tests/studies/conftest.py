"""The studies' scripts, imported as they import each other: from their own folder."""

import importlib
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture
def study_module(monkeypatch):
    """Return a function that imports a module of ``studies/`` by name."""
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a script may set its own
    return importlib.import_module

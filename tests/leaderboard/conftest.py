"""Made-up runs in lm_eval's form, from the generator of the benchmarks."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def synthetic():
    """Return the module benchmarks/synthetic_runs.py."""
    path = ROOT / "benchmarks" / "synthetic_runs.py"
    spec = importlib.util.spec_from_file_location("synthetic_runs_of_tests", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made_up_runs(synthetic, tmp_path_factory):
    """Return folders of three runs, 40 questions x 4 attempts, the first ones the better; do not
    write there."""
    folder = tmp_path_factory.mktemp("runs")
    skills = {"able": 1.0, "average": 0.0, "weak": -2.0}
    return {
        label: synthetic.write_run(folder, synthetic.RunPlan(label, 40, 4, skill, seed=i))
        for i, (label, skill) in enumerate(skills.items())
    }


@pytest.fixture
def new_run(synthetic, tmp_path):
    """Return a function that writes one run of its own."""

    def write(label="new", **plan):
        settings = {"n_questions": 20, "n_attempts": 2, **plan}
        return synthetic.write_run(tmp_path / "new_runs", synthetic.RunPlan(label, **settings))

    return write


@pytest.fixture
def edited():
    """Return a function that changes the results file of a run."""

    def edit(folder, change):
        (path,) = folder.rglob("results_*.json")
        results = json.loads(path.read_text())
        change(results)
        path.write_text(json.dumps(results))
        return folder

    return edit

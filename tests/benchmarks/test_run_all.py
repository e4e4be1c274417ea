"""The runner of the benchmarks, on small scripts."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_all():
    spec = importlib.util.spec_from_file_location("run_all", ROOT / "benchmarks" / "run_all.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    scripts = {
        "fast": "import sys\nprint(sys.argv[1:], sys.executable)\n"
        "print('ratio: 1.0 (first)')\nprint('ratio: 12.3 (ours / peer, n = 5)')",
        "broken": "raise ValueError('no')",
        "lacking": "print('skipped: no tool'); raise SystemExit(77)",
        "silent": "print('done')",
        "slow": "import time; print('began', flush=True); time.sleep(60)",
        "synthetic_runs": "raise ValueError('a helper')",
    }
    for name, source in scripts.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def test_every_outcome_is_in_the_table_and_failures_stop_nothing(run_all, folder, capsys):
    assert run_all.main(["--folder", str(folder), "--timeout", "3"]) == 1
    text = (folder / "results.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (.*?) \| (.*?) \| \d+ \| (.*?) \|$", text, re.M)
    assert rows == [
        ("broken", "-", "-", "failed (1)"),
        ("fast", "12.3", "ours / peer, n = 5", "ok"),
        ("lacking", "-", "-", "skipped"),
        ("silent", "-", "-", "no ratio"),
        ("slow", "-", "-", "timeout"),
    ]
    assert "['--quick']" in text
    assert "began" in text
    assert "ValueError: no" in text
    assert str(folder) not in text
    assert sys.executable not in text
    assert "2 of 5 without a failure" in capsys.readouterr().out


LATE = """
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({pids!r}).write_text(str(child.pid))
signal.signal(signal.SIGTERM, {handler})
time.sleep(60)
"""


@pytest.mark.parametrize("cleans_up", [True, False])
def test_late_benchmarks_are_asked_first_and_killed_then(run_all, tmp_path, monkeypatch, cleans_up):
    monkeypatch.setattr(run_all.end_group, "__defaults__", (1.0,))
    pids = tmp_path / "pids"
    handler = "lambda *_: sys.exit(print('cleaned up'))" if cleans_up else "signal.SIG_IGN"
    (tmp_path / "late.py").write_text(LATE.format(pids=str(pids), handler=handler))
    outcome = run_all.run_benchmark(tmp_path / "late.py", [], timeout=5 if cleans_up else 3)
    assert outcome.status == "timeout"
    assert ("cleaned up" in outcome.output) == cleans_up
    stat = Path(f"/proc/{pids.read_text()}/stat")
    # Dead, or a zombie that nobody has waited for.
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_selection_and_other_output(run_all, folder, tmp_path):
    output = tmp_path / "chosen.md"
    words = ["--folder", str(folder), "--only", "fast", "--full", "--output", str(output)]
    assert run_all.main(words) == 0
    assert not (folder / "results.md").exists()
    assert "`python benchmarks/run_all.py --full --only fast`" in output.read_text()
    assert "\n[] " in output.read_text()


def test_unknown_name(run_all, folder, capsys):
    assert run_all.main(["--folder", str(folder), "--only", "nothing"]) == 2
    assert "choose from broken, fast" in capsys.readouterr().err


def test_machine_is_described_without_its_name(run_all):
    import platform

    described = run_all.machine_class()
    assert re.match(r"\d+ cores of ", described)
    assert platform.node() not in described


def test_every_benchmark_takes_quick_and_prints_a_ratio(run_all):
    found = run_all.benchmarks(ROOT / "benchmarks")
    assert len(found) > 10
    for path in found:
        source = path.read_text()
        assert '"--quick"' in source, path.name
        assert re.search(r'f?"ratio: ', source), path.name
    for helper in run_all.HELPERS:
        assert (ROOT / "benchmarks" / f"{helper}.py").is_file(), helper

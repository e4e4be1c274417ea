"""The recipe as a script, from any folder."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "recipes" / "tiny" / "train.py"


def run(*words, cwd):
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_script_trains_and_exports(tmp_path):
    done = run("--output", "run", "--tokens", "2000", "--batch-tokens", "1024", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "export" / "config.json").is_file()
    assert "exported" in done.stdout


def test_bad_options_are_one_line(tmp_path):
    done = run("--output", "run", "--reading-cost", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "reading_cost=1.0 belongs to the recipe sink" in done.stderr

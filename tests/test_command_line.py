"""The ``lm-eval-ext`` command: its table, its exit statuses, and what it imports."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_ext.__main__ import BROKEN_PIPE, COMMANDS, INTERRUPTED, Command, find_command, main

MODULE = "command_for_this_test"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Return a function that makes ``lm-eval-ext probe [--number N]`` do what it is given."""

    def install(act: Callable[[], int]) -> None:
        module = types.ModuleType(MODULE)
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int)
        module.run = lambda args: act()
        monkeypatch.setitem(sys.modules, MODULE, module)
        monkeypatch.setitem(COMMANDS, "probe", Command(MODULE, "stand in for a command"))
        monkeypatch.delenv("LM_EVAL_EXT_DEBUG", raising=False)

    return install


def raiser(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


def test_the_commands_status_is_the_programs(command) -> None:
    command(lambda: 7)
    assert main(["probe"]) == 7


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("length=-1 must be at least 0: pass 0 to switch it off"), None),
        (FileNotFoundError(2, "No such file or directory", "run.json"), "run.json"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("No module named 'trl.x'", name="trl.x"), "pip install trl"),
    ],
)
def test_an_error_of_the_users_is_one_line(command, capsys, error, line) -> None:
    command(raiser(error))
    assert main(["probe"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lm-eval-ext: error: ")
    assert err.count("\n") == 1
    assert (line or str(error)) in err


def test_debug_shows_the_traceback(command, monkeypatch) -> None:
    command(raiser(ValueError("wrong")))
    with pytest.raises(ValueError, match="wrong"):
        main(["--debug", "probe"])
    monkeypatch.setenv("LM_EVAL_EXT_DEBUG", "1")
    with pytest.raises(ValueError, match="wrong"):
        main(["probe"])


@pytest.mark.parametrize(
    "error", [KeyError("x"), ModuleNotFoundError("gone", name="lm_eval_ext.gone")]
)
def test_a_defect_of_ours_is_not_dressed_up_as_the_users(command, error) -> None:
    command(raiser(error))
    with pytest.raises(type(error)):
        main(["probe"])


def test_interruption(command, capsys) -> None:
    command(raiser(KeyboardInterrupt()))
    assert main(["probe"]) == INTERRUPTED
    assert capsys.readouterr().err == "lm-eval-ext: interrupted\n"


def test_options_reach_the_command(command, capsys) -> None:
    command(lambda: 0)
    with pytest.raises(SystemExit) as stop:
        main(["probe", "--number", "seven"])
    assert stop.value.code == 2
    assert "lm-eval-ext probe: error: argument --number" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["nope"], ["train"], ["train", "nope"], []])
def test_an_unknown_command_exits_with_2(capsys, words) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "train epicar" in shown.out + shown.err


def test_a_group_lists_its_commands(capsys) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "train epicar" in out
    assert "doctor" not in out


def test_the_longest_name_wins(monkeypatch) -> None:
    monkeypatch.setitem(COMMANDS, "prune", Command("a", "short"))
    monkeypatch.setitem(COMMANDS, "prune analyse", Command("b", "long"))
    assert find_command(["prune", "analyse", "--x"]) == ("prune analyse", COMMANDS["prune analyse"])
    assert find_command(["prune", "--ratio"]) == ("prune", COMMANDS["prune"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys) -> None:
    module = importlib.import_module(COMMANDS[name].module)
    module.add_arguments(argparse.ArgumentParser())
    assert callable(module.run)
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"lm-eval-ext {name}" in capsys.readouterr().out


def test_path_prints_a_folder_with_the_model(capsys) -> None:
    assert main(["path", "tiny"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "config.json").is_file()
    assert main(["path", "huge"]) == 2
    assert "name='huge'" in capsys.readouterr().err


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys; from lm_eval_ext.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'numpy', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_reader_that_left_is_no_error() -> None:
    """As in ``lm-eval-ext path tiny | true``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lm_eval_ext", "path", "tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == BROKEN_PIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""

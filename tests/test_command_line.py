"""The ``lm-eval-ext`` command: its table, its exit statuses, and what it imports."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lm_eval_ext.__main__ import BROKEN_PIPE, COMMANDS, INTERRUPTED, Command, main
from lm_eval_ext.checks import option

MODULE = "command_for_this_test"
DESCRIBED = [name for name, command in COMMANDS.items() if isinstance(command, Command)]


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Stand in for a command."""

    number: int | None = option("a number")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Return a function that makes ``lm-eval-ext probe [--number N]`` do what it is given."""

    def install(act: Callable[[], int]) -> None:
        module = types.ModuleType(f"lm_eval_ext.{MODULE}")
        module.ProbeOptions = ProbeOptions
        module.run = lambda options: act()
        monkeypatch.setitem(sys.modules, f"lm_eval_ext.{MODULE}", module)
        monkeypatch.setitem(COMMANDS, "probe", Command(MODULE, f"{MODULE}:ProbeOptions"))
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
    assert main(["probe", "--number", "seven"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "lm-eval-ext probe: error: Invalid value for '--number': 'seven' is not a valid integer.\n"
    )


@pytest.mark.parametrize("words", [["xyz"], ["train"], ["train", "xyz"], []])
def test_an_unknown_command_exits_with_2(capsys, words) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "train epicar" in shown.out + shown.err


def test_a_group_lists_its_commands(capsys) -> None:
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "train epicar" in out
    assert "doctor" not in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [("docter", "doctor"), ("leaderbord", "leaderboard"), ("train epicarr", "epicar")],
)
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(capsys, words, meant) -> None:
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.endswith(f"error: no command {words!r}: did you mean {meant}?\n")


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_command_has_help_with_an_example(name: str, capsys) -> None:
    assert importlib.util.find_spec(f"lm_eval_ext.{COMMANDS[name].module}")
    assert main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: lm-eval-ext {name}")
    assert out.partition("Example:\n")[2].startswith(f"  lm-eval-ext {name}")


def test_path_prints_a_folder_with_the_model(capsys) -> None:
    assert main(["path", "tiny"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "config.json").is_file()
    assert main(["path", "huge"]) == 2
    assert "name='huge'" in capsys.readouterr().err


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys; from lm_eval_ext.__main__ import main\n"
        f"for name in {DESCRIBED}: assert main([*name.split(), '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'numpy', 'scipy', 'pandas', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
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


def test_shells_complete_commands_and_options(monkeypatch, capsysbinary) -> None:
    monkeypatch.setenv("_LM_EVAL_EXT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_CWORD", "3")
    for line, completed in (
        ("lm-eval-ext leaderboard compare --plo", b"plain,--plot\n"),
        ("lm-eval-ext store verify --he", b"plain,--help\n"),
    ):
        monkeypatch.setenv("COMP_WORDS", line)
        assert main([]) == 0
        assert capsysbinary.readouterr().out == completed

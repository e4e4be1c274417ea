"""A command line from a dataclass: kinds of options, help, old spellings and errors."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal

import click
import pytest

from lm_eval_ext.checks import option, required
from lm_eval_ext.commands.options import OLD_SPELLINGS, DataclassCommand, parse
from lm_eval_ext.errors import UserError


@dataclass(frozen=True)
class Rates:
    """Rates of learning."""

    first: float = option("rate at the beginning", 0.1)
    last: float = option("rate at the end", 0.0)

    def __post_init__(self) -> None:
        if self.first < self.last:
            raise UserError(f"first={self.first} must be at least last")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What several commands take."""

    results: Path = option("folder of results", Path("stored"))


@dataclass(frozen=True)
class Everything(Shared):
    """Do everything. Or nothing.

    More about it.

    Example: lm-eval-ext everything a --kind large --names one,two --results somewhere/else
    --sizes 1,2,3
    """

    files: tuple[Path, ...] = required("files to read, one or several")
    _: KW_ONLY
    kind: Literal["small", "large"] = required("which")
    names: tuple[str, ...] | None = option("of tasks")
    sizes: tuple[int, ...] = option("k of something", (1, 2))
    stop: tuple[str, ...] | None = option("ends an attempt", repeat=True)
    shuffle: bool = option("in any order", True)
    merge: bool = option("into one", False)
    seconds: float | None = option("how long; without a number a minute", bare=60.0)
    from_: int | None = option("where it begins")
    rates: Rates = field(default_factory=Rates, metadata={"prefix": "rate"})


NEEDED = ("a", "--kind", "small")


def test_what_is_not_given_is_the_default() -> None:
    assert parse(Everything, NEEDED) == Everything((Path("a"),), kind="small")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["b", "c"], "files", (Path("a"), Path("b"), Path("c"))),
        (["--names", "x, y,"], "names", ("x", "y")),
        (["--sizes", "4"], "sizes", (4,)),
        (["--stop", "a,b", "--stop", "--x_y"], "stop", ("a,b", "--x_y")),
        (["--no-shuffle"], "shuffle", False),
        (["--merge"], "merge", True),
        (["--seconds"], "seconds", 60.0),
        (["--seconds", "5"], "seconds", 5.0),
        (["--from", "3"], "from_", 3),
        (["--results=r"], "results", Path("r")),
        (["--rate-first", "0.5"], "rates", Rates(0.5)),
    ],
)
def test_a_word_reaches_its_field(words, name, value) -> None:
    assert getattr(parse(Everything, [*NEEDED, *words]), name) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument 'FILES...'"),
        (("a",), "Missing option '--kind'"),
        ((*NEEDED, "--kind", "huge"), "'huge' is not one of 'small', 'large'"),
        ((*NEEDED, "--sizes", "1,x"), "'--sizes': 'x' is not a valid integer"),
        ((*NEEDED, "--names", ","), "'--names': name at least one"),
        ((*NEEDED, "--shufle"), "No such option '--shufle'"),
    ],
)
def test_wrong_words_are_named(words, said) -> None:
    with pytest.raises(click.UsageError) as error:
        parse(Everything, words)
    assert said in error.value.format_message()


def test_what_a_dataclass_refuses_is_called_as_on_the_command_line() -> None:
    with pytest.raises(UserError, match=r"^--rate-first=-1.0 must be at least last$"):
        parse(Everything, [*NEEDED, "--rate-first", "-1"])


def test_an_old_spelling_is_understood_with_a_warning(capsys) -> None:
    assert OLD_SPELLINGS["--store"] == "--results"
    assert parse(Everything, [*NEEDED, "--store=here", "--no_shuffle"]).results == Path("here")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("--store is called --results now")
    assert second.startswith("--no_shuffle is called --no-shuffle now")


@dataclass(frozen=True, kw_only=True)
class Storing:
    """Store."""

    store: Path | None = option("attempts")


def test_a_name_in_use_is_no_old_spelling(capsys) -> None:
    assert parse(Storing, ["--store", "x"]).store == Path("x")
    assert capsys.readouterr().err == ""
    with pytest.raises(click.UsageError):
        parse(Storing, ["--task", "x"])


def test_help_is_what_the_dataclass_says() -> None:
    shown = DataclassCommand("everything", Everything, lambda options: 0)
    text = shown.get_help(click.Context(shown, info_name="everything", terminal_width=80))
    assert "Do everything. Or nothing.\n\n  More about it.\n" in text
    assert "Arguments:\n  FILES...  files to read, one or several\n" in text
    assert " --sizes INTEGER,... k of something [default: 1, 2] " in " ".join(text.split())
    assert " --kind [small|large] which [required] " in " ".join(text.split())
    assert "--from INTEGER" in text
    assert "Rates of learning:\n  --rate-first FLOAT  rate at the beginning  [default: 0.1]" in text
    example = text.partition("Example:\n")[2]
    assert example.startswith("  lm-eval-ext everything a --kind large --names one,two --results")
    assert "\n" not in example
    assert shown.short_help == "Do everything. Or nothing"

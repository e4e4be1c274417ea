"""Python is told from prose without ever taking a line of a program for prose."""

from __future__ import annotations

import sysconfig
import time
import warnings
from pathlib import Path

import pytest

from lm_eval_ext.grading.code_extraction import extract_code
from lm_eval_ext.grading.code_lines import blanked, is_prose, runs


def test_no_module_of_the_standard_library_is_taken_apart() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    seen = 0
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(text, file.name, "exec")
        except (SyntaxError, ValueError):
            continue
        if text.strip():
            seen += 1
            assert runs(text) == [text], file
    assert seen > 100


@pytest.mark.parametrize(
    "line",
    [
        "Here is the function.",
        "It's done",
        "Sure!",
        "Explanation:",
        "Example usage:",
        "1. First do this",
        "1) First",
        "- it calls f for each",
        "* one",
        "**Note**",
        "Step 1: add",
        "f(3) -> 4",
        ">>> f(3)",
        "| a | b |",
        "The result is f(3)?",
        "Use `f` for it",
        "import the module first",
        "from the text above",
        "def is a keyword",
        "class of functions",
        "if you want to call it",
        "它返回一。",
        "Done…",
    ],
)
def test_prose(line: str) -> None:
    assert is_prose(blanked(line).text.strip())


@pytest.mark.parametrize(
    "line",
    [
        "f(3)",
        "x = 3",
        "x = 3 4",
        "print f(3)",
        "return x y",
        "x if y else z",
        "not x in y",
        "for x in y:",
        "match x:",
        "case [a, b]:",
        "type X = int",
        "async def f(x): return x",
        "else:",
        "@cached",
        "a, *b = c",
        "*a, b = c",
        "...",
        "5.",
        "x != y",
        "'two words'",
        "f'a b' f'c d'",
        "x  # two words",
        "lambda: 0",
        "import a.b as c, d",
        "from . import x",
        "from a import (",
        "def f(x) -> int:",
        "~x",
        "-x",
        "名 = 3",
    ],
)
def test_no_prose(line: str) -> None:
    assert not is_prose(blanked(line).text.strip())


def test_strings_and_comments_are_blanked() -> None:
    assert blanked("f('a', \"it's\") # don't").text == "f(''', '''''')        "
    text = "x = '''a\nb''' + y"
    assert len(blanked(text).text) == len(text)
    assert "\n" not in blanked(text).text
    assert blanked(text).open_string is None
    assert blanked('x = """a\nb').open_string == (4, '"""')
    assert blanked('x = """a\\"""b"""').open_string is None


@pytest.mark.parametrize(
    "text",
    [
        "word " * 40_000,
        "two words\n" * 20_000,
        "def f(x):\n    return x\nsome prose here\n" * 5000,
        "```python\ndef f(x):\n    return g(x)\n```\n" * 5000,
        '```python\n"""\n' * 14_000,
        '```\n"""\n```\n' * 16_000,
        "~~~\n```\n" * 25_000,
        "````markdown\n" * 15_000,
        "".join("`" * (3 + count) + "\n" for count in range(600, 0, -1)),
        '"""' + '\\"""' * 50_000,
        '\\"""' * 50_000,
        "'" * 200_000,
        "(" * 200_000,
        "<code>" * 30_000,
        "x</code>\n" * 20_000,
        "<" * 200_000,
        "<a " * 60_000,
        "def f(\n" * 30_000,
        "def f(" + "a," * 100_000,
        "import " + "a," * 100_000,
        "a," * 100_000 + "=1",
        "a[b].c, " * 25_000,
        "lambda " * 30_000,
        "for " * 50_000,
        " \ufeff\n" * 60_000,
        "@a\n" * 60_000,
        "[DONE]" * 30_000,
        "```\n[DONE]\n```\n" * 12_000,
        "\n".join(f"```python\ndef g{n}(x): return g{n + 1}(x)\n```" for n in range(4000))
        + "\n```python\ndef f(x): return g0(x)\n```",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    extract_code(text, ["f"])
    assert time.process_time() - started < 5

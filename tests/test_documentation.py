"""The documentation holds: links lead somewhere, commands exist, examples give what they print."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import lm_eval_ext
from lm_eval_ext.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        *(f"{folder}/**/*.md" for folder in ("docs", "leaderboards", "lm_eval_ext", "studies")),
        "tasks/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
MODULES = sorted(
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for folder, package in (
        ("lm_eval_ext", "lm_eval_ext"),
        ("model_wrappers", "lm_eval_ext.model_wrappers"),
    )
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def without_code(text: str) -> str:
    """Return a page without its code blocks and code spans."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_documentation() -> None:
    assert {"README.md", "CONTRIBUTING.md"} <= {page.name for page in PAGES}
    assert MODULES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = without_code(page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue  # another site: not checked, tests work offline
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


def command_of(words: str) -> str:
    """Return the name of the command that a line begins with; empty without one."""
    return max((name for name in COMMANDS if f"{words} ".startswith(f"{name} ")), default="")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    for target in re.findall(
        r"(?:^ *|`|\$ )make ([a-z][a-z-]*)(?= |`|$)", text, flags=re.MULTILINE
    ):
        assert target in targets, f"make {target}"
    for words in re.findall(
        r"(?:^ *|`|\$ |\()lm-eval-ext ((?:[a-z][a-z-]* ?)+)", text, flags=re.MULTILINE
    ):
        is_group = any(name.startswith(f"{words.strip()} ") for name in COMMANDS)
        assert command_of(words) or is_group, f"lm-eval-ext {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_of_a_table_have_equally_many_cells(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        title, *rows = table.splitlines()
        n_bars = len(re.findall(r"(?<!\\)\|", title))
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) == n_bars, row


@cache
def help_of(command: str) -> str:
    """Return what a command prints for ``--help``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(
        r"(?:^ *|`|-m )lm[-_]eval[-_]ext ([a-z][^`\n#]*)", lines, flags=re.MULTILINE
    ):
        command = command_of(line)
        for option in re.findall(r"(?<=\s)--[a-z][\w-]*", line) if command else ():
            known = re.search(rf"{option}(?![\w-])", help_of(command))
            assert known, f"lm-eval-ext {command} {option}"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_the_readme_names_every_method_and_the_version() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    methods = re.findall(r'^([\w-]+) = "lm_eval_ext\.model_wrappers\.', declared, re.MULTILINE)
    assert methods
    assert [method for method in methods if not re.search(rf"\| .*`{method}`", readme)] == []
    assert f"version = {{{lm_eval_ext.__version__}}}" in readme


def test_the_readme_shows_what_its_run_prints(tmp_path: Path, monkeypatch) -> None:
    """The run under "One run" prints the rows shown there; the example reads its samples."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## One run\n")[1].split("\n## ")[0]
    command = re.search(r"^    (lm_eval .*?[^\\])$", section, re.MULTILINE | re.DOTALL)
    rows = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert command
    assert rows
    program, *arguments = shlex.split(command[1].replace("\\\n", " "))
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = done.stdout.splitlines()
    assert [row for row in rows[1].splitlines() if row not in printed] == []
    n_shown = sum(line.startswith("|") for line in printed) - 2  # the title and its rule
    [n_left] = re.findall(r"^(\d+) more rows", done.stdout, re.MULTILINE)
    assert f"the results file has all {n_shown + int(n_left)}" in section
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    example = doctest.DocTestParser().get_doctest(block, {}, "README.md", None, None)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    """By module name: the same file imported by path would be a second module."""
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert attempted > 0
    assert failed == 0

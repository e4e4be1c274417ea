"""Find the program in a completion.

The rule, in this order, on what follows the thinking section:

1. The text ends at the first ``[DONE]`` outside a closed fence and begins after the last
   ``[BEGIN]`` before it, where there are such marks: the few-shot format of MBPP.
2. Fenced blocks (`lm_eval_ext.grading.code_fences`). Blocks marked as another language than Python
   are passed over. The last block that defines every name the tests use is taken; else the last
   that defines one of them; else the last block. A fence that is never closed, as in a completion
   cut off, runs to the end.
3. What is outside fences, where there are none, or no block defines a name that the tests use and
   this does: as when the opening fence is part of the prompt. It counts if a line of it looks like
   a statement that makes a function, a class, a name or an import.

Prose and tags around the code, in a block or outside, are left out, and code that is indented as a
whole is moved to the left (`lm_eval_ext.grading.code_lines`).

A model may give a helper in one block and the solution in the next. The program then comes with the
definitions from elsewhere that it uses and does not make itself: functions, classes, imports and
values at the top level, and whatever these use in turn. Calls, tests and other versions of what it
defines are left out.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lm_eval_ext.grading.code_fences import blocks
from lm_eval_ext.grading.code_lines import STATEMENT, blanked, runs
from lm_eval_ext.models.thoughts import after_thinking

_PYTHON = {"", "python", "python3", "py", "python-code"}
_BYTE_ORDER_MARK = re.compile("^[ \t]*\ufeff+", re.MULTILINE)
_QUOTED = re.compile(r"^[ \t]*> ?", re.MULTILINE)
_USED = re.compile(r"(?<![\w.])([^\W\d]\w*)(?!\w)(?!\s*=(?!=))")
_WORD = re.compile(r"[^\W\d]\w*")
_MADE = re.compile(r"(?:(?:async\s+)?def|class)\s+(\w+)|(\w+)\s*(?::[^=\n]+)?=(?!=)")
_IMPORTED = re.compile(r"(?:from\s+[\w.]+\s+)?import\b(?P<names>[^;]*)")
_BOUND = re.compile(
    r"\b(?:def|class)[ \t]+(?P<made>\w+)"
    r"|\bfor\b(?P<each>[^:\n]*?)\bin\b"
    r"|\blambda\b(?P<given>[^:\n]*):"
    r"|\b(?:as|global|nonlocal)[ \t]+(?P<named>\w+)"
    r"|\bimport\b(?P<imported>[^;\n]*)"
    r"|(?P<walrus>\w+)[ \t]*:="
    r"|^[ \t]*(?P<assigned>[\w \t,()*.\[\]]+?)(?::[^=\n]*)?(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)",
    re.MULTILINE,
)
_PARAMETERS = re.compile(r"\bdef[ \t]+\w+[ \t]*\(")
_IN_PARAMETERS = re.compile(r"[^\W\d]\w*|[()\[\]{},]")
_KNOWN = set(keyword.kwlist) | set(dir(builtins))
_CONTINUED = ("else", "elif", "except", "finally", ")", "]", "}")


def extract_code(completion: str, names: Sequence[str] = ()) -> str | None:
    r"""Return the program a completion gives as its answer, or None.

    ``names`` are those that the tests use and the program is to define.

    Examples
    --------
    >>> extract_code("Sure.\n```python\nf = abs\n```\nCall it:\n```python\nf(1)\n```", ["f"])
    'f = abs\n'
    """
    text = _BYTE_ORDER_MARK.sub("", after_thinking(completion))
    text = _until_done(text).rpartition("[BEGIN]")[2]
    fenced = blocks(text)
    inside = [
        run
        for block in fenced
        if block.language in _PYTHON and block.body.strip()
        for run in runs(_unquoted(textwrap.dedent(block.body)))
    ]
    edges = [0, *(edge for block in fenced for edge in (block.start, block.end)), len(text)]
    parts = (text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    outside = [run for part in parts for run in runs(part) if STATEMENT.search(run)]
    program = _best(inside, names)
    if program is None or not _defined(program, names):
        other = _best(outside, names)
        # Where there are no blocks, or none of them defines a name, at any depth, and this does.
        some = "|".join(map(re.escape, names))
        deep = re.compile(rf"\b(?:def|class)\s+(?:{some})\b|\b(?:{some})\s*=[^=]")
        if other is not None and (
            not fenced or (_defined(other, names) and not any(map(deep.search, inside)))
        ):
            program = other
    if program is None:
        return None
    return with_definitions(program, [*outside, *inside], names)


def _until_done(text: str) -> str:
    """Return the text before the first ``[DONE]`` that is not part of a fenced program."""
    marks = list(re.finditer(re.escape("[DONE]"), text))
    closed = [block for block in blocks(text) if block.closed] if marks else []
    for mark in marks:
        while closed and closed[0].end <= mark.start():
            del closed[0]
        if not closed or mark.start() < closed[0].start:
            return text[: mark.start()]
    return text


def _unquoted(body: str) -> str:
    """Return a block without the marks of a quotation, if every line has one."""
    lines = [line for line in body.splitlines() if line.strip()]
    return _QUOTED.sub("", body) if all(map(_QUOTED.match, lines)) else body


def _best(pieces: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the last of the pieces that define the most."""
    return max(reversed(pieces), key=lambda piece: _defined(piece, names), default=None)


def _defined(block: str, names: Sequence[str]) -> int:
    """Return 2 if a block defines all the names, 1 if it defines one, 0 if none."""
    found = [
        re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b", block, re.MULTILINE)
        or re.search(rf"^{re.escape(name)}\s*(?::[^=\n]+)?=[^=]", block, re.MULTILINE)
        for name in names
    ]
    return 2 * all(found) or int(any(found))


class _Definition(NamedTuple):
    """A statement at the top level: its place in the order of all, with strings and without."""

    number: int
    code: str
    bare: str


def with_definitions(program: str, pieces: Sequence[str], names: Sequence[str] = ()) -> str:
    r"""Return a program with the definitions it lacks in front of it.

    ``pieces`` are all of the completion, in order, ``names`` what the program is to define.

    Examples
    --------
    >>> with_definitions("def f(x): return g(x)", ["def g(x): return x\nprint(g(3))\n"])
    'def g(x): return x\ndef f(x): return g(x)'
    """
    bare = blanked(program).text
    lacking = (_used(bare) | set(names)) - _bound(bare)
    if not lacking:
        return program
    at = next((place for place, piece in enumerate(pieces) if piece is program), len(pieces))
    there: dict[str, _Definition] = {}
    number = 0
    for piece in (*pieces[at + 1 :][::-1], *pieces[:at]):  # the nearest one before it wins
        for made, code, plain in _definitions(piece):
            number += 1
            for name in made:
                there[name] = _Definition(number, code, plain)
    taken: dict[int, str] = {}
    while lacking:
        found = there.get(lacking.pop())
        if found is not None and found.number not in taken:
            taken[found.number] = found.code
            lacking |= _used(found.bare) - _bound(found.bare) - set(names)
    return "".join(f"{taken[place].rstrip()}\n" for place in sorted(taken)) + program


def _definitions(piece: str) -> Iterator[tuple[list[str], str, str]]:
    """Yield what each statement at the top level defines, its text, and that without strings."""
    bare = blanked(piece).text
    starts = []
    place = depth = 0
    decorated = False
    for line in bare.split("\n"):
        first = depth == 0 and line[:1].strip() and not line.startswith(_CONTINUED)
        if first and not decorated:
            starts.append(place)
        decorated = line.startswith("@") if first else decorated and not line.strip()
        depth = max(depth + sum(map(line.count, "([{")) - sum(map(line.count, ")]}")), 0)
        place += len(line) + 1
    for start, end in zip(starts, [*starts, len(piece)][1:], strict=True):
        plain = bare[start:end]
        made = _made(re.sub(r"\A(?:@[^\n]*\s+)*", "", plain))
        if made:
            yield made, piece[start:end], plain


def _made(statement: str) -> list[str]:
    imported = _IMPORTED.match(statement)
    if imported:
        parts = [part.split() for part in imported["names"].strip(" ()\n").split(",")]
        return [part[-1].partition(".")[0].strip("()") for part in parts if part]
    made = _MADE.match(statement)
    return [made[1] or made[2]] if made else []


def _used(bare: str) -> set[str]:
    """Return the names that code without strings reads."""
    return set(_USED.findall(bare)) - _KNOWN


def _bound(bare: str) -> set[str]:
    """Return the names that code without strings gives a value, anywhere in it."""
    bound: set[str] = set()
    for match in _BOUND.finditer(bare):
        bound.update(_WORD.findall(match[match.lastgroup or 0]))
    place = 0
    while (opening := _PARAMETERS.search(bare, place)) is not None:
        names, place = _parameters(bare, opening.end())
        bound |= names
    return bound


def _parameters(bare: str, place: int) -> tuple[set[str], int]:
    """Return the names of the parameters that begin at a place, and where they end."""
    names: set[str] = set()
    depth, fresh = 1, True
    for token in _IN_PARAMETERS.finditer(bare, place):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
            if depth == 0:
                return names, token.end()
        elif token[0] == ",":
            fresh = fresh or depth == 1
        elif fresh:
            fresh = False
            names.add(token[0])
    return names, len(bare)

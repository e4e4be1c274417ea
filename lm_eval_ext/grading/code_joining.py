"""Definitions that a program takes from elsewhere in the completion.

A model may give a helper in one block and the solution in the next. The solution is then run with
those definitions that it uses and does not make itself: functions, classes, imports and values at
the top level, and whatever these use in turn. Calls, tests and other versions of what the solution
defines are left out.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lm_eval_ext.grading.code_lines import blanked

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


class _Definition(NamedTuple):
    """A statement at the top level: its place in the order of all, with strings and without."""

    number: int
    code: str
    bare: str


def with_definitions(program: str, pieces: Sequence[str], names: Sequence[str] = ()) -> str:
    r"""Return a program with the definitions it lacks in front of it.

    Parameters
    ----------
    program
        What was chosen of the pieces.
    pieces
        All pieces of code in the completion, in order.
    names
        What the program is to define.

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

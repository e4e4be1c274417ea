"""Which lines of a text are Python, by their form alone.

A text is never parsed: what a model wrote could make the parser take long, or crash it. Lines are
told from prose by what no statement can look like, such as two words side by side. So a text that
is a program as it stands is left as it is.
"""

from __future__ import annotations

import builtins
import keyword
import re
from typing import NamedTuple

STATEMENT = re.compile(
    r"^[ \t]*(?:def\s|class\s|import\s|from\s+\S+\s+import\b|@|[^\W\d]\w*[ \t]*=[^=])", re.MULTILINE
)
"""The beginning of a line that makes a function, a class or a name."""

_TOKEN = re.compile(
    r"#[^\n]*"
    r"|\"\"\"|'''"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
    r"|[\"']",
    re.DOTALL,
)
_IN_STRING = "'"
_NO_PYTHON = "?"
_LINE_IN_STRING = "\0"

_CODE = re.compile(
    r"(?:async[ \t]+)?def[ \t]+\w+[ \t]*[(\[]|class[ \t]+\w+[ \t]*[(:\[]|@[ \t]*\w"
    r"|import[ \t]+[\w.]+[ \t]*(?:$|[,;]|as\b)|from[ \t]+[\w.]+[ \t]+import\b"
    r"|(?:print|exec|return|raise|del|global|nonlocal|assert|yield)\b"
    r"|[^\W\d][\w.]*(?:\[[^\]]*\])?[ \t]*(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)"
)
"""Statements, also broken ones: a program with an error in it is not mended by leaving it out."""

_NO_BEGINNING = re.compile(r"[<>|?$!/%=&^,;`]|\*\*|\*[ \t]|\d+[.)][ \t]+\D|\d+\)")
_NOWHERE = re.compile(r"[?$`]|!(?!=)|->|(?<![\d.])\.$")
_COMPOUND = re.compile(r"(?:if|elif|else|for|while|with|try|except|finally|async|match|case)\b")
_WORDS = re.compile(r"(?<![\w.])(\w+)[ \t]+(?=(\w+))")
_HEADING = re.compile(r"[-+*][ \t]|[A-Z]\w*:[ \t]|[A-Z][a-z]*[ \t]+[a-z]|[^\W\d]\w*$")
_ONLY_WORDS = re.compile(r"([^\W\d]\w*)(?:[ \t]+\w+)*")
_BRACKET = re.compile(r"[()\[\]{}]")
_ASCII = re.compile(r"[\0-\x7f]+")
_KEYWORDS = set(keyword.kwlist)
_SOFT = {"match", "case", "type"}
_FIRST_TAG = re.compile(
    r"(?:[ \t]*(?:</?[A-Za-z][^<>\n]*>|<\|\w+\|>|\[/?(?:PYTHON|CODE|ANSWER|SOLUTION|TESTS?)\]))+"
)
_LAST_TAG = re.compile(r"(?:</[A-Za-z]\w*>|<\|\w+\|>|\[/[A-Z]+\]|`{3,})[ \t\r]*$")


class Blanked(NamedTuple):
    """A text without its strings and comments."""

    text: str  # as long as the original; a string over several lines is one line in it
    open_string: tuple[int, str] | None  # place and quotes, of three, of one that does not end


def blanked(text: str) -> Blanked:
    """Fill what is in strings and comments.

    Examples
    --------
    >>> blanked("x = 'a b' # c").text
    "x = '''''    "
    """
    parts: list[str] = []
    place, open_string = 0, None
    while (token := _TOKEN.search(text, place)) is not None:
        parts.append(text[place : token.start()])
        start, place = token.span()
        quotes = token[0]
        if quotes in ('"""', "'''"):
            end = None if open_string else _end_of_string(text, place, quotes)
            if end is not None:
                place = end
                filled = re.sub(r"[^\n]", _IN_STRING, text[start:place])
                parts.append(filled.replace("\n", _LINE_IN_STRING))
                continue
            open_string = open_string or (start, quotes)
            parts.append(_NO_PYTHON * 3)
        elif quotes[0] == "#":
            parts.append(" " * len(quotes))
        else:
            filling = _IN_STRING if len(quotes) > 1 else _NO_PYTHON
            parts.append(filling * len(quotes))
    return Blanked("".join([*parts, text[place:]]), open_string)


def _end_of_string(text: str, place: int, quotes: str) -> int | None:
    """Return where a string ends that was begun by three quotes before a place."""
    while (found := text.find(quotes, place)) >= 0:
        if (found - len(text[place:found].rstrip("\\")) - place) % 2 == 0:  # no odd backslash
            return found + 3
        place = found + 1
    return None


def runs(text: str) -> list[str]:
    r"""Return the stretches of a text that may be Python, each without its common indentation.

    They are parted by prose and by tags (``<code>``, ``[/PYTHON]``), and where a line is indented
    less than the first of its stretch. A text with none of these is returned as it is.

    Examples
    --------
    >>> runs("Here is it:\n    def f(x):\n        return x\nThat is all.")
    ['def f(x):\n    return x\n']
    """
    bare = blanked(text).text
    found = _Runs(text, certain=False)
    found.read(bare)
    if found.parted:  # it is no program as a whole, so that less certain signs of prose count too
        found = _Runs(text, certain=True)
        found.read(bare)
    return [run for run in found.runs if run.strip()]


class _Runs:
    """Reads a text line by line; `certain` where it is known to hold prose."""

    def __init__(self, text: str, certain: bool) -> None:
        self.runs: list[str] = []
        self.parted = False  # whether anything stood between the runs
        self._text, self._certain = text, certain
        self._start = 0
        self._indent: int | None = None

    def read(self, bare: str) -> None:
        """Read all lines, given without strings and comments."""
        place = depth = 0
        continued = False
        for line in bare.split("\n"):
            if depth == 0 and not continued:
                line = self._boundary(line, place)
            for bracket in _BRACKET.findall(line):
                depth = max(depth + (1 if bracket in "([{" else -1), 0)
            continued = line.endswith("\\")
            place += len(line) + 1
        self._close(len(self._text), len(self._text))

    def _boundary(self, line: str, place: int) -> str:
        """Close the run where a line parts it; return what of the line counts as code."""
        end = place + len(line)
        rest = line
        first = _FIRST_TAG.match(line)
        if first is not None:
            self._part(place, place + first.end())
            rest = line[first.end() :]
        indent = len(rest) - len(rest.lstrip(" \t"))
        last = _LAST_TAG.search(rest)
        code = rest[: last.start()] if last else rest
        if code.strip():
            if self._indent is not None and indent < self._indent:
                self._part(end - len(rest), end - len(rest))
            if (self._indent is None or indent <= self._indent) and self._is_prose(code.strip()):
                self._part(end - len(rest), end + 1)
                return " " * len(line)
            if self._indent is None:
                self._indent = indent
        if last:
            self._part(end - len(rest) + last.start(), end + 1)
        return line

    def _is_prose(self, line: str) -> bool:
        words = _ONLY_WORDS.fullmatch(line)
        if words and self._indent is None and words[1] not in _KEYWORDS:
            return not hasattr(builtins, words[1])  # a name before anything is defined
        return is_prose(line) or (
            self._certain
            and bool(_HEADING.match(line))
            and not _CODE.match(line)
            and not keyword.iskeyword(line)
        )

    def _part(self, end: int, start: int) -> None:
        """End a run and begin the next."""
        self.parted = True
        self._close(end, start)

    def _close(self, end: int, start: int) -> None:
        run = self._text[self._start : max(end, self._start)]
        if self._indent:
            run = re.sub(rf"^[ \t]{{1,{self._indent}}}", "", run, flags=re.MULTILINE)
        self.runs.append(run)
        self._start = max(start, self._start)
        self._indent = None


def is_prose(line: str) -> bool:
    """Tell whether a line without strings and comments is certain not to be Python, nor meant so.

    Examples
    --------
    >>> [is_prose(line) for line in ("It calls f for each.", "print f(x)", "f(x) if y else z")]
    [True, False, False]
    """
    if _CODE.match(line):
        return False
    if _NO_BEGINNING.match(line) or _NOWHERE.search(line):
        return True
    if line.endswith(":") and not _COMPOUND.match(line):
        return True
    if not (line.isascii() or f"a{_ASCII.sub('', line)}".isidentifier()):
        return True
    pairs = ((match[1], match[2]) for match in _WORDS.finditer(line))
    return any(
        first not in _KEYWORDS and second not in _KEYWORDS and first not in _SOFT
        for first, second in pairs
    )

"""Fenced blocks of Markdown, as models write them.

As in CommonMark, a fence is three or more backticks or tildes and is closed by as many. Models keep
to that loosely, so beyond it: a fence may begin at the end of a line of text; a fence with the name
of a language ends the block before it; fewer marks close a block that as many do not; a block may
be closed at the end of a line of code; and fences inside a string, as in the docstring with an
example, are part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lm_eval_ext.grading.code_lines import blanked

_OPENING = re.compile(
    r"^[ \t>]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$"
    r"|[ \t:](?P<late>`{3,})(?P<language>[ \t]*[\w+-]*[ \t\r]*)$",
    re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t>]*(?P<marks>`{3,}|~{3,})(?P<rest>[^\n]*)$", re.MULTILINE)
_AFTER_CODE = re.compile(r"(?<=[^\s>`~])[ \t]*(?:`{3,}|~{3,})[ \t\r]*$", re.MULTILINE)
_INFO = re.compile(r"[ \t]*\{?\.?(?P<language>[\w+-]*)\}?[ \t]*(?P<rest>.*)")
_LANGUAGE = re.compile(r"[ \t]*\{?\.?[A-Za-z][\w+#.-]*\}?[ \t\r]*")
_CODE = re.compile(r"(?:async[ \t]+def|def|class|import|from)[ \t]+\w")
_MARKDOWN = {"markdown", "md"}
_MAX_NESTING = 3
_MAX_STRINGS = 20


class Block(NamedTuple):
    """A fenced block."""

    start: int  # in the text, fences included
    end: int
    language: str  # in lower case; empty where it is not marked
    body: str
    closed: bool  # whether there is a fence at its end


def blocks(text: str, nesting: int = 0) -> list[Block]:
    r"""Return the fenced blocks of a text, in order.

    Examples
    --------
    >>> [block.body for block in blocks("A:\n~~~py\nx = 1\n~~~\nB:\n```\nx = 2\n```\n")]
    ['x = 1\n', 'x = 2\n']
    """
    found: list[Block] = []
    place = 0
    while (opening := _OPENING.search(text, place)) is not None:
        string = blanked(text[place : opening.start()]).open_string
        past = _past_string(text, place + string[0], string[1], opening.start()) if string else None
        if past is not None:
            place = past
            continue
        begin, block = _block(text, opening)
        place = max(block.end, opening.end())
        nested = block.language in _MARKDOWN or _FENCE.match(block.body.lstrip("\r\n"))
        inner = blocks(block.body, nesting + 1) if nested and nesting < _MAX_NESTING else []
        moved = [b._replace(start=b.start + begin, end=b.end + begin) for b in inner]
        found += moved or [block]
    return found


def _block(text: str, opening: re.Match[str]) -> tuple[int, Block]:
    """Return where a block's body begins, and the block."""
    info = opening["info"] if opening["late"] is None else opening["language"]
    parts = _INFO.match(info)
    language, rest = (parts["language"], parts["rest"]) if parts else ("", "")
    begin = min(opening.end() + 1, len(text))
    if _CODE.match(info.lstrip()):  # no language, but the first line of the program
        language, begin = "", opening.end() - len(info)
    elif _CODE.match(rest):
        begin = opening.end() - len(rest)
    marks = opening["marks"] or opening["late"]
    end, after, closed = _end(text, begin, marks)
    return begin, Block(opening.start(), after, language.lower(), text[begin:end], closed)


def _end(text: str, begin: int, marks: str) -> tuple[int, int, bool]:
    """Return where a body ends, where the text continues, and whether a fence is between them."""
    place = begin
    for _ in range(_MAX_STRINGS):
        end, after, closed = next(_closings(text, place, marks), (len(text), len(text), False))
        code, string = blanked(text[begin:end])
        past = _past_string(text, begin + string[0], string[1], end) if string and closed else None
        if past is None:
            break
        place = past
    late = _AFTER_CODE.search(code)
    if late is not None:
        return begin + late.start(), begin + late.end(), True
    return end, after, closed


def _closings(text: str, place: int, marks: str) -> Iterator[tuple[int, int, bool]]:
    """Yield the fence that ends a block: as long as its opening, or else any that could."""
    shorter = following = None
    for fence in _FENCE.finditer(text, place):
        bare = not fence["rest"].strip()
        # With a language it opens the next block; with other words, these follow the block.
        opens = _LANGUAGE.fullmatch(fence["rest"]) is not None
        if fence["marks"][0] != marks[0]:
            if opens and following is None:
                following = fence.start(), fence.start(), False
            continue
        after = fence.start() if opens else fence.end("marks")
        if len(fence["marks"]) >= len(marks):
            yield fence.start(), fence.end() if bare else after, True
            return
        if bare and shorter is None:
            shorter = fence.start(), fence.end(), True
    last = shorter or following
    if last is not None:
        yield last


def _past_string(text: str, start: int, quotes: str, fence: int) -> int | None:
    """Return the end of a string that a fence stands in with other fences that it opens or closes.

    None where the string does not end, or the fences in it are not pairs of which the second has no
    language: then it is more likely that the string was left open.
    """
    end = text.find(quotes, fence)
    if end < 0:
        return None
    inside = list(_FENCE.finditer(text, start, end))
    if len(inside) % 2 or any(each["rest"].strip() for each in inside[1::2]):
        return None
    return end + len(quotes)

r"""Find the boxes of a text: ``\boxed{...}`` or ``\fbox{...}`` with the brace that closes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 20
"""Boxes looked at, counted from the end."""

_BRACE = re.compile(r"(?<!\\)[{}]")


class Box(NamedTuple):
    """A box, from its backslash to after its closing brace, and the text between the braces."""

    start: int
    end: int
    inside: str


def find_boxes(text: str, max_length: int) -> Iterator[Box]:
    r"""Yield each brace-matched ``\boxed{...}`` or ``\fbox{...}`` of a completion, the last first.

    A box of more than `max_length` characters is ignored.

    Examples
    --------
    >>> [box.inside for box in find_boxes(r"\boxed{3}, no \boxed{\frac{1}{2}}, \boxed{open", 400)]
    ['\\frac{1}{2}', '3']
    """
    end = len(text)
    for _ in range(MAX_BOXES):
        start = max(text.rfind("\\boxed{", 0, end), text.rfind("\\fbox{", 0, end))
        if start < 0:
            return
        inside = text.index("{", start) + 1
        closed = box_end(text, inside, inside - 1 + max_length)
        if closed is not None:
            yield Box(start, closed, text[inside : closed - 1])
        end = start


def box_end(text: str, start: int = 0, stop: int = sys.maxsize) -> int | None:
    r"""Return the position after the brace that closes a box whose inside begins at `start`.

    None where there is none before `stop`.

    Examples
    --------
    >>> text = r"\frac{1}{2}} is it"
    >>> text[:box_end(text)]
    '\\frac{1}{2}}'
    """
    depth = 1
    for brace in _BRACE.finditer(text, start, stop):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return None

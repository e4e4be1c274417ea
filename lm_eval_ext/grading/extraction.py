r"""Find the places of a completion that announce its answer.

Every function returns candidates from the last to the first, at most `MAX_CANDIDATES` of them and
each cut to `MAX_LENGTH` characters, so that the work done on a completion is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_ext.grading.boxes import find_boxes

MAX_CANDIDATES = 20
"""Announcements looked at, counted from the end."""

MAX_LENGTH = 400
"""Characters of a candidate that are read."""

THINKING_TAGS = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]"}
"""Opening and closing tag of a thinking section."""

_ANNOUNCEMENT = re.compile(
    r"(?:\b(?:the|my|our|final|correct)\s+(?:(?:final|correct|numerical|numeric)\s+)?"
    r"|^[ \t*_>#-]{0,8}(?:final\s+)?)"
    r"answer\b(?:,?\s+(?:to|for|in)\s[^.\n:=0-9]{1,60}?)?[\s*_`\"',]{0,6}"
    r"(?:\b(?:is|are|was|would\s+be|will\s+be)\b|[:=])",
    re.IGNORECASE | re.MULTILINE,
)

_HEADING = re.compile(
    r"^[ \t*_>#-]{0,8}(?:the\s)?(?:final\s)?answer[ \t*_]{0,8}\n", re.IGNORECASE | re.MULTILINE
)


def after_thinking(completion: str) -> str:
    """Return what follows the thinking section; all of it where there is none.

    A section that was opened and never closed leaves nothing: the attempt ended before its
    answer. A chat template may open the section in the prompt, so a closing tag alone counts too.

    Examples
    --------
    >>> after_thinking("<think>Is the answer 7?</think>The answer is 8.")
    'The answer is 8.'
    >>> after_thinking("<think>Perhaps the answer is 7")
    ''
    """
    for opening, closing in THINKING_TAGS.items():
        if closing in completion:
            return completion.rpartition(closing)[2]
        if completion.lstrip().startswith(opening):
            return ""
    return completion


def hash_marked(text: str) -> Iterator[str]:
    """Yield the rest of the line after each ``####``, or the next one with text; the last first."""
    end = len(text)
    for _ in range(MAX_CANDIDATES):
        start = text.rfind("####", 0, end)
        if start < 0:
            return
        line, _, below = text[start + 4 : start + 4 + MAX_LENGTH].partition("\n")
        yield line if line.strip(" \t\r#*_") else _first_line(below)
        end = start


def boxed(text: str, max_length: int = MAX_LENGTH) -> Iterator[str]:
    r"""Yield the inside of each box, the last first; see `lm_eval_ext.grading.boxes.find_boxes`.

    Examples
    --------
    >>> list(boxed(r"\boxed{3} or rather \boxed{\frac{1}{2}} or \boxed{unfinished"))
    ['\\frac{1}{2}', '3']
    """
    return (box.inside for box in find_boxes(text, max_length))


def announced(text: str) -> Iterator[str]:
    """Yield what follows each "the answer is", "final answer:" and the like, the last first."""
    matches = list(_ANNOUNCEMENT.finditer(text))
    for match in matches[: -MAX_CANDIDATES - 1 : -1]:
        yield text[match.end() : match.end() + MAX_LENGTH].lstrip(" \t\r\n*_")


def headed(text: str) -> Iterator[str]:
    r"""Yield the next line with text after each heading "Final Answer", the last first.

    Only headings after the last announcement in a sentence count: what comes last is meant.

    Examples
    --------
    >>> list(headed("**Final Answer**\n\n18"))
    ['18']
    """
    sentences = list(_ANNOUNCEMENT.finditer(text))
    headings = list(_HEADING.finditer(text, sentences[-1].end() if sentences else 0))
    for match in headings[: -MAX_CANDIDATES - 1 : -1]:
        yield _first_line(text[match.end() : match.end() + MAX_LENGTH])


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]

r"""Find the places of a completion that announce its answer.

Every function returns candidates from the last to the first, at most `MAX_CANDIDATES` of them and
each cut to `MAX_LENGTH` characters, so that the work done on a completion is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["verb", "label", "hope"]

MAX_CANDIDATES = 20  # announcements looked at, counted from the end
MAX_LENGTH = 400  # characters of a candidate that are read
CUT = "\x03"
"""Stands at the end of a text that the token limit cut, so that what touches it can be told."""

# Words that go on with a number or make it another, as whole as the cut left them.
_WORDS = (
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "squared", "cubed",
    "factorial", "or", "and", "to", "through", "plus", "times", "minus", "more", "less", "fewer",
)  # fmt: skip
_BEGINNINGS = {word[:end] for word in _WORDS for end in range(1, len(word) + 1)}
_WORD = "|".join(sorted(_BEGINNINGS, reverse=True))
_OPERATORS = r"[ \t]*[-+*/^=\u00d7\u00f7<>\u2248\u2212~(\\]{1,3}[ \t]*"
UNFINISHED = re.compile(rf"(?:{_OPERATORS}|[.,:]|,?[ \t]*(?:{_WORD})?){CUT}")
"""What follows a number where a cut text ends that could have gone on with it."""

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

_HOPE = re.compile(r"\bI\s+hope\s+(?:it|this|that)(?:\s+is|'s)\s+(?:correct|right)\b", re.I)
_SENTENCE_START = re.compile(r"[.!?:]\s|\n")

_UNCLOSED = re.compile(r"[ \t]*<(?:final[ _]?)?answer>\s*([^\s<][^\n<]{0,200})\Z", re.I)
_TAG = re.compile(r"<(?P<close>/?)(?:final[ _]?)?answer>", re.IGNORECASE)


class Announcement(str):
    """What follows the words that announce an answer."""

    form: Form
    """``verb`` for the beginning of a sentence ("the answer is"), ``label`` for what may have one
    after it ("Answer:", or a heading), ``hope`` for a sentence before "I hope it is correct"."""
    is_final: bool
    """Whether it is said to be the final answer."""

    def __new__(cls, text: str, form: Form, is_final: bool) -> Announcement:  # noqa: D102
        announcement = super().__new__(cls, text)
        announcement.form, announcement.is_final = form, is_final
        return announcement


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


def announced(text: str) -> Iterator[Announcement]:
    """Yield what follows each "the answer is", "final answer:" and the like, the last first.

    So does the sentence before "I hope it is correct", where nothing else in it announces one.
    """
    matches = list(_ANNOUNCEMENT.finditer(text))
    found = [(match.end(), _after(text, match)) for match in matches[: -MAX_CANDIDATES - 1 : -1]]
    for hope in list(_HOPE.finditer(text))[: -MAX_CANDIDATES - 1 : -1]:
        begin = max(hope.start() - MAX_LENGTH, 0)
        before = text[begin : hope.start()].rstrip(" \t\n")
        starts = [match.end() for match in _SENTENCE_START.finditer(before)]
        start = begin + (starts[-1] if starts else 0)
        if not any(start <= match.end() <= hope.start() for match in matches):
            sentence = text[start : hope.start()].strip(" \t\r\n*_")
            found.append((hope.start(), Announcement(sentence, "hope", is_final=True)))
    for _, announcement in sorted(found, key=lambda place: place[0], reverse=True):
        yield announcement


def headed(text: str) -> Iterator[Announcement]:
    r"""Yield the next line with text after each heading "Final Answer", the last first.

    Only headings after the last announcement in a sentence count: what comes last is meant.
    """
    sentences = list(_ANNOUNCEMENT.finditer(text))
    headings = list(_HEADING.finditer(text, sentences[-1].end() if sentences else 0))
    for match in headings[: -MAX_CANDIDATES - 1 : -1]:
        line = _first_line(text[match.end() : match.end() + MAX_LENGTH])
        yield Announcement(line, "label", is_final="final" in match[0].lower())


def tagged(
    text: str, max_length: int = MAX_LENGTH, finish_reason: str | None = None
) -> Iterator[str]:
    """Yield the inside of each ``<answer>...</answer>`` that is not empty, the last first.

    Of a text that is known to have ended by itself, a tag that begins the last line counts without
    a closing one, which may have been the stop string.

    An inside of more than ``max_length`` characters is passed over.

    Examples
    --------
    >>> list(tagged("Put it in <answer></answer> tags: <answer> 5 </answer> <answer>6"))
    ['5']
    """
    tags = list(_TAG.finditer(text))[-2 * MAX_CANDIDATES :]
    ended = tags and finish_reason in ("stop", "eos")
    if ended and (last := _UNCLOSED.match(text, text.rfind("\n", 0, tags[-1].start()) + 1)):
        yield last[1]
    for opening, closing in reversed(list(pairwise(tags))):
        inside = text[opening.end() : closing.start()].strip()
        if not opening["close"] and closing["close"] and 0 < len(inside) <= max_length:
            yield inside


def mark_end(text: str, finish_reason: str | None) -> str:
    """Return the text with `CUT` at its end if the token limit cut it."""
    text = text.replace(CUT, " ")
    return text + CUT if finish_reason == "length" else text


def _after(text: str, match: re.Match[str]) -> Announcement:
    following = text[match.end() : match.end() + MAX_LENGTH].lstrip(" \t\r\n*_")
    is_label = match[0].endswith((":", "=")) or following.startswith(":")
    form: Form = "label" if is_label else "verb"
    return Announcement(following, form, is_final="final" in match[0].lower())


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]

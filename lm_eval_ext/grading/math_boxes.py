r"""Read the answer that a text boxes, in LaTeX."""

from __future__ import annotations

import re

from lm_eval_ext.grading.box_context import in_context
from lm_eval_ext.grading.box_groups import name_of, one_answer
from lm_eval_ext.grading.math_text import decide, tidy
from lm_eval_ext.grading.rational import parse_exact
from lm_eval_ext.models.boxes import MAX_BOXES, Box, find_boxes

MAX_BOX = 100_000
"""Characters in which a box has to be closed. Much longer than any answer that is verified, so that
an oversized answer is seen as one, and not passed over for an earlier box."""

MAX_COMPARED = 60
"""Characters of answers that are compared with each other."""

_SPACED_BOX = re.compile(r"\\(boxed|fbox)\s+\{")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[0-9\\]))(\\[dt]?frac\s?[0-9]{2}|[-+]?[0-9A-Za-z.,/]+)"
)


def last_box(text: str) -> str | None:
    r"""Return the inside of the last box that is closed and not empty, or None.

    Examples
    --------
    >>> last_box(r"\boxed{1} then \fbox{\text{two}} and \boxed{unfinished")
    '\\text{two}'
    >>> last_box(r"Hence the sum is $\boxed 2$.")
    '2'
    """
    boxes = boxes_in(closed_up(text))
    return boxes[0].inside if boxes else None


def closed_up(text: str) -> str:
    """Return a text without space between the command of a box and its brace."""
    return _SPACED_BOX.sub(r"\\\1{", text)


def boxes_in(text: str) -> list[Box]:
    """Return closed boxes that are not empty, the last first; bare ones if there are no others."""
    found = [box for box in find_boxes(text, MAX_BOX) if box.inside.strip()]
    if not found:
        matches = list(_BARE_BOX.finditer(text))[: -MAX_BOXES - 1 : -1]
        found = [Box(match.start(), match.end(), match[1].strip(".,")) for match in matches]
    return [box._replace(inside=box.inside.strip()) for box in found]


def boxed_answer(text: str) -> str | None:
    r"""Return what the last box says with those that are one answer with it, or None.

    Examples
    --------
    >>> boxed_answer(r"The roots are $\boxed{-2}$ and $-\boxed{1}$.")
    '-2, -1'
    """
    text = closed_up(text)
    boxes = boxes_in(text)
    if not boxes:
        return None
    group = one_answer(text, boxes)
    answers = [in_context(text, box) for box in group]
    names = {name_of(text, box) for box in group} - {""}
    if len(names) < len(group) and all(is_same(answers[-1], other) for other in answers[:-1]):
        return answers[-1]
    return ", ".join(answers)


def is_same(one: str, other: str) -> bool:
    """Return whether two answers are equal in a way that needs no algebra."""
    if one == other:
        return True
    if max(len(one), len(other)) > MAX_COMPARED:
        return False
    if decide(tidy(one), tidy(other)) or sorted(_terms(one)) == sorted(_terms(other)):
        return True
    values = parse_exact(one), parse_exact(other)
    return values[0] is not None and values[0] == values[1]


def _terms(text: str) -> list[str]:
    """Return the terms of a sum with their signs; a text with brackets is one term."""
    bare = re.sub(r"\s", "", tidy(text))
    if re.search(r"[({\[,=]", bare):
        return [bare]
    return re.findall(r"[-+]?[^-+]+", bare if bare.startswith("-") else f"+{bare}")

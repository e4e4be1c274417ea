r"""Find the answer of a completion, and the reference answers of a record, in LaTeX.

The answer of a completion is looked for after its thought, in this order; the first step that finds
one decides:

1. the last closed ``<answer>...</answer>``: a box or an announced answer inside of it, or else all
   of it unless it is prose;
2. the last brace-matched ``\boxed{...}`` or ``\fbox{...}`` (``\boxed 2`` where there is no other),
   with the others of its sentence or list, as ``-2, 1``, and with what stands around them and
   belongs to them (see `lm_eval_ext.grading.box_groups` and `lm_eval_ext.grading.box_context`);
3. the last "the answer is ...", "final answer: ..." and close variants: the formula that follows,
   or the words up to the end of the sentence. A formula counts only after words that introduce it
   ("equal to", "the fraction", ...); after others ("less than $5$") the words are the answer, which
   is wrong then, and there is none if they are many. Words that change the number of the formula
   ("$5$ million", "$5$ or more") are part of it. Of a sentence ("The value of $x$ is $5$") the
   answer is what follows "is". A remark ("the answer is correct") replaces nothing;
4. the last formula in dollars (or in ``\(...\)``, ``\[...\]``); an amount of money opens and ends
   none.

In a text that the token limit cut, the fourth step finds nothing, and nor does the third where the
formula is not closed or the words touch the end.

There is no fallback to the last number of the text, for the reason given in
`lm_eval_ext.grading.gsm8k`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.box_context import in_context
from lm_eval_ext.grading.box_groups import name_of, one_answer
from lm_eval_ext.grading.extraction import mark_end, tagged
from lm_eval_ext.grading.math_announcements import announced_answer, last_formula, whole_answer
from lm_eval_ext.grading.math_text import decide, tidy
from lm_eval_ext.grading.rational import parse_exact
from lm_eval_ext.models.boxes import MAX_BOXES, Box, find_boxes
from lm_eval_ext.models.thoughts import after_thinking

MAX_TEXT = 400_000  # characters of a completion that are read, counted from its end
MAX_BOX = 100_000
"""Characters in which a box has to be closed. Much longer than any answer that is verified, so that
an oversized answer is seen as one, and not passed over for an earlier box."""

MAX_COMPARED = 60  # characters of answers that are compared with each other
_SPACED_BOX = re.compile(r"\\(boxed|fbox)\s+\{")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[0-9\\]))(\\[dt]?frac\s?[0-9]{2}|[-+]?[0-9A-Za-z.,/]+)"
)
_SEVERAL_WANTED = re.compile(r"separated by (?:a )?comma", re.IGNORECASE)
_EITHER_ACCEPTED = re.compile(
    r"\balso (?:accepted|(?:an? )?(?:acceptable|correct|valid))"
    r"|\beither \w+ is (?:accepted|an? (?:acceptable|correct|valid) answer)",
    re.IGNORECASE,
)
# Answers that a solution leaves without a box, by the BLAKE2b hash of the problem: MATH has one,
# whose problem uses the box as an operation.
_UNBOXED = {"46fd1f6c5bd5e2b1": "6"}


def extract(completion: str, finish_reason: str | None = None) -> str | None:
    r"""Return the answer of a completion as it is written there, or None.

    Parameters
    ----------
    finish_reason
        ``length`` if the token limit cut it: a formula or words that touch the end are then no
        answer yet, and a formula that nothing announces is none.

    Examples
    --------
    >>> extract(r"So $x^2 = 9$ and the solutions are $\boxed{\{-3, 3\}}$.")
    '\\{-3, 3\\}'
    >>> extract("There are 12 ways, and 5 of them") is None
    True
    >>> extract("Hence $x = 5$"), extract("Hence $x = 5$", "length")
    ('x = 5', None)
    """
    text = after_thinking(completion)[-MAX_TEXT:]
    box = boxed_answer(text)
    for inside in tagged(text, MAX_BOX, finish_reason):
        answer = boxed_answer(inside) or announced_answer(inside) or whole_answer(inside)
        # Words may point to a box outside of the tags ("see above").
        if answer and not (box and " " in answer and not re.search(r"[0-9\\]", answer)):
            return answer
    if box:
        return box
    answer = announced_answer(mark_end(text, finish_reason))
    if answer is not None:
        return answer or None
    return None if finish_reason == "length" else last_formula(text)


def references(doc: Mapping[str, Any]) -> tuple[str, ...]:
    r"""Return the reference answers of a record, each of which is right.

    That is ``answer``, or what ``solution`` boxes: all boxes, as one answer, where the problem asks
    for values separated by commas; each box on its own where the solution accepts either; else the
    last box with the others of its sentence. What stands around a box in a solution does not count.

    Raises
    ------
    UserError
        If the record has neither.

    Examples
    --------
    >>> references({"solution": r"The roots are $\boxed{-2}$ and $\boxed{1}$."})
    ('-2, 1',)
    >>> references({"solution": r"So $d=\boxed{-3}$. Note: $\boxed{3}$ is also accepted."})
    ('-3', '3')
    """
    answer = doc.get("answer")
    if answer is not None and str(answer).strip():
        return (str(answer).strip(),)
    problem, solution = str(doc.get("problem") or ""), str(doc.get("solution") or "")
    unboxed = _UNBOXED.get(blake2b(" ".join(problem.split()).encode(), digest_size=8).hexdigest())
    if unboxed:
        return (unboxed,)
    solution = closed_up(solution)
    boxes = boxes_in(solution)
    if not boxes:
        raise UserError(
            f"problem={problem[:60]!r} has no reference answer: a MATH record has an 'answer', or "
            "a 'solution' with a \\boxed{...}"
        )
    values = _distinct([box.inside for box in reversed(boxes)])
    if len(values) > 1 and _SEVERAL_WANTED.search(problem):
        return (", ".join(values),)
    if len(values) > 1 and _EITHER_ACCEPTED.search(solution):
        return tuple(values)
    group = [box.inside for box in one_answer(solution, boxes)]
    different = _distinct(group)
    return (", ".join(group) if len(different) > 1 else group[-1],)


def _distinct(answers: Sequence[str]) -> list[str]:
    """Return answers in their order, of equal ones the last."""
    return [
        answer
        for place, answer in enumerate(answers)
        if not any(is_same(answer, later) for later in answers[place + 1 :])
    ]


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

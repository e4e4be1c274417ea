r"""Grader of GSM8K: one number per question.

The answer of a completion is looked for after its thinking section, in this order; each step takes
the last place that holds a number, and the first step that finds one decides:

1. ``#### 18``, alone on the rest of its line but for a unit (a Markdown heading ``#### 2. Next``
   is not an answer), or on the next line with text if nothing else is on its own;
2. ``\boxed{18}`` or ``\fbox{18}``, braces matched, with what stands around it and belongs to it
   (see `lm_eval_ext.grading.box_context`); if it is no number then (``\boxed{18} million``), or if
   boxes of one sentence or list hold several numbers, there is no answer;
3. "the answer is 18", "final answer: 18" and close variants, or a heading "Final Answer" and a
   number alone on the next line with text, whichever of the two comes last.

There is no fallback to the last number of the text: a completion that stopped half-way would then
have an answer, and among N attempts such answers turn into correct ones by luck. An attempt without
an announced answer is invalid, and ``invalid_rate`` says how many there were.

Units, currency signs and ``%`` are dropped, as GSM8K's own answers have none: ``50%`` is 50. The
comparison is exact, between rational numbers; see `lm_eval_ext.grading.rational`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.box_context import in_context
from lm_eval_ext.grading.boxes import find_boxes, one_answer
from lm_eval_ext.grading.extraction import (
    MAX_LENGTH,
    after_thinking,
    announced,
    hash_marked,
    headed,
)
from lm_eval_ext.grading.rational import parse_exact, parse_leading


def extract(completion: str) -> Fraction | None:
    r"""Return the number a completion gives as its answer, or None.

    Examples
    --------
    >>> extract("5 * 3 = 15, so \\boxed{15}. The answer is 15 apples.")
    Fraction(15, 1)
    >>> extract("She has 16 - 3 = 13 eggs left, and then") is None
    True
    """
    text = after_thinking(completion)
    value = _first(hash_marked(text), parse_exact)
    if value is not None:
        return value
    boxes = [box for box in find_boxes(text, MAX_LENGTH) if parse_exact(box.inside) is not None]
    if boxes:
        values = {parse_exact(in_context(text, box)) for box in one_answer(text, boxes)}
        return values.pop() if len(values) == 1 else None
    for candidates, parse in ((headed, parse_exact), (announced, parse_leading)):
        value = _first(candidates(text), parse)
        if value is not None:
            return value
    return None


def _first(candidates: Iterator[str], parse: Callable[[str], Fraction | None]) -> Fraction | None:
    """Return the first number that one of some candidates is."""
    return next((value for each in candidates if (value := parse(each)) is not None), None)


def reference(doc: Mapping[str, Any]) -> Fraction:
    """Return the reference answer of a record, what follows ``####`` in its ``answer``.

    Raises
    ------
    UserError
        If there is no number.
    """
    value = parse_exact(str(doc["answer"]).rpartition("####")[2])
    if value is None:
        raise UserError(
            f"answer={doc['answer']!r} ends in no number: a GSM8K record ends with '#### N'"
        )
    return value


def grade_many(
    completions: Sequence[str],
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
) -> list[Attempt]:
    """Grade all attempts at one question; see `lm_eval_ext.grading.grade_many`."""
    gold = reference(doc)
    values = [extract(completion) for completion in completions]
    return [
        Attempt(answer=None if value is None else str(value), correct=value == gold)
        for value in values
    ]

r"""Grader of GSM8K: one number per question.

The answer of a completion is looked for after its thinking section, in this order; each step takes
the last place that holds a number, and the first step that finds one decides:

1. ``<answer>18</answer>``, closed: a number with at most a unit, a sentence with one number, or any
   of the following inside of it;
2. ``#### 18``, alone on the rest of its line but for a unit (a Markdown heading ``#### 2. Next``
   is not an answer), or on the next line with text if nothing else is on its own;
3. ``\boxed{18}`` or ``\fbox{18}``, braces matched, with what stands around it and belongs to it
   (see `lm_eval_ext.grading.box_context`); if it is no number then (``\boxed{18} million``), or if
   boxes of one sentence or list hold several numbers, there is no answer;
4. "the answer is 18", "final answer: 18" and close variants, or a heading "Final Answer" and a
   number alone on the next line with text, whichever of the two comes last. After the label or the
   heading a sentence may state the number ("Final Answer: Josh made a profit of $70,000."): its
   only one, the only one that is set off in bold or as a formula, or the one that ends it after
   "is" or "=". After "Answer:", which does not say final, it has to be set off. The sentence
   before "I hope it is correct" is read in the same way.

In a text that the token limit cut, a number that touches the end is no answer: 70 may have been
70,000.

There is no fallback to the last number of the text: a completion that stopped half-way would then
have an answer, and among N attempts such answers turn into correct ones by luck. An attempt without
an announced answer is invalid, and ``invalid_rate`` says how many there were.

Units, currency signs and ``%`` are dropped, as GSM8K's own answers have none: ``50%`` is 50. The
comparison is exact, between rational numbers (see `lm_eval_ext.grading.rational`), but for a
reference such as 2/3, which no decimal ends: there 0.67 and 0.667 are right, and 0.7 and 0.66 are
not (see `lm_eval_ext.data.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, TypeAlias

from lm_eval_ext.data.rounding import exact_gold, is_rounded
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.box_context import in_context
from lm_eval_ext.grading.box_groups import one_answer
from lm_eval_ext.grading.extraction import (
    MAX_LENGTH,
    Announcement,
    announced,
    hash_marked,
    headed,
    mark_end,
    tagged,
)
from lm_eval_ext.grading.rational import join_groups, parse_exact, parse_leading, parse_sentence
from lm_eval_ext.models.boxes import Box, find_boxes
from lm_eval_ext.models.thoughts import after_thinking

Parse: TypeAlias = Callable[[str], Fraction | None]


def extract(completion: str, finish_reason: str | None = None) -> Fraction | None:
    r"""Return the number a completion gives as its answer, or None.

    Parameters
    ----------
    finish_reason
        ``length`` if the token limit cut it: a number at its very end is then not one yet.

    Examples
    --------
    >>> extract("She has 16 - 3 = 13 eggs left, and then") is None
    True
    >>> extract("The answer is $70"), extract("The answer is $70", "length")
    (Fraction(70, 1), None)
    """
    text = mark_end(after_thinking(completion), finish_reason)
    for inside in tagged(text, finish_reason=finish_reason):
        found = _by_steps(inside) or _numbers([inside], (_exact, parse_sentence))
        if found:
            return found[0]
    found = _by_steps(text)
    return found[0] if found else None


def _exact(line: str) -> Fraction | None:
    return parse_exact(join_groups(line))


def _leading(candidate: str) -> Fraction | None:
    """Return the number an announcement begins with, unless it is a sentence of its own."""
    if isinstance(candidate, Announcement) and candidate.form == "hope":
        return None
    return parse_leading(join_groups(candidate))


def _stated(candidate: str) -> Fraction | None:
    """Return the number of a sentence that comes after a label or a heading.

    Where that does not call it the final answer, the number has to be set off.
    """
    if not isinstance(candidate, Announcement) or candidate.form == "verb":
        return None
    return parse_sentence(candidate, set_off=not candidate.is_final)


def _by_steps(text: str) -> list[Fraction | None]:
    """Return what the first step that finds an answer reads; None in it is no single number."""
    boxes = [box for box in find_boxes(text, MAX_LENGTH) if parse_exact(box.inside) is not None]
    return (
        _numbers(hash_marked(text), (_exact,))
        or (boxes and [_boxed(text, boxes)])
        or _numbers(headed(text), (_exact, _stated))
        or _numbers(announced(text), (_leading, _stated))
    )


def _boxed(text: str, boxes: Sequence[Box]) -> Fraction | None:
    values = {parse_exact(in_context(text, box)) for box in one_answer(text, boxes)}
    return values.pop() if len(values) == 1 else None


def _numbers(candidates: Iterable[str], readings: Sequence[Parse]) -> list[Fraction | None]:
    """Return the first number that some reading finds in a candidate, or nothing."""
    values = (read(candidate) for candidate in candidates for read in readings)
    return list(islice((value for value in values if value is not None), 1))


def reference(doc: Mapping[str, Any]) -> Fraction:
    """Return the reference answer of a record, what follows any ``####`` in its ``answer``.

    A fraction that was rounded, such as 0.6666666667, is the fraction again.

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
    return exact_gold(value)


def grade_many(
    completions: Sequence[str],
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
) -> list[Attempt]:
    """Grade all attempts at one question; see `lm_eval_ext.grading.grade_many`."""
    gold = reference(doc)
    reasons = finish_reasons or [None] * len(completions)
    attempts = []
    for completion, finish_reason in zip(completions, reasons, strict=True):
        value = extract(completion, finish_reason)
        correct = value is not None and (value == gold or is_rounded(value, gold))
        # Right answers vote together, however they are rounded.
        answer = gold if correct else value
        attempts.append(Attempt(answer=None if answer is None else str(answer), correct=correct))
    return attempts

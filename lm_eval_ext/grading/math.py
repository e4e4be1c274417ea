r"""Grader of MATH: an answer in LaTeX, compared by mathematical equality.

`lm_eval_ext.grading.math_extraction` finds the answer of a completion. It is right if it equals the
record's reference answer, ``answer`` or what the solution boxes; any of them, if the solution
accepts either. A list is right, too, if every entry is (``2\sqrt2, \sqrt8``).

Two answers are equal if they are the same text but for typography, the same plain number, or, in
all other cases, by the verdict of math-verify, gold first, unless they differ in something that it
ignores, such as words that change a number or the order of a tuple (`math_text.decide`,
`math_comparison`). That runs in worker processes under a deadline (`math_pool`); nothing an answer
contains is run as Python, and answers that are too large or too deep are not compared at all. What
has no verdict is wrong, with the reason: ``too long``, ``too deep``, ``too many entries``,
``timeout`` or ``worker died``.

For voting, the answers at one question are grouped by the same comparison, and `Attempt.answer` is
the same string throughout a group: the first reference answer for all that are right; for wrong
ones the shortest member, of several the first in code point order. As math-verify's equality is not
transitive (50% equals both 50 and 0.5), right answers come first, then each wrong answer joins the
first group whose string it equals. Neither the order of the attempts nor their number changes a
verdict. At most `MAX_GROUPINGS` comparisons are made; answers left over form groups of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.math_comparison import split_entries
from lm_eval_ext.grading.math_extraction import extract, references
from lm_eval_ext.grading.math_pool import (
    Compare,
    ComparisonError,
    WorkerPool,
    default_size,
    shared_pool,
)
from lm_eval_ext.grading.math_text import MAX_ANSWER, decide, refusal, tidy

MAX_GROUPINGS = 100  # comparisons by math-verify between the wrong answers at one question
MAX_EQUAL_ENTRIES = 5  # entries of a list that are compared with the reference answer one by one
SHOWN_LENGTH = 80  # characters kept of an answer that is refused for its size


def max_concurrency() -> int:
    """Return how many questions are compared at the same time at most, in as many threads."""
    return default_size()


def grade_many(
    completions: Sequence[str],
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
    *,
    pool: WorkerPool | None = None,
) -> list[Attempt]:
    r"""Grade all attempts at one question; see `lm_eval_ext.grading.grade_many`.

    Threads may call it at the same time, up to `max_concurrency` of them with profit.

    Parameters
    ----------
    doc
        A record of MATH or MATH-500, with ``answer`` or ``solution``.
    pool
        Worker processes to use instead of those that all calls share.

    Raises
    ------
    UserError
        If the record has no reference answer, or math-verify is not installed.

    Examples
    --------
    >>> completions = [r"\boxed{0.5}", r"so $\frac24$", r"\boxed{2"]
    >>> for attempt in grade_many(completions, {"answer": "1/2"}):
    ...     print(attempt)
    Attempt(answer='1/2', correct=True, reason=None)
    Attempt(answer='1/2', correct=True, reason=None)
    Attempt(answer=None, correct=False, reason=None)
    """
    golds = [tidy(reference) for reference in references(doc)]
    ends = finish_reasons or [None] * len(completions)
    answers = [
        _tidy_if_short(extract(text, end) or "")
        for text, end in zip(completions, ends, strict=True)
    ]
    verdicts: dict[str, Attempt] = {}
    with (pool or shared_pool()).borrowed() as compare:
        for answer in sorted({a for a in answers if a}, key=lambda a: (len(a), a)):
            verdicts[answer] = _judge(golds, answer, compare)
        wrong = [a for a, verdict in verdicts.items() if not (verdict.correct or verdict.reason)]
        for answer, representative in _grouped(wrong, compare).items():
            verdicts[answer] = Attempt(representative, correct=False)
    return [verdicts[a] if a else Attempt(answer=None, correct=False) for a in answers]


def _tidy_if_short(answer: str) -> str:
    """Return the answer without typography; one that will be refused for its length as it is."""
    return tidy(answer) if len(answer) <= 2 * MAX_ANSWER else answer


def _judge(golds: Sequence[str], answer: str, compare: Compare) -> Attempt:
    """Return the verdict on an answer: whether it, or each of its entries, equals a reference."""
    verdict = _compared(golds, answer, compare)
    if verdict.correct or verdict.reason or "=" in answer or len(answer) > MAX_ANSWER:
        return verdict
    entries = split_entries(answer)
    singles = [gold for gold in golds if len(split_entries(gold)) == 1]
    if 1 < len(entries) <= MAX_EQUAL_ENTRIES and all(
        _compared(singles, entry, compare).correct for entry in entries
    ):
        return Attempt(golds[0], correct=True)
    return verdict


def _compared(golds: Sequence[str], answer: str, compare: Compare) -> Attempt:
    """Return the verdict on an answer as a whole."""
    reason = None
    for gold in golds:
        certain = decide(gold, answer)
        if certain is None:
            too_large = refusal(answer)
            if too_large:
                shown = f"{answer[:SHOWN_LENGTH]}... ({len(answer)} characters)"
                answer = answer if len(answer) <= SHOWN_LENGTH else shown
                return Attempt(answer, correct=False, reason=too_large)
            try:
                certain = compare(gold, answer).equal
            except ComparisonError as error:
                reason = str(error)
        if certain:
            return Attempt(golds[0], correct=True)
    return Attempt(answer, correct=False, reason=reason)


def _grouped(answers: Sequence[str], compare: Compare) -> dict[str, str]:
    """Return for each answer the first in the given order that it equals, possibly itself."""
    representatives: list[str] = []
    groups: dict[str, str] = {}
    left = MAX_GROUPINGS
    for answer in answers:
        groups[answer] = answer
        for representative in representatives:
            certain = decide(representative, answer)
            if certain is None and left > 0:
                left -= 1
                with contextlib.suppress(ComparisonError):
                    certain = compare(representative, answer).equal
            if certain:
                groups[answer] = representative
                break
        else:
            representatives.append(answer)
    return groups

"""The families of tasks that can be graded, and the functions that grade them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

from lm_eval_ext.checks import check_choice
from lm_eval_ext.grading.attempt import UNFINISHED_THOUGHT, Attempt

FAMILIES = {
    "gsm8k": "lm_eval_ext.grading.gsm8k",
    "math": "lm_eval_ext.grading.math",
    "mbpp": "lm_eval_ext.grading.mbpp",
}
"""Family -> module with ``grade_many(completions, doc, finish_reasons) -> list[Attempt]``, imported
on first use: a grader may need heavy packages that the others do not. A module whose
``grade_many`` mostly waits for other processes also has ``max_concurrency()``, how many calls of it
to run at once."""

Completions: TypeAlias = Sequence[str | None]
"""The attempts at a question, shape (n_attempts,); None for one that ended inside its thought."""

Question: TypeAlias = (
    tuple[Completions, Mapping[str, Any]]
    | tuple[Completions, Mapping[str, Any], Sequence[str | None] | None]
)
"""The attempts at a question, its record and, where that is known, why each attempt ended."""


def check_family(family: str) -> None:
    """Raise `UserError` unless ``family`` is one of `FAMILIES`."""
    check_choice("family", family, sorted(FAMILIES))


def grade(
    family: str, completion: str, doc: Mapping[str, Any], finish_reason: str | None = None
) -> Attempt:
    r"""Grade one attempt.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    completion
        What the model wrote after the prompt.
    doc
        The question's record, with the fields of the published data set.
    finish_reason
        Why the attempt ended: ``length`` where the token limit cut it, whose last number or formula
        may be unfinished and is not an answer then; anything else to read the text as complete.

    Raises
    ------
    UserError
        For an unknown family, or a record whose reference answer cannot be read.

    Examples
    --------
    >>> grade("gsm8k", "Half of 36 is 18. The answer is $18.00.", {"answer": "36/2=18\n#### 18"})
    Attempt(answer='18', correct=True, reason=None)
    """
    return grade_many(family, [completion], doc, [finish_reason])[0]


def grade_many(
    family: str,
    completions: Completions,
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
) -> list[Attempt]:
    """Grade all attempts at one question; the batched form of `grade`.

    Parameters
    ----------
    completions
        The attempts, of shape (n_attempts,); None for one that ended inside its thought, which has
        no answer.
    finish_reasons
        Why each attempt ended, of shape (n_attempts,).

    Returns
    -------
    list of Attempt
        One verdict per completion, in order.
    """
    check_family(family)
    return _graded(import_module(FAMILIES[family]), completions, doc, finish_reasons)


def _graded(
    grader: ModuleType,
    completions: Completions,
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
) -> list[Attempt]:
    finished = [i for i, completion in enumerate(completions) if completion is not None]
    reasons = None if finish_reasons is None else [finish_reasons[i] for i in finished]
    graded = iter(grader.grade_many([completions[i] for i in finished], doc, reasons))
    return [UNFINISHED_THOUGHT if text is None else next(graded) for text in completions]


def grade_questions(family: str, questions: Sequence[Question]) -> Iterator[list[Attempt]]:
    """Yield the verdicts of each question, in order, several graded at once where that helps.

    ``questions`` are the arguments of `grade_many`; each comes as soon as those before it have.
    """
    check_family(family)
    grader = import_module(FAMILIES[family])
    n_threads = min(getattr(grader, "max_concurrency", lambda: 1)(), len(questions))
    if n_threads <= 1:
        yield from (_graded(grader, *question) for question in questions)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            yield from pool.map(lambda question: _graded(grader, *question), questions)
        finally:
            pool.shutdown(cancel_futures=True)

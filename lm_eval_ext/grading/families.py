"""The families of tasks that can be graded, and the functions that grade them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt import Attempt

FAMILIES = {
    "gsm8k": "lm_eval_ext.grading.gsm8k",
    "math": "lm_eval_ext.grading.math",
    "mbpp": "lm_eval_ext.grading.mbpp",
}
"""Family -> module with ``grade_many(completions, doc) -> list[Attempt]``, imported on first use:
a grader may need heavy packages that the others do not. A module whose ``grade_many`` mostly waits
for other processes also has ``max_concurrency()``, how many calls of it to run at once."""


def check_family(family: str) -> None:
    """Raise `UserError` unless ``family`` is one of `FAMILIES`."""
    if family not in FAMILIES:
        raise UserError(f"family={family!r} is unknown: use one of {', '.join(sorted(FAMILIES))}")


def grade(family: str, completion: str, doc: Mapping[str, Any]) -> Attempt:
    r"""Grade one attempt.

    Parameters
    ----------
    family
        Name of a grader, one of `FAMILIES`.
    completion
        What the model wrote after the prompt.
    doc
        The question's record, with the fields of the published data set.

    Returns
    -------
    Attempt
        The answer in canonical form (None when there is none) and whether it is right.

    Raises
    ------
    UserError
        For an unknown family, or a record whose reference answer cannot be read.

    Examples
    --------
    >>> grade("gsm8k", "Half of 36 is 18. The answer is $18.00.", {"answer": "36/2=18\n#### 18"})
    Attempt(answer='18', correct=True, reason=None)
    """
    return grade_many(family, [completion], doc)[0]


def grade_many(family: str, completions: Sequence[str], doc: Mapping[str, Any]) -> list[Attempt]:
    """Grade all attempts at one question; the batched form of `grade`.

    Parameters
    ----------
    family
        Name of a grader, one of `FAMILIES`.
    completions
        The attempts, of shape (n_attempts,).
    doc
        The question's record, with the fields of the published data set.

    Returns
    -------
    list of Attempt
        One verdict per completion, in order.

    Raises
    ------
    UserError
        As for `grade`.
    """
    check_family(family)
    grader = import_module(FAMILIES[family])
    attempts: list[Attempt] = grader.grade_many(completions, doc)
    return attempts


def grade_questions(
    family: str, questions: Sequence[tuple[Sequence[str], Mapping[str, Any]]]
) -> Iterator[list[Attempt]]:
    """Grade many questions, several at once where the grader allows it.

    Parameters
    ----------
    family
        Name of a grader, one of `FAMILIES`.
    questions
        The attempts at each question, and its record.

    Yields
    ------
    list of Attempt
        The verdicts of each question, in order, each as soon as those before it are there.

    Raises
    ------
    UserError
        As for `grade`.
    """
    check_family(family)
    grader = import_module(FAMILIES[family])
    n_threads = min(getattr(grader, "max_concurrency", lambda: 1)(), len(questions))
    if n_threads <= 1:
        yield from (grader.grade_many(completions, doc) for completions, doc in questions)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            yield from pool.map(lambda question: grader.grade_many(*question), questions)
        finally:
            pool.shutdown(cancel_futures=True)

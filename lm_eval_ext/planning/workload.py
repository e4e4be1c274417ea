"""What a run has to do: questions, lengths of prompts and responses, grading.

`task_workload` reads them from a task of lm-eval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_ext.attempt_settings import DEFAULT_ATTEMPTS
from lm_eval_ext.errors import UserError


class Lengths(NamedTuple):
    """Tokens of a response: a favourable, an expected and an unfavourable mean."""

    best: float
    expected: float
    worst: float


class GradingSeconds(NamedTuple):
    """Seconds to grade an attempt and to compute its metrics, per process that grades."""

    best: float
    expected: float
    worst: float


# A number is compared in microseconds and the metrics of a question take longer; answers of MATH
# and programs as their benchmarks print them, with a slow machine for the worst case:
# benchmarks/plan_accuracy.py, benchmarks/math_grader.py, benchmarks/code_grader.py.
GRADING = {
    "gsm8k": GradingSeconds(20e-6, 100e-6, 1e-3),
    "math": GradingSeconds(100e-6, 500e-6, 5e-3),
    "mbpp": GradingSeconds(4e-3, 10e-3, 50e-3),
}
"""By grader; others are taken for the first."""


@dataclass(frozen=True)
class Workload:
    """The attempts of a run.

    Parameters
    ----------
    questions
        Number of questions, at least 1.
    prompt_tokens
        Mean tokens of a prompt.
    max_new_tokens
        Most tokens of a response.
    attempts
        Attempts per question; of several tasks, the mean over all questions.
    response_tokens
        Mean tokens of a response.
    grader
        Name of the grader, or of several.
    grading
        What it takes, or the mean of several.
    notes
        What was assumed.
    """

    questions: int
    prompt_tokens: float
    max_new_tokens: int
    attempts: float
    response_tokens: Lengths
    grader: str = "gsm8k"
    grading: GradingSeconds = GRADING["gsm8k"]
    notes: tuple[str, ...] = ()

    @property
    def all_attempts(self) -> int:
        """Attempts of the run."""
        return round(self.questions * self.attempts)


def response_lengths(stated: float | None, max_new_tokens: int) -> tuple[Lengths, str]:
    """Return the mean length of responses in three cases, and a line that says why.

    Examples
    --------
    >>> response_lengths(None, 512)[0]
    Lengths(best=128.0, expected=256.0, worst=512.0)
    >>> response_lengths(100, 512)[0].worst, response_lengths(100, 512)[1]
    (100.0, 'responses: 100 tokens in the mean, as given')
    """
    if stated is None:
        lengths = Lengths(max_new_tokens / 4, max_new_tokens / 2, float(max_new_tokens))
    else:
        lengths = Lengths(*[min(float(stated), float(max_new_tokens))] * 3)
    return lengths, response_note(stated, lengths)


def response_note(stated: float | None, lengths: Lengths) -> str:
    """Return why responses are taken to be so long."""
    if stated is None:
        return (
            f"responses: nobody knows yet; {lengths.best:g} to {lengths.worst:g} tokens in the "
            "mean (--response-tokens narrows the range; a run with --limit 10 tells)"
        )
    reason = (
        "as given"
        if lengths.expected == stated
        else f"not the {stated:g} of --response-tokens: an attempt ends at the token limit"
    )
    return f"responses: {lengths.expected:g} tokens in the mean, {reason}"


class Stated(NamedTuple):
    """What the command line says of a run; None where it does not.

    Parameters
    ----------
    attempts
        Attempts per question; without a task, 16 where it is None.
    questions, prompt_tokens, max_new_tokens, response_tokens
        As in `Workload`; ``response_tokens`` is one mean.
    """

    attempts: int | None = None
    questions: int | None = None
    prompt_tokens: float | None = None
    max_new_tokens: int | None = None
    response_tokens: float | None = None


def stated_workload(stated: Stated) -> Workload:
    """Return a run that is described by numbers alone.

    Raises
    ------
    UserError
        If a number is missing or is not above 0.

    Examples
    --------
    >>> stated_workload(Stated(64, questions=10, prompt_tokens=90, response_tokens=200)).attempts
    64
    """
    check(stated)
    if stated.questions is None or stated.prompt_tokens is None:
        given = {"--questions": stated.questions, "--prompt-tokens": stated.prompt_tokens}
        missing = ", ".join(option for option, value in given.items() if value is None)
        raise UserError(f"--task is not given, nor {missing}: give the one or the other")
    length, limit = stated.response_tokens, stated.max_new_tokens
    if limit is None:
        if length is None:
            raise UserError("--max-gen-toks and --response-tokens are not given: give one of them")
        limit = math.ceil(2 * length)
    lengths, note = response_lengths(length, limit)
    attempts = DEFAULT_ATTEMPTS if stated.attempts is None else stated.attempts
    return Workload(stated.questions, stated.prompt_tokens, limit, attempts, lengths, notes=(note,))


def check(stated: Stated) -> None:
    """Raise a `UserError` where a number of the command line is not above 0."""
    given = {
        "--questions": stated.questions,
        "--prompt-tokens": stated.prompt_tokens,
        "--max-gen-toks": stated.max_new_tokens,
        "--attempts": stated.attempts,
        "--response-tokens": stated.response_tokens,
    }
    for option, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g} must be above 0")

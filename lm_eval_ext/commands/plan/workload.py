"""The workload of a run: questions, attempts, lengths of prompts and responses."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from lm_eval_ext.checks import option
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_settings import DEFAULT_ATTEMPTS


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
    """

    questions: int
    prompt_tokens: float
    max_new_tokens: int
    attempts: float
    response_tokens: float
    notes: tuple[str, ...] = ()

    @property
    def all_attempts(self) -> int:
        """Attempts of the run."""
        return round(self.questions * self.attempts)


def response_note(given: float | None, tokens: float) -> str:
    """Return the source of the mean length of responses.

    Examples
    --------
    >>> response_note(100, 100)
    'responses: 100 tokens in the mean, as given'
    """
    if given is None:
        reason = "the token limit, as their length is unknown (--response-tokens gives a mean)"
    elif tokens == given:
        reason = "as given"
    else:
        reason = f"not the {given:g} of --response-tokens: an attempt ends at the token limit"
    return f"responses: {tokens:g} tokens in the mean, {reason}"


@dataclass(frozen=True)
class RunNumbers:
    """Numbers of the run.

    Raises
    ------
    UserError
        For a number that is not above 0.
    """

    attempts: int | None = option("per question; by default those of the task, 16 without one")
    questions: int | None = option("number of questions")
    prompt_tokens: float | None = option("mean tokens of a prompt")
    max_new_tokens: int | None = option("most tokens of a response")
    response_tokens: float | None = option("mean tokens of a response")

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value:g} must be above 0")

    def response_length(self, limit: int) -> float:
        """Return the mean tokens of a response under a token limit."""
        return float(limit if self.response_tokens is None else min(self.response_tokens, limit))


def workload_of_numbers(numbers: RunNumbers) -> Workload:
    """Return a run that is described by numbers alone; a `UserError` if one is missing.

    Examples
    --------
    >>> numbers = RunNumbers(64, questions=10, prompt_tokens=90, response_tokens=200)
    >>> workload_of_numbers(numbers).max_new_tokens
    400
    """
    if numbers.questions is None or numbers.prompt_tokens is None:
        given = {"--questions": numbers.questions, "--prompt-tokens": numbers.prompt_tokens}
        missing = ", ".join(option for option, value in given.items() if value is None)
        raise UserError(f"--tasks is not given, nor {missing}: give the one or the other")
    length, limit = numbers.response_tokens, numbers.max_new_tokens
    if limit is None:
        if length is None:
            raise UserError(
                "--max-new-tokens and --response-tokens are not given: give one of them"
            )
        limit = math.ceil(2 * length)
    tokens = numbers.response_length(limit)
    attempts = DEFAULT_ATTEMPTS if numbers.attempts is None else numbers.attempts
    notes = (response_note(length, tokens),)
    return Workload(numbers.questions, numbers.prompt_tokens, limit, attempts, tokens, notes)

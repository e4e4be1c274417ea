"""What is logged of each attempt: plain JSON that holds everything a metric needs.

A metric can therefore be computed again from a ``--log_samples`` file, without a model, and gives
the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict, cast

import numpy as np

from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.metrics import answer_logprob
from lm_eval_ext.models.attempt_summary import attempt_summary
from lm_eval_ext.models.generation import Generation, GenerationRecord, Thought


class AttemptDetails(TypedDict, total=False):
    """One attempt in the ``attempts`` entry of a logged sample.

    ``attempt`` (its number) is always there, ``answer`` (canonical, null when invalid), ``correct``
    and possibly ``reason`` when it was graded. The rest comes from the record of a `Generation` and
    is absent for models that return plain strings: ``finish_reason`` (``stop``, ``eos`` or
    ``length``), ``n_tokens``, ``token_ids`` (with the stop string or the end of sequence), the
    means over the tokens ``mean_logprob``, ``mean_entropy`` and ``mean_self_certainty`` in nats and
    ``mean_margin`` in [0, 1], the sources ``lowest_window_logprob``, ``tail_logprob`` and
    ``answer_logprob``, and what a wrapper adds: ``probabilities``, ``uncertainties`` and
    ``token_scores`` by name, and ``extra``. An attempt with a thought has ``unfinished_thought``
    and, where they are known, ``n_thinking_tokens`` and ``n_thinking_characters``, those of the
    response. Tokens that a thinking budget forced are in neither means nor token scores; their
    places are ``forced_tokens``.
    """

    attempt: int
    answer: str | None
    correct: bool
    reason: str
    finish_reason: str
    n_tokens: int
    token_ids: list[int]
    forced_tokens: list[int]
    unfinished_thought: bool
    n_thinking_tokens: int
    n_thinking_characters: int
    mean_logprob: float
    mean_entropy: float
    mean_self_certainty: float
    mean_margin: float
    lowest_window_logprob: float
    tail_logprob: float
    answer_logprob: float
    probabilities: dict[str, float]
    uncertainties: dict[str, float]
    token_scores: dict[str, list[float]]
    extra: dict[str, Any]


Question = Sequence[AttemptDetails]
"""All attempts at one question, in order."""


def attempt_details(
    number: int, response: Any, attempt: Attempt | None, thought: Thought | None = None
) -> AttemptDetails:
    """Describe an attempt for the log.

    Parameters
    ----------
    number
        Position of the attempt among those of its question, from 0; the number in the response's
        own record takes precedence.
    response
        A `Generation` or a plain string.
    attempt
        The verdict, or None when nothing is graded.
    """
    details = AttemptDetails(attempt=number)
    if attempt is not None:
        details.update(verdict_details(attempt))
    if thought is not None:
        details["unfinished_thought"] = not thought.finished
        if thought.n_tokens is not None:
            details["n_thinking_tokens"] = thought.n_tokens
        if thought.n_characters is not None:
            details["n_thinking_characters"] = thought.n_characters
    record = record_of(response)
    if record is None:
        return details
    details["attempt"] = record.attempt
    details.update(cast(AttemptDetails, attempt_summary(record)))
    details["token_ids"] = list(record.token_ids)
    if not record.chosen.all():
        details["forced_tokens"] = np.flatnonzero(~record.chosen).tolist()
    if (sure := graded_answer_logprob(record, details.get("answer"))) is not None:
        details["answer_logprob"] = sure
    if record.token_scores:
        # The shortest decimals that give the float32 values back: half the file's size.
        details["token_scores"] = {
            name: [float(str(value)) for value in np.asarray(scores[record.chosen], np.float32)]
            for name, scores in record.token_scores.items()
        }
    if record.extra:
        details["extra"] = dict(record.extra)
    return details


def graded_answer_logprob(record: GenerationRecord, answer: str | None) -> float | None:
    """Return the mean log-probability of the tokens of the answer that was graded.

    Parameters
    ----------
    record
        Of the attempt.
    answer
        What the grader took for its answer, in canonical form.

    Returns
    -------
    float or None
        None where it is invalid, or not the box or number that the attempt ends with.
    """
    found = record.answer
    if found is None or answer is None or record.statistics is None:
        return None
    if not found.in_box and _number(found.text) != _number(answer):
        return None
    value = answer_logprob(record.statistics.log_prob, found.start, found.end)
    return None if math.isnan(value) else value


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan  # equal to nothing


def verdict_details(attempt: Attempt) -> AttemptDetails:
    """Return the part of the details that a grader decides."""
    details = AttemptDetails(answer=attempt.answer, correct=bool(attempt.correct))
    if attempt.reason is not None:
        details["reason"] = attempt.reason
    return details


def record_of(response: Any) -> GenerationRecord | None:
    """Return the record of a response, or None where the model gave none."""
    # Every attempt has at least one token, be it the end of the sequence; without any, the record
    # is the default one of a string made by lm-eval.
    if isinstance(response, Generation) and response.record.token_ids:
        return response.record
    return None

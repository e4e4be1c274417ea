"""Where the confidence in an answer comes from, and what may be done with it.

The sources of a question are found in the logged details of its attempts, by name:

=========================  ===========  ========  =================================================
source                     probability  unit      what it is
=========================  ===========  ========  =================================================
``vote_share``             yes          question  share of the attempts that gave the majority's
                                                  answer; only where there are several attempts,
                                                  and a valid answer among them
``answer_entropy``         no           question  entropy over the groups of equal answers, nats;
                                                  of the majority's answer, as above
what a wrapper puts into   yes          attempt   its estimate that the attempt is correct
``probabilities``
what a wrapper puts into   no           attempt   any measure that is higher where the model is
``uncertainties``                                 less sure
``mean_logprob``           no           attempt   mean log-probability of the tokens, nats
``mean_entropy``           no           attempt   mean entropy of the next-token distribution, nats
``self_certainty``         no           attempt   mean KL from the uniform distribution to it, nats
``lowest_window_logprob``  no           attempt   lowest mean log-probability of a tenth of the
                                                  tokens, nats
``tail_logprob``           no           attempt   that of the last tenth
``answer_logprob``         no           attempt   that of the tokens of the answer
=========================  ===========  ========  ==========================================
Calibration is measured on probabilities only. An uncertainty is never scaled into one. A value that
is not finite (a NaN from a half-precision model) is not a value: the attempt then has no confidence
from that source.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.grading.attempt_details import AttemptDetails, Question
from lm_eval_ext.metrics import UndefinedMetricWarning, answer_entropy


class Source(NamedTuple):
    """The confidences one source gives at one question.

    Parameters
    ----------
    confidence
        Higher where the attempt is more likely to be correct, one per row: all finite.
    correct
        Verdict of each row.
    n_tokens
        Length of each row's attempt; NaN where unknown or where a row is a question.
    is_probability
        Whether the confidences estimate the probability of being correct.
    votes
        What votes that go by this source have: a value for each attempt, the lowest for one without
        a confidence; None where the source is not of attempts.
    vote_weight
        Weight in [0, 1] of each attempt in a vote, 0 for one without; None where the source has
        none.
    of_subsets
        Where a confidence depends on the other attempts: from the attempts in some votes, shape
        (n_subsets, k), to the weights they have there, same shape. Votes of k attempts go by it.
    """

    confidence: list[float]
    correct: list[bool]
    n_tokens: list[float]
    is_probability: bool
    votes: list[float] | None = None
    vote_weight: list[float] | None = None
    of_subsets: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None


def confidence_sources(question: Question) -> dict[str, Source]:
    """Return the sources of a question by name; one that no attempt provides is absent.

    Examples
    --------
    >>> attempts = [{"answer": a, "correct": a == "4"} for a in ("4", "4", "5")]
    >>> confidence_sources(attempts)["vote_share"].confidence
    [0.6666666666666666]
    """
    sources = _of_votes(question) if len(question) > 1 else {}
    probabilities = [attempt.get("probabilities", {}) for attempt in question]
    for name in _names(probabilities):
        values = [row.get(name) for row in probabilities]
        sources[name] = source_of_attempts(
            question, values, is_probability=True, vote_weight=values
        )
    uncertainties = [attempt.get("uncertainties", {}) for attempt in question]
    for name in _names(uncertainties):
        sources[name] = source_of_attempts(
            question, [_negative(row.get(name)) for row in uncertainties]
        )
    return sources | _from_statistics(question)


def _from_statistics(question: Question) -> dict[str, Source]:
    """Return what the engine's statistics of an attempt say about it."""
    mean_logprob = [attempt.get("mean_logprob") for attempt in question]
    # The response probability of Taubenfeld et al. 2025 (arXiv:2502.06233), section 3, by which
    # their votes are weighted.
    per_token = [None if value is None else math.exp(value) for value in mean_logprob]
    values: dict[str, list[float | None]] = {
        "mean_logprob": mean_logprob,
        "mean_entropy": [_negative(attempt.get("mean_entropy")) for attempt in question],
        "self_certainty": [attempt.get("mean_self_certainty") for attempt in question],
        "lowest_window_logprob": [a.get("lowest_window_logprob") for a in question],
        "tail_logprob": [attempt.get("tail_logprob") for attempt in question],
        "answer_logprob": [attempt.get("answer_logprob") for attempt in question],
    }
    weights = {"mean_logprob": per_token}
    return {
        name: source_of_attempts(question, of_attempts, vote_weight=weights.get(name))
        for name, of_attempts in values.items()
        if any(value is not None for value in of_attempts)
    }


def _of_votes(question: Question) -> dict[str, Source]:
    """Return what the answers say together, about whether the majority's is right.

    The majority's share is of all attempts, invalid ones too. Of answers with equally many votes
    the one given first counts: attempts come in random order. Without one valid answer there is no
    majority, and no row.
    """
    answers = [attempt["answer"] for attempt in question]
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return {
            "vote_share": Source([], [], [], is_probability=True),
            "answer_entropy": Source([], [], [], is_probability=False),
        }
    answer, n_votes = votes.most_common(1)[0]
    correct = next(attempt["correct"] for attempt in question if attempt["answer"] == answer)
    share = Source([n_votes / len(answers)], [correct], [math.nan], is_probability=True)
    entropy = -answer_entropy(answers)
    return {
        "vote_share": share,
        "answer_entropy": share._replace(confidence=[entropy], is_probability=False),
    }


def source_of_attempts(
    question: Question,
    confidence: list[float | None],
    *,
    is_probability: bool = False,
    vote_weight: list[float | None] | None = None,
) -> Source:
    """Return a source from the confidence in each attempt.

    Parameters
    ----------
    question
        The attempts.
    confidence
        One per attempt; None, or a number that is not finite, where there is none.
    is_probability, vote_weight
        As of a `Source`; a weight may be None.
    """
    finite = [c if c is not None and math.isfinite(c) else None for c in confidence]
    rows = [(a, c) for a, c in zip(question, finite, strict=True) if c is not None]
    weights = None
    if vote_weight is not None:
        weights = [
            0.0 if c is None or weight is None else weight
            for c, weight in zip(finite, vote_weight, strict=True)
        ]
    if any(c is not None and not math.isfinite(c) for c in confidence):
        warnings.warn(
            "attempts with a confidence that is not finite have none from that source",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    lowest = min((c for _, c in rows), default=0.0)
    return Source(
        confidence=[c for _, c in rows],
        correct=[attempt["correct"] for attempt, _ in rows],
        n_tokens=[_length(attempt) for attempt, _ in rows],
        is_probability=is_probability,
        votes=[lowest if c is None else c for c in finite],
        vote_weight=weights,
    )


def _names(mappings: list[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _length(attempt: AttemptDetails) -> float:
    return attempt.get("n_tokens", math.nan)

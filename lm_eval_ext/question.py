"""One question after its attempts: what is logged of each, and the metrics of the question.

Everything a metric needs is in the logged details of the attempts, which are plain JSON. A metric
can therefore be computed again from a ``--log_samples`` file, and gives the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.generation import Generation, GenerationRecord
from lm_eval_ext.grading.attempt import Attempt


class AttemptDetails(TypedDict, total=False):
    """One attempt in the ``attempts`` entry of a logged sample.

    ``attempt`` (its number) is always there, ``answer`` (canonical, null when invalid) and
    ``correct`` when it was graded. The rest comes from the record of a `Generation` and is absent
    for models that return plain strings: ``finish_reason`` (``stop``, ``eos`` or ``length``),
    ``n_tokens``, the means over the tokens ``mean_logprob``, ``mean_entropy`` and
    ``mean_self_certainty`` in nats and ``mean_margin`` in [0, 1], and ``extra``, whatever the model
    wrapper adds.
    """

    attempt: int
    answer: str | None
    correct: bool
    finish_reason: str
    n_tokens: int
    mean_logprob: float
    mean_entropy: float
    mean_self_certainty: float
    mean_margin: float
    extra: dict[str, Any]


Question = Sequence[AttemptDetails]
"""All attempts at one question, in order."""


class QuestionMetric(NamedTuple):
    """A metric with one value per question.

    Parameters
    ----------
    name
        Its name in lm-eval's result table.
    value
        From the attempts at a question to its value; None gives the question no value, and where
        no question has one there is no row. Any type the aggregation takes: a metric that pools
        attempts over questions returns a list of them.
    higher_is_better
        Direction, or None where there is none.
    aggregation
        From the questions' values to the metric, a function or the name lm-eval knows it by. With
        ``"mean"`` lm-eval's standard error is that over questions, which is the right one for
        attempts clustered in questions.
    """

    name: str
    value: Callable[[Question], Any]
    higher_is_better: bool | None
    aggregation: str | Callable[[Sequence[Any]], float] = "mean"


def question_metrics(n_attempts: int, ks: Iterable[int]) -> list[QuestionMetric]:
    """Return the metrics of a task with ``n_attempts`` attempts, and pass@k for each of ``ks``.

    This list is the place to add one.
    """
    return [
        *(QuestionMetric(f"pass@{k}", _pass_at(k), True) for k in ks),
        QuestionMetric(f"maj@{n_attempts}", _majority_of(n_attempts), True),
        QuestionMetric("invalid_rate", _invalid_rate, False),
        QuestionMetric("truncated_rate", _truncated_rate, False),
        QuestionMetric("mean_tokens", _mean_tokens, None),
    ]


def attempt_details(number: int, response: Any, attempt: Attempt | None) -> AttemptDetails:
    """Describe an attempt for the log.

    Parameters
    ----------
    number
        Position of the attempt among those of its question, from 0; the number in the response's
        own record takes precedence.
    response
        The model's response, a `Generation` or a plain string.
    attempt
        The verdict, or None when nothing is graded.
    """
    details = AttemptDetails(attempt=number)
    if attempt is not None:
        details.update({"answer": attempt.answer, "correct": bool(attempt.correct)})
    record = record_of(response)
    if record is None:
        return details
    details["attempt"] = record.attempt
    details["finish_reason"] = record.finish_reason
    details["n_tokens"] = record.n_tokens
    if record.statistics is not None:
        statistics = record.statistics
        details["mean_logprob"] = _mean(statistics.log_prob)
        details["mean_entropy"] = _mean(statistics.entropy)
        details["mean_self_certainty"] = _mean(statistics.self_certainty)
        details["mean_margin"] = _mean(statistics.margin)
    if record.extra:
        details["extra"] = dict(record.extra)
    return details


def record_of(response: Any) -> GenerationRecord | None:
    """Return the record of a response, or None where the model gave none."""
    # Every attempt has at least one token, be it the end of the sequence; without any, the record
    # is the default one of a string made by lm-eval.
    if isinstance(response, Generation) and response.record.token_ids:
        return response.record
    return None


class QuestionResult(dict[str, Any]):
    """What ``process_results`` returns: the metrics of a question, and the details to log with it.

    lm-eval writes the whole mapping to the sample file and then takes every pair of ``items()`` for
    a metric, aggregated and shown in the table. Details are no metric: they are in the mapping and
    not among its ``items()``.

    Examples
    --------
    >>> result = QuestionResult({"pass@1": 0.5}, attempts=[{"attempt": 0}])
    >>> list(result.items()), sorted(result), dict(result)["attempts"]
    ([('pass@1', 0.5)], ['attempts', 'pass@1'], [{'attempt': 0}])
    """

    def __init__(self, metrics: Mapping[str, Any], **details: Any) -> None:
        super().__init__(metrics, **details)
        self._details = frozenset(details)

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Iterate over the metrics only."""
        return ((name, value) for name, value in super().items() if name not in self._details)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the details too; pickle itself goes by ``items()``."""
        details = {name: self[name] for name in self._details}
        return (partial(QuestionResult, **details), (dict(self.items()),))


def _pass_at(k: int) -> Callable[[Question], float]:
    def value(question: Question) -> float:
        from lm_eval_ext.metrics import pass_at_k

        n_correct = sum(attempt["correct"] for attempt in question)
        return float(pass_at_k(n_correct, len(question), k))

    return value


def _majority_of(k: int) -> Callable[[Question], float]:
    def value(question: Question) -> float:
        from lm_eval_ext.metrics import maj_at_k

        answers = [attempt["answer"] for attempt in question]
        correct = [attempt["correct"] for attempt in question]
        return float(maj_at_k(answers, correct, k).score)

    return value


def _invalid_rate(question: Question) -> float:
    return _mean([attempt["answer"] is None for attempt in question])


def _truncated_rate(question: Question) -> float | None:
    if not all("finish_reason" in attempt for attempt in question):
        return None
    return _mean([attempt["finish_reason"] == "length" for attempt in question])


def _mean_tokens(question: Question) -> float | None:
    if not all("n_tokens" in attempt for attempt in question):
        return None
    return _mean([attempt["n_tokens"] for attempt in question])


def _mean(values: Sequence[float] | NDArray[np.float32]) -> float:
    return float(np.mean(values, dtype=np.float64))

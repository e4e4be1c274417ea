"""One question after its attempts: the metrics that have a value for it, and what is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.scoring.confidence_sources import confidence_sources

Aggregate = Callable[[Sequence[Any]], float]
"""From the values of all questions to the metric."""


class QuestionMetric(NamedTuple):
    """A metric with one value per question.

    Parameters
    ----------
    name
        Its name in lm-eval's result table.
    value
        From the attempts at a question to its value; None gives the question no value, and where
        no question has one there is no row.
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
    aggregation: str | Aggregate = "mean"


class SourceMetric(NamedTuple):
    """A metric of a confidence, or another estimate, reported for each source as ``name:source``.

    Parameters
    ----------
    name
        Its name before the colon.
    value
        From the attempts at a question and what the source says of them to the question's value,
        any type the aggregation takes; None gives the question no value.
    higher_is_better, aggregation
        As of a `QuestionMetric`.
    """

    name: str
    value: Callable[[Question, Any], Any]
    higher_is_better: bool | None
    aggregation: str | Aggregate = "mean"


class MetricSuite:
    """The metrics of a kind of task.

    Parameters
    ----------
    metrics
        Those with a name of their own.
    source_metrics
        Those reported for each source.
    sources
        From the attempts at a question to its sources by name.
    """

    def __init__(
        self,
        metrics: Sequence[QuestionMetric],
        source_metrics: Sequence[SourceMetric] = (),
        sources: Callable[[Question], Mapping[str, Any]] = confidence_sources,
    ) -> None:
        self.sources = sources
        self.metrics = {metric.name: metric for metric in metrics}
        self.source_metrics = {metric.name: metric for metric in source_metrics}

    def values(self, question: Question) -> dict[str, Any]:
        """Return the values of a question by metric, those it has."""
        values = {name: metric.value(question) for name, metric in self.metrics.items()}
        for source_name, source in self.sources(question).items():
            for name, metric in self.source_metrics.items():
                values[f"{name}:{source_name}"] = metric.value(question, source)
        return {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, name: str) -> QuestionMetric | SourceMetric:
        """Return the metric a value's name belongs to.

        Raises
        ------
        KeyError
            If there is none.
        """
        if name in self.metrics:
            return self.metrics[name]
        before, colon, _ = name.partition(":")
        if not colon:
            raise KeyError(name)
        return self.source_metrics[before]


class QuestionResult(dict[str, Any]):
    """What ``process_results`` returns: the metrics of a question, and the details to log with it.

    lm-eval writes the whole mapping to the sample file, and takes every pair of ``items()`` for a
    metric, aggregated and shown in the table. Here the two differ: details are in the mapping and
    not among its ``items()``; values that are lists, of metrics which pool attempts over questions,
    are among its ``items()`` only, since the details hold all there is in them.

    Examples
    --------
    >>> result = QuestionResult({"pass@1": 0.5, "ece": [(0.9, 1)]}, attempts=[{"attempt": 0}])
    >>> list(result.items())
    [('pass@1', 0.5), ('ece', [(0.9, 1)])]
    >>> dict(result)
    {'pass@1': 0.5, 'attempts': [{'attempt': 0}]}
    """

    def __init__(self, metrics: Mapping[str, Any], **details: Any) -> None:
        single = {name: v for name, v in metrics.items() if not isinstance(v, list)}
        super().__init__(single, **details)
        self._metrics = dict(metrics)
        self._details = details

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Iterate over the metrics only."""
        return iter(self._metrics.items())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all of it; pickle itself goes by ``items()``."""
        return (partial(QuestionResult, **self._details), (self._metrics,))

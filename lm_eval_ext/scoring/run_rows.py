"""What lm-eval aggregates of a task: kept for the run's own table and its one line of warning."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval_ext.harness.bridge import is_armed
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring import aggregations, headline
from lm_eval_ext.scoring.question import Aggregate, MetricSuite, QuestionMetric, SourceMetric
from lm_eval_ext.scoring.scores import Score, score

logger = logging.getLogger(__name__)

_SHOWN = 3  # reasons in the line of warning


class RunRows(dict[str, Any]):
    """Aggregations by metric, as lm-eval asks a task for them; each keeps what it returned.

    Those of a confidence source are known only once a model names it.

    Parameters
    ----------
    task
        Its name.
    metrics
        Its suite.
    mean, mean_error
        lm-eval's own for a metric that is a mean over questions, and its standard error.
    """

    def __init__(
        self, task: str, metrics: MetricSuite, *, mean: Aggregate, mean_error: Aggregate
    ) -> None:
        super().__init__()
        self.mean, self.mean_error = mean, mean_error
        self._task = task
        self._metrics = metrics
        self._scores: dict[str, Score] = {}
        self._undefined: dict[str, list[str]] = {}

    def __missing__(self, name: str) -> Any:
        metric = self._metrics[name]
        if isinstance(metric.aggregation, str) and metric.aggregation != "mean":
            metric = metric._replace(aggregation=getattr(aggregations, metric.aggregation))
        if isinstance(metric.aggregation, str) and not is_armed():
            return self.mean  # without the bridge lm-eval knows the error of its own function only
        return _Kept(self, name, metric)

    def keep(self, name: str, found: Score) -> None:
        """Keep the value of a row."""
        self._scores[name] = found

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note warnings of undefined metrics under a row, instead of showing them."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UndefinedMetricWarning)
            yield
        for warning in caught:
            if not issubclass(warning.category, UndefinedMetricWarning):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
                continue
            # Of several rows with one reason there is one line: without the row's name and share.
            reason = re.sub(r"^\S+ is (?=undefined)|\d+% of ", "", str(warning.message))
            rows = self._undefined.setdefault(reason, [])
            if name not in rows:
                rows.append(name)

    def warn(self) -> None:
        """Say in one line which rows are undefined, and why; then forget it."""
        if not self._undefined:
            return
        said = [
            f"{_by_source(rows)}: {reason}"
            for reason, rows in list(self._undefined.items())[:_SHOWN]
        ]
        left = len(self._undefined) - len(said)
        logger.warning("%s: %s%s", self._task, "; ".join(said), f"; {left} more" * bool(left))
        self._undefined.clear()

    def headline(self) -> list[dict[str, Any]]:
        """Return the rows that speak for the task, as JSON has them."""
        values = {name: kept.value for name, kept in self._scores.items()}
        directions = {name: kept.higher_is_better for name, kept in self._scores.items()}
        rows = [(n, self._scores[n]) for n in headline.rows(values, directions)]
        plain = ((n, {k: _plain(v) for k, v in kept._asdict().items()}) for n, kept in rows)
        return [{"metric": name, **kept} for name, kept in plain]


class _Kept:
    """An aggregation, or lm-eval's mean, that notes what it returned and what it warned of."""

    def __init__(self, rows: RunRows, name: str, metric: QuestionMetric | SourceMetric) -> None:
        self.__name__ = getattr(metric.aggregation, "__name__", str(metric.aggregation))
        self._rows = rows
        self._name = name
        self._metric = metric

    def __call__(self, items: Sequence[Any]) -> float:
        aggregation = self._metric.aggregation
        with self._rows.noting(self._name):
            value = (self._rows.mean if isinstance(aggregation, str) else aggregation)(items)
        nothing = (math.nan,) * 3
        kept = Score(value, *nothing, len(items), self._metric.higher_is_better)
        self._rows.keep(self._name, kept)
        return value

    def standard_error(self, items: Sequence[Any], bootstrap_iters: int) -> float:
        metric = self._metric
        with self._rows.noting(self._name):
            found = score(items, metric.aggregation, metric.higher_is_better, bootstrap_iters)
        self._rows.keep(self._name, found)
        if isinstance(metric.aggregation, str):
            return self._rows.mean_error(items)
        return found.standard_error


def _by_source(rows: Sequence[str]) -> str:
    """Return rows by their source.

    Examples
    --------
    >>> _by_source(["ece:self_eval", "brier:self_eval", "pass@8"])
    'self_eval (ece, brier), pass@8'
    """
    of_source: dict[str, list[str]] = {}
    for row in rows:
        name, _, source = row.partition(":")
        of_source.setdefault(source, []).append(name)
    plain = of_source.pop("", [])
    return ", ".join([f"{s} ({', '.join(names)})" for s, names in of_source.items()] + plain)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A metric with its interval over questions, from the values of all questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.metrics import proportion_interval, t_interval
from lm_eval_ext.scoring.aggregations import MAX_RESAMPLES, Aggregation
from lm_eval_ext.scoring.question import Aggregate


class Score(NamedTuple):
    """A metric of a task with its 95% interval over questions.

    Parameters
    ----------
    value
        The metric; NaN where it is undefined.
    standard_error
        As in lm-eval's table.
    low, high
        Ends of the interval: Wilson's for means of values in [0, 1], Student's t for other means,
        and the bootstrap over questions for metrics that pool attempts.
    n_questions
        Questions that have a value.
    higher_is_better
        Direction, or None.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n_questions: int
    higher_is_better: bool | None


def score(
    values: Sequence[Any],
    aggregation: str | Aggregate,
    higher_is_better: bool | None,
    n_resamples: int = MAX_RESAMPLES,
) -> Score:
    """Aggregate the values of all questions.

    Parameters
    ----------
    values
        One per question.
    aggregation
        ``"mean"`` or one of `lm_eval_ext.scoring.aggregations`.
    higher_is_better
        Direction, which is passed on.
    n_resamples
        Of the questions, for a metric that pools attempts.
    """
    if isinstance(aggregation, Aggregation):
        return score_with_values(values, aggregation, higher_is_better, n_resamples)[0]
    if aggregation != "mean":
        raise TypeError(f"aggregation={aggregation!r} has no interval")
    array = np.asarray(values, dtype=np.float64)
    value, n = float(array.mean()), len(array)
    if n < 2 or np.isnan(array).any():
        return Score(value, math.nan, math.nan, math.nan, n, higher_is_better)
    in_unit = bool(((array >= 0) & (array <= 1)).all())
    mean = (proportion_interval if in_unit else t_interval)(array)
    standard_error = float(array.std(ddof=1) / math.sqrt(n))
    return Score(value, standard_error, float(mean.low), float(mean.high), n, higher_is_better)


def score_with_values(
    items: Sequence[Any],
    aggregation: Aggregation,
    higher_is_better: bool | None,
    n_resamples: int = MAX_RESAMPLES,
) -> tuple[Score, NDArray[np.float64] | None]:
    """Return a metric that pools attempts, and its values on the resamples of the questions.

    The values are None where no question has an attempt.
    """
    value = aggregation.value(items)
    found = aggregation.interval_with_values(items, n_resamples)
    if found is None:
        return Score(value, math.nan, math.nan, math.nan, 0, higher_is_better), None
    interval, values = found
    bounds = (float(interval.standard_error), float(interval.low), float(interval.high))
    return Score(value, *bounds, interval.n_questions, higher_is_better), values

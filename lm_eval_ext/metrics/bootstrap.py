"""Cluster bootstrap over questions, for any metric.

Attempts at one question are not independent, so whole questions are resampled. Arrays of shape
(n_questions, n_attempts) carry that structure in their first axis; flat arrays come with
`clusters`, the question id of each row.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray, at_least, one_of, open_unit, scalar_or_array
from lm_eval_ext.metrics.resampling import (
    Data,
    Formula,
    Metric,
    Questions,
    as_arrays,
    evaluate_all,
    formula_of,
    leave_one_out,
    questions_of,
    resampled_values,
    sums_by_question,
    too_undefined,
    weighted,
)


class BootstrapInterval(NamedTuple):
    """A metric with its cluster bootstrap interval over questions.

    The first four are floats, or arrays for a metric with several values. `n_undefined` counts the
    resamples on which the metric was NaN; they are left out of the quantiles, and where they are
    more than a quarter there is no interval and no standard error (NaN).
    """

    estimate: Any
    low: Any
    high: Any
    standard_error: Any
    n_questions: int
    n_resamples: int
    n_undefined: int
    confidence_level: float
    method: str


def _mean(questions: Questions, values: ArrayLike) -> Formula:
    array = np.asarray(values, dtype=np.float64)
    shape = array.shape[1:]
    flat = array.reshape(len(array), -1)
    known = ~np.isnan(flat)
    columns = [*np.where(known, flat, 0.0).T, *known.T.astype(np.float64)]
    sums = sums_by_question(questions.of_row, questions.n_questions, columns)
    n_values = flat.shape[1]

    def value(weights: FloatArray) -> FloatArray:
        totals = weights @ sums
        count = totals[:, n_values:]
        means = totals[:, :n_values] / np.where(count > 0, count, np.nan)
        return np.asarray(means.reshape(len(weights), *shape))

    return Formula(value)


@weighted(_mean)
def mean_over_questions(values: ArrayLike) -> Any:
    """Average per-question values, such as those of `pass_at_k` or a vote. Unit: question.

    Parameters
    ----------
    values
        Shape (n_questions,) or (n_questions, n_ks). NaN marks a question without a value, such as
        one with fewer than k attempts; it is left out.

    Returns
    -------
    float or numpy.ndarray
        One mean, or shape (n_ks,). NaN where no question has a value.

    Examples
    --------
    >>> mean_over_questions([[0.5, 1.0], [0.0, float("nan")]])
    array([0.25, 1.  ])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError("values must hold at least one question")
    questions = questions_of({"values": array}, None)
    return scalar_or_array(_mean(questions, array).at_weight_one(questions.n_questions))


def cluster_bootstrap(
    metric: Metric,
    data: Data,
    *,
    clusters: ArrayLike | None = None,
    n_resamples: int = 1_000,
    confidence_level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    seed: int | np.random.Generator = 0,
) -> BootstrapInterval:
    """Find the confidence interval of any metric by resampling whole questions.

    Metrics with a weighted formula evaluate all resamples at once; any other function works too and
    is called once per resample.

    Parameters
    ----------
    metric
        Called as ``metric(**data)``. Options are fixed with `functools.partial`, by name.
    data
        Arrays by argument name; first axis: questions, or rows when `clusters` is given.
    clusters
        Question id of each row, shape (n_rows,). None: each entry of the first axis is a question.
    n_resamples
        Number of resamples, at least 2.
    confidence_level
        Strictly between 0 and 1.
    method
        ``"percentile"``, or ``"bca"``: bias-corrected and accelerated, which needs one further
        evaluation per question and follows skewed distributions better.
    seed
        Seed or numpy Generator.

    Returns
    -------
    BootstrapInterval
        NaN bounds and standard error where the metric is undefined on the sample or on more than a
        quarter of the resamples, or for a single question. An `UndefinedMetricWarning` tells when
        more than 5% of the resamples are undefined.

    Raises
    ------
    ValueError
        If the arrays have different numbers of rows or an argument is out of range.

    References
    ----------
    Davison and Hinkley 1997, Bootstrap Methods, section 3.8 (resampling of groups); Efron 1987,
    Better Bootstrap Confidence Intervals, JASA 82:171-185 (BCa).

    Examples
    --------
    >>> values = np.arange(20) % 4 / 4
    >>> interval = cluster_bootstrap(mean_over_questions, {"values": values}, n_resamples=500)
    >>> interval.estimate, interval.low < 0.375 < interval.high, interval.n_questions
    (0.375, True, 20)
    """
    return bootstrap_with_values(
        metric,
        data,
        clusters=clusters,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        method=method,
        seed=seed,
    )[0]


def bootstrap_with_values(
    metric: Metric,
    data: Data,
    *,
    clusters: ArrayLike | None = None,
    n_resamples: int = 1_000,
    confidence_level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    seed: int | np.random.Generator = 0,
) -> tuple[BootstrapInterval, FloatArray]:
    """Do as `cluster_bootstrap` and return the metric's values on the resamples as well.

    Two runs with equally many questions and the same seed see the same resamples, so that the
    difference of their values is that of a paired bootstrap.

    Parameters
    ----------
    metric, data, clusters, n_resamples, confidence_level, method, seed
        As in `cluster_bootstrap`.

    Returns
    -------
    tuple
        The interval, and the values, shape (n_resamples, ...); NaN where undefined.
    """
    at_least("n_resamples", n_resamples, 2)
    level = open_unit("confidence_level", confidence_level)
    one_of("method", method, ("percentile", "bca"))
    arrays = as_arrays(data)
    questions = questions_of(arrays, clusters)
    formula = formula_of(metric, arrays, questions)
    n = questions.n_questions
    estimate = formula.at_weight_one(n)
    rng = np.random.default_rng(seed)
    values = resampled_values(formula, estimate, n, n_resamples, rng)
    low, high = _bounds(formula, estimate, values, n, method, level)
    if (upper := formula.upper) is not None:
        its_estimate = upper.at_weight_one(n)
        its_values = resampled_values(upper, its_estimate, n, n_resamples, rng)
        high = _bounds(upper, its_estimate, its_values, n, method, level)[1]
    undefined = int(np.isnan(values).reshape(n_resamples, -1).any(axis=1).sum())
    no_interval = np.isnan(estimate)
    if n > 1:
        no_interval |= too_undefined(values, estimate)
    low, high, error = np.where(no_interval, np.nan, [low, high, _spread(values)])
    interval = BootstrapInterval(
        scalar_or_array(estimate),
        scalar_or_array(low),
        scalar_or_array(high),
        scalar_or_array(error),
        n,
        n_resamples,
        undefined,
        level,
        method,
    )
    return interval, values


def _spread(values: FloatArray) -> FloatArray:
    """Take the standard deviation over defined resamples; NaN if there are fewer than two."""
    count = (~np.isnan(values)).sum(axis=0)
    count = np.where(count > 1, count, np.nan)
    mean = np.nansum(values, axis=0) / count
    return np.asarray(np.sqrt(np.nansum((values - mean) ** 2, axis=0) / (count - 1)))


def _quantiles(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Take quantiles over resamples, shape (n_levels, ...); `levels` may differ per value."""
    flat = values.reshape(len(values), -1)
    per_value = np.broadcast_to(levels.reshape(len(levels), -1), (len(levels), flat.shape[1]))
    result = np.full(per_value.shape, np.nan)
    for i, column in enumerate(flat.T):
        known = column[~np.isnan(column)]
        if known.size and not np.isnan(per_value[:, i]).any():
            result[:, i] = np.quantile(known, per_value[:, i])
    return result.reshape(len(levels), *values.shape[1:])


def _bounds(
    formula: Formula,
    estimate: FloatArray,
    values: FloatArray,
    n_questions: int,
    method: str,
    level: float,
) -> FloatArray:
    """Return lower and upper bounds, shape (2, ...), from values on resamples."""
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    if method == "bca" and n_questions > 1:
        left_out = evaluate_all(formula, leave_one_out(n_questions))
        tails = _bca_levels(estimate, values, left_out, tails)
    return _quantiles(values, tails)


def _bca_levels(
    estimate: FloatArray, values: FloatArray, left_out: FloatArray, tails: FloatArray
) -> FloatArray:
    """Correct quantile levels for bias and acceleration (Efron 1987)."""
    from scipy.special import ndtr, ndtri

    n_known = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    # Half of the ties count as below, so that a discrete metric is not seen as biased. Ties are
    # taken up to rounding, which depends on how a metric is summed.
    tied = np.abs(values - estimate) <= 1e-12 * np.maximum(1, np.abs(estimate))
    below = ((values < estimate) & ~tied).sum(axis=0) + tied.sum(axis=0) / 2
    shift = ndtri(np.clip(below / n_known, 0.5 / n_known, 1 - 0.5 / n_known))
    influence = np.nanmean(left_out, axis=0) - left_out
    scale = np.nansum(influence**2, axis=0) ** 1.5
    acceleration = np.nansum(influence**3, axis=0) / (6 * np.where(scale > 0, scale, np.inf))
    z = shift + ndtri(tails).reshape(-1, *([1] * estimate.ndim))
    return np.asarray(ndtr(shift + z / (1 - acceleration * z)))

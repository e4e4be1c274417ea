"""Standard errors and confidence intervals that respect questions.

Attempts at one question are not independent, so the unit of resampling is the question everywhere
in this module. Arrays of shape (n_questions, n_attempts) carry that structure in their first axis;
flat arrays come with `clusters`, the question id of each row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import (
    FloatArray,
    as_count,
    as_float,
    as_probability,
    open_unit,
    scalar_or_array,
)
from lm_eval_ext.metrics.resampling import questions_of, sums_by_question

_ROUNDING = 1e-12
"""Largest spread of equal numbers in [0, 1] that were averaged in different ways."""


class Interval(NamedTuple):
    """An estimate with its confidence interval and the number of observations behind it."""

    estimate: Any
    low: Any
    high: Any
    n: Any
    confidence_level: float


class MeanInterval(NamedTuple):
    """A mean with its clustered standard error and t-interval over questions."""

    estimate: float
    low: float
    high: float
    standard_error: float
    n_questions: int
    n_rows: int
    confidence_level: float


def wilson_interval(
    n_success: ArrayLike, n_trials: ArrayLike, *, confidence_level: float = 0.95
) -> Interval:
    r"""Return the Wilson score interval of a share of independent trials. Unit: the trial.

    .. math:: \frac{\hat p + z^2/2n}{1 + z^2/n} \pm
              \frac{z}{1 + z^2/n}\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}

    Stays inside [0, 1] and behaves at 0 and n successes. Not for attempts that share a question:
    they are not independent, see `t_interval`.

    Parameters
    ----------
    n_success, n_trials
        Counts, numbers or arrays of one shape, n_success <= n_trials.
    confidence_level
        Strictly between 0 and 1.

    Returns
    -------
    Interval
        Fields shaped as the counts; NaN where n_trials is 0.

    Raises
    ------
    ValueError
        If a count is negative or fractional, or n_success > n_trials.

    References
    ----------
    Wilson 1927, Journal of the American Statistical Association 22:209-212.

    Examples
    --------
    >>> interval = wilson_interval(0, 10)
    >>> interval.estimate, round(interval.low, 4), round(interval.high, 4)
    (0.0, 0.0, 0.2775)
    """
    from scipy.special import ndtri

    success, trials = np.broadcast_arrays(
        as_count("n_success", n_success), as_count("n_trials", n_trials)
    )
    if (success > trials).any():
        raise ValueError("n_success must not exceed n_trials")
    z = float(ndtri(0.5 + open_unit("confidence_level", confidence_level) / 2))
    n = np.where(trials > 0, trials, np.nan)
    share = success / n
    low, high = wilson_bounds(share, n, z)
    return Interval(
        scalar_or_array(share),
        scalar_or_array(low),
        scalar_or_array(high),
        trials if trials.ndim else int(trials),
        confidence_level,
    )


def wilson_bounds(share: FloatArray, n: FloatArray, z: float) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's bounds for a share of n trials, where n need not be whole."""
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # For a share of 0 and 1 one bound is exactly that; rounding must not push it past.
    return np.where(share == 0, share, center - half), np.where(share == 1, share, center + half)


def clustered_standard_error(values: ArrayLike, clusters: ArrayLike | None = None) -> float:
    r"""Estimate the standard error of the mean, allowing for dependence within questions.

    .. math:: \frac{1}{N}\sqrt{\frac{G}{G-1}\sum_{g=1}^{G}\Big(\sum_{i \in g}(x_i-\bar x)\Big)^2}

    with N rows in G questions. With one row per question it is the usual s / sqrt(N).

    Parameters
    ----------
    values
        Shape (n_questions, n_attempts), (n_questions,), or (n_rows,) with `clusters`.
    clusters
        Question id of each row, shape (n_rows,).

    Returns
    -------
    float
        In the unit of `values`; NaN for a single question.

    References
    ----------
    Liang and Zeger 1986, Biometrika 73:13-22; for evaluations Miller 2024, arXiv:2411.00640.

    Examples
    --------
    >>> clustered_standard_error([[1, 1], [0, 0], [1, 1], [0, 0]]).__round__(4)
    0.2887
    """
    return t_interval(values, clusters).standard_error


def t_interval(
    values: ArrayLike, clusters: ArrayLike | None = None, *, confidence_level: float = 0.95
) -> MeanInterval:
    """Return the mean of all rows with a t-interval on its clustered standard error.

    Degrees of freedom: questions less one. Parameters as in `clustered_standard_error`.

    Parameters
    ----------
    values, clusters
        As in `clustered_standard_error`.
    confidence_level
        Strictly between 0 and 1.

    Returns
    -------
    MeanInterval
        Bounds are NaN for a single question. They are not clipped to the range of the values.

    Examples
    --------
    >>> interval = t_interval([[1, 1], [0, 0], [1, 1], [0, 0]])
    >>> round(interval.low, 3), interval.estimate, round(interval.high, 3)
    (-0.419, 0.5, 1.419)
    """
    from scipy.special import stdtrit

    rows = as_float("values", values)
    level = open_unit("confidence_level", confidence_level)
    questions = questions_of({"values": rows}, clusters)
    n, g = rows.size, questions.n_questions
    mean = float(rows.mean())
    per_row = (rows - mean).reshape(len(rows), -1).sum(axis=1)
    residual = sums_by_question(questions.of_row, g, [per_row])[:, 0]
    if g < 2:
        return MeanInterval(mean, np.nan, np.nan, np.nan, g, n, level)
    error = float(np.sqrt(g / (g - 1) * (residual**2).sum()) / n)
    half = float(stdtrit(g - 1, 0.5 + level / 2)) * error
    return MeanInterval(mean, mean - half, mean + half, error, g, n, level)


def proportion_interval(
    values: ArrayLike, clusters: ArrayLike | None = None, *, confidence_level: float = 0.95
) -> MeanInterval:
    r"""Return the mean of values in [0, 1] with a Wilson interval that allows for clusters.

    Wilson's interval with the number of independent trials that would give the clustered standard
    error, :math:`n_{\mathrm{eff}} = \bar x (1 - \bar x) / \mathrm{SE}^2`, and a t quantile. It
    stays inside [0, 1] and keeps its coverage near 0 and 1, where `t_interval` and the bootstrap
    do not: take it for the accuracy, pass@k or maj@k of a model that solves nearly everything or
    nearly nothing.

    Parameters
    ----------
    values, clusters
        As in `clustered_standard_error`, values in [0, 1].
    confidence_level
        Strictly between 0 and 1.

    Returns
    -------
    MeanInterval
        If the means of the questions do not vary (beyond rounding), each question counts as one
        trial. NaN bounds for one question.

    References
    ----------
    Korn and Graubard 1998, Survey Methodology 24:193-201 (effective sample size with t quantile);
    Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3:484-503 (Wilson form).

    Examples
    --------
    >>> interval = proportion_interval([1.0] * 50)
    >>> round(interval.low, 3), interval.high
    (0.925, 1.0)
    """
    from scipy.special import stdtrit

    rows = as_probability("values", values)
    interval = t_interval(rows, clusters, confidence_level=confidence_level)
    mean, error, g = interval.estimate, interval.standard_error, interval.n_questions
    if g < 2:
        return interval
    varies = np.ptp(_question_means(rows, clusters)) > _ROUNDING
    n = mean * (1 - mean) / error**2 if varies and error > 0 else float(g)
    quantile = float(stdtrit(g - 1, 0.5 + confidence_level / 2))
    low, high = wilson_bounds(np.float64(mean), np.float64(n), quantile)
    return interval._replace(low=float(low), high=float(high))


def _question_means(rows: FloatArray, clusters: ArrayLike | None) -> FloatArray:
    """Average the rows of each question, shape (n_questions,)."""
    questions = questions_of({"values": rows}, clusters)
    by_row = rows.reshape(len(rows), -1)
    columns = [by_row.sum(axis=1), np.full(len(by_row), float(by_row.shape[1]))]
    sums = sums_by_question(questions.of_row, questions.n_questions, columns)
    return np.asarray(sums[:, 0] / sums[:, 1])

"""Tests between two runs on the same questions: one difference, its interval and its p-value.

The interval and the p-value are Student's t's in every case, so that they agree: of the paired
differences for a mean over questions, and on the spread of a paired bootstrap over questions for a
metric that pools attempts. Where few questions differ, both are widened to what a sign-flip test
can say.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lm_eval_ext.metrics import minimum_detectable_effect
from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.scoring.scores import Score

LEVEL = 0.95
MANY_UNDEFINED = 0.25
"""Share of resamples without a value beyond which there is no test."""

NORMAL_95 = 1.959964

TIE = 2e-6
"""Values of a question that differ by less are equal: stored entries round to six decimals."""

_ROUNDING = 1e-12
"""Spread that is rounding only."""


class PairedTest(NamedTuple):
    """Difference a - b of a metric between two runs.

    Parameters
    ----------
    difference, low, high
        Estimate and 95% interval; NaN where there is none.
    wins, ties, losses
        Questions at which a has the larger, an equal, the smaller value; None for metrics without
        a value per question.
    paired
        False where the runs were taken for independent: one has no values of single questions.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    p_value: float
    n_questions: int
    n_left_out: int = 0
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    paired: bool = True

    @property
    def detectable(self) -> float:
        """Smallest true difference that such a test finds with 80% probability at the 5% level.

        NaN where no question differs: that says nothing of how much questions can.
        """
        if math.isnan(self.standard_error) or self.standard_error <= _ROUNDING:
            return math.nan
        return float(minimum_detectable_effect(self.standard_error))


def paired_means(a: FloatArray, b: FloatArray) -> PairedTest:
    """Compare means over questions.

    The p-value is never smaller than that of a sign-flip test can be, 2 / 2^m for m questions that
    differ: a handful of questions cannot decide much, however alike their differences are. The
    standard error and the interval are widened to agree with it.

    Parameters
    ----------
    a, b
        Value of each question in both runs, same order, shape (n_questions,); NaN for none.

    Examples
    --------
    >>> test = paired_means(np.array([1.0, 1, 1, 0] * 10), np.array([0.0, 1, 0, 0] * 10))
    >>> test.difference, test.wins, test.ties, test.losses, test.p_value < 0.001
    (0.5, 20, 20, 0, True)
    >>> paired_means(np.ones(4), np.zeros(4)).p_value
    0.125
    """
    known = ~(np.isnan(a) | np.isnan(b))
    gaps = (a - b)[known]
    gaps[np.abs(gaps) < TIE] = 0.0
    n, n_left_out = len(gaps), int((~known).sum())
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    counts = (n, n_left_out, wins, n - wins - losses, losses)
    if n < 2:
        mean = float(gaps.mean()) if n else math.nan
        return PairedTest(mean, math.nan, math.nan, math.nan, math.nan, *counts)
    difference, error = float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(n))
    low, high, p_value = _student(difference, error, n)
    floor = min(1.0, 2.0 * 0.5 ** min(wins + losses, 1_000))
    if p_value < floor < 1:
        error = _error_of(difference, floor, n)
        low, high, p_value = _student(difference, error, n)
    test = PairedTest(difference, low, high, error, max(p_value, floor), *counts)
    return _bounded(test, a[known], b[known])


def paired_pooled(a: Score, b: Score, values_a: FloatArray, values_b: FloatArray) -> PairedTest:
    """Compare a metric that pools attempts.

    Where a run's own interval is wider than its standard error says, as that of `debiased_ece` near
    zero, the standard error of the difference is raised by the same factor.

    Parameters
    ----------
    values_a, values_b
        Its values on the same resamples of the questions, shape (n_resamples,); NaN for none.
    """
    gaps = values_a - values_b
    known = gaps[~np.isnan(gaps)]
    difference, n = a.value - b.value, a.n_questions
    if len(known) < (1 - MANY_UNDEFINED) * len(gaps) or n < 2 or math.isnan(difference):
        return PairedTest(difference, math.nan, math.nan, math.nan, math.nan, n)
    error = float(known.std(ddof=1)) * max(_widening(a), _widening(b))
    low, high, p_value = _student(difference, error, n)
    return _bounded(PairedTest(difference, low, high, error, p_value, n), values_a, values_b)


def unpaired(a: Score, b: Score) -> PairedTest:
    """Compare a metric between runs of which single questions are not known.

    Parameters
    ----------
    a, b
        The metric in both runs; taken for independent, which finds less where the questions are
        the same.
    """
    difference = a.value - b.value
    error = math.hypot(a.standard_error * _widening(a), b.standard_error * _widening(b))
    n = min(a.n_questions, b.n_questions)
    if math.isnan(error) or math.isnan(difference) or n < 2:
        nothing = (math.nan,) * 4
        return PairedTest(difference, *nothing, n, paired=False)
    low, high, p_value = _student(difference, error, n)
    test = PairedTest(difference, low, high, error, p_value, n, paired=False)
    return _bounded(test, np.array([a.low, a.high]), np.array([b.low, b.high]))


def _bounded(test: PairedTest, *values: FloatArray) -> PairedTest:
    """Return a test whose interval ends at -1 and 1 where all values lie in [0, 1]."""
    if any(np.nanmin(of_run) < 0 or np.nanmax(of_run) > 1 for of_run in values):
        return test
    return test._replace(low=max(test.low, -1.0), high=min(test.high, 1.0))


def _widening(score: Score) -> float:
    """Return how much wider an interval is than a normal one of its standard error, at least 1."""
    half = (score.high - score.low) / 2
    if not half > 0 or not score.standard_error > 0:
        return 1.0
    return max(1.0, half / (NORMAL_95 * score.standard_error))


def _error_of(difference: float, p_value: float, n: int) -> float:
    """Return the standard error with which a difference has a p-value."""
    from scipy.special import stdtrit

    return abs(difference) / -float(stdtrit(n - 1, p_value / 2))


def _student(difference: float, error: float, n: int) -> tuple[float, float, float]:
    """Return the interval and the p-value of an estimate from n questions."""
    from scipy.special import stdtr, stdtrit

    if error <= _ROUNDING:
        return difference, difference, 1.0 if abs(difference) <= _ROUNDING else 0.0
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * error
    p_value = float(2 * stdtr(n - 1, -abs(difference) / error))
    return difference - half, difference + half, p_value

"""How close an estimated quantity is to a reference: RMSE, MAE, Spearman, partial correlation.

The unit is the entry of the arrays: a response token for token-level epistemic uncertainty, an
answer for sequence-level scores. Any shape; entries are pooled. For intervals use
`lm_eval_ext.metrics.cluster_bootstrap` with the question of each entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray, as_float, one_of, same_shape
from lm_eval_ext.metrics.resampling import (
    Formula,
    Questions,
    flat_rows,
    plain,
    ratio,
    weighted,
)


class AffineFit(NamedTuple):
    """The line ``reference = slope * estimate + intercept`` fitted on `n` entries."""

    slope: float
    intercept: float
    n: int


def _pair(estimate: ArrayLike, reference: ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = as_float("estimate", estimate), as_float("reference", reference)
    same_shape(estimate=a, reference=b)
    return a.ravel(), b.ravel()


def _mean_error(
    error: Callable[..., FloatArray], finish: Callable[[FloatArray], FloatArray] = np.asarray
) -> Callable[..., Formula]:
    """Make the formula of a function of a mean of per-entry errors."""

    def make(
        questions: Questions, *, estimate: ArrayLike, reference: ArrayLike, **options: Any
    ) -> Formula:
        of_row, _ = flat_rows(questions, np.asarray(estimate))
        errors = error(*_pair(estimate, reference), **options)
        return ratio(of_row, questions.n_questions, errors, np.ones_like(errors), finish)

    return make


def _squared_after(estimate: FloatArray, reference: FloatArray, fit: AffineFit) -> FloatArray:
    return (fit.slope * estimate + fit.intercept - reference) ** 2


_RMSE = _mean_error(lambda estimate, reference: (estimate - reference) ** 2, np.sqrt)
_MAE = _mean_error(lambda estimate, reference: np.abs(estimate - reference))
_AFFINE_RMSE = _mean_error(_squared_after, np.sqrt)


@weighted(_RMSE)
def rmse(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Return the root mean squared error, in the unit of the arrays. Lower is better.

    Parameters
    ----------
    estimate, reference
        Values of one shape, such as estimated and reference epistemic uncertainty in nats.

    Raises
    ------
    ValueError
        If a value is NaN, the arrays are empty, or shapes differ.

    Examples
    --------
    >>> rmse([1.0, 2.0], [1.0, 4.0]).__round__(4)
    1.4142
    """
    return plain(_RMSE, estimate, estimate=estimate, reference=reference)


@weighted(_MAE)
def mae(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean absolute error, in the unit of the arrays. Lower is better.

    Parameters and errors as in `rmse`.

    Examples
    --------
    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return plain(_MAE, estimate, estimate=estimate, reference=reference)


def fit_affine(estimate: ArrayLike, reference: ArrayLike) -> AffineFit:
    """Fit a line from estimate to reference by least squares, on data held out from scoring.

    Parameters as in `rmse`. A constant estimate gets slope 0 and the mean of the reference.

    Examples
    --------
    >>> fit_affine([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    AffineFit(slope=2.0, intercept=1.0, n=3)
    """
    a, b = _pair(estimate, reference)
    centered = a - a.mean()
    if np.ptp(a) == 0:  # the mean of equal numbers rounds, so the variance need not be exactly 0
        return AffineFit(0.0, float(b.mean()), len(a))
    slope = float((centered * (b - b.mean())).sum() / (centered**2).sum())
    return AffineFit(slope, float(b.mean() - slope * a.mean()), len(a))


@weighted(_AFFINE_RMSE)
def affine_rmse(estimate: ArrayLike, reference: ArrayLike, *, fit: AffineFit) -> float:
    """Return the RMSE after a line fitted on held-out data, which removes scale and offset.

    Parameters
    ----------
    estimate, reference
        As in `rmse`.
    fit
        From `fit_affine`, on other questions than these.

    Examples
    --------
    >>> fit = fit_affine([0.0, 1.0], [1.0, 3.0])
    >>> affine_rmse([2.0, 3.0], [5.0, 7.0], fit=fit)
    0.0
    """
    return plain(_AFFINE_RMSE, estimate, estimate=estimate, reference=reference, fit=fit)


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _correlation(a: FloatArray, b: FloatArray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # the mean of equal numbers rounds: test before centering
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def pearson(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Return the linear correlation; range [-1, 1], NaN if an array is constant.

    Parameters
    ----------
    estimate, reference
        As in `rmse`.

    Examples
    --------
    >>> pearson([1, 2, 3], [2, 4, 6]).__round__(12)
    1.0
    """
    return _correlation(*_pair(estimate, reference))


def spearman(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Return Spearman's rank correlation. Range [-1, 1], higher is better.

    Parameters as in `rmse`. Ties share their mean rank; NaN if either array is constant.

    Examples
    --------
    >>> spearman([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    a, b = _pair(estimate, reference)
    return _correlation(_ranks(a), _ranks(b))


def partial_correlation(
    estimate: ArrayLike,
    reference: ArrayLike,
    *,
    given: ArrayLike,
    method: Literal["pearson", "spearman"] = "spearman",
) -> float:
    r"""Return the correlation that remains when a third quantity, such as length, is held fixed.

    .. math:: \frac{r_{xy} - r_{xz} r_{yz}}{\sqrt{(1 - r_{xz}^2)(1 - r_{yz}^2)}}

    Range [-1, 1]. A summed uncertainty grows with the length of the answer, and long answers are
    wrong more often: given length, only what the score says beyond length is left.

    Parameters
    ----------
    estimate, reference
        As in `rmse`; 0/1 verdicts are fine.
    given
        The quantity held fixed, same shape.
    method
        ``"spearman"`` correlates ranks, ``"pearson"`` the values.

    Returns
    -------
    float
        NaN if an array is constant, or determined by `given`.

    Examples
    --------
    >>> length = [10, 20, 30, 40, 50]
    >>> spearman([1, 3, 2, 4, 5], [0, 0, 1, 1, 1]).__round__(3)
    0.577
    >>> partial_correlation([1, 3, 2, 4, 5], [0, 0, 1, 1, 1], given=length).__round__(3)
    -0.927
    """
    one_of("method", method, ("pearson", "spearman"))
    x, y = _pair(estimate, reference)
    z = as_float("given", given).ravel()
    same_shape(estimate=x, given=z)
    if method == "spearman":
        x, y, z = _ranks(x), _ranks(y), _ranks(z)
    xy, xz, yz = _correlation(x, y), _correlation(x, z), _correlation(y, z)
    left = (1 - xz**2) * (1 - yz**2)
    # Rounding leaves a few 1e-16 where the correlation with `given` is perfect.
    if not left > 1e-14:
        return float("nan")
    return float(np.clip((xy - xz * yz) / np.sqrt(left), -1.0, 1.0))

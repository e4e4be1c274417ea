"""Proper scores of a stated probability: Brier, its decomposition, and negative log-likelihood.

Arrays are flat or of shape (n_questions, n_attempts). The unit is the attempt.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.binning import bin_edges, bin_of, checked
from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.metrics.resampling import (
    Formula,
    Questions,
    flat_rows,
    plain,
    ratio,
    weighted,
)

EPSILON = float(np.finfo(np.float64).eps)


class Murphy(NamedTuple):
    """Parts of the Brier score: brier = reliability - resolution + uncertainty + within_bin.

    Parameters
    ----------
    reliability
        Mean squared gap between confidence and accuracy of bins, lower is better.
    resolution
        Variance of the bins' accuracy, higher is better.
    uncertainty
        Variance of the verdicts, a property of the task and not of the confidence.
    within_bin
        What binning different confidences together leaves over; 0 without binning.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


def _squared_errors(confidence: FloatArray, correct: FloatArray) -> FloatArray:
    return (confidence - correct) ** 2


def _brier(questions: Questions, *, confidence: ArrayLike, correct: ArrayLike) -> Formula:
    of_row, _ = flat_rows(questions, np.asarray(confidence))
    losses = _squared_errors(*checked(confidence, correct))
    return ratio(of_row, questions.n_questions, losses, np.ones_like(losses))


@weighted(_brier)
def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    r"""Return the Brier score :math:`\frac1n\sum_i (c_i - y_i)^2`. Unit: attempt.

    Range [0, 1], lower is better; stating the accuracy a for every answer gets a (1 - a). It is
    half of the multi-class form that sums over both classes, which lm-eval calls ``brier_score``.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape.
    correct
        Verdicts 0/1, same shape.

    Raises
    ------
    ValueError
        If a confidence is outside [0, 1] or NaN, or shapes differ.

    References
    ----------
    Brier 1950, Monthly Weather Review 78:1-3.

    Examples
    --------
    >>> brier([0.8, 0.4], [1, 0]).__round__(4)
    0.1
    """
    return plain(_brier, confidence, confidence=confidence, correct=correct)


def _nll(
    questions: Questions, *, confidence: ArrayLike, correct: ArrayLike, floor: float = EPSILON
) -> Formula:
    if not 0 < floor < 0.5:
        raise ValueError(f"floor must lie strictly between 0 and 0.5, got {floor!r}")
    of_row, _ = flat_rows(questions, np.asarray(confidence))
    probabilities, verdicts = checked(confidence, correct)
    likelihood = np.where(verdicts == 1, probabilities, 1 - probabilities)
    losses = -np.log(np.clip(likelihood, floor, 1 - floor))
    return ratio(of_row, questions.n_questions, losses, np.ones_like(losses))


@weighted(_nll)
def nll(confidence: ArrayLike, correct: ArrayLike, *, floor: float = EPSILON) -> float:
    r"""Return the mean negative log-likelihood of the verdicts, in nats. Unit: attempt.

    .. math:: -\frac1n \sum_i \big(y_i \ln c_i + (1 - y_i) \ln (1 - c_i)\big)

    Range [0, -ln floor], lower is better. One wrong answer at confidence 1 costs -ln floor (36
    nats by default), so vote shares, which reach 0 and 1, are better scored by `brier`.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape.
    correct
        Verdicts 0/1, same shape.
    floor
        Smallest likelihood, so that the score is finite; the default is float64's epsilon.

    Examples
    --------
    >>> nll([0.5, 0.5], [1, 0]).__round__(4)
    0.6931
    """
    return plain(_nll, confidence, confidence=confidence, correct=correct, floor=floor)


def murphy_decomposition(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int | None = None
) -> Murphy:
    r"""Split the Brier score into reliability, resolution and uncertainty. Unit: attempt.

    .. math:: \sum_b \frac{n_b}{n} (\bar c_b - \bar y_b)^2
              - \sum_b \frac{n_b}{n} (\bar y_b - \bar y)^2 + \bar y (1 - \bar y)

    With one bin per distinct confidence this is the Brier score exactly; with wider bins the rest
    is in ``within_bin``, so the four parts always add up to it. Reliability and resolution are both
    biased upwards when bins hold few answers, as with all-distinct confidences: then give n_bins.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape.
    correct
        Verdicts 0/1, same shape.
    n_bins
        Equal-width bins as in `lm_eval_ext.metrics.ece`; None for one per distinct confidence.

    Returns
    -------
    Murphy
        The parts, each in [0, 1] but for ``within_bin``, which may be negative.

    References
    ----------
    Murphy 1973, Journal of Applied Meteorology 12:595-600; Stephenson, Coelho and Jolliffe 2008,
    Weather and Forecasting 23:752-757 (the parts within bins).

    Examples
    --------
    >>> parts = murphy_decomposition([0.8, 0.8, 0.2, 0.2], [1, 1, 1, 0])
    >>> [round(part, 4) for part in parts]
    [0.065, 0.0625, 0.1875, 0.0]
    """
    probabilities, verdicts = checked(confidence, correct)
    if n_bins is None:
        _, bins = np.unique(probabilities, return_inverse=True)
    else:
        bins = bin_of(probabilities, bin_edges(probabilities, n_bins, "width"), "width")
    n = np.maximum(np.bincount(bins), 1)
    mean_confidence = np.bincount(bins, weights=probabilities) / n
    accuracy = np.bincount(bins, weights=verdicts) / n
    share, overall = np.bincount(bins) / len(verdicts), verdicts.mean()
    reliability = float((share * (mean_confidence - accuracy) ** 2).sum())
    resolution = float((share * (accuracy - overall) ** 2).sum())
    uncertainty = float(overall * (1 - overall))
    rest = float(_squared_errors(probabilities, verdicts).mean())
    within_bin = 0.0 if n_bins is None else rest - (reliability - resolution + uncertainty)
    return Murphy(reliability, resolution, uncertainty, within_bin)

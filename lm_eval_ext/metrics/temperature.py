"""Temperature scaling of a stated probability."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.binning import checked
from lm_eval_ext.metrics.checks import FloatArray, as_probability

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


def _log_odds(confidence: FloatArray) -> FloatArray:
    tiny = np.finfo(np.float64).eps
    clipped = np.clip(confidence, tiny, 1 - tiny)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _sigmoid(x: FloatArray) -> FloatArray:
    # Written for both signs, so that probabilities near 0 keep their digits.
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small))


def fit_temperature(confidence: ArrayLike, correct: ArrayLike) -> float:
    r"""Fit the temperature that minimizes the negative log-likelihood. Unit: attempt.

    The likelihood is convex in :math:`1/T`, and the minimum is where
    :math:`\sum_i (\sigma(z_i / T) - y_i)\, z_i = 0` with log-odds :math:`z_i`; it is found by
    bisection. Fit on training questions, never on those that are scored.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape; 0 and 1 are taken as float64's epsilon from there.
    correct
        Verdicts 0/1, same shape.

    Returns
    -------
    float
        Temperature in [0.01, 100]: above 1 for overconfident data. At a bound a warning says so;
        the upper one means that higher confidence did not go with more right answers.

    References
    ----------
    Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599, section 4.2.

    Examples
    --------
    >>> confidence = [0.9] * 10
    >>> round(fit_temperature(confidence, [1] * 7 + [0] * 3), 3)
    2.593
    """
    probabilities, verdicts = checked(confidence, correct)
    z = _log_odds(probabilities)

    def slope(inverse: float) -> float:
        return float(((_sigmoid(z * inverse) - verdicts) * z).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0 or slope(high) <= 0:
        bound = MAX_TEMPERATURE if slope(low) >= 0 else MIN_TEMPERATURE
        warnings.warn(f"the fitted temperature is at its bound {bound:g}", stacklevel=2)
        return bound
    while high / low > 1 + 1e-12:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def apply_temperature(confidence: ArrayLike, temperature: float) -> FloatArray:
    r"""Return :math:`\sigma(z / T)` for confidences with log-odds z.

    Strictly increasing: it cannot change `lm_eval_ext.metrics.auroc` (but for confidences that
    collapse to one float).

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape.
    temperature
        Above 0; 1 changes nothing.

    Returns
    -------
    numpy.ndarray
        Same shape.

    Examples
    --------
    >>> apply_temperature([0.5, 0.9], 2.0)
    array([0.5 , 0.75])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}")
    return _sigmoid(_log_odds(as_probability("confidence", confidence)) / temperature)

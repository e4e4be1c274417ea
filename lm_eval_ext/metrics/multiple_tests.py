"""Corrections of p-values for the number of tests made."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray


def _p_values(p_values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the p-values, and the known ones in ascending order."""
    array = np.asarray(p_values, dtype=np.float64)
    known = np.sort(array[~np.isnan(array)])
    if known.size and (known[0] < 0 or known[-1] > 1):
        raise ValueError(f"p_values must lie in [0, 1], got {known[0]:g} to {known[-1]:g}")
    return array, known


def _lookup(array: FloatArray, known: FloatArray, adjusted: FloatArray) -> FloatArray:
    """Give each p-value the adjusted value of its rank; equal p-values have equal ones."""
    result = np.full(array.shape, np.nan)
    mask = ~np.isnan(array)
    result[mask] = np.minimum(adjusted, 1.0)[np.searchsorted(known, array[mask])]
    return result


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjust p-values so that rejecting those <= alpha bounds the family-wise error (Holm).

    Valid under any dependence. NaN (a test that could not be made) stays NaN and is not counted.

    Parameters
    ----------
    p_values
        Any shape, values in [0, 1] or NaN.

    Returns
    -------
    numpy.ndarray
        Adjusted p-values, same shape, each at least its p-value and at most 1.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6:65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    array, known = _p_values(p_values)
    adjusted = np.maximum.accumulate(known * np.arange(len(known), 0, -1))
    # searchsorted finds the first of equal p-values, whose adjusted value may be exceeded by no
    # other of them: the factor only falls along a run of ties.
    return _lookup(array, known, adjusted)

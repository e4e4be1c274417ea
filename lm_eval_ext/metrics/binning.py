"""Confidence bins and what is summed in them, for every calibration metric."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import (
    FloatArray,
    as_binary,
    as_probability,
    at_least,
    one_of,
    same_shape,
)

Binning = Literal["width", "mass"]
"""Bins of equal width on [0, 1], or of equal numbers of rows."""


class BinSums(NamedTuple):
    """Rows and residuals (verdict less confidence) summed in bins, within each question.

    Parameters
    ----------
    n_rows
        Rows, shape (n_questions, n_bins); one question if the rows are not told apart.
    residual
        Sum of ``correct - confidence``, same shape.
    """

    n_rows: FloatArray
    residual: FloatArray


def checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return confidences and verdicts as flat float64 arrays of one length."""
    probabilities, verdicts = (
        as_probability("confidence", confidence),
        as_binary("correct", correct),
    )
    same_shape(confidence=probabilities, correct=verdicts)
    return probabilities.ravel(), verdicts.ravel()


def bin_edges(
    confidence: FloatArray, n_bins: int, binning: str, weights: FloatArray | None = None
) -> FloatArray:
    """Return the n_bins - 1 inner borders of the bins, of rows that count `weights` times.

    Bins are (low, high], the first one closed, so a confidence of exactly 1 is in the last bin.
    The borders of equal-mass bins are confidences that occur: ties are never split, and bins may
    hold unequal numbers or be empty where there are many.
    """
    at_least("n_bins", n_bins, 1)
    one_of("binning", binning, ("width", "mass"))
    if binning == "width":
        return np.arange(1, n_bins) / n_bins
    order = np.argsort(confidence, kind="stable")
    up_to = np.cumsum(np.ones(len(order)) if weights is None else weights[order])
    # The last row of each of n_bins consecutive shares of the sorted rows, the last share aside.
    last = -(-np.arange(1, n_bins) * up_to[-1] // n_bins)
    return np.asarray(confidence[order][np.searchsorted(up_to, last)])


def bin_of(confidence: FloatArray, edges: FloatArray, binning: str) -> NDArray[np.intp]:
    """Return the bin of each confidence, counted from 0."""
    if binning == "mass":
        return np.asarray(np.searchsorted(edges, confidence, side="left"), dtype=np.intp)
    n_bins = len(edges) + 1
    # A confidence that equals a border is in the bin below it. Comparing with the border itself is
    # exact however the product was rounded (0.29 * 100 is 28.999999999999996), and faster than a
    # search. A confidence above a border is never rounded below it, as rounding keeps the order.
    guess = np.minimum((confidence * n_bins).astype(np.intp), n_bins - 1)
    guess -= confidence <= np.concatenate([[-np.inf], edges])[guess]
    return np.asarray(guess, dtype=np.intp)


def bin_sums(
    confidence: FloatArray,
    correct: FloatArray,
    bins: NDArray[np.intp],
    n_bins: int,
    of_row: NDArray[np.intp] | None = None,
    weights: FloatArray | None = None,
) -> BinSums:
    """Sum rows and residuals in bins, separately for each question if `of_row` names them.

    Rows count as often as `weights` says, or once.
    """
    n_questions = 1
    if of_row is not None:
        n_questions = int(of_row.max()) + 1
        bins = np.asarray(of_row * n_bins + bins) if n_questions > 1 else bins
    shape, length = (n_questions, n_bins), n_questions * n_bins
    residuals = correct - confidence
    if weights is not None:
        residuals *= weights
    n_rows = np.bincount(bins, weights=weights, minlength=length).astype(np.float64)
    residual = np.bincount(bins, weights=residuals, minlength=length)
    return BinSums(np.asarray(n_rows.reshape(shape)), np.asarray(residual.reshape(shape)))

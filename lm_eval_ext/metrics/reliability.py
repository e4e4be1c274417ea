"""Data of a reliability diagram: accuracy against confidence, with counts and intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.binning import Binning, bin_edges, bin_of, checked
from lm_eval_ext.metrics.checks import FloatArray, open_unit
from lm_eval_ext.metrics.intervals import wilson_bounds
from lm_eval_ext.metrics.resampling import flat_rows, questions_of


class ReliabilityCurve(NamedTuple):
    """One entry per bin that is not empty, in ascending order of confidence.

    Parameters
    ----------
    bin_low, bin_high
        Borders; a bin is (low, high], the first closed.
    n_rows, n_questions
        Attempts in the bin, and the questions they belong to.
    confidence
        Mean confidence of the bin.
    accuracy
        Share of right answers, with its interval from `low` to `high`.
    """

    bin_low: FloatArray
    bin_high: FloatArray
    n_rows: Any
    n_questions: Any
    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray


def reliability_curve(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    n_bins: int = 10,
    binning: Binning = "width",
    confidence_level: float = 0.95,
) -> ReliabilityCurve:
    r"""Return accuracy against confidence per bin. Unit: attempt.

    The intervals are Wilson's with the number of attempts divided by the design effect, the factor
    by which dependence within questions inflates the variance of the accuracy (at least 1).

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], flat or of shape (n_questions, n_attempts).
    correct
        Verdicts 0/1, same shape.
    clusters
        Question id of each row of flat arrays. None: each entry of the first axis is a question.
    n_bins, binning
        As in `lm_eval_ext.metrics.ece`.
    confidence_level
        Of the intervals, strictly between 0 and 1.

    Returns
    -------
    ReliabilityCurve
        Arrays of shape (n_filled_bins,). Weighted by ``n_rows``, the mean of
        ``abs(accuracy - confidence)`` is the ECE.

    References
    ----------
    Korn and Graubard 1998, Survey Methodology 24:193-201 (intervals with a design effect).

    Examples
    --------
    >>> curve = reliability_curve([0.9, 0.95, 0.3, 0.25], [1, 1, 0, 1], n_bins=2)
    >>> curve.bin_low, curve.accuracy, curve.n_rows
    (array([0. , 0.5]), array([0.5, 1. ]), array([2, 2]))
    """
    from scipy.special import ndtri

    level = open_unit("confidence_level", confidence_level)
    questions = questions_of({"confidence": confidence, "correct": correct}, clusters)
    of_row, _ = flat_rows(questions, np.asarray(confidence))
    probabilities, verdicts = checked(confidence, correct)
    edges = bin_edges(probabilities, n_bins, binning)
    bins = bin_of(probabilities, edges, binning)
    filled, bins = np.unique(bins, return_inverse=True)
    n: Any = np.bincount(bins)
    accuracy = np.bincount(bins, weights=verdicts) / n
    effect, n_questions = _design_effect(of_row, bins, verdicts, accuracy)
    low, high = wilson_bounds(accuracy, n / effect, float(ndtri(0.5 + level / 2)))
    borders = np.concatenate([[0.0], edges, [1.0]])
    return ReliabilityCurve(
        borders[filled],
        borders[filled + 1],
        n,
        n_questions,
        np.bincount(bins, weights=probabilities) / n,
        accuracy,
        low,
        high,
    )


def _design_effect(
    of_row: Any, bins: Any, verdicts: FloatArray, accuracy: FloatArray
) -> tuple[FloatArray, Any]:
    """Return clustered over independent variance of each bin's accuracy, and its questions."""
    n_bins = len(accuracy)
    cells, cell = np.unique(of_row * n_bins + bins, return_inverse=True)
    residual = np.bincount(cell, weights=verdicts - accuracy[bins])
    bin_of_cell = cells % n_bins
    n_questions: Any = np.bincount(bin_of_cell, minlength=n_bins)
    clustered: Any = np.bincount(bin_of_cell, weights=residual**2, minlength=n_bins)
    clustered = clustered * n_questions / np.maximum(n_questions - 1, 1)
    independent = np.bincount(bins) * accuracy * (1 - accuracy)
    effect = clustered / np.where(independent > 0, independent, np.inf)
    # At an accuracy of 0 or 1, or with one question, the data do not show the dependence: count
    # questions instead of attempts.
    unknown = (independent == 0) | (n_questions < 2)
    effect = np.where(unknown, np.bincount(bins) / n_questions, effect)
    return np.maximum(effect, 1.0), n_questions

"""Expected calibration error, plain and corrected for its bias.

Confidence is the stated probability that the answer is right. Arrays are flat or of shape
(n_questions, n_attempts). The unit is the attempt: averaging attempts before binning would hide
miscalibration. Pass one row per question for a metric of questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.binning import Binning, BinSums, bin_edges, bin_of, bin_sums, checked
from lm_eval_ext.metrics.checks import FloatArray, one_of
from lm_eval_ext.metrics.resampling import (
    Formula,
    Questions,
    flat_rows,
    plain,
    require_same_questions,
    weighted,
)

Norm = Literal["l1", "l2", "max"]


def _width_sums(
    questions: Questions, confidence: ArrayLike, correct: ArrayLike, n_bins: int
) -> BinSums:
    """Sum equal-width bins within each question."""
    of_row, _ = flat_rows(questions, np.asarray(confidence))
    probabilities, verdicts = checked(confidence, correct)
    edges = bin_edges(probabilities, n_bins, "width")
    bins = bin_of(probabilities, edges, "width")
    return bin_sums(probabilities, verdicts, bins, n_bins, of_row)


def _calibration_error(count: FloatArray, residual: FloatArray, norm: str) -> FloatArray:
    """Combine the gaps of bins, shape (n_samples, n_bins), to one error per sample."""
    if norm == "l1":
        return np.asarray(np.abs(residual).sum(axis=1) / count.sum(axis=1))
    gap = residual / np.maximum(count, 1)
    if norm == "max":
        return np.asarray(np.abs(gap).max(axis=1))
    return np.asarray(np.sqrt((residual * gap).sum(axis=1) / count.sum(axis=1)))


def _ece(
    questions: Questions,
    *,
    confidence: ArrayLike,
    correct: ArrayLike,
    n_bins: int = 10,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> Formula:
    one_of("norm", norm, ("l1", "l2", "max"))
    if binning == "width":
        columns = np.concatenate(_width_sums(questions, confidence, correct, n_bins), axis=1)

        def of_fixed_bins(weights: FloatArray) -> FloatArray:
            totals = weights @ columns
            return _calibration_error(totals[:, :n_bins], totals[:, n_bins:], norm)

        return Formula(of_fixed_bins)
    of_row, _ = flat_rows(questions, np.asarray(confidence))
    probabilities, verdicts = checked(confidence, correct)

    def of_own_bins(weights: FloatArray) -> FloatArray:
        errors = []
        for times in weights[:, of_row]:
            bins = bin_of(probabilities, bin_edges(probabilities, n_bins, binning, times), binning)
            sums = bin_sums(probabilities, verdicts, bins, n_bins, weights=times)
            errors.append(_calibration_error(*sums, norm)[0])
        return np.array(errors)

    return Formula(of_own_bins)


@weighted(_ece)
def ece(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    n_bins: int = 10,
    binning: Binning = "width",
    norm: Norm = "l1",
) -> float:
    r"""Return the expected calibration error over bins of confidence. Unit: attempt.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n}\, |\mathrm{acc}_b - \mathrm{conf}_b|

    Range [0, 1], lower is better. It is biased upwards: a perfect predictor gets about 0.040 with
    10 bins and 500 answers. Report the number of answers, and `debiased_ece` beside it.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], any shape.
    correct
        Verdicts 0/1, same shape.
    n_bins
        Number of bins, at least 1.
    binning
        ``"width"``: equal-width bins (low, high], the first closed, 1.0 in the last; ``"mass"``:
        equal numbers of rows, ties kept together.
    norm
        ``"l1"`` as above; ``"l2"``: root of the weighted mean of squared gaps; ``"max"``: the
        largest gap of any bin that is not empty.

    Returns
    -------
    float
        The error, as a probability.

    Raises
    ------
    ValueError
        If a confidence is outside [0, 1] or NaN, or shapes differ.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, arXiv:1706.04599.

    Examples
    --------
    >>> ece([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]).__round__(4)
    0.1
    """
    given: dict[str, Any] = {"confidence": confidence, "correct": correct}
    return plain(_ece, confidence, **given, n_bins=n_bins, binning=binning, norm=norm)


class _Moments:
    """First and second moments of bins over questions; totals of any resample are linear in them.

    The gap of a bin is a ratio of sums over questions, so its variance is the linearized one,
    sum over questions of (residual - gap * count)^2, which allows for any dependence of the
    attempts within a question.
    """

    def __init__(self, sums: BinSums) -> None:
        count, residual = sums
        parts = [count, residual, residual**2, residual * count, count**2, count > 0]
        self.n_bins = count.shape[1]
        self.columns = np.concatenate(parts, axis=1).astype(np.float64)

    def gaps(self, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return share of rows, gap and its variance per bin, shape (n_samples, n_bins)."""
        totals = (weights @ self.columns).reshape(len(weights), 6, self.n_bins)
        count, residual, residual2, cross, count2, n_questions = totals.transpose(1, 0, 2)
        gap = residual / np.maximum(count, 1)
        squares = np.maximum(residual2 - 2 * gap * cross + gap**2 * count2, 0)
        variance = (
            squares / np.maximum(count, 1) ** 2 * n_questions / np.maximum(n_questions - 1, 1)
        )
        # One question in a bin says nothing about its variance: then the whole gap may be noise.
        variance = np.where(n_questions > 1, variance, gap**2)
        return count / count.sum(axis=1, keepdims=True), gap, variance


def _pooled_signal(share: FloatArray, gap: FloatArray, variance: FloatArray) -> FloatArray:
    """Shrink the gaps, by one factor per sample, to what noise does not explain."""
    noise = (share * variance).sum(axis=1, keepdims=True)
    total = (share * gap**2).sum(axis=1, keepdims=True)
    factor = np.sqrt(np.maximum(1 - noise / np.where(total > 0, total, np.inf), 0))
    return np.asarray(gap * factor)


def _less_noise(
    share: FloatArray, gap: FloatArray, variance: FloatArray, signal: FloatArray
) -> FloatArray:
    """Sum the sizes of the gaps less what noise adds if their true values are `signal`."""
    from scipy.special import ndtr

    sigma = np.sqrt(variance)
    t = np.abs(signal) / np.where(sigma > 0, sigma, np.inf)
    density = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    # E|t + Z| - t for a standard normal Z.
    bias = 2 * sigma * (density - t * ndtr(-t))
    return np.asarray((share * (np.abs(gap) - bias)).sum(axis=1))


def _debiased(share: FloatArray, gap: FloatArray, variance: FloatArray) -> FloatArray:
    return _less_noise(share, gap, variance, _pooled_signal(share, gap, variance))


def _debiased_less(share: FloatArray, gap: FloatArray, variance: FloatArray) -> FloatArray:
    """Take the bias at the observed gaps: too small a correction for a perfect predictor."""
    return _less_noise(share, gap, variance, gap)


def _debiased_ece(
    questions: Questions,
    *,
    confidence: ArrayLike,
    correct: ArrayLike,
    clusters: ArrayLike | None = None,
    n_bins: int = 10,
) -> Formula:
    require_same_questions("debiased_ece", questions, clusters)
    count, residual = _width_sums(questions, confidence, correct, n_bins)
    sample = _Moments(BinSums(count, residual))
    share, gap, variance = parts = sample.gaps(np.ones((1, len(count))))
    # Resampling the data as they are would add the noise of the gaps a second time. Moving the gap
    # of each bin to an estimate of its true value gives a sample whose error is known: the target.
    # Shrinking bin by bin overestimates it, shrinking all alike underestimates it: take the mean.
    one_by_one = np.sign(gap) * np.sqrt(np.maximum(gap**2 - variance, 0))
    signal = (one_by_one + _pooled_signal(*parts)) / 2
    moved = _Moments(BinSums(count, residual - count * (gap - signal)))
    target = float((share * np.abs(signal)).sum())

    def formula(error: Callable[..., FloatArray], upper: Formula | None = None) -> Formula:
        return Formula(
            lambda weights: error(*sample.gaps(weights)),
            lambda weights: error(*moved.gaps(weights)),
            target,
            upper,
        )

    return formula(_debiased, upper=formula(_debiased_less))


@weighted(_debiased_ece)
def debiased_ece(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    n_bins: int = 10,
) -> float:
    r"""Return the expected calibration error less what chance adds to it. Unit: attempt.

    Noise makes the size of each bin's gap :math:`g_b` too large on average. What it adds to a gap
    of true size :math:`\gamma` with standard error :math:`\sigma_b` is
    :math:`\sigma_b\,\beta(\gamma / \sigma_b)`, :math:`\beta(t) = 2(\varphi(t) - t\,\Phi(-t))`:

    .. math:: \sum_b \frac{n_b}{n} \Big(|g_b| - \sigma_b\,\beta\big(s |g_b| / \sigma_b\big)\Big),
              \qquad s^2 = \max\Big(0, 1 - \frac{\sum n_b \sigma_b^2}{\sum n_b g_b^2}\Big)

    Standard errors allow for dependence between the attempts of a question. Lower is better.
    Nearly unbiased for a perfect predictor and where gaps exceed their noise; up to about 0.007
    too low in between. It may be slightly negative: no error beyond chance was seen.

    Parameters
    ----------
    confidence
        Probabilities in [0, 1], flat or of shape (n_questions, n_attempts).
    correct
        Verdicts 0/1, same shape.
    clusters
        Question id of each row of flat arrays, shape (n_rows,). None: each entry of the first axis
        is a question.
    n_bins
        Number of equal-width bins, as in `ece`.

    Returns
    -------
    float
        The error, as a probability, at most `ece` with the same bins.

    References
    ----------
    Kumar, Liang and Ma 2019, Verified Uncertainty Calibration, arXiv:1909.10155, whose published
    code simulates the same bias at the observed gaps (s = 1), for independent rows. The shrinkage s
    and the clustered standard errors are this package's own.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> confidence = rng.random(500)
    >>> correct = rng.random(500) < confidence
    >>> round(ece(confidence, correct), 3), round(debiased_ece(confidence, correct), 3)
    (0.047, 0.01)
    """
    given: dict[str, Any] = {"confidence": confidence, "correct": correct}
    return plain(_debiased_ece, confidence, clusters, by_question=True, **given, n_bins=n_bins)

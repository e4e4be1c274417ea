"""How well a score tells right answers from wrong ones: AUROC and AUPRC.

The orientation is in the argument name: `confidence` is higher for answers that should be right,
`uncertainty` for answers that should be wrong. Neither needs to be a probability; only the order
counts, and infinities are allowed. Arrays may be flat or (n_questions, n_attempts); the unit is
the answer (one attempt), unless the caller passes one answer per question.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray, one_of
from lm_eval_ext.metrics.pair_counts import auroc_resampler
from lm_eval_ext.metrics.ranking import (
    Ranked,
    nan_if_one_class,
    oriented,
    rank,
    ranking_resampler,
    warn_if_one_class,
)
from lm_eval_ext.metrics.resampling import resampled_by

Label = Literal["correct", "incorrect"]


def _steps(totals: FloatArray) -> FloatArray:
    return np.diff(totals, axis=1, prepend=0.0)


def _auroc(ranked: Ranked) -> FloatArray:
    correct, wrong = ranked.correct, ranked.wrong
    # Twice the wrong answers above each correct one: those in the same block count half.
    above = wrong.copy()
    above[:, 1:] += wrong[:, :-1]
    twice_lost = np.einsum("ij,ij->i", _steps(correct), above)
    pairs = correct[:, -1] * wrong[:, -1]
    return nan_if_one_class(ranked, 1 - twice_lost / (2 * np.maximum(pairs, 1)))


@resampled_by(auroc_resampler(ranking_resampler(_auroc)))
def auroc(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> float:
    r"""Return the area under the ROC curve. Unit: answer.

    The probability that a random right answer is ranked as more confident than a random wrong one,
    ties counting half. Range [0, 1], higher is better, 0.5 for a score without information. It is
    the same whether right or wrong answers are the positive class.

    Parameters
    ----------
    correct
        Verdicts 0/1, any shape.
    uncertainty, confidence
        Exactly one of them, same shape as `correct`.

    Returns
    -------
    float
        NaN, with an `UndefinedMetricWarning`, if all answers are right or all are wrong.

    Raises
    ------
    ValueError
        If both or neither score is given, shapes differ, or a value is NaN.

    References
    ----------
    Hanley and McNeil 1982, Radiology 143:29-36.

    Examples
    --------
    >>> auroc([1, 1, 0, 0], confidence=[0.9, 0.4, 0.4, 0.1])
    0.875
    >>> auroc([1, 1, 0, 0], uncertainty=[0.9, 0.4, 0.4, 0.1])
    0.125
    """
    ranked = rank(*oriented(correct, uncertainty, confidence))
    warn_if_one_class("auroc", ranked)
    return float(_auroc(ranked)[0])


def _auprc(ranked: Ranked, positive: Label = "correct") -> FloatArray:
    n, hits = ranked.n, ranked.correct
    if positive == "incorrect":
        # Read the ranking from its other end, where the wrong answers should be.
        n, hits = (
            total[:, -1:] - np.concatenate([np.zeros((len(total), 1)), total[:, :-1]], axis=1)
            for total in (ranked.n, ranked.wrong)
        )
        n, hits = n[:, ::-1], hits[:, ::-1]
    precision = hits / np.maximum(n, 1)
    area = (_steps(hits) * precision).sum(axis=1) / np.maximum(hits[:, -1], 1)
    return nan_if_one_class(ranked, area)


@resampled_by(ranking_resampler(_auprc))
def auprc(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    positive: Label = "correct",
) -> float:
    r"""Return the area under the precision-recall curve as average precision. Unit: answer.

    .. math:: \sum_u (R_u - R_{u-1}) P_u

    over the thresholds u. Range (0, 1], higher is better. A score without information gets the
    share of the positive class, so compare only at equal accuracy.

    Parameters
    ----------
    correct, uncertainty, confidence
        As in `auroc`.
    positive
        ``"correct"``: right answers found from the confident end; ``"incorrect"``: wrong answers
        found from the uncertain end, as in hallucination detection.

    Returns
    -------
    float
        NaN, with an `UndefinedMetricWarning`, if all answers are right or all are wrong.

    Examples
    --------
    >>> auprc([1, 0, 1, 0], confidence=[0.9, 0.8, 0.7, 0.1]).__round__(4)
    0.8333
    """
    one_of("positive", positive, ("correct", "incorrect"))
    ranked = rank(*oriented(correct, uncertainty, confidence))
    warn_if_one_class("auprc", ranked)
    return float(_auprc(ranked, positive)[0])

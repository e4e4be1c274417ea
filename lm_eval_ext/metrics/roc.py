"""The ROC curve behind `lm_eval_ext.metrics.auroc`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.metrics.ranking import rank_once, warn_if_one_class


class RocCurve(NamedTuple):
    """Share of the right and of the wrong answers that are kept, as ever fewer are rejected.

    Parameters
    ----------
    false_positive_rate
        Share of the wrong answers kept, in [0, 1], ascending, shape (n_blocks + 1,).
    true_positive_rate
        Share of the right answers kept, likewise.
    """

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray


def roc_curve(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> RocCurve:
    """Return the ROC curve from (0, 0) to (1, 1). Unit: answer.

    It has one point per distinct confidence, joined by straight lines, so that the area below it
    is `auroc`, ties counting half. Parameters as in `lm_eval_ext.metrics.auroc`.

    Returns
    -------
    RocCurve
        NaN, with an `UndefinedMetricWarning`, if all answers are right or all are wrong.

    References
    ----------
    Hanley and McNeil 1982, Radiology 143:29-36.

    Examples
    --------
    >>> curve = roc_curve([1, 1, 0, 0], confidence=[0.9, 0.4, 0.4, 0.1])
    >>> curve.false_positive_rate, curve.true_positive_rate
    (array([0. , 0. , 0.5, 1. ]), array([0. , 0.5, 1. , 1. ]))
    """
    ranked = rank_once(correct, uncertainty, confidence)
    kept = [np.concatenate([[0.0], totals[0]]) for totals in (ranked.wrong, ranked.correct)]
    if min(totals[-1] for totals in kept) == 0:
        warn_if_one_class("roc_curve", np.asarray(correct, dtype=np.float64).ravel())
        return RocCurve(*(np.full(len(totals), np.nan) for totals in kept))
    return RocCurve(*(totals / totals[-1] for totals in kept))

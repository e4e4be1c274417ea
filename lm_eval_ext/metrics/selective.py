"""What is gained by rejecting the least confident answers: AURC, PRR, accuracy at coverage.

The orientation is in the argument name, as in `lm_eval_ext.metrics.discrimination`; only the order
of the scores counts. The unit is the answer (one attempt), unless the caller passes one answer per
question.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.metrics.ranking import (
    Ranked,
    correct_among,
    mean_selective_risk,
    nan_if_one_class,
    of_ranking,
    oracle,
    rank_once,
    ranked_plain,
)
from lm_eval_ext.metrics.resampling import weighted


class RiskCoverage(NamedTuple):
    """Risk-coverage curve: the error rate among the most confident share of answers.

    Parameters
    ----------
    coverage
        Share of answers kept, i / n for i = 1, ..., n, shape (n,).
    risk
        Expected error rate among those, same shape.
    """

    coverage: FloatArray
    risk: FloatArray


def _aurc(ranked: Ranked) -> FloatArray:
    return mean_selective_risk(ranked, np.zeros(len(ranked.n)))


_AURC = of_ranking(_aurc)


@weighted(_AURC)
def aurc(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> float:
    r"""Return the area under the risk-coverage curve. Unit: answer.

    .. math:: \frac1n \sum_{i=1}^{n} \frac{\text{wrong among the } i \text{ most confident}}{i}

    Range [0, 1], lower is better; a random order gives the error rate. Within ties the expectation
    over random order is taken. It mixes accuracy and ranking: see `e_aurc` and `prr`.

    Parameters
    ----------
    correct, uncertainty, confidence
        As in `lm_eval_ext.metrics.auroc`.

    Returns
    -------
    float
        Defined for one class too: 0 or 1.

    References
    ----------
    Geifman, Uziel and El-Yaniv 2019, Bias-Reduced Uncertainty Estimation, arXiv:1805.08206.

    Examples
    --------
    >>> aurc([1, 1, 0], confidence=[0.9, 0.8, 0.1]).__round__(4)
    0.1111
    """
    return ranked_plain(_AURC, correct, uncertainty, confidence)


def _e_aurc(ranked: Ranked) -> FloatArray:
    return _aurc(ranked) - _aurc(oracle(ranked))


_E_AURC = of_ranking(_e_aurc)


@weighted(_E_AURC)
def e_aurc(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> float:
    """Return the AURC in excess of that of a perfect ranking of the same answers. Unit: answer.

    Range [0, 1), lower is better, 0 for a perfect ranking. Parameters as in
    `lm_eval_ext.metrics.auroc`.

    References
    ----------
    Geifman, Uziel and El-Yaniv 2019, Bias-Reduced Uncertainty Estimation, arXiv:1805.08206.

    Examples
    --------
    >>> e_aurc([1, 1, 0], confidence=[0.9, 0.8, 0.1])
    0.0
    """
    return ranked_plain(_E_AURC, correct, uncertainty, confidence)


def _prr(ranked: Ranked, max_rejection: float = 1.0) -> FloatArray:
    n = ranked.n[:, -1]
    # The small term keeps 0.29 * 100 = 28.999999999999996 from becoming 28.
    start = n - np.floor(max_rejection * n + 1e-9)
    error_rate = ranked.wrong[:, -1] / n
    gained = error_rate - mean_selective_risk(ranked, start)
    possible = error_rate - mean_selective_risk(oracle(ranked), start)
    return nan_if_one_class(ranked, gained / np.where(possible > 0, possible, np.nan))


_PRR = of_ranking(_prr, name="prr")


@weighted(_PRR)
def prr(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    max_rejection: float = 1.0,
) -> float:
    r"""Return the prediction rejection ratio. Unit: answer.

    Reject the least confident answers one by one and average the accuracy of the rest:

    .. math:: \mathrm{PRR} = \frac{A_{\text{score}} - A_{\text{random}}}
                                  {A_{\text{oracle}} - A_{\text{random}}}

    Higher is better: 1 for a perfect ranking, 0 for a random one, negative if worse than random.
    Within ties the expectation over random order is taken.

    Parameters
    ----------
    correct, uncertainty, confidence
        As in `lm_eval_ext.metrics.auroc`.
    max_rejection
        Largest share of answers rejected, in (0, 1]; 0.5 gives PRR at 50% rejection.

    Returns
    -------
    float
        NaN, with an `UndefinedMetricWarning`, if all answers are right or all are wrong. NaN too
        if `max_rejection` rejects less than two of the answers, so that nothing can be gained.

    References
    ----------
    Malinin, Ragni, Knill and Gales 2017, Incorporating Uncertainty into Deep Learning for Spoken
    Language Assessment, ACL (the ratio); Vashurin et al. 2025, Benchmarking Uncertainty
    Quantification Methods for LLMs with LM-Polygraph, arXiv:2406.15627 (limited rejection).

    Examples
    --------
    >>> prr([1, 1, 0, 0], confidence=[0.9, 0.8, 0.2, 0.1])
    1.0
    >>> prr([1, 1, 0, 0], confidence=[0.5, 0.5, 0.5, 0.5])
    0.0
    """
    if not 0 < max_rejection <= 1:
        raise ValueError(f"max_rejection must lie in (0, 1], got {max_rejection!r}")
    return ranked_plain(_PRR, correct, uncertainty, confidence, max_rejection=max_rejection)


def _accuracy_at_coverage(ranked: Ranked, coverage: float = 0.5) -> FloatArray:
    # The small term keeps 0.28 * 25 = 7.000000000000001 from becoming 8.
    n_kept = np.ceil(coverage * ranked.n[:, -1] - 1e-9)
    return correct_among(ranked, n_kept) / np.maximum(n_kept, 1)


_ACCURACY_AT_COVERAGE = of_ranking(_accuracy_at_coverage)


@weighted(_ACCURACY_AT_COVERAGE)
def accuracy_at_coverage(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    coverage: float = 0.5,
) -> float:
    """Return the accuracy of the most confident share of answers. Unit: answer.

    Range [0, 1], higher is better. With n answers, ceil(coverage * n) are kept; if the last places
    are tied, they are filled by the expectation over random order.

    Parameters
    ----------
    correct, uncertainty, confidence
        As in `lm_eval_ext.metrics.auroc`.
    coverage
        Share kept, in (0, 1]. 0.5 is the "ACC*" of hallucination papers.

    Examples
    --------
    >>> accuracy_at_coverage([1, 0, 1, 0], confidence=[0.9, 0.8, 0.2, 0.1])
    0.5
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage!r}")
    return ranked_plain(_ACCURACY_AT_COVERAGE, correct, uncertainty, confidence, coverage=coverage)


def risk_coverage_curve(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
) -> RiskCoverage:
    """Return the error rate among the i most confident answers for every i. Unit: answer.

    Its mean is `aurc`. Parameters as in `lm_eval_ext.metrics.auroc`.

    Examples
    --------
    >>> risk_coverage_curve([1, 0, 1, 0], confidence=[0.9, 0.5, 0.5, 0.1]).risk.round(3)
    array([0.   , 0.25 , 0.333, 0.5  ])
    """
    ranked = rank_once(correct, uncertainty, confidence)
    n = int(ranked.n[0, -1])
    kept = np.arange(1.0, n + 1)
    ends = np.concatenate([[0.0], ranked.n[0]])
    wrong = np.interp(kept, ends, np.concatenate([[0.0], ranked.wrong[0]]))
    return RiskCoverage(kept / n, wrong / kept)

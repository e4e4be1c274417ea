"""What the noise of a value is made of: the draw of the attempts, and the choice of the questions.

More attempts make the first part smaller, more questions both. All parts are variances of one
question's value; divided by the number of questions they are those of the mean.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import as_float, at_least, same_shape
from lm_eval_ext.metrics.comparison import minimum_detectable_effect
from lm_eval_ext.metrics.pass_at_k import counts, share_drawn_from


class VarianceParts(NamedTuple):
    """Parts of the variance of a question's value, or of its difference between two runs.

    Parameters
    ----------
    attempts
        Mean variance that other attempts at the same question would make.
    questions
        Variance between the questions' expected values, at least 0.
    n_questions
        Questions that were measured.
    """

    attempts: float
    questions: float
    n_questions: int

    def standard_error(self, n_questions: int | None = None) -> float:
        """Return the standard error of the mean over so many questions (those measured)."""
        return math.sqrt((self.attempts + self.questions) / (n_questions or self.n_questions))

    def questions_to_see(self, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
        """Return how many questions a test needs to find a true effect with the given power."""
        smallest = minimum_detectable_effect(self.standard_error(1), alpha=alpha, power=power)
        return math.ceil((smallest / effect) ** 2) if math.isfinite(smallest) else math.nan


def attempt_variance(
    n_correct: ArrayLike,
    n_attempts: ArrayLike,
    k: int = 1,
    *,
    at: int | None = None,
    all_correct: bool = False,
) -> Any:
    r"""Estimate how much pass@k of a question varies between draws of its attempts.

    With c of n attempts correct, and :math:`w_m = \binom{n-c}{m} / \binom{n}{m}`, which is
    unbiased for the probability that m attempts are all wrong, the variance with N attempts is

    .. math:: \sum_{i=1}^{k} \binom{k}{i} \binom{N-k}{k-i} \Big/ \binom{N}{k}\;
              (w_{2k-i} - w_{2k})

    (the variance of a U-statistic, Hoeffding 1948). Unbiased, so it may be negative at one
    question; average it over questions. For k = 1 it is :math:`\hat p (1 - \hat p) / (n - 1)` at
    N = n. Unit: question.

    Parameters
    ----------
    n_correct, n_attempts
        As in `pass_at_k`.
    k
        Of pass@k, at least 1.
    at
        N; None: as many attempts as there are.
    all_correct
        Whether all k must be correct, as in `pass_hat_k`.

    Returns
    -------
    float or numpy.ndarray
        Shape of `n_correct`; NaN where there are fewer than 2k attempts, or N < k.

    References
    ----------
    Wang 2025, Measuring all the noises of LLM evals, arXiv:2512.21326 (the parts); the estimator
    for k above 1 is this package's own.

    Examples
    --------
    >>> attempt_variance(3, 4), attempt_variance(3, 4, at=64)
    (0.0625, 0.00390625)
    """
    at_least("k", k, 1)
    correct, attempts, _ = counts(n_correct, n_attempts, k)
    marked = correct if all_correct else attempts - correct
    shares = share_drawn_from(marked, attempts, np.arange(1, 2 * k + 1))
    drawn = np.unique(attempts if at is None else at_least("at", at, 1))
    variance = np.full(correct.shape, np.nan)
    for n in drawn.tolist():
        if n < k:
            continue
        i = range(1, k + 1)
        weights = [math.comb(k, j) * math.comb(n - k, k - j) / math.comb(n, k) for j in i]
        gaps = shares[..., 2 * k - 1 - np.arange(1, k + 1)] - shares[..., [2 * k - 1]]
        variance = np.where((attempts == n) | (at is not None), gaps @ weights, variance)
    return float(variance) if variance.ndim == 0 else variance


def variance_parts(values: ArrayLike, of_attempts: ArrayLike) -> VarianceParts:
    """Split the variance between questions into what attempts and what questions make of it.

    Parameters
    ----------
    values
        Value of each question, or its difference between two runs, shape (n_questions,), at least
        two of them.
    of_attempts
        Variance of each by its attempts, as `attempt_variance` estimates it; for a difference the
        sum of both runs', same shape.

    Returns
    -------
    VarianceParts
        The questions' part is what is left, or 0 where nothing is.

    References
    ----------
    Wang 2025, Measuring all the noises of LLM evals, arXiv:2512.21326.

    Examples
    --------
    >>> variance_parts([1.0, 0.5, 0.0, 0.5], [0.0, 0.125, 0.0, 0.125])
    VarianceParts(attempts=0.0625, questions=0.10416666666666666, n_questions=4)
    """
    array, noise = as_float("values", values), np.asarray(of_attempts, dtype=np.float64)
    same_shape(values=array, of_attempts=noise)
    at_least("number of questions", len(array), 2)
    attempts = float(noise.mean())
    questions = float(array.var(ddof=1)) - attempts
    return VarianceParts(
        attempts, questions if math.isnan(questions) else max(questions, 0.0), len(array)
    )

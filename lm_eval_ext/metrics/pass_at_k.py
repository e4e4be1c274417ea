r"""Unbiased estimators over sampled attempts: pass@k, pass^k and avg@k.

All take, per question, the number of attempts and how many of them are correct, and give one value
per question and k. They are the average, over all k-subsets of the attempts, of "any correct",
"all correct" and "share correct". They need exchangeable attempts: the same sampler for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray, IntArray, as_count, scalar_or_array

_MAX_TABLE = 1 << 22
"""Numbers held at once while the products are formed."""


def counts(
    n_correct: ArrayLike, n_attempts: ArrayLike, k: ArrayLike
) -> tuple[IntArray, IntArray, IntArray]:
    """Check and broadcast the counts; `k` keeps its own shape."""
    correct = as_count("n_correct", n_correct)
    attempts = as_count("n_attempts", n_attempts)
    try:
        correct, attempts = np.broadcast_arrays(correct, attempts)
    except ValueError:
        raise ValueError(
            f"n_correct {correct.shape} and n_attempts {attempts.shape} must have the same shape"
        ) from None
    if (correct > attempts).any():
        first = np.argwhere(correct > attempts)[0]
        at = f" at question {first[0]}" if first.size else ""
        raise ValueError(
            f"n_correct must not exceed n_attempts, got {correct[tuple(first)]} > "
            f"{attempts[tuple(first)]}{at}"
        )
    return correct, attempts, _ks(k)


def _ks(k: ArrayLike) -> IntArray:
    ks = as_count("k", k)
    if ks.ndim > 1 or ks.size == 0:
        raise ValueError(f"k must be a number or a non-empty list of numbers, got shape {ks.shape}")
    if ks.min() < 1:
        raise ValueError(f"k must be at least 1, got {ks.min()}")
    return ks


def share_drawn_from(marked: IntArray, total: IntArray, ks: IntArray) -> FloatArray:
    """Probability that k draws without replacement all come from the `marked` of `total`.

    This is C(marked, k) / C(total, k) as the product of (marked - j) / (total - j), j < k, which
    neither overflows nor cancels. Shape ``marked.shape + ks.shape``; NaN where total < k.
    """
    # Questions repeat few distinct (marked, total) pairs, so each product is formed once.
    width = int(total.max(initial=0)) + 1
    keys, inverse = np.unique(total.ravel() * width + marked.ravel(), return_inverse=True)
    wanted = np.atleast_1d(ks)
    n_factors = min(int(wanted.max()), width)
    table = np.full((len(keys), len(wanted)), np.nan)
    step = np.arange(n_factors)
    for start in range(0, len(keys), max(1, _MAX_TABLE // n_factors)):
        rows = slice(start, start + max(1, _MAX_TABLE // n_factors))
        n, m = np.divmod(keys[rows, None], width)
        factors = np.maximum(m - step, 0) / np.maximum(n - step, 1)
        products = np.cumprod(factors, axis=1)[:, np.minimum(wanted, n_factors) - 1]
        table[rows] = np.where(n >= wanted, products, np.nan)
    return table[inverse].reshape(marked.shape + ks.shape)


def pass_at_k(n_correct: ArrayLike, n_attempts: ArrayLike, k: ArrayLike) -> Any:
    r"""Estimate the probability that at least one of k attempts is correct. Unit: question.

    Range [0, 1], higher is better, non-decreasing in k. Unbiased for exchangeable attempts:

    .. math:: \mathrm{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}

    Parameters
    ----------
    n_correct
        Correct attempts of each question, shape (n_questions,) or a number.
    n_attempts
        Attempts of each question, same shape or one number for all.
    k
        One k, or several of shape (n_ks,), each at least 1.

    Returns
    -------
    float or numpy.ndarray
        One value per question and k, shape (n_questions, n_ks); an axis is absent where the
        argument was a plain number. NaN where a question has fewer than k attempts
        (`eligible_count` says how many questions remain).

    Raises
    ------
    ValueError
        If a count is negative or fractional, n_correct > n_attempts, or k < 1.

    References
    ----------
    Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374, eq. 1.

    Examples
    --------
    >>> pass_at_k(1, 4, 2)
    0.5
    >>> pass_at_k([0, 1, 4], 4, [1, 2, 8])
    array([[0.  , 0.  ,  nan],
           [0.25, 0.5 ,  nan],
           [1.  , 1.  ,  nan]])
    """
    correct, attempts, ks = counts(n_correct, n_attempts, k)
    return scalar_or_array(1.0 - share_drawn_from(attempts - correct, attempts, ks))


def pass_hat_k(n_correct: ArrayLike, n_attempts: ArrayLike, k: ArrayLike) -> Any:
    r"""Estimate the probability that all of k attempts are correct (pass^k). Unit: question.

    Range [0, 1], higher is better, non-increasing in k. Unbiased for exchangeable attempts:

    .. math:: \mathrm{pass\hat{\ }}k = \binom{c}{k} \Big/ \binom{n}{k}

    Parameters, result and errors are those of `pass_at_k`.

    References
    ----------
    Yao et al. 2024, tau-bench, arXiv:2406.12045.

    Examples
    --------
    >>> pass_hat_k([2, 4], 4, 2).round(4)
    array([0.1667, 1.    ])
    """
    correct, attempts, ks = counts(n_correct, n_attempts, k)
    return scalar_or_array(share_drawn_from(correct, attempts, ks))


def avg_at_k(n_correct: ArrayLike, n_attempts: ArrayLike, k: ArrayLike) -> Any:
    """Estimate the mean share of correct ones among k attempts (avg@k). Unit: question.

    Its expectation is the same for every k, namely c / n; k only says how many attempts the
    question must have. Range [0, 1], higher is better. Parameters, result and errors are those of
    `pass_at_k`.

    Examples
    --------
    >>> avg_at_k([1, 3], 4, [4, 8])
    array([[0.25,  nan],
           [0.75,  nan]])
    """
    correct, attempts, ks = counts(n_correct, n_attempts, k)
    share = correct / np.maximum(attempts, 1)
    shape = correct.shape + (1,) * ks.ndim
    eligible = attempts.reshape(shape) >= ks
    return scalar_or_array(np.where(eligible, share.reshape(shape), np.nan))


def eligible_count(n_attempts: ArrayLike, k: ArrayLike) -> Any:
    """Count the questions that have at least k attempts, so that pass@k is defined for them.

    Parameters
    ----------
    n_attempts
        Attempts of each question, shape (n_questions,) or a number.
    k
        One k, or several of shape (n_ks,), each at least 1.

    Returns
    -------
    int or numpy.ndarray
        Shape (n_ks,), or an int for a single k.

    Examples
    --------
    >>> eligible_count([4, 16, 16], [1, 8, 32])
    array([3, 2, 0])
    """
    attempts, ks = as_count("n_attempts", n_attempts), _ks(k)
    counts = (np.atleast_1d(attempts)[:, None] >= np.atleast_1d(ks)).sum(axis=0)
    return int(counts[0]) if ks.ndim == 0 else counts

r"""Exact expected majority vote from the sizes of the answer groups.

A random k-subset holds i_h of the m_h attempts of group h with multivariate hypergeometric
probability. Group g wins with j votes if every other group has at most j, and gets 1 / (1 + t) if t
of them have j as well. The number of such subsets is a coefficient of a product of polynomials,

.. math:: \binom{m_g}{j} [x^{k-j}]\; (1+x)^{u} \prod_{h \ne g}
          \Big(\sum_{i<j} \binom{m_h}{i} x^i + y \binom{m_h}{j} x^j\Big),

where u attempts are invalid and the power of y counts the ties. All terms are positive, so
nothing cancels and float64 keeps about 14 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.metrics.checks import FloatArray

_MAX_ATTEMPTS = 1_000
"""Beyond this a binomial coefficient may exceed the float64 range."""

_MAX_COST = 20_000_000
"""Multiplications that one question and k may cost."""


def majority_is_feasible(n_attempts: int, sizes: NDArray[np.intp], k: int) -> bool:
    """Say whether `expected_majority` is affordable for groups of these sizes."""
    if n_attempts > _MAX_ATTEMPTS:
        return False
    cost = 0
    distinct = np.unique(sizes)
    for j in range(1, min(int(sizes.max(initial=0)), k) + 1):
        rivals = sizes[sizes >= j]
        ties = min(len(rivals), k // j + 1)
        cost += int((distinct >= j).sum()) * len(rivals) * (k + 1) * (j + 1) * (ties + 1)
    return cost <= _MAX_COST


def expected_majority(
    sizes: Sequence[int] | NDArray[np.intp], n_invalid: int, k: int
) -> FloatArray:
    """Return each group's expected share of the win in the majority vote of k attempts.

    Parameters
    ----------
    sizes
        Attempts in each group of valid answers, shape (n_groups,).
    n_invalid
        Attempts that never vote.
    k
        Size of the subsets, at most the number of attempts.

    Returns
    -------
    numpy.ndarray
        Shares, shape (n_groups,); they add up to the probability that anyone votes at all.
    """
    sizes = [int(m) for m in sizes]
    ordered = tuple(sorted(sizes))
    shares = dict(zip(ordered, _shares(ordered, int(n_invalid), int(k)), strict=True))
    return np.array([shares[m] for m in sizes], dtype=np.float64)


@lru_cache(maxsize=4_096)
def _shares(sizes: tuple[int, ...], n_invalid: int, k: int) -> tuple[float, ...]:
    """Shares of groups in ascending order of size; groups of one size have one share."""
    total = comb(sum(sizes) + n_invalid, k)
    by_size = dict.fromkeys(sizes, 0.0)
    for m in by_size:
        others = list(sizes)
        others.remove(m)
        for j in range(1, min(m, k) + 1):
            by_size[m] += comb(m, j) / total * _ways(others, n_invalid, j, k - j)
    return tuple(by_size[m] for m in sizes)


def _ways(others: list[int], n_invalid: int, j: int, rest: int) -> float:
    """Subsets of `rest` attempts of the others in which none exceeds j, weighted by 1 / (1 + t)."""
    # A group smaller than j can neither tie nor exceed: it counts like invalid attempts.
    rivals = [m for m in others if m >= j]
    harmless = n_invalid + sum(m for m in others if m < j)
    max_ties = min(len(rivals), rest // j)
    ways = np.zeros((max_ties + 1, rest + 1))
    ways[0] = [comb(harmless, i) for i in range(rest + 1)]
    for m in rivals:
        grown = ways.copy()
        for i in range(1, min(j - 1, rest) + 1):
            grown[:, i:] += comb(m, i) * ways[:, :-i]
        if j <= rest:
            grown[1:, j:] += comb(m, j) * ways[:-1, :-j]
        ways = grown
    return float((ways[:, rest] / np.arange(1, max_ties + 2)).sum())

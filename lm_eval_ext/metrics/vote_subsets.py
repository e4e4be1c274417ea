"""The k-subsets of attempts on which votes are held."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np

from lm_eval_ext.metrics.checks import IntArray

MAX_EXACT_SUBSETS = 20_000
"""Largest number of subsets that is enumerated (16 attempts have 12,870 subsets of 8)."""


class Subsets(NamedTuple):
    """Subsets of attempts, shape (n_subsets, k), and whether these are all there are."""

    members: IntArray
    exact: bool


@lru_cache(maxsize=32)
def subsets(n: int, k: int, *, n_draws: int, seed: int) -> Subsets:
    """Return every k-subset of n attempts, or `n_draws` random ones if there are too many.

    Parameters
    ----------
    n, k
        Number of attempts and size of the subsets, 1 <= k <= n.
    n_draws
        Subsets drawn, each uniformly and independently, beyond `MAX_EXACT_SUBSETS`.
    seed
        Seed of the draw. The same arguments always give the same subsets.
    """
    total = comb(n, k)
    if total <= MAX_EXACT_SUBSETS:
        flat = chain.from_iterable(combinations(range(n), k))
        members = np.fromiter(flat, dtype=np.int64, count=total * k).reshape(total, k)
    else:
        rng = np.random.default_rng([seed, n, k])
        everyone = np.broadcast_to(np.arange(n), (n_draws, n))
        members = rng.permuted(everyone, axis=1)[:, :k].copy()
    members.flags.writeable = False  # shared through the cache
    return Subsets(members, total <= MAX_EXACT_SUBSETS)

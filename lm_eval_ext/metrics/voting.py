"""Votes among attempts: expected maj@k and confidence-weighted votes over k-subsets.

All functions here look at one question. Its score for k is the expected score of the vote held by
a random k-subset of its attempts: the mean over all subsets where that is feasible, over a seeded
random sample of them otherwise, and the result says which.

Rules, the same for every vote: answers are grouped before voting; an invalid answer (None) never
votes; groups that tie for the first place share the credit; a subset without a vote scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import (
    FloatArray,
    IntArray,
    as_binary,
    as_count,
    as_float,
    as_probability,
    at_least,
    one_of,
    same_shape,
)
from lm_eval_ext.metrics.vote_counts import expected_majority, majority_is_feasible
from lm_eval_ext.metrics.vote_subsets import subsets

OfSubsets = Callable[[IntArray], FloatArray]
"""From attempts in subsets, shape (n_subsets, k), to the confidence that each has there."""

Equivalence = Callable[[Any, Any], bool]
"""Whether two answers mean the same, such as equality of mathematical expressions."""

VoteRule = Literal["softmax", "linear", "best_of_n"]


class VoteScore(NamedTuple):
    """Expected score of a vote for one question.

    Parameters
    ----------
    score
        Expected score in [0, 1] per k, a float or shape (n_ks,); NaN where n_attempts < k.
    exact
        Whether all subsets were counted (True) or a random sample of them (False), same shape.
    n_attempts
        Attempts the subsets were taken from, invalid ones included.
    """

    score: Any
    exact: Any
    n_attempts: int


def group_answers(
    answers: Sequence[Any], *, equivalent: Equivalence | None = None
) -> NDArray[np.intp]:
    """Assign a number to the groups of equivalent answers in order of first appearance.

    Parameters
    ----------
    answers
        Answers of one question; None marks an invalid one.
    equivalent
        Called as ``equivalent(first_of_group, answer)``; equal answers are grouped without a call.
        An answer joins the first group it matches, so the relation should be transitive.
        None groups equal answers only.

    Returns
    -------
    numpy.ndarray
        Group of each answer, shape (n_attempts,), -1 for invalid answers.

    Examples
    --------
    >>> group_answers(["4", "4.0", None, "5"], equivalent=lambda a, b: float(a) == float(b))
    array([ 0,  0, -1,  1])
    """
    known: dict[Hashable, int] = {}
    first: list[Any] = []
    groups = np.full(len(answers), -1, dtype=np.intp)
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        if answer not in known:
            matches = (g for g, f in enumerate(first) if equivalent and equivalent(f, answer))
            known[answer] = next(matches, len(first))
            if known[answer] == len(first):
                first.append(answer)
        groups[i] = known[answer]
    return groups


def _question(
    answers: Sequence[Any], correct: ArrayLike, equivalent: Equivalence | None
) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the group of each attempt and the credit of each group.

    The credit is the mean verdict of the group: 0 or 1 unless the grader contradicts itself.
    """
    groups = group_answers(answers, equivalent=equivalent)
    verdicts = as_binary("correct", correct)
    same_shape(answers=groups, correct=verdicts)
    valid = groups >= 0
    sizes = np.bincount(groups[valid])
    return groups, np.bincount(groups[valid], weights=verdicts[valid]) / np.maximum(sizes, 1)


def _each_k(k: ArrayLike, n_attempts: int, score: Callable[[int], tuple[float, bool]]) -> VoteScore:
    ks = as_count("k", k)
    if ks.ndim > 1 or ks.size == 0 or ks.min() < 1:
        raise ValueError(f"k must be a whole number of at least 1 or a list of them, got {k!r}")
    results = [score(int(i)) if i <= n_attempts else (np.nan, True) for i in np.atleast_1d(ks)]
    if ks.ndim == 0:
        return VoteScore(*results[0], n_attempts)
    return VoteScore(
        np.array([r[0] for r in results]), np.array([r[1] for r in results]), n_attempts
    )


def maj_at_k(
    answers: Sequence[Any],
    correct: ArrayLike,
    k: ArrayLike,
    *,
    equivalent: Equivalence | None = None,
    n_draws: int = 2_000,
    seed: int = 0,
) -> VoteScore:
    """Return the expected score of a majority vote of k attempts. Unit: question.

    Range [0, 1], higher is better. It is computed from the sizes of the answer groups, exactly,
    up to 1,000 attempts unless too many large groups compete; a random sample of subsets beyond.
    So it stays exact beyond `MAX_EXACT_SUBSETS` (20,000) subsets, where `weighted_vote` is sampled.
    For a baseline on the very subsets of a weighted vote take `weighted_vote` with constant
    confidence.

    Parameters
    ----------
    answers
        Answers of one question's attempts, length n_attempts; None is invalid and never votes.
    correct
        Verdict of each attempt, 0 or 1, shape (n_attempts,).
    k
        One k, or several of shape (n_ks,), each at least 1.
    equivalent
        When given, decides which answers vote together; see `group_answers`.
    n_draws
        Subsets drawn where the exact value is not feasible.
    seed
        Seed of that draw. Equal seeds, n_attempts and k give the subsets of `weighted_vote`.

    Returns
    -------
    VoteScore
        Score and whether it is exact, per k; NaN where k exceeds the number of attempts.

    Raises
    ------
    ValueError
        If lengths differ, `correct` is not 0/1, or k < 1.

    References
    ----------
    Wang et al. 2022, Self-Consistency, arXiv:2203.11171.

    Examples
    --------
    >>> maj_at_k(["4", "4", "5", None], [1, 1, 0, 0], [1, 3]).score
    array([0.5 , 0.75])
    """
    at_least("n_draws", n_draws, 1)
    groups, credit = _question(answers, correct, equivalent)
    sizes = np.bincount(groups[groups >= 0])
    n_invalid = int((groups < 0).sum())

    def score(k: int) -> tuple[float, bool]:
        if majority_is_feasible(len(groups), sizes, k):
            shares = expected_majority(sizes, n_invalid, k)
            return min(1.0, float(shares @ credit)), True
        chosen = subsets(len(groups), k, n_draws=n_draws, seed=seed)
        voting = groups[chosen.members]
        return _vote(voting, np.zeros(voting.shape), credit), chosen.exact

    return _each_k(k, len(groups), score)


def weighted_vote(
    answers: Sequence[Any],
    correct: ArrayLike,
    confidence: ArrayLike | OfSubsets,
    k: ArrayLike,
    *,
    rule: VoteRule = "softmax",
    tau: float = 1.0,
    equivalent: Equivalence | None = None,
    n_draws: int = 2_000,
    seed: int = 0,
) -> VoteScore:
    r"""Return the expected score of a confidence-weighted vote of k attempts. Unit: question.

    Range [0, 1], higher is better. The rules:

    - ``softmax`` (CISC): weight :math:`\propto \exp(c_i / \tau)` within the subset. As tau grows
      it becomes the majority vote, as tau goes to 0 the most confident attempt decides.
    - ``linear``: weight :math:`c_i`.
    - ``best_of_n``: the answer of the most confident valid attempt; attempts that tie share the
      credit equally.

    Beyond `MAX_EXACT_SUBSETS` (20,000) subsets softmax and linear votes are sampled while
    `maj_at_k` stays exact, so their difference holds sampling noise. The same call with constant
    confidence is the majority vote on the same subsets: the baseline without that noise.

    Parameters
    ----------
    answers, correct, k, equivalent
        As in `maj_at_k`.
    confidence
        Confidence of each attempt, shape (n_attempts,). In [0, 1] for ``linear``; any finite
        number, higher is more confident, for the others. Values at invalid answers are ignored.
        A confidence that depends on the other attempts of a vote is a function from the numbers
        of the attempts in each subset, shape (n_subsets, k), to their confidences, same shape.
    rule
        ``"softmax"``, ``"linear"`` or ``"best_of_n"``.
    tau
        Temperature of ``softmax``, above 0. Tune it on training questions only.
    n_draws
        Subsets drawn where there are more than `MAX_EXACT_SUBSETS`; all are counted up to there
        (``best_of_n`` is always exact, unless its confidence is a function).
    seed
        Seed of that draw; equal seeds, n_attempts and k give the same subsets for every rule.

    Returns
    -------
    VoteScore
        Score and whether it is exact, per k; NaN where k exceeds the number of attempts.

    Raises
    ------
    ValueError
        If lengths differ, `correct` is not 0/1, k < 1, tau <= 0, or a confidence does not fit.

    References
    ----------
    Taubenfeld et al. 2025, Confidence Improves Self-Consistency (CISC), arXiv:2502.06233.

    Examples
    --------
    >>> weighted_vote(["4", "5", "5"], [1, 0, 0], [0.9, 0.2, 0.3], 3, tau=0.1).score
    1.0
    >>> weighted_vote(["4", "5", "5"], [1, 0, 0], [0.9, 0.2, 0.3], 3, tau=100.0).score
    0.0
    """
    one_of("rule", rule, ("softmax", "linear", "best_of_n"))
    if not tau > 0:
        raise ValueError(f"tau must be above 0, got {tau!r}")
    at_least("n_draws", n_draws, 1)
    groups, credit = _question(answers, correct, equivalent)
    if callable(confidence):
        of_subsets: OfSubsets = confidence

        def score_subsets(k: int) -> tuple[float, bool]:
            members, exact = subsets(len(groups), k, n_draws=n_draws, seed=seed)
            voting = groups[members]
            scores = _confidence_of_valid(of_subsets(members), voting, rule)
            if rule == "best_of_n":
                return _best_of_each(scores, voting, credit), exact
            log_weight = scores / tau if rule == "softmax" else _log(scores)
            return _vote(voting, log_weight, credit), exact

        return _each_k(k, len(groups), score_subsets)
    scores = _confidence_of_valid(confidence, groups, rule)

    if rule == "best_of_n":
        return _each_k(k, len(groups), lambda k: (_best_of(k, scores, groups, credit), True))
    log_weight = scores / tau if rule == "softmax" else _log(scores)

    def score(k: int) -> tuple[float, bool]:
        chosen = subsets(len(groups), k, n_draws=n_draws, seed=seed)
        voting = groups[chosen.members]
        return _vote(voting, log_weight[chosen.members], credit), chosen.exact

    return _each_k(k, len(groups), score)


def _confidence_of_valid(confidence: ArrayLike, groups: NDArray[np.intp], rule: str) -> FloatArray:
    """Check the confidences that vote; those of invalid answers become 0 and are not looked at."""
    values = np.asarray(confidence, dtype=np.float64)
    same_shape(answers=groups, confidence=values)
    values = np.where(groups >= 0, values, 0.0)
    values = (
        as_probability("confidence", values) if rule == "linear" else as_float("confidence", values)
    )
    if np.isinf(values).any():
        raise ValueError("confidence must be finite, got infinity")
    return values


def _log(weights: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.log(weights)


def _vote(group: NDArray[np.intp], log_weight: FloatArray, credit: FloatArray) -> float:
    """Mean score of the votes held by subsets of attempts, both of shape (n_subsets, k)."""
    if credit.size == 0:
        return 0.0
    n_subsets, n_groups = len(group), len(credit)
    votes = group >= 0
    log_weight = np.where(votes, log_weight, -np.inf)
    # The largest weight of each subset is set to 1, so that a small tau cannot underflow them all.
    top = log_weight.max(axis=1, keepdims=True)
    weight = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))
    cell = (np.arange(n_subsets)[:, None] * n_groups + group)[votes]
    shape = (n_subsets, n_groups)
    tally = np.bincount(cell, weights=weight[votes], minlength=n_subsets * n_groups).reshape(shape)
    present = np.bincount(cell, minlength=n_subsets * n_groups).reshape(shape) > 0
    tally = np.where(present, tally, -np.inf)
    # Equal sums can differ in the last bits when they are added in another order.
    winners = present & (tally >= tally.max(axis=1, keepdims=True) * (1 - 1e-12))
    shares = (winners @ credit) / np.maximum(winners.sum(axis=1), 1)
    return float(shares.mean())


def _best_of(k: int, confidence: FloatArray, groups: NDArray[np.intp], credit: FloatArray) -> float:
    """Exact expected score of taking the most confident valid attempt of a k-subset."""
    n_attempts, n_invalid = len(groups), int((groups < 0).sum())
    values = confidence[groups >= 0]
    verdicts = credit[groups[groups >= 0]]
    expected = 0.0
    for level in np.unique(values):
        # The best of the subset is at this level: none of it above, at least one at the level.
        at_most = n_invalid + int((values <= level).sum())
        below = n_invalid + int((values < level).sum())
        probability = (comb(at_most, k) - comb(below, k)) / comb(n_attempts, k)
        expected += probability * float(verdicts[values == level].mean())
    return expected


def _best_of_each(confidence: FloatArray, group: NDArray[np.intp], credit: FloatArray) -> float:
    """Mean score of the most confident valid attempts of subsets, both (n_subsets, k)."""
    if credit.size == 0:
        return 0.0
    valid = group >= 0
    top = np.where(valid, confidence, -np.inf).max(axis=1, keepdims=True)
    best = valid & (confidence == top)
    scores = np.where(best, credit[group], 0.0).sum(axis=1)
    return float((scores / np.maximum(best.sum(axis=1), 1)).mean())

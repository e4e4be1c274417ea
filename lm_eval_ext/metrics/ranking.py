"""Answers ranked from most to least confident: what every discrimination metric is computed from.

Answers with equal confidence form one block. Metrics look only at the totals at the ends of
blocks, so their values do not depend on the order of rows. Many resamples of the questions share
one sort: each is a row of the totals.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import (
    FloatArray,
    UndefinedMetricWarning,
    as_binary,
    as_float,
    same_shape,
)
from lm_eval_ext.metrics.resampling import Formula, Questions, flat_rows, plain

_CHUNK = 1 << 16
"""Rows times samples ranked at once: few enough to stay in the processor's cache."""


class Ranked(NamedTuple):
    """Totals at the end of each block, most confident first.

    Parameters
    ----------
    n
        Answers up to and including the block, shape (n_resamples, n_blocks).
    correct
        How many of those are correct, same shape.
    """

    n: FloatArray
    correct: FloatArray

    @property
    def wrong(self) -> FloatArray:
        """How many are wrong, same shape."""
        return self.n - self.correct


def oriented(
    correct: ArrayLike, uncertainty: ArrayLike | None, confidence: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Return verdicts and a score that is higher for more confident answers, of one shape."""
    if (uncertainty is None) == (confidence is None):
        given = "neither" if confidence is None else "both"
        raise ValueError(f"give either uncertainty= or confidence=, got {given}")
    verdicts = as_binary("correct", correct)
    if confidence is not None:
        score = as_float("confidence", confidence)
        same_shape(correct=verdicts, confidence=score)
    else:
        score = -as_float("uncertainty", uncertainty)  # type: ignore[arg-type]
        same_shape(correct=verdicts, uncertainty=score)
    return verdicts, score


def _block_ends(sorted_score: FloatArray) -> NDArray[np.intp]:
    # Inequality, not a difference: two infinities are one block.
    return np.append(np.flatnonzero(sorted_score[1:] != sorted_score[:-1]), len(sorted_score) - 1)


def ranking(
    of_row: NDArray[np.intp], verdicts: FloatArray, score: FloatArray
) -> Callable[[FloatArray], Ranked]:
    """Sort answers once, and return their ranking as a function of the questions' weights.

    Parameters
    ----------
    of_row
        Question of each answer, shape (n_rows,).
    verdicts, score
        Of each answer, likewise.
    """
    order = np.argsort(-score, kind="stable")
    ends = _block_ends(score[order])
    of_row, is_correct = of_row[order], verdicts[order]
    at_ends = ends if len(ends) < len(order) else slice(None)

    def ranked(weights: FloatArray) -> Ranked:
        times = weights[:, of_row]
        n = np.cumsum(times, axis=1)[:, at_ends]
        times *= is_correct
        return Ranked(n, np.cumsum(times, axis=1)[:, at_ends])

    return ranked


def rank_once(
    correct: ArrayLike, uncertainty: ArrayLike | None, confidence: ArrayLike | None
) -> Ranked:
    """Rank one sample, each answer counted once; the result has one row."""
    verdicts, score = (array.ravel() for array in oriented(correct, uncertainty, confidence))
    of_row = np.zeros(len(verdicts), dtype=np.intp)
    return ranking(of_row, verdicts, score)(np.ones((1, 1)))


def of_ranking(
    summary: Callable[..., FloatArray], *, name: str | None = None
) -> Callable[..., Formula]:
    """Make the formula of a metric that is a summary of the ranking.

    Parameters
    ----------
    summary
        From a `Ranked` of any number of samples, and the metric's options by name, to values of
        shape (n_samples,).
    name
        Of a metric that is undefined where all answers are right or all are wrong.
    """

    def make(
        questions: Questions,
        *,
        correct: ArrayLike,
        uncertainty: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        **options: Any,
    ) -> Formula:
        verdicts, score = oriented(correct, uncertainty, confidence)
        of_row, (verdicts, score) = flat_rows(questions, verdicts, score)
        if name is not None:
            warn_if_one_class(name, verdicts)
        ranked = ranking(of_row, verdicts, score)
        step = max(1, _CHUNK // len(of_row))

        def value(weights: FloatArray) -> FloatArray:
            parts = [weights[i : i + step] for i in range(0, len(weights), step)]
            return np.concatenate([summary(ranked(part), **options) for part in parts])

        return Formula(value)

    return make


def ranked_plain(
    make: Callable[..., Formula],
    correct: ArrayLike,
    uncertainty: ArrayLike | None,
    confidence: ArrayLike | None,
    **options: Any,
) -> float:
    """Return a metric of the ranking where every answer weighs 1; `make` is of `of_ranking`."""
    given = {"correct": correct, "uncertainty": uncertainty, "confidence": confidence, **options}
    return plain(make, correct, **given)


def warn_if_one_class(name: str, verdicts: FloatArray) -> None:
    """Say that a metric is undefined, and why, on behalf of who called the metric."""
    n, n_correct = len(verdicts), int(verdicts.sum())
    if n_correct in (0, n):
        state = "correct" if n_correct else "incorrect"
        warnings.warn(
            f"{name} is undefined (NaN): all {n} answers are {state}",
            UndefinedMetricWarning,
            stacklevel=6,
        )


def nan_if_one_class(ranked: Ranked, values: FloatArray) -> FloatArray:
    """Replace the values of samples in which all answers are right or all are wrong."""
    n, n_correct = ranked.n[:, -1], ranked.correct[:, -1]
    return np.where((n_correct == 0) | (n_correct == n), np.nan, values)


def mean_selective_risk(ranked: Ranked, start: FloatArray) -> FloatArray:
    r"""Average the error rate among the i most confident over i = start + 1, ..., n.

    Within a block of ties the order is random, and the expected number of errors grows evenly:
    :math:`E_0 + e j / m` after j of its m answers. Summing :math:`(E_0 + e j / m) / (n_0 + j)`
    over j needs only harmonic numbers.

    Parameters
    ----------
    ranked
        Rankings; the multiplicities are whole numbers.
    start
        Number of most confident answers skipped, shape (n_resamples,).

    Returns
    -------
    numpy.ndarray
        Shape (n_resamples,), NaN where no i remains.
    """
    n, wrong = ranked.n, ranked.wrong
    size, errors = np.diff(n, prepend=0.0), np.diff(wrong, prepend=0.0)
    rate = errors / np.maximum(size, 1)
    before = n - size
    harmonic = _harmonic_numbers(1 << int(n[:, -1].max()).bit_length())
    at_ends = harmonic[n.astype(np.intp)]
    if start.any():
        skipped = np.clip(start[:, None] - before, 0, size)
        steps = at_ends - harmonic[(before + skipped).astype(np.intp)]
        size = size - skipped
    else:
        steps = np.diff(at_ends, prepend=0.0)
    total = ((wrong - errors - rate * before) * steps + rate * size).sum(axis=1)
    count = n[:, -1] - start
    return np.asarray(total / np.where(count > 0, count, np.nan))


@lru_cache(maxsize=4)
def _harmonic_numbers(n: int) -> FloatArray:
    """Return the sums of 1/i for i up to 0, 1, ..., n."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def oracle(ranked: Ranked) -> Ranked:
    """Rank the same answers perfectly: all correct ones before all wrong ones."""
    n, correct = ranked.n[:, -1], ranked.correct[:, -1]
    return Ranked(np.stack([correct, n], axis=1), np.stack([correct, correct], axis=1))


def correct_among(ranked: Ranked, n_kept: FloatArray) -> FloatArray:
    """Count the correct among the `n_kept` most confident, shared evenly within a block of ties."""
    before = _previous(ranked.n)
    size = ranked.n - before
    kept = np.clip(n_kept[:, None] - before, 0, size) / np.maximum(size, 1)
    return np.asarray((kept * (ranked.correct - _previous(ranked.correct))).sum(axis=1))


def _previous(totals: FloatArray) -> FloatArray:
    """Totals at the end of the block before."""
    return np.concatenate([np.zeros((len(totals), 1)), totals[:, :-1]], axis=1)

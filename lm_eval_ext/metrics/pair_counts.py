"""AUROC on many resamples at once, from the pairs of answers counted by pairs of questions.

AUROC is a share of pairs of a right and a wrong answer. Resampling questions multiplies the pairs
of two questions by how often each was drawn: with the matrix of those counts, one resample is a
quadratic form, whatever the number of attempts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import FloatArray, IntArray
from lm_eval_ext.metrics.ranking import oriented
from lm_eval_ext.metrics.resampling import Questions, Resampler, flat_rows

MAX_QUESTIONS = 3_000
"""Beyond it the matrix is too large to be worth its making."""

MIN_ATTEMPTS = 4
"""With fewer rows per question, walking the ranking is faster."""

_EXACT_FLOAT32 = 1 << 24
"""Whole numbers up to here are exact in float32."""


def auroc_resampler(
    by_ranking: Callable[..., Resampler | None],
) -> Callable[..., Resampler | None]:
    """Make the resampler of AUROC.

    Parameters
    ----------
    by_ranking
        Resampler that walks the ranking, for data with too many questions or too few attempts.
    """

    def make(
        questions: Questions,
        *,
        correct: ArrayLike,
        uncertainty: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
    ) -> Resampler | None:
        verdicts, score = oriented(correct, uncertainty, confidence)
        n = questions.n_questions
        if n > MAX_QUESTIONS or verdicts.size < MIN_ATTEMPTS * n:
            return by_ranking(
                questions, correct=correct, uncertainty=uncertainty, confidence=confidence
            )
        of_row, (verdicts, score) = flat_rows(questions, verdicts, score)
        lost = twice_lost_pairs(of_row, n, verdicts, score)
        right = np.bincount(of_row, weights=verdicts, minlength=n)
        wrong = np.bincount(of_row, weights=1 - verdicts, minlength=n)
        exact = n * int(lost.max(initial=0)) < _EXACT_FLOAT32
        pairs = lost.astype(np.float32 if exact else np.float64)

        def evaluate(drawn: IntArray) -> FloatArray:
            times = drawn.astype(np.float64)
            twice_lost = np.einsum("ij,ij->i", drawn.astype(pairs.dtype) @ pairs, times)
            n_pairs = (times @ right) * (times @ wrong)
            return np.where(n_pairs > 0, 1 - twice_lost / (2 * np.maximum(n_pairs, 1)), np.nan)

        return Resampler(evaluate)

    return make


def twice_lost_pairs(
    of_row: NDArray[np.intp], n_questions: int, verdicts: FloatArray, score: FloatArray
) -> NDArray[np.int32]:
    """Count the pairs in which a wrong answer is ranked above a right one.

    Parameters
    ----------
    of_row
        Question of each row, shape (n_rows,).
    n_questions
        Number of questions.
    verdicts, score
        Verdict 0/1 and confidence of each row, shape (n_rows,).

    Returns
    -------
    numpy.ndarray
        Shape (n_questions, n_questions): question of the right answer, question of the wrong one.
        Pairs that tie count 1, others 2.
    """
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.append(True, score[order][1:] != score[order][:-1]))
    lost = np.zeros((n_questions, n_questions), dtype=np.int32)
    twice_above = np.zeros(n_questions, dtype=np.int32)
    questions, is_right = of_row[order].tolist(), (verdicts[order] > 0).tolist()
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        right = [questions[i] for i in range(start, end) if is_right[i]]
        wrong = [questions[i] for i in range(start, end) if not is_right[i]]
        for question in right:
            lost[question] += twice_above
        if right and wrong:
            tied = np.bincount(wrong, minlength=n_questions).astype(np.int32)
            for question in right:
                lost[question] += tied
        for question in wrong:
            twice_above[question] += 2
    return lost

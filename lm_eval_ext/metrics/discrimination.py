"""How well a score tells right answers from wrong ones: AUROC, within questions too, and AUPRC.

The orientation is in the argument name: `confidence` is higher for answers that should be right,
`uncertainty` for answers that should be wrong. Neither needs to be a probability; only the order
counts, and infinities are allowed. Arrays may be flat or (n_questions, n_attempts); the unit is
the answer (one attempt), unless the caller passes one answer per question.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import FloatArray, UndefinedMetricWarning, one_of
from lm_eval_ext.metrics.ranking import (
    Ranked,
    nan_if_one_class,
    of_ranking,
    oriented,
    ranked_plain,
)
from lm_eval_ext.metrics.resampling import (
    Formula,
    Questions,
    flat_rows,
    plain,
    ratio,
    require_same_questions,
    weighted,
)

Label = Literal["correct", "incorrect"]


def _auroc(ranked: Ranked) -> FloatArray:
    correct, wrong = ranked.correct, ranked.wrong
    # Twice the wrong answers above each correct one: those in the same block count half.
    above = wrong.copy()
    above[:, 1:] += wrong[:, :-1]
    twice_lost = np.einsum("ij,ij->i", np.diff(correct, prepend=0.0), above)
    pairs = correct[:, -1] * wrong[:, -1]
    return nan_if_one_class(ranked, 1 - twice_lost / (2 * np.maximum(pairs, 1)))


_AUROC = of_ranking(_auroc, name="auroc")


@weighted(_AUROC)
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
    return ranked_plain(_AUROC, correct, uncertainty, confidence)


def _won_within(
    of_row: NDArray[np.intp], verdicts: FloatArray, score: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Count, for each row, the wrong answers to its question that it beats and that it meets.

    Ties are half a win; both counts are 0 for a wrong answer.
    """
    order = np.lexsort((score, of_row))
    question, ranked, is_right = of_row[order], score[order], verdicts[order]
    wrong = np.concatenate([[0.0], np.cumsum(1 - is_right)])
    new_question = np.append(True, question[1:] != question[:-1])
    # Inequality, not a difference: two infinities tie.
    new_block = new_question | np.append(True, ranked[1:] != ranked[:-1])

    def wrong_before(starts: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        begins = np.flatnonzero(starts)
        edges = wrong[np.append(begins, len(order))]
        part = np.cumsum(starts) - 1
        return edges[:-1][part], edges[1:][part]

    question_start, question_end = wrong_before(new_question)
    block_start, block_end = wrong_before(new_block)
    won, met = np.empty_like(ranked), np.empty_like(ranked)
    won[order] = is_right * ((block_start + block_end) / 2 - question_start)
    met[order] = is_right * (question_end - question_start)
    return won, met


def _within_question(
    questions: Questions,
    *,
    correct: ArrayLike,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> Formula:
    require_same_questions("within_question_auroc", questions, clusters)
    verdicts, score = oriented(correct, uncertainty, confidence)
    of_row, (verdicts, score) = flat_rows(questions, verdicts, score)
    won, met = _won_within(of_row, verdicts, score)
    if not met.any():
        warnings.warn(
            f"within_question_auroc is undefined (NaN): none of {questions.n_questions} questions "
            "has both a right and a wrong attempt",
            UndefinedMetricWarning,
            stacklevel=4,
        )
    return ratio(of_row, questions.n_questions, won, met)


@weighted(_within_question)
def within_question_auroc(
    correct: ArrayLike,
    *,
    uncertainty: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> float:
    r"""Return the AUROC over pairs of attempts at the same question. Unit: pair.

    The probability that, of a right and a wrong attempt at one question, the right one has the
    higher confidence, ties counting half:

    .. math:: \frac{\sum_q \sum_{i \in R_q} \sum_{j \in W_q} \big([c_i > c_j]
              + \tfrac12 [c_i = c_j]\big)}{\sum_q |R_q| |W_q|}

    Questions count by their pairs, those with one outcome not at all. Range [0, 1], higher is
    better; 0.5 for a confidence that only knows how hard questions are, however high its `auroc`.
    It is what a weighted vote can live on.

    Parameters
    ----------
    correct
        Verdicts 0/1, of shape (n_questions, n_attempts), or flat with `clusters`.
    uncertainty, confidence
        Exactly one of them, same shape as `correct`.
    clusters
        Question id of each row of flat arrays, shape (n_rows,). None: each entry of the first axis
        is a question.

    Returns
    -------
    float
        NaN, with an `UndefinedMetricWarning`, if no question has both a right and a wrong attempt.

    Raises
    ------
    ValueError
        If both or neither score is given, shapes differ, or a value is NaN.

    References
    ----------
    Taubenfeld et al. 2025, Confidence Improves Self-Consistency in LLMs, arXiv:2502.06233
    (within-question discrimination).

    Examples
    --------
    >>> correct = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    >>> confidence = [[0.9, 0.4, 0.4], [0.2, 0.1, 0.3], [0.5, 0.6, 0.7]]
    >>> within_question_auroc(correct, confidence=confidence)
    0.625
    """
    scores = {"uncertainty": uncertainty, "confidence": confidence}
    return plain(_within_question, correct, clusters, by_question=True, correct=correct, **scores)


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
    area = (np.diff(hits, prepend=0.0) * precision).sum(axis=1) / np.maximum(hits[:, -1], 1)
    return nan_if_one_class(ranked, area)


_AUPRC = of_ranking(_auprc, name="auprc")


@weighted(_AUPRC)
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
    return ranked_plain(_AUPRC, correct, uncertainty, confidence, positive=positive)

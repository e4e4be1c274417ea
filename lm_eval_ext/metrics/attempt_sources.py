"""Confidence in an attempt from its tokens' log-probabilities, and in a question from its answers.

Log-probabilities are those of the chosen tokens, in nats, shape (n_tokens,). NaN marks a token that
the model did not choose, such as one that a thinking budget forced; it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.metrics.voting import Equivalence, group_answers

SHORTEST_WINDOW, LONGEST_WINDOW = 16, 2_048


def _chosen(log_prob: ArrayLike) -> FloatArray:
    values = np.asarray(log_prob, dtype=np.float64)
    return values[~np.isnan(values)]


def _window(n_tokens: int) -> int:
    """Return a tenth of the tokens within bounds; all where there are fewer than the least."""
    return min(n_tokens, LONGEST_WINDOW, max(SHORTEST_WINDOW, math.ceil(n_tokens / 10)))


def lowest_window_logprob(log_prob: ArrayLike) -> float:
    """Return the lowest mean log-probability of neighbouring tokens. Unit: attempt.

    The least sure stretch of an attempt, which a mean over all tokens hides. At most 0, higher is
    surer. The window is a tenth of the tokens, but from 16 to 2,048 (an attempt that is shorter
    is one window).

    Parameters
    ----------
    log_prob
        Shape (n_tokens,), nats.

    Returns
    -------
    float
        NaN without a token.

    References
    ----------
    Fu et al. 2025, Deep Think with Confidence, arXiv:2508.15260 (lowest group confidence). Theirs
    takes the mean log-probability of the most likely tokens, and windows of 2,048 tokens, about a
    tenth of their attempts; ours that of the chosen token.

    Examples
    --------
    >>> lowest_window_logprob([-0.1] * 30 + [-1.0] * 16 + [-0.1] * 30)
    -1.0
    """
    values = _chosen(log_prob)
    if not values.size:
        return math.nan
    window = _window(len(values))
    # Differences of one running sum would lose digits over long attempts.
    means = np.lib.stride_tricks.sliding_window_view(values, window).mean(axis=1)
    return float(means.min())


def tail_logprob(log_prob: ArrayLike) -> float:
    """Return the mean log-probability of the last tokens. Unit: attempt.

    The end of an attempt, where its answer is. At most 0, higher is surer. As many tokens as the
    window of `lowest_window_logprob`.

    Parameters
    ----------
    log_prob
        Shape (n_tokens,), nats.

    Returns
    -------
    float
        NaN without a token.

    References
    ----------
    Fu et al. 2025, arXiv:2508.15260 (tail confidence); differences as above.

    Examples
    --------
    >>> tail_logprob([-1.0] * 10 + [-0.5] * 16)
    -0.5
    """
    values = _chosen(log_prob)
    return float(values[-_window(len(values)) :].mean()) if values.size else math.nan


def answer_logprob(log_prob: ArrayLike, start: int, end: int) -> float:
    """Return the mean log-probability of the tokens that write the answer. Unit: attempt.

    Given its reasoning, how sure the model is of the answer alone. At most 0, higher is surer.

    Parameters
    ----------
    log_prob
        Shape (n_tokens,), nats.
    start, end
        First token of the answer, and the one after its last.

    Returns
    -------
    float
        NaN where the model chose none of them.

    References
    ----------
    Wang and Zhou 2024, Chain-of-Thought Reasoning without Prompting, arXiv:2402.10200, section
    2.2, whose confidence averages over the answer's tokens alone (the margin of the most likely
    token; ours is the log-probability of the chosen one).

    Examples
    --------
    >>> answer_logprob([-3.0, -0.5, -0.25, -2.0], 1, 3)
    -0.375
    """
    values = _chosen(np.asarray(log_prob, dtype=np.float64)[start:end])
    return float(values.mean()) if values.size else math.nan


def answer_entropy(answers: Sequence[Any], *, equivalent: Equivalence | None = None) -> float:
    r"""Return the entropy over groups of equal answers of a question. Unit: question.

    .. math:: -\sum_g \frac{m_g}{n} \ln \frac{m_g}{n}

    with :math:`m_g` of n attempts in group g; an invalid attempt agrees with no other and is a
    group of its own. Range [0, ln n] nats, lower is surer.

    Parameters
    ----------
    answers
        Answers of one question, length n from 1 up; None is invalid.
    equivalent
        As in `group_answers`.

    References
    ----------
    Farquhar et al. 2024, Detecting hallucinations in large language models using semantic entropy,
    Nature 630:625-630 (discrete semantic entropy); the groups are equal answers.

    Examples
    --------
    >>> answer_entropy(["4", "4", "5", "4"]).__round__(4), answer_entropy(["4", "4"])
    (0.5623, 0.0)
    """
    if not len(answers):
        raise ValueError("answers must hold at least one")
    groups = group_answers(answers, equivalent=equivalent)
    sizes = np.append(np.bincount(groups[groups >= 0]), np.ones((groups < 0).sum(), dtype=int))
    shares = sizes[sizes > 0] / len(groups)
    return float(-(shares * np.log(shares)).sum()) + 0.0

"""Unbiased pass@k, for Hugging Face `evaluate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lm_eval_ext import metrics
from lm_eval_ext.evaluate_modules import base


class PassAtK(base.NumberPairs):
    """Unbiased estimate of the probability that at least one of k attempts at a question is right.

    From n attempts of which c are right: 1 - C(n - c, k) / C(n, k), averaged over questions. Range
    [0, 1], higher is better. Questions with fewer than k attempts are left out.

    Parameters
    ----------
    predictions
        Number of right attempts of each question.
    references
        Number of attempts of each question.
    k
        One number of attempts or a list of them, 1 by default.

    Returns
    -------
    pass@k
        For each k, the mean over questions; NaN where no question has k attempts.
    pass@k_questions
        For each k, the number of questions with at least k attempts.

    Examples
    --------
    >>> import evaluate, lm_eval_ext
    >>> pass_at_k = evaluate.load(lm_eval_ext.evaluate_module("pass_at_k"))
    >>> pass_at_k.compute(predictions=[0, 1, 4], references=[4, 4, 4], k=[2])
    {'pass@2': 0.5, 'pass@2_questions': 3}
    """

    citation_text = """
@article{chen2021evaluating,
  title = {Evaluating Large Language Models Trained on Code},
  author = {Chen, Mark and others},
  journal = {arXiv preprint arXiv:2107.03374},
  year = {2021}
}
"""
    urls = ("https://arxiv.org/abs/2107.03374",)

    def _compute(  # type: ignore[override]
        self, predictions: Any, references: Any, k: Any = 1
    ) -> dict[str, float]:
        result: dict[str, float] = {}
        for one in np.atleast_1d(k).tolist():
            values = metrics.pass_at_k(predictions, references, one)
            result[f"pass@{one}"] = metrics.mean_over_questions(values)
            result[f"pass@{one}_questions"] = metrics.eligible_count(references, one)
        return result

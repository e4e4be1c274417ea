"""Unbiased pass@k, for Hugging Face `evaluate`."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from lm_eval_ext import metrics

DESCRIPTION = """
Unbiased estimate of the probability that at least one of k attempts at a question is right, from n
attempts of which c are right: 1 - C(n - c, k) / C(n, k), averaged over questions. Range [0, 1],
higher is better. Questions with fewer than k attempts are left out.
"""

INPUTS = """
Args:
    predictions: number of right attempts of each question.
    references: number of attempts of each question.
    k: one number of attempts or a list of them, 1 by default.

Returns:
    pass@k: for each k, the mean over questions; NaN where no question has k attempts.
    pass@k_questions: for each k, the number of questions with at least k attempts.

Examples:
    >>> import evaluate, lm_eval_ext
    >>> pass_at_k = evaluate.load(lm_eval_ext.evaluate_module("pass_at_k"))
    >>> pass_at_k.compute(predictions=[0, 1, 4], references=[4, 4, 4], k=[2])
    {'pass@2': 0.5, 'pass@2_questions': 3}
"""

CITATION = """
@article{chen2021evaluating,
  title = {Evaluating Large Language Models Trained on Code},
  author = {Chen, Mark and others},
  journal = {arXiv preprint arXiv:2107.03374},
  year = {2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class PassAtK(evaluate.Metric):
    """Mean over questions of the unbiased pass@k."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                # Not int64: it would silently turn 0.7 into 0.
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/2107.03374"],
        )

    def _compute(self, predictions: Any, references: Any, k: Any = 1) -> dict[str, float]:
        result: dict[str, float] = {}
        for one in np.atleast_1d(k).tolist():
            values = metrics.pass_at_k(predictions, references, one)
            result[f"pass@{one}"] = metrics.mean_over_questions(values)
            result[f"pass@{one}_questions"] = metrics.eligible_count(references, one)
        return result

"""Area under the ROC curve for telling hallucinations from right answers, for `evaluate`."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from lm_eval_ext import metrics

DESCRIPTION = """
How well a score tells wrong answers (hallucinations) from right ones: the probability that a random
right answer is ranked as more confident than a random wrong one, ties counting half. Range [0, 1],
higher is better, 0.5 for a score without information. Only the order of the scores counts. It is
NaN where all answers are right or all are wrong.
"""

INPUTS = """
The configuration says which way the score points: with "confidence" (the default) it is higher for
answers that should be right, with "uncertainty" for those that should be wrong.

Args:
    predictions: scores of the answers, any numbers.
    references: verdicts, 1 where the answer is right and 0 where it is wrong.

Returns:
    auroc_hallucination: the area.

Examples:
    >>> import evaluate, lm_eval_ext
    >>> path = lm_eval_ext.evaluate_module("auroc_hallucination")
    >>> by_confidence = evaluate.load(path)
    >>> by_confidence.compute(predictions=[0.9, 0.4, 0.4, 0.1], references=[1, 1, 0, 0])
    {'auroc_hallucination': 0.875}
    >>> by_entropy = evaluate.load(path, "uncertainty")
    >>> by_entropy.compute(predictions=[0.2, 1.5, 1.5, 3.1], references=[1, 1, 0, 0])
    {'auroc_hallucination': 0.875}
"""

CITATION = """
@article{hanley1982meaning,
  title = {The Meaning and Use of the Area under a Receiver Operating Characteristic Curve},
  author = {Hanley, James A. and McNeil, Barbara J.},
  journal = {Radiology},
  volume = {143},
  number = {1},
  pages = {29--36},
  year = {1982}
}
"""

ORIENTATIONS = {"default": "confidence", "confidence": "confidence", "uncertainty": "uncertainty"}


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class AurocHallucination(evaluate.Metric):
    """Area under the ROC curve of a confidence or an uncertainty."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ORIENTATIONS:
            raise ValueError(
                f"config_name must be confidence or uncertainty, got {self.config_name!r}"
            )
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                # Not int64 for verdicts: it would silently turn 0.7 into 0.
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        score = {ORIENTATIONS[self.config_name]: predictions}
        return {"auroc_hallucination": metrics.auroc(references, **score)}

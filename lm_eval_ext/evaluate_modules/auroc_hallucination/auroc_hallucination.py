"""Area under the ROC curve for telling hallucinations from right answers, for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate

from lm_eval_ext import metrics
from lm_eval_ext.evaluate_modules import base

ORIENTATIONS = {"default": "confidence", "confidence": "confidence", "uncertainty": "uncertainty"}


class AurocHallucination(base.NumberPairs):
    """How well a score tells wrong answers (hallucinations) from right ones.

    The probability that a random right answer is ranked as more confident than a random wrong one,
    ties counting half. Range [0, 1], higher is better, 0.5 for a score without information. Only
    the order of the scores counts. It is NaN where all answers are right or all are wrong.

    The configuration says which way the score points: with "confidence" (the default) it is higher
    for answers that should be right, with "uncertainty" for those that should be wrong.

    Parameters
    ----------
    predictions
        Scores of the answers, any numbers.
    references
        Verdicts, 1 where the answer is right and 0 where it is wrong.

    Returns
    -------
    auroc_hallucination
        The area.

    Examples
    --------
    >>> import evaluate, lm_eval_ext
    >>> path = lm_eval_ext.evaluate_module("auroc_hallucination")
    >>> by_confidence = evaluate.load(path)
    >>> by_confidence.compute(predictions=[0.9, 0.4, 0.4, 0.1], references=[1, 1, 0, 0])
    {'auroc_hallucination': 0.875}
    >>> by_entropy = evaluate.load(path, "uncertainty")
    >>> by_entropy.compute(predictions=[0.2, 1.5, 1.5, 3.1], references=[1, 1, 0, 0])
    {'auroc_hallucination': 0.875}
    """

    citation_text = """
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

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ORIENTATIONS:
            raise ValueError(
                f"config_name must be confidence or uncertainty, got {self.config_name!r}"
            )
        return super()._info()

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        score = {ORIENTATIONS[self.config_name]: predictions}
        return {"auroc_hallucination": metrics.auroc(references, **score)}

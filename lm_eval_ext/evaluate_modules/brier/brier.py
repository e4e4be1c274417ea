"""Brier score of a stated probability, for Hugging Face `evaluate`."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from lm_eval_ext import metrics

DESCRIPTION = """
Brier score of stated probabilities that answers are right: the mean of (confidence - verdict)
squared. Range [0, 1], lower is better. It is half of the form that sums over the two classes. It
measures calibration and accuracy together.
"""

INPUTS = """
Args:
    predictions: confidences, the stated probabilities in [0, 1] that the answers are right.
    references: verdicts, 1 where the answer is right and 0 where it is wrong.

Returns:
    brier: the score.

Examples:
    >>> import evaluate, lm_eval_ext
    >>> brier = evaluate.load(lm_eval_ext.evaluate_module("brier"))
    >>> result = brier.compute(predictions=[0.8, 0.4], references=[1, 0])
    >>> round(result["brier"], 4)
    0.1
"""

CITATION = """
@article{brier1950verification,
  title = {Verification of Forecasts Expressed in Terms of Probability},
  author = {Brier, Glenn W.},
  journal = {Monthly Weather Review},
  volume = {78},
  number = {1},
  pages = {1--3},
  year = {1950}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class Brier(evaluate.Metric):
    """Mean squared difference of confidence and verdict."""

    def _info(self) -> evaluate.MetricInfo:
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
        return {"brier": metrics.brier(predictions, references)}

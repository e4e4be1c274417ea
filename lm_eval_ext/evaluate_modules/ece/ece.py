"""Expected calibration error, for Hugging Face `evaluate`."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from lm_eval_ext import metrics

DESCRIPTION = """
Expected calibration error of stated probabilities that answers are right: the gap between mean
confidence and accuracy, averaged over bins of confidence. Range [0, 1], lower is better. It is
biased upwards: a perfect predictor gets about 0.040 with 10 bins and 500 answers.
"""

INPUTS = """
Args:
    predictions: confidences, the stated probabilities in [0, 1] that the answers are right.
    references: verdicts, 1 where the answer is right and 0 where it is wrong.
    n_bins: number of bins, 10 by default.
    binning: "width" (default) for bins of equal width, "mass" for bins of equal numbers of answers.
    norm: "l1" (default), "l2" or "max".

Returns:
    ece: the error, as a probability.

Examples:
    >>> import evaluate, lm_eval_ext
    >>> ece = evaluate.load(lm_eval_ext.evaluate_module("ece"))
    >>> result = ece.compute(predictions=[0.9, 0.9, 0.6, 0.6], references=[1, 1, 1, 0])
    >>> round(result["ece"], 4)
    0.1
"""

CITATION = """
@inproceedings{naeini2015obtaining,
  title = {Obtaining Well Calibrated Probabilities Using Bayesian Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2015}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class Ece(evaluate.Metric):
    """Expected calibration error over bins of confidence."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                # Not int64 for verdicts: it would silently turn 0.7 into 0.
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        n_bins: int = 10,
        binning: Any = "width",
        norm: Any = "l1",
    ) -> dict[str, float]:
        error = metrics.ece(predictions, references, n_bins=n_bins, binning=binning, norm=norm)
        return {"ece": error}

"""Brier score of a probability, for Hugging Face `evaluate`."""

from __future__ import annotations

from lm_eval_ext import metrics
from lm_eval_ext.evaluate_modules import base


class Brier(base.NumberPairs):
    """Brier score of probabilities that answers are right.

    The mean of (confidence - verdict) squared. Range [0, 1], lower is better. It is half of the
    form that sums over the two classes. It measures calibration and accuracy together.

    Parameters
    ----------
    predictions
        Confidences, the probabilities in [0, 1] that the answers are right.
    references
        Verdicts, 1 where the answer is right and 0 where it is wrong.

    Returns
    -------
    brier
        The score.

    Examples
    --------
    >>> import evaluate, lm_eval_ext
    >>> brier = evaluate.load(lm_eval_ext.evaluate_module("brier"))
    >>> result = brier.compute(predictions=[0.8, 0.4], references=[1, 0])
    >>> round(result["brier"], 4)
    0.1
    """

    metric = metrics.brier
    citation_text = """
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

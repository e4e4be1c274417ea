"""Expected calibration error, for Hugging Face `evaluate`."""

from __future__ import annotations

from lm_eval_ext import metrics
from lm_eval_ext.evaluate_modules import base


class Ece(base.NumberPairs):
    """Expected calibration error of probabilities that answers are right.

    The gap between mean confidence and accuracy, averaged over bins of confidence. Range [0, 1],
    lower is better. It is biased upwards: a perfect predictor gets about 0.040 with 10 bins and 500
    answers.

    Parameters
    ----------
    predictions
        Confidences, the probabilities in [0, 1] that the answers are right.
    references
        Verdicts, 1 where the answer is right and 0 where it is wrong.
    n_bins
        Number of bins, 10 by default.
    binning
        "width" (default) for bins of equal width, "mass" for bins of equal numbers of answers.
    norm
        "l1" (default), "l2" or "max".

    Returns
    -------
    ece
        The error, as a probability.

    Examples
    --------
    >>> import evaluate, lm_eval_ext
    >>> ece = evaluate.load(lm_eval_ext.evaluate_module("ece"))
    >>> result = ece.compute(predictions=[0.9, 0.9, 0.6, 0.6], references=[1, 1, 1, 0])
    >>> round(result["ece"], 4)
    0.1
    """

    metric = metrics.ece
    citation_text = """
@inproceedings{naeini2015obtaining,
  title = {Obtaining Well Calibrated Probabilities Using Bayesian Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2015}
}
"""
    urls = ("https://arxiv.org/abs/1706.04599",)

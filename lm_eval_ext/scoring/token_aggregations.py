"""Readers of items that hold a pair (estimate, reference) for each token of a question.

Each returns arrays over all tokens with the question of each, so that intervals resample whole
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_eval_ext.metrics import fit_affine
from lm_eval_ext.scoring.aggregations import Sample


def token_pairs(items: Sequence[Any]) -> Sample:
    """Read the pairs as they are.

    Raises
    ------
    ValueError
        If an item is not a list of pairs.

    Examples
    --------
    >>> token_pairs([[(0.5, 0.25)], [(1.0, 1.5), (0.0, 0.5)]]).questions.tolist()
    [0, 1, 1]
    """
    rows = [np.asarray(item, dtype=np.float64) for item in items]
    for number, row in enumerate(rows):
        if row.size and (row.ndim != 2 or row.shape[1] != 2):
            raise ValueError(
                "the item of a question must be a list of (estimate, reference), one per token; "
                f"item {number} has shape {row.shape}"
            )
    estimate, reference = np.concatenate([row.reshape(-1, 2) for row in rows]).T
    questions = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Sample({"estimate": estimate, "reference": reference}, questions)


def cross_fitted(items: Sequence[Any]) -> Sample:
    """Read the pairs with each estimate mapped to the scale of the reference.

    The line is fitted on the questions of the other half, by even and odd number, so that no
    question helps to predict itself. Of a constant estimate nothing is left but the mean of the
    reference there: the yardstick of always predicting the mean.

    Raises
    ------
    ValueError
        If an item is not a list of pairs.
    """
    data, questions = token_pairs(items)
    assert questions is not None
    fitted = np.full_like(data["estimate"], np.nan)
    for half in (0, 1):
        here = questions % 2 == half
        if here.any() and not here.all():
            fit = fit_affine(data["estimate"][~here], data["reference"][~here])
            fitted[here] = fit.slope * data["estimate"][here] + fit.intercept
    return Sample({"estimate": fitted, "reference": data["reference"]}, questions)


def token_ranks(items: Sequence[Any]) -> Sample:
    """Read the ranks of the pairs among all tokens, whose correlation is Spearman's.

    Resamples keep these ranks instead of ranking again, which changes little where questions are
    many and is a hundred times faster.

    Raises
    ------
    ValueError
        If an item is not a list of pairs.
    """
    from scipy.stats import rankdata  # slow to import

    data, questions = token_pairs(items)
    return Sample({name: rankdata(values) for name, values in data.items()}, questions)

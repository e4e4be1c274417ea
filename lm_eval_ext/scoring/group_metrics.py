"""Which metrics a group of tasks averages over its members.

lm-eval wants the name of every metric in a group's ``aggregate_metric_list``, before it knows the
number of attempts or the confidence sources of the model. A name that no member reports costs
nothing and gives no row, so these lists hold every name that is likely. A group file says::

    aggregate_metric_list: !function lm_eval_ext.scoring.group_metrics.PASSN
"""

from __future__ import annotations

from typing import Any

from lm_eval_ext.harness.attempt_settings import AttemptSettings
from lm_eval_ext.scoring.metric_suites import suite

NUMBERS = (
    *range(1, 65),
    *(72, 80, 96, 100, 128, 160, 192, 200, 256, 320, 384, 400, 500, 512, 1000, 1024),
)
"""The k of pass@k, and the k of votes, that a group averages."""

SOURCES = (
    "vote_share",
    "answer_entropy",
    "mean_logprob",
    "mean_entropy",
    "self_certainty",
    "lowest_window_logprob",
    "tail_logprob",
    "answer_logprob",
    "self_eval",
    "p_true",
    "draft_jsd",
    "draft_eu_fitted",
    "draft_eu",
    "draft_kl",
    "tokur_eu",
    "tokur_tu",
    "tokur_au",
)
"""The confidence sources whose metrics a group averages."""


def weighted_by_size(metrics: str) -> list[dict[str, Any]]:
    """Return an ``aggregate_metric_list`` with every likely metric of a suite.

    Each is the mean over the group's tasks, weighted by their number of questions.

    Parameters
    ----------
    metrics
        Name of the suite, ``passn`` or ``calib``.

    Raises
    ------
    UserError
        For an unknown suite.

    Examples
    --------
    >>> weighted_by_size("calib")[0]
    {'metric': 'accuracy', 'aggregation': 'mean', 'weight_by_size': True}
    """
    found = suite(metrics, AttemptSettings(max(NUMBERS), ks=NUMBERS, vote_ks=NUMBERS))
    names = [
        *found.metrics,
        *(f"{name}:{source}" for name in found.source_metrics for source in SOURCES),
    ]
    return [{"metric": name, "aggregation": "mean", "weight_by_size": True} for name in names]


PASSN = weighted_by_size("passn")
"""For groups of tasks with ``metrics: passn``."""

CALIB = weighted_by_size("calib")
"""For groups of tasks with ``metrics: calib``."""

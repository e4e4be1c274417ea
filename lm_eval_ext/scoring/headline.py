"""The few rows that speak for a task: a run's own table, and the tests between runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

MAIN = ("pass@1", "pass@K", "maj@K", "accuracy", "exact_match*", "acc", "acc_norm", "f1*",
    "word_perplexity")  # fmt: skip
"""Names or patterns of the metrics of answers; K stands for the largest k there is."""

RATES = ("invalid_rate", "truncated_rate", "mean_tokens")
"""What is shown beside them, and not tested."""

OF_SOURCE = ("debiased_ece", "hallucination_auroc", "eu_rmse", "eu_spearman")
SHOWN = ("ece", *OF_SOURCE[1:])
"""Metrics of a confidence, or of an uncertainty per token: tested, and in a run's table."""

VOTES = ("cisc", "linear", "best_of")

REFERENCES = frozenset({"mean", "zero"})
"""Estimates of a token's uncertainty that others must beat."""

NOT_OWN = REFERENCES | {
    "vote_share",
    "mean_logprob",
    "perplexity",
    "mean_entropy",
    "self_certainty",
}
"""Sources that a run has whatever its method."""


def select(names: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that fit a pattern, in their order.

    Parameters
    ----------
    names
        Of metrics.
    patterns
        Names, patterns with ``*``, or names that end in ``@K`` for the largest k.

    Examples
    --------
    >>> select(["pass@1", "pass@8", "pass@16", "maj@16"], ["maj@K", "pass@K", "pass@1"])
    ['pass@1', 'pass@16', 'maj@16']
    """
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern.endswith("@K"):
            stem = re.escape(pattern[:-1])
            ks = [name for name in names if re.fullmatch(stem + r"\d+", name)]
            chosen |= set(sorted(ks, key=_k)[-1:])
        else:
            chosen |= {name for name in names if fnmatchcase(name, pattern)}
    return [name for name in names if name in chosen]


def to_test(names: Sequence[str]) -> list[str]:
    """Return the metrics that runs are tested on unless others are asked for.

    They are chosen by name, before any value is seen: `MAIN`, and `OF_SOURCE` for the first source
    that belongs to the method.

    Examples
    --------
    >>> to_test(["pass@1", "brier:self_eval", "debiased_ece:self_eval", "debiased_ece:vote_share"])
    ['pass@1', 'debiased_ece:self_eval']
    """
    sources = [name.partition(":")[2] for name in names if name.startswith(OF_SOURCE)]
    own = next((source for source in sources if source and source not in NOT_OWN), None)
    return select(names, [*MAIN, *(f"{name}:{own}" for name in OF_SOURCE if own)])


def rows(values: Mapping[str, float], directions: Mapping[str, bool | None]) -> list[str]:
    """Return the rows of a run's own table, in their order.

    Of weighted votes, and of each metric of a source, it is the best: its name says which.

    Parameters
    ----------
    values, directions
        Of all metrics, in the order of their suite.

    Examples
    --------
    >>> values = {"pass@1": 0.5, "ece:a": 0.3, "hallucination_auroc:a": 0.6, "mean_tokens": 9.0}
    >>> rows(values | {"hallucination_auroc:b": 0.7}, {"hallucination_auroc:b": True})
    ['pass@1', 'ece:a', 'hallucination_auroc:b', 'mean_tokens']
    """
    names = list(values)
    votes = [name for name in names if name.startswith(tuple(f"{rule}@" for rule in VOTES))]
    most = max(map(_k, votes), default=0)
    chosen = select(names, MAIN)
    chosen += _best([name for name in votes if _k(name) == most], values, True)
    for metric in SHOWN:
        given = [name for name in names if name.startswith(f"{metric}:")]
        of_sources = [name for name in given if name.partition(":")[2] not in REFERENCES]
        higher = any(directions.get(name) for name in of_sources)
        chosen += _best(of_sources, values, higher)
    return chosen + select(names, RATES)


def _best(names: Sequence[str], values: Mapping[str, float], higher_is_better: bool) -> list[str]:
    known = [name for name in names if not math.isnan(values[name])]
    best = max if higher_is_better else min
    return [best(known, key=lambda name: values[name])] if known else []


def _k(name: str) -> int:
    matched = re.search(r"@(\d+)", name)
    return int(matched[1]) if matched else 0

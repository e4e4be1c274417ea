"""Compare runs on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_output import RunOutput
from lm_eval_ext.metrics import (
    MeanInterval,
    PairedDifference,
    holm,
    mean_over_questions,
    paired_bootstrap,
    proportion_interval,
    t_interval,
)

N_RESAMPLES = 10_000


class MetricComparison(NamedTuple):
    """One metric of one task over all runs.

    Parameters
    ----------
    task, metric
        Names.
    higher_is_better
        Direction, or None.
    values
        Mean over questions with its 95% interval, for each run; None where a run has no such
        metric. The interval is Wilson's where all values lie in [0, 1], and the t-interval
        elsewhere.
    differences
        Difference from the first run with its paired-bootstrap interval, for each further run.
    p_values
        Holm-corrected p-value of each difference, over all differences of the comparison.
    """

    task: str
    metric: str
    higher_is_better: bool | None
    values: list[MeanInterval | None]
    differences: list[PairedDifference | None]
    p_values: list[float | None]


def compare_runs(
    runs: Sequence[RunOutput], *, metrics: Sequence[str] = ("*",)
) -> list[MetricComparison]:
    """Compare metrics of the tasks that all runs have with the first run.

    Parameters
    ----------
    runs
        Two or more runs.
    metrics
        Names or patterns of the metrics to compare, with ``*`` for anything.

    Raises
    ------
    UserError
        If the runs share no task, saw different questions of a task, or no metric fits.
    """
    shared = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not shared:
        raise UserError(
            "the runs have no task in common: "
            + "; ".join(f"{run.label} has {', '.join(run.tasks) or 'none'}" for run in runs)
        )
    compared = []
    for task in shared:
        check_same_questions(runs, task)
        for metric in dict.fromkeys(name for run in runs for name in run.tasks[task].values):
            if any(fnmatchcase(metric, pattern) for pattern in metrics):
                compared.append(_compare_metric(runs, task, metric))
    if not compared:
        raise UserError(f"--metrics={','.join(metrics)}: no such metric in {', '.join(shared)}")
    return _with_corrected_p_values(compared)


def check_same_questions(runs: Sequence[RunOutput], task: str) -> None:
    """Refuse runs that did not see the same questions, and say which differ.

    Parameters
    ----------
    runs
        The runs.
    task
        A task all of them have.
    """
    first = runs[0].tasks[task].questions
    for run in runs[1:]:
        other = run.tasks[task].questions
        differing = sorted(i for i in first.keys() | other.keys() if first.get(i) != other.get(i))
        if differing:
            shown = ", ".join(str(i) for i in differing[:5]) + (", ..." if differing[5:] else "")
            raise UserError(
                f"{task}: {runs[0].label} ({len(first)} questions) and {run.label} "
                f"({len(other)}) differ in {len(differing)} questions (doc_id {shown}); use the "
                "same --limit, --samples and data"
            )


def _compare_metric(runs: Sequence[RunOutput], task: str, metric: str) -> MetricComparison:
    by_run = [run.tasks[task].values.get(metric) for run in runs]
    values = [None if v is None else _interval(np.array(list(v.values()))) for v in by_run]
    differences = [_difference(by_run[0], other) for other in by_run[1:]]
    directions = [run.tasks[task].higher_is_better.get(metric) for run in runs]
    direction = next((d for d in directions if d is not None), None)
    return MetricComparison(task, metric, direction, values, differences, [None] * len(differences))


def _interval(values: NDArray[np.float64]) -> MeanInterval:
    if ((values >= 0) & (values <= 1)).all():
        return proportion_interval(values)
    return t_interval(values)


def _difference(
    first: dict[int, float] | None, other: dict[int, float] | None
) -> PairedDifference | None:
    if first is None or other is None or first.keys() != other.keys():
        return None
    questions = sorted(first)
    return paired_bootstrap(
        mean_over_questions,
        {"values": np.array([other[i] for i in questions])},
        {"values": np.array([first[i] for i in questions])},
        n_resamples=N_RESAMPLES,
    )


def _with_corrected_p_values(compared: list[MetricComparison]) -> list[MetricComparison]:
    """Correct the p-values of all metrics that have a direction together."""
    tested = [
        (i, j)
        for i, comparison in enumerate(compared)
        for j, difference in enumerate(comparison.differences)
        if difference is not None and comparison.higher_is_better is not None
    ]
    p_values = [compared[i].differences[j].p_value for i, j in tested]  # type: ignore[union-attr]
    known = [k for k, p in enumerate(p_values) if not np.isnan(p)]
    if not known:
        return compared
    corrected = holm([p_values[k] for k in known])
    for k, p in zip(known, corrected, strict=True):
        i, j = tested[k]
        compared[i].p_values[j] = float(p)
    return compared

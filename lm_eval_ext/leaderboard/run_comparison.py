"""Compare runs on the same questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.paired import PairedTest, paired_means, paired_pooled, unpaired
from lm_eval_ext.leaderboard.run_data import RunOutput, TaskOutput
from lm_eval_ext.metrics import holm
from lm_eval_ext.scoring import headline
from lm_eval_ext.scoring.scores import Score

SHOWN = 5
"""Most questions that a message names."""


class MetricComparison(NamedTuple):
    """One metric of one task over all runs.

    Parameters
    ----------
    values
        The metric with its 95% interval, for each run; None where a run has no such metric.
    differences
        Difference from the first run, for each further run; None where one of them has no such
        metric.
    p_values
        Holm-corrected p-value of each difference, over all that are tested; None for the others.
    """

    task: str
    metric: str
    higher_is_better: bool | None
    values: list[Score | None]
    differences: list[PairedTest | None]
    p_values: list[float | None]


def compare_runs(
    runs: Sequence[RunOutput], *, metrics: Sequence[str] | None = None
) -> list[MetricComparison]:
    """Compare metrics of the tasks that all runs have with the first run.

    Parameters
    ----------
    metrics
        Names or patterns of the metrics to test, with ``*`` for anything; those without a
        direction are compared and not tested. By default what `headline.to_test` chooses by name,
        with `headline.RATES` beside it, which are not tested either.

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
    compared: list[MetricComparison] = []
    family: set[tuple[str, str]] = set()
    for task in shared:
        check_same_questions(runs, task)
        tested, beside = _chosen(runs, task, metrics)
        compared += [_compare_metric(runs, task, metric) for metric in (*tested, *beside)]
        family |= {(task, metric) for metric in tested}
    found = {comparison.metric for comparison in compared}
    unknown = [name for name in metrics or () if "*" not in name and name not in found]
    if unknown or not compared:
        raise UserError(
            f"--metrics={','.join(unknown or metrics or ())}: no such metric in {', '.join(shared)}"
        )
    return _with_corrected_p_values(compared, family)


def _chosen(
    runs: Sequence[RunOutput], task: str, metrics: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Return the metrics of a task to test, and those to show beside them."""
    names = list(dict.fromkeys(name for run in runs for name in run.tasks[task].metrics))
    if metrics is not None:
        return [n for n in names if any(fnmatchcase(n, pattern) for pattern in metrics)], []
    common = [n for n in names if all(n in run.tasks[task].metrics for run in runs)]
    beside = headline.select(common, headline.RATES)
    return headline.to_test(common) or [n for n in names if n not in beside], beside


def check_same_questions(runs: Sequence[RunOutput], task: str) -> None:
    """Refuse runs that did not see the same questions, and say which differ.

    Parameters
    ----------
    runs
        The runs; those without samples cannot be checked, and are passed over.
    """
    known = [run for run in runs if run.tasks[task].questions]
    for run in known[1:]:
        first, other = known[0].tasks[task].questions, run.tasks[task].questions
        differing = sorted(i for i in first.keys() | other.keys() if first.get(i) != other.get(i))
        if differing:
            shown = ", ".join(map(str, differing[:SHOWN])) + (", ..." if differing[SHOWN:] else "")
            raise UserError(
                f"{task}: {known[0].label} ({len(first)} questions) and {run.label} "
                f"({len(other)}) differ in {len(differing)} questions (doc_id {shown}); use the "
                "same --limit, --samples and data"
            )


def compare_tasks(a: TaskOutput, b: TaskOutput, metric: str) -> PairedTest | None:
    """Test the difference a - b of a metric between runs that saw the same questions.

    Returns
    -------
    PairedTest or None
        Paired where single questions (or the attempts, for metrics that pool them) are known in
        both runs, and unpaired elsewhere; None where a run has no such metric.
    """
    if metric not in a.metrics or metric not in b.metrics:
        return None
    values_a, values_b = a.values.get(metric), b.values.get(metric)
    if values_a is not None and values_b is not None:
        questions = sorted(values_a.keys() | values_b.keys())
        return paired_means(
            np.array([values_a.get(i, np.nan) for i in questions]),
            np.array([values_b.get(i, np.nan) for i in questions]),
        )
    replicates_a, replicates_b = a.replicates.get(metric), b.replicates.get(metric)
    if replicates_a is not None and replicates_b is not None:
        return paired_pooled(a.metrics[metric], b.metrics[metric], replicates_a, replicates_b)
    return unpaired(a.metrics[metric], b.metrics[metric])


def _compare_metric(runs: Sequence[RunOutput], task: str, metric: str) -> MetricComparison:
    tasks = [run.tasks[task] for run in runs]
    differences = [compare_tasks(other, tasks[0], metric) for other in tasks[1:]]
    directions = (other.direction(metric) for other in tasks)
    direction = next((d for d in directions if d is not None), None)
    values = [other.metrics.get(metric) for other in tasks]
    return MetricComparison(task, metric, direction, values, differences, [None] * len(differences))


def _with_corrected_p_values(
    compared: list[MetricComparison], family: Collection[tuple[str, str]]
) -> list[MetricComparison]:
    """Correct the p-values of a family's metrics together, those that have a direction."""
    tested = [
        (comparison, j, difference.p_value)
        for comparison in compared
        for j, difference in enumerate(comparison.differences)
        if difference is not None
        and comparison.higher_is_better is not None
        and (comparison.task, comparison.metric) in family
    ]
    if tested:
        for (comparison, j, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
            comparison.p_values[j] = float(p)
    return compared

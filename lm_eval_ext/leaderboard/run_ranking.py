"""Rank runs by one metric, with ties where paired tests see no difference.

The rank of a run is one more than the number of runs significantly better than it, in paired tests
of all pairs of runs with Holm's correction over the pairs. A run is marked best where it is
significantly better than every other one: alone at rank 1 would not do, since paired tests are not
transitive.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lm_eval_ext.leaderboard.paired import TIE
from lm_eval_ext.leaderboard.run_comparison import compare_tasks
from lm_eval_ext.leaderboard.run_data import TaskOutput
from lm_eval_ext.metrics import holm
from lm_eval_ext.metrics.checks import FloatArray

ALPHA = 0.05


class Place(NamedTuple):
    """Where a run stands: its rank from 1, None if it has none, and whether it is the best."""

    rank: int | None
    best: bool


NO_PLACE = Place(None, False)


def places(tasks: Sequence[TaskOutput], metric: str, *, alpha: float = ALPHA) -> list[Place]:
    """Rank the runs of a task by a metric.

    Returns
    -------
    list of Place
        One per run. Only runs that have the metric and saw the questions that most runs saw are
        ranked, and nothing where fewer than two are.
    """
    result = [NO_PLACE] * len(tasks)
    comparable = _same_questions(tasks, metric)
    directions = {tasks[i].direction(metric) for i in comparable} - {None}
    if len(comparable) < 2 or len(directions) != 1:
        return result
    sign = 1 if directions.pop() else -1
    kept = [tasks[i] for i in comparable]
    differences, p_values = _all_pairs(kept, metric)
    rows, columns = np.triu_indices(len(kept), k=1)
    corrected = np.full(p_values.shape, np.nan)
    corrected[rows, columns] = holm(p_values[rows, columns])
    corrected[columns, rows] = corrected[rows, columns]
    better = (corrected < alpha) & (sign * differences > 0)
    ranks = [1 + int(column.sum()) for column in better.T]
    for i, rank in zip(comparable, ranks, strict=True):
        result[i] = Place(rank, False)
    for i, beaten in zip(comparable, better.sum(axis=1).tolist(), strict=True):
        if beaten == len(comparable) - 1:
            result[i] = Place(1, True)
    return result


def _same_questions(tasks: Sequence[TaskOutput], metric: str) -> list[int]:
    """Return the runs with a value that saw the same questions: the largest set of them."""
    by_questions: dict[tuple[frozenset[tuple[int, str]], int], list[int]] = {}
    for i, task in enumerate(tasks):
        if metric in task.metrics and not np.isnan(task.metrics[metric].value):
            # Of a run without samples no more than the number of questions is known.
            n = 0 if task.questions else task.metrics[metric].n_questions
            by_questions.setdefault((frozenset(task.questions.items()), n), []).append(i)
    return max(by_questions.values(), key=len, default=[])


def _all_pairs(tasks: Sequence[TaskOutput], metric: str) -> tuple[FloatArray, FloatArray]:
    """Return differences row - column and their p-values, shape (n_runs, n_runs)."""
    values = _matrix(tasks, metric)
    if values is not None and not np.isnan(values).any() and values.shape[1] > 1:
        return _pairs_of_means(values)
    n = len(tasks)
    differences, p_values = np.zeros((n, n)), np.full((n, n), np.nan)
    for i, j in combinations(range(n), 2):
        test = compare_tasks(tasks[i], tasks[j], metric)
        if test is not None:
            differences[i, j], differences[j, i] = test.difference, -test.difference
            p_values[i, j] = p_values[j, i] = test.p_value
    return differences, p_values


def _matrix(tasks: Sequence[TaskOutput], metric: str) -> FloatArray | None:
    """Return the values of all questions, shape (n_runs, n_questions); None if a run has none."""
    if any(metric not in task.values for task in tasks):
        return None
    questions = sorted(tasks[0].questions)
    nan = float("nan")
    return np.array([[task.values[metric].get(i, nan) for i in questions] for task in tasks])


def _pairs_of_means(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Do for all pairs of runs at once what `paired_means` does for one."""
    from scipy.special import stdtr

    n_runs, n = values.shape
    differences, p_values = np.zeros((n_runs, n_runs)), np.ones((n_runs, n_runs))
    for i in range(n_runs):
        gaps = values[i] - values
        gaps[np.abs(gaps) < TIE] = 0.0
        mean = gaps.mean(axis=1)
        error = gaps.std(axis=1, ddof=1) / np.sqrt(n)
        floor = np.minimum(1.0, 2.0 * 0.5 ** (gaps != 0).sum(axis=1).clip(max=1_000))
        t = np.divide(-np.abs(mean), error, out=np.full(n_runs, -np.inf), where=error > 0)
        p = np.where(mean == 0, 1.0, 2 * stdtr(n - 1, t))
        differences[i], p_values[i] = mean, np.maximum(p, floor)
    return differences, p_values

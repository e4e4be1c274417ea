"""Ranks against tests of each pair written out."""

import numpy as np
import pytest

from lm_eval_ext.leaderboard.run_comparison import compare_tasks
from lm_eval_ext.leaderboard.run_data import TaskOutput
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.run_ranking import NO_PLACE, Place, places
from lm_eval_ext.leaderboard.task_samples import HEADLINE
from lm_eval_ext.metrics import holm
from lm_eval_ext.scoring.scores import score


def task_of(values, *, direction=True, hashes=None):
    by_question = {i: float(v) for i, v in enumerate(values) if not np.isnan(v)}
    return TaskOutput(
        hashes or {i: f"h{i}" for i in range(len(values))},
        {"m": by_question},
        {"m": score(list(by_question.values()), "mean", direction)},
    )


def runs(shifts, n=80, seed=0, gaps=False):
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 2, n)
    values = [rng.binomial(8, 1 / (1 + np.exp(-level - shift))) / 8 for shift in shifts]
    if gaps:
        values[0] = np.where(np.arange(n) == 3, np.nan, values[0])
    return values


@pytest.mark.parametrize("direction", [True, False])
@pytest.mark.parametrize("gaps", [False, True])
def test_rank_is_one_more_than_the_runs_that_are_better(direction, gaps):
    tasks = [task_of(v, direction=direction) for v in runs([1.5, 1.4, 0.6, 0.55, -0.5], gaps=gaps)]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    tests = {(i, j): compare_tasks(tasks[i], tasks[j], "m") for i, j in pairs}
    p_values = dict(zip(pairs, holm([tests[p].p_value for p in pairs]), strict=True))
    ranks, beaten = [1] * 5, [0] * 5
    for (i, j), p in p_values.items():
        if p < 0.05:
            i_better = (tests[i, j].difference > 0) == direction
            ranks[j if i_better else i] += 1
            beaten[i if i_better else j] += 1
    found = places(tasks, "m")
    assert [place.rank for place in found] == ranks
    assert len(set(ranks)) > 2
    assert [place.best for place in found] == [n == 4 for n in beaten]


def test_equal_runs_tie_and_none_is_best():
    found = places([task_of(v) for v in runs([0.0] * 6)], "m")
    assert found == [Place(1, False)] * 6


def test_a_clear_winner_is_best():
    found = places([task_of(v) for v in runs([0.0, 3.0, 0.0])], "m")
    assert found == [Place(2, False), Place(1, True), Place(2, False)]


def test_runs_on_other_questions_have_no_rank():
    values = runs([0.0, 3.0, 0.0])
    tasks = [task_of(v) for v in values]
    tasks[1] = task_of(values[1], hashes={i: f"other{i}" for i in range(80)})
    found = places(tasks, "m")
    assert found[1] == NO_PLACE
    assert found[0].rank == found[2].rank == 1


def test_nothing_to_rank():
    values = runs([0.0, 3.0])
    assert places([task_of(v, direction=None) for v in values], "m") == [NO_PLACE] * 2
    assert places([task_of(values[0])], "m") == [NO_PLACE]
    assert places([task_of(v) for v in values], "absent") == [NO_PLACE] * 2


def test_metrics_that_pool_attempts_are_ranked_too(made_up_runs):
    tasks = [
        read_run(folder, pooled=HEADLINE).tasks["synthetic_passn"]
        for folder in made_up_runs.values()
    ]
    name = "brier:vote_share"
    ranks = [place.rank for place in places(tasks, name)]
    values = [task.metrics[name].value for task in tasks]
    assert None not in ranks
    assert ranks[int(np.argmin(values))] == 1


def test_equal_runs_are_rarely_marked_best():
    marked = 0
    for seed in range(400):
        tasks = [task_of(v) for v in runs([0.0, 0.0], n=60, seed=seed)]
        marked += any(place.best for place in places(tasks, "m"))
    assert marked / 400 <= 0.075  # 5% and two and a half of its binomial errors

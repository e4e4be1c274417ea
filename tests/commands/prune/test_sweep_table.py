"""Differences in a sweep's table are paired over questions, and count the spread over seeds."""

import numpy as np
import pytest
from scipy import stats

from lm_eval_ext.commands.prune.sweep_table import paired_difference, tables


def test_one_seed_each_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 1, 40))
    estimate, half = paired_difference(ours, theirs)
    expected = stats.ttest_rel(ours[0], theirs[0])
    low, high = expected.confidence_interval()
    assert estimate == pytest.approx(np.mean(ours - theirs))
    assert (estimate - half, estimate + half) == pytest.approx((low, high))


def test_intervals_cover_over_questions_and_seeds():
    # Each seed shifts all questions alike: pairing over questions alone would be far too sure.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        question = rng.normal(size=50)
        ours = question[None] + rng.normal(size=(1, 50))
        theirs = question + rng.normal(size=(5, 1)) + rng.normal(size=(5, 50))
        estimate, half = paired_difference(ours, theirs)
        covered += abs(estimate) <= half
    assert covered / 400 > 0.92


def test_intervals_of_seeds_stay_inside_the_range():
    def cell(criterion, seed, accuracy, perplexity):
        measured = {"low": 0.0, "high": 1.0, "higher_is_better": True}
        return {
            "criterion": criterion,
            "ratio": 0.0 if criterion == "dense" else 0.5,
            "seed": seed,
            "metrics": {
                "perplexity": {**measured, "estimate": perplexity, "values": [0.1, 0.2]},
                "t/acc": {**measured, "estimate": accuracy, "values": [accuracy, accuracy]},
            },
        }

    cells = [cell("dense", 0, 1.0, 1.0), cell("random", 0, 0.0, 1.5), cell("random", 1, 0.2, 6.0)]
    page = tables(cells, ["perplexity", "t/acc"], title="x")
    rows = [row for row in page.splitlines() if row.startswith("| random")]
    for row, least, most in zip(rows, (0.0, 0.0), (np.inf, 1.0), strict=True):
        estimate, low, high = (
            float(part.strip("*[],|")) for part in row.replace("random", "").split() if part != "|"
        )
        assert least <= low < estimate < high <= most
    assert "**3.000 [" in rows[0]  # the geometric mean of 1.5 and 6

"""Confidence from log-probabilities of tokens and from answers, against brute force."""

import numpy as np
import pytest
from scipy.stats import entropy

from lm_eval_ext.metrics import (
    answer_entropy,
    answer_logprob,
    lowest_window_logprob,
    tail_logprob,
)


@pytest.mark.parametrize(
    ("n", "window"), [(1, 1), (15, 15), (16, 16), (160, 16), (161, 17), (30_000, 2_048)]
)
def test_windows_are_a_tenth_of_the_tokens_within_bounds(n, window):
    log_prob = -np.random.default_rng(n).exponential(size=n)
    every = [log_prob[i : i + window].mean() for i in range(n - window + 1)]
    assert lowest_window_logprob(log_prob) == pytest.approx(min(every), rel=1e-12)
    assert tail_logprob(log_prob) == pytest.approx(every[-1], rel=1e-12)
    assert lowest_window_logprob(log_prob) <= tail_logprob(log_prob)
    assert lowest_window_logprob(log_prob) <= log_prob.mean() + 1e-12


def test_tokens_that_were_forced_are_left_out():
    chosen = -np.arange(1.0, 61.0)
    forced = np.insert(chosen, [0, 20, 60], np.nan)
    assert lowest_window_logprob(forced) == lowest_window_logprob(chosen)
    assert tail_logprob(forced) == tail_logprob(chosen)
    assert answer_logprob([-1.0, np.nan, -3.0], 0, 3) == -2.0
    for nothing in ([], [np.nan]):
        assert np.isnan(lowest_window_logprob(nothing))
        assert np.isnan(tail_logprob(nothing))
        assert np.isnan(answer_logprob(nothing, 0, 1))


def test_one_unsure_stretch_decides_the_lowest_window_alone():
    sure = np.full(200, -0.01)
    unsure = sure.copy()
    unsure[90:110] = -2.0
    assert lowest_window_logprob(unsure) == pytest.approx(-2.0)
    assert tail_logprob(unsure) == tail_logprob(sure)


@pytest.mark.parametrize(
    ("answers", "sizes"),
    [
        (["4"], [1]),
        (["4", "4", "4"], [3]),
        (["4", "5", "4", "6"], [2, 1, 1]),
        (["4", None, "4", None], [2, 1, 1]),  # two invalid ones do not agree
        ([None, None], [1, 1]),
    ],
)
def test_entropy_over_groups_of_answers(answers, sizes):
    assert answer_entropy(answers) == pytest.approx(entropy(sizes), abs=1e-15)
    assert answer_entropy(answers[::-1]) == pytest.approx(answer_entropy(answers), abs=1e-15)


def test_answers_that_mean_the_same_are_one_group():
    def equal(a, b):
        return float(a) == float(b)

    assert answer_entropy(["4", "4.0", "5", "5"], equivalent=equal) == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="at least one"):
        answer_entropy([])

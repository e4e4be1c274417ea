"""Paired tests against SciPy, enumeration, and simulated pairs of runs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from lm_eval_ext.leaderboard.paired import paired_means, paired_pooled, unpaired
from lm_eval_ext.metrics import auroc, paired_bootstrap
from lm_eval_ext.metrics.bootstrap import bootstrap_with_values
from lm_eval_ext.scoring.scores import Score, score

VALUES = st.integers(2, 12).flatmap(
    lambda n: arrays(float, (2, n), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
)


def test_equals_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60))
    test, expected = paired_means(a, b), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert test.p_value == pytest.approx(expected.pvalue)
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high))
    assert test.detectable == pytest.approx((1.959964 + 0.841621) * test.standard_error, rel=1e-5)


@given(VALUES)
def test_never_surer_than_all_sign_flips_could_be(pair):
    a, b = pair
    gaps = (a - b)[a != b]
    test = paired_means(a, b)
    flips = [
        abs(np.dot(signs, np.abs(gaps))) for signs in itertools.product((1, -1), repeat=len(gaps))
    ]
    smallest = np.mean(np.array(flips) >= max(flips) - 1e-12)
    assert test.p_value >= min(1.0, smallest) - 1e-12
    assert test.wins + test.ties + test.losses == test.n_questions == len(a)
    other = paired_means(b, a)
    assert (other.wins, other.losses) == (test.losses, test.wins)
    assert other.p_value == pytest.approx(test.p_value)


def test_questions_without_a_value_are_left_out_of_both():
    a, b = np.array([1.0, np.nan, 0.5, 1.0]), np.array([0.5, 1.0, np.nan, 0.0])
    test = paired_means(a, b)
    assert (test.n_questions, test.n_left_out, test.difference) == (2, 2, 0.75)
    assert math.isnan(paired_means(a[:1], b[:1]).p_value)


def test_values_rounded_for_the_store_are_ties():
    a = np.random.default_rng(0).random(50)
    test = paired_means(a, a.round(6))
    assert (test.difference, test.p_value, test.ties) == (0.0, 1.0, 50)


def runs_with_confidence(seed, n=80):
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 2, (n, 1))
    runs = []
    for noise in (0.5, 3.0):
        correct = rng.random((n, 6)) < 1 / (1 + np.exp(-level))
        runs.append({"correct": correct, "confidence": level + rng.normal(0, noise, (n, 6))})
    return runs


def pooled_scores(runs):
    scores, values = [], []
    for data in runs:
        interval, resampled = bootstrap_with_values(auroc, data, n_resamples=800)
        bounds = interval.standard_error, interval.low, interval.high
        scores.append(Score(interval.estimate, *bounds, interval.n_questions, True))
        values.append(resampled)
    return scores, values


def test_pooled_metrics_are_paired_like_the_paired_bootstrap():
    runs = runs_with_confidence(0)
    (a, b), values = pooled_scores(runs)
    test = paired_pooled(a, b, *values)
    expected = paired_bootstrap(auroc, *runs, n_resamples=800)
    assert test.difference == pytest.approx(expected.difference)
    assert test.standard_error == pytest.approx(expected.standard_error, rel=0.15)
    assert test.low > 0
    assert expected.low > 0
    assert test.standard_error < unpaired(a, b).standard_error


def test_wide_intervals_widen_the_difference():
    (a, b), values = pooled_scores(runs_with_confidence(1))
    plain = paired_pooled(a, b, *values)
    wide = paired_pooled(a._replace(high=a.high + 4 * (a.high - a.low)), b, *values)
    assert wide.standard_error > 3 * plain.standard_error
    assert wide.p_value > plain.p_value


def test_no_test_where_the_metric_is_undefined():
    (a, b), (first, second) = pooled_scores(runs_with_confidence(2))
    some = np.where(np.arange(len(first)) % 3 == 0, np.nan, first)
    assert math.isnan(paired_pooled(a, b, some, second).p_value)
    assert math.isnan(unpaired(a._replace(value=math.nan), b).p_value)


@pytest.mark.parametrize("n_questions", [60, 200])
def test_equal_runs_are_rarely_found_different(n_questions):
    rng = np.random.default_rng(n_questions)
    found, n_pairs = np.zeros(2), 3_000
    for _ in range(n_pairs):
        shared = rng.normal(0, 2, n_questions)
        counts = [
            rng.binomial(8, 1 / (1 + np.exp(-shared - rng.normal(0, 0.7, n_questions))))
            for _ in range(2)
        ]
        a, b = (count / 8 for count in counts)
        found[0] += paired_means(a, b).p_value < 0.05
        found[1] += paired_means((a == 1) * 1.0, (b == 1) * 1.0).p_value < 0.05
    # 5% with a binomial error of 0.4 points.
    assert (found / n_pairs <= 0.06).all(), found / n_pairs
    assert found[0] / n_pairs >= 0.035


def test_a_real_difference_is_found_more_often_in_pairs():
    rng = np.random.default_rng(0)
    paired = apart = 0
    for _ in range(200):
        shared = rng.normal(0, 2, 200)
        a, b = (rng.binomial(8, 1 / (1 + np.exp(-shared - shift))) / 8 for shift in (0.0, 0.3))
        paired += paired_means(b, a).p_value < 0.05
        apart += unpaired(*(score(x.tolist(), "mean", True) for x in (b, a))).p_value < 0.05
    assert paired > 150
    assert apart < 40


@pytest.mark.parametrize("n_differing", [2, 4, 5])
def test_interval_agrees_with_the_p_value_where_few_questions_differ(n_differing):
    a = np.zeros(30)
    a[:n_differing] = 1.0
    test = paired_means(a, np.zeros(30))
    assert test.p_value == pytest.approx(2 / 2**n_differing)
    assert (test.low > 0) == (test.p_value < 0.05)
    assert test.detectable == pytest.approx(2.801585 * test.standard_error)


def test_nothing_is_detectable_where_no_question_differs():
    test = paired_means(np.ones(30), np.ones(30))
    assert (test.difference, test.p_value) == (0.0, 1.0)
    assert np.isnan(test.detectable)

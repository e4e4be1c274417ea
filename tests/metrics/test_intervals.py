"""Intervals against closed forms, SciPy and resampling written out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lm_eval_ext.metrics import (
    clustered_standard_error,
    pass_at_k,
    proportion_interval,
    t_interval,
    wilson_interval,
)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n, data, level):
    c = data.draw(st.integers(0, n))
    ours = wilson_interval(c, n, confidence_level=level)
    theirs = stats.binomtest(c, n).proportion_ci(level, method="wilson")
    assert ours.estimate == c / n
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


def test_wilson_takes_arrays_and_no_trials():
    interval = wilson_interval([0, 5, 0], [10, 10, 0])
    assert interval.low.shape == (3,)
    assert np.isnan(interval.low[2])
    assert interval.n.tolist() == [10, 10, 0]
    assert interval.low[0] == 0.0


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_one_row_per_question_is_the_usual_t_interval(values):
    interval = t_interval(values, confidence_level=0.9)
    n = len(values)
    assert interval.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(n), abs=1e-12)
    half = stats.t.ppf(0.95, n - 1) * interval.standard_error
    assert interval.high - interval.estimate == pytest.approx(half, abs=1e-9)
    assert interval.estimate - interval.low == pytest.approx(half, abs=1e-9)


def test_copies_of_an_attempt_add_no_information():
    values = np.random.default_rng(0).random(50)
    copies = np.repeat(values[:, None], 16, axis=1)
    single = t_interval(values)
    for repeated in (t_interval(copies), t_interval(copies.ravel(), np.repeat(np.arange(50), 16))):
        assert repeated.estimate == pytest.approx(single.estimate)
        assert repeated.standard_error == pytest.approx(single.standard_error)
        assert repeated.n_questions == 50
        assert repeated.n_rows == 800


def test_unequal_clusters_match_the_formula_and_ids_are_only_names():
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.5])
    ids = np.array(["q9", "q1", "q1", "q9", "q9", "q4"])
    mean = values.mean()
    sums = [(values[ids == q] - mean).sum() for q in ("q1", "q4", "q9")]
    expected = np.sqrt(3 / 2 * np.square(sums).sum()) / 6
    assert clustered_standard_error(values, ids) == pytest.approx(expected, abs=1e-15)


@given(st.integers(2, 200), st.data())
def test_proportion_of_single_verdicts_is_a_wilson_interval(n, data):
    c = data.draw(st.integers(0, n))
    interval = proportion_interval(np.arange(n) < c)
    # Trials that reproduce the unbiased standard error, and a t quantile in the place of z.
    trials, quantile = (n - 1 if 0 < c < n else n), stats.t.ppf(0.975, n - 1)
    level = 2 * stats.norm.cdf(quantile) - 1
    share = c / n
    center = share + quantile**2 / (2 * trials)
    assert interval.low + interval.high == pytest.approx(
        2 * center / (1 + quantile**2 / trials), abs=1e-9
    )
    if trials == n and level < 1:
        wilson = wilson_interval(c, n, confidence_level=level)
        assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


def test_proportion_is_near_the_t_interval_in_the_middle_and_counts_copies_once():
    rng = np.random.default_rng(1)
    values = rng.random((300, 1)).round()
    once, copies = proportion_interval(values), proportion_interval(np.repeat(values, 16, axis=1))
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    t = t_interval(values)
    assert (once.low, once.high) == pytest.approx((t.low, t.high), abs=0.002)
    assert np.isnan(proportion_interval([[0.5, 1.0]]).low)
    with pytest.raises(ValueError, match=r"values must be probabilities in \[0, 1\]"):
        proportion_interval([1.5, 0.0])


def test_one_question_has_no_interval():
    interval = t_interval([[1.0, 0.0, 1.0]])
    assert interval.estimate == pytest.approx(2 / 3)
    assert np.isnan([interval.low, interval.high, interval.standard_error]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_interval(3, 2), "n_success must not exceed"),
        (lambda: wilson_interval(1.5, 2), "n_success must be whole"),
        (lambda: wilson_interval(1, 2, confidence_level=1.0), "confidence_level must lie"),
        (lambda: t_interval([]), "must not be empty"),
        (lambda: t_interval([1.0, float("nan")]), "values has 1 NaN"),
        (lambda: t_interval([1.0, 2.0], [1]), "same number of rows"),
        (lambda: t_interval([1.0, 2.0], [[1], [2]]), "one question id per row"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n_questions", [3, 30, 50])
@pytest.mark.parametrize("c", range(1, 10))
def test_equal_values_count_each_question_once_although_their_mean_rounds(c, n_questions):
    values = pass_at_k([c] * n_questions, 10, 1)
    t = stats.t.ppf(0.975, n_questions - 1)
    p, n = c / 10, n_questions
    half = t * np.sqrt(p * (1 - p) / n + t**2 / (4 * n**2)) / (1 + t**2 / n)
    center = (p + t**2 / (2 * n)) / (1 + t**2 / n)
    rows, ids = np.repeat(values, 3), np.repeat(np.arange(n), 3)
    for interval in (proportion_interval(values), proportion_interval(rows, ids)):
        assert interval.low == pytest.approx(center - half)
        assert interval.high == pytest.approx(center + half)


def test_questions_of_equal_means_count_once_whatever_their_rows():
    turned = proportion_interval([[0.1, 0.2, 0.6], [0.6, 0.2, 0.1]] * 10)
    equal = proportion_interval([0.3] * 20)
    assert (turned.low, turned.high) == (pytest.approx(equal.low), pytest.approx(equal.high))

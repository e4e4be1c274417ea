"""ECE and its kin against loops over bins, closed forms and simulation."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.metrics import debiased_ece, ece, reliability_curve, smooth_ece, wilson_interval

answers = st.lists(
    st.tuples(st.integers(0, 20).map(lambda i: i / 20) | st.floats(0, 1), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)


def gaps_by_loop(confidence, correct, edges):
    """Share of rows and gap of each (low, high] bin, the first closed."""
    result = []
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if low == edges[0]:
            inside |= confidence == low
        if inside.any():
            result.append((inside.mean(), abs(correct[inside].mean() - confidence[inside].mean())))
    return np.array(result)


@given(answers, st.sampled_from([1, 3, 10, 15]))
def test_equal_width_bins_equal_a_loop(rows, n_bins):
    confidence, correct = np.array(rows).T
    edges = np.array([i / n_bins for i in range(n_bins + 1)])
    share, gap = gaps_by_loop(confidence, correct, edges).T
    assert ece(confidence, correct, n_bins=n_bins) == pytest.approx((share * gap).sum(), abs=1e-12)
    l2 = ece(confidence, correct, n_bins=n_bins, norm="l2")
    assert l2 == pytest.approx(np.sqrt((share * gap**2).sum()), abs=1e-9)
    worst = ece(confidence, correct, n_bins=n_bins, norm="max")
    assert worst == pytest.approx(gap.max(), abs=1e-12)


@given(answers, st.sampled_from([1, 3, 10]))
def test_equal_mass_bins_never_split_ties(rows, n_bins):
    confidence, correct = np.array(rows).T
    curve = reliability_curve(confidence, correct, n_bins=n_bins, binning="mass")
    assert curve.n_rows.sum() == len(rows)
    assert len(curve.n_rows) <= n_bins
    value = ece(confidence, correct, n_bins=n_bins, binning="mass")
    gaps = np.abs(curve.accuracy - curve.confidence)
    assert value == pytest.approx((curve.n_rows * gaps).sum() / len(rows), abs=1e-12)
    for level in np.unique(confidence):
        holding = (curve.bin_low < level) & (level <= curve.bin_high)
        assert holding.sum() <= 1


def test_equal_mass_bins_hold_equal_numbers_without_ties():
    rng = np.random.default_rng(0)
    confidence = rng.random(103)
    curve = reliability_curve(confidence, rng.integers(0, 2, 103), binning="mass")
    assert sorted(curve.n_rows) == [10] * 7 + [11] * 3


@pytest.mark.parametrize("n_bins", [5, 7, 10, 20, 64])
def test_borders_belong_to_the_lower_bin(n_bins):
    borders = np.array([i / n_bins for i in range(n_bins + 1)])
    curve = reliability_curve(borders, np.ones(n_bins + 1), n_bins=n_bins)
    assert curve.n_rows.tolist() == [2] + [1] * (n_bins - 1)
    above = np.nextafter(borders[1:-1], 1)
    curve = reliability_curve(above, np.ones(n_bins - 1), n_bins=n_bins)
    np.testing.assert_array_equal(curve.bin_low, borders[1:-1])


def test_confidence_of_exactly_one_is_in_the_last_bin():
    assert ece([1.0, 1.0], [1, 0]) == 0.5
    curve = reliability_curve([1.0, 0.95, 0.0], [1, 1, 0])
    assert curve.bin_low.tolist() == [0.0, 0.9]
    assert curve.n_rows.tolist() == [1, 2]


@given(answers, st.randoms())
def test_bounds_norms_and_permutation(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    (confidence, correct), (c2, y2) = np.array(rows).T, np.array(shuffled).T
    for binning in ("width", "mass"):
        values = [ece(confidence, correct, norm=n, binning=binning) for n in ("l1", "l2", "max")]
        assert values == sorted(values) or np.allclose(values, sorted(values), atol=1e-12)
        assert 0 <= values[0] <= values[-1] <= 1
        assert ece(c2, y2, binning=binning) == pytest.approx(values[0], abs=1e-12)
    assert debiased_ece(confidence, correct) <= ece(confidence, correct) + 1e-12
    assert abs(confidence.mean() - correct.mean()) <= ece(confidence, correct) + 1e-12


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(2.5, 1, 0.040), (1, 1, 0.045), (0.5, 0.5, 0.040)]
)
def test_chance_adds_little_to_the_debiased_error(a, b, expected):
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(400):
        confidence = rng.beta(a, b, size=500)
        correct = rng.random(500) < confidence  # a perfect predictor
        plain.append(ece(confidence, correct))
        debiased.append(debiased_ece(confidence, correct))
    assert np.mean(plain) == pytest.approx(expected, abs=0.002)
    assert 0 < np.mean(debiased) < 0.012


def test_a_large_error_is_left_as_it_is():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.8, 1.0, size=5_000)
    correct = rng.random(5_000) < confidence - 0.3
    assert debiased_ece(confidence, correct) == pytest.approx(0.3, abs=0.02)
    assert ece(confidence, correct) - debiased_ece(confidence, correct) < 1e-6


def test_the_debiased_error_knows_that_attempts_share_a_question():
    rng = np.random.default_rng(2)
    naive, clustered = [], []
    for _ in range(200):
        confidence = np.repeat(rng.random((60, 1)), 16, axis=1)
        p = rng.beta(2 * confidence[:, :1], 2 * (1 - confidence[:, :1]))
        correct = rng.random((60, 16)) < p
        naive.append(debiased_ece(confidence.ravel(), correct.ravel()))
        clustered.append(debiased_ece(confidence, correct))
        ids = np.repeat(np.arange(60), 16)
        flat = debiased_ece(confidence.ravel(), correct.ravel(), clusters=ids)
        assert flat == pytest.approx(clustered[-1], abs=1e-12)
    # The truth is 0 but for the width of a bin, and most of the noise is between questions.
    assert np.mean(naive) > 0.06
    assert np.mean(clustered) < 0.03


def test_one_row_per_bin_is_all_noise():
    value = debiased_ece([0.05, 0.95], [0, 1])
    assert value == pytest.approx(0.05 * (1 - np.sqrt(2 / np.pi)), abs=1e-12)


def test_reliability_intervals():
    rng = np.random.default_rng(3)
    confidence = rng.random(300)
    correct = rng.random(300) < confidence
    curve = reliability_curve(confidence, correct)
    for i in range(10):
        n, c = curve.n_rows[i], round(curve.accuracy[i] * curve.n_rows[i])
        wilson = wilson_interval(c, n)
        # One row per question: the design effect is near 1, and never narrows the interval.
        assert curve.low[i] <= wilson.low + 1e-12
        assert curve.low[i] == pytest.approx(wilson.low, abs=0.02)
        assert curve.high[i] >= wilson.high - 1e-12
    np.testing.assert_array_equal(curve.n_questions, curve.n_rows)


def test_reliability_intervals_count_copies_once():
    rng = np.random.default_rng(4)
    confidence = rng.random((300, 1))
    correct = rng.random((300, 1)) < confidence
    once = reliability_curve(confidence, correct)
    copies = reliability_curve(np.repeat(confidence, 16, axis=1), np.repeat(correct, 16, axis=1))
    np.testing.assert_allclose(copies.low, once.low, atol=1e-12)
    np.testing.assert_allclose(copies.high, once.high, atol=1e-12)
    np.testing.assert_array_equal(copies.n_questions, once.n_rows)
    all_right = reliability_curve(np.full((4, 16), 0.9), np.ones((4, 16)))
    assert all_right.low[0] == pytest.approx(wilson_interval(4, 4).low)


def test_reliability_intervals_are_never_narrower_than_for_independent_attempts():
    # One right and one wrong attempt in every question: their mean does not vary at all.
    curve = reliability_curve(np.full((20, 2), 0.5), np.tile([1, 0], (20, 1)))
    wilson = wilson_interval(20, 40)
    assert (curve.low[0], curve.high[0]) == pytest.approx((wilson.low, wilson.high))


def reflected_kernel(center, t, bandwidth):
    """Gaussian at `center` folded back at 0 and 1."""
    images = [s * center + 2 * m for s in (1, -1) for m in range(-8, 9)]
    return sum(np.exp(-(((t - i) / bandwidth) ** 2) / 2) for i in images) / (
        bandwidth * np.sqrt(2 * np.pi)
    )


@pytest.mark.parametrize("bandwidth", [0.01, 0.05, 0.3, 2.0])
def test_smooth_ece_equals_quadrature_of_its_definition(bandwidth):
    rng = np.random.default_rng(5)
    confidence = np.append(rng.random(40), [0.0, 1.0])
    correct = rng.integers(0, 2, size=42)
    t = (np.arange(40_000) + 0.5) / 40_000
    residual = np.zeros_like(t)
    for c, y in zip(confidence, correct, strict=True):
        residual += (y - c) * reflected_kernel(c, t, bandwidth) / 42
    expected = np.abs(residual).mean()
    assert smooth_ece(confidence, correct, bandwidth=bandwidth) == pytest.approx(expected, abs=1e-4)


@given(answers)
def test_smooth_ece_is_its_own_bandwidth(rows):
    confidence, correct = np.array(rows).T
    value = smooth_ece(confidence, correct)
    assert 0 <= value <= 1
    if value > 1e-6:
        assert smooth_ece(confidence, correct, bandwidth=value) == pytest.approx(value, abs=1e-5)
    # The mean gap is what is left at any bandwidth.
    assert value >= abs(confidence.mean() - correct.mean()) - 1e-6


def test_smooth_ece_moves_little_where_bins_jump():
    confidence = np.tile([0.4999, 0.5001], 50)
    correct = np.tile([0, 1], 50)
    assert ece(confidence, correct) == pytest.approx(0.4999)
    assert ece(np.full(100, 0.5), correct) == 0.0
    assert smooth_ece(confidence, correct) < 0.02


@pytest.mark.parametrize("metric", [ece, debiased_ece, smooth_ece, reliability_curve])
@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5, 1.2], [1, 0], r"confidence must be probabilities in \[0, 1\]"),
        ([0.5, -0.1], [1, 0], r"confidence must be probabilities in \[0, 1\]"),
        ([0.5, float("nan")], [1, 0], "confidence has 1 NaN"),
        ([0.5, 0.6], [1, 2], "correct must hold only 0 and 1"),
        ([0.5, 0.6], [1], "same shape|same number of rows"),
        ([], [], "must not be empty"),
    ],
)
def test_bad_input_is_one_clear_line(metric, confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        metric(confidence, correct)


def test_bad_options_are_one_clear_line():
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        ece([0.5], [1], n_bins=0)
    with pytest.raises(ValueError, match="n_bins must be a whole number"):
        ece([0.5], [1], n_bins=2.5)
    with pytest.raises(ValueError, match="binning must be one of width, mass"):
        ece([0.5], [1], binning="quantile")
    with pytest.raises(ValueError, match="norm must be one of l1, l2, max"):
        ece([0.5], [1], norm="linf")
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        smooth_ece([0.5], [1], bandwidth=0.0)

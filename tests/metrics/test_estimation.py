"""Estimation metrics against scikit-learn, SciPy and regression residuals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from lm_eval_ext.metrics import (
    affine_rmse,
    fit_affine,
    mae,
    partial_correlation,
    pearson,
    rmse,
    spearman,
)

pairs = st.lists(
    st.tuples(st.integers(-4, 4) | st.floats(-5, 5), st.integers(-4, 4)), min_size=3, max_size=30
)


@given(pairs)
def test_errors_equal_scikit_learn(rows):
    a, b = np.array(rows, dtype=float).T
    assert rmse(a, b) == pytest.approx(root_mean_squared_error(b, a), abs=1e-12)
    assert mae(a, b) == pytest.approx(mean_absolute_error(b, a), abs=1e-12)
    assert mae(a, b) <= rmse(a, b) + 1e-12


@given(pairs)
def test_pearson_equals_numpy(rows):
    a, b = np.array(rows, dtype=float).T
    if np.ptp(a) > 1e-3 and np.ptp(b) > 0:
        assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    else:
        assert np.ptp(a) > 0 < np.ptp(b) or np.isnan(pearson(a, b))


@given(pairs)
def test_spearman_equals_scipy(rows):
    a, b = np.array(rows, dtype=float).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        reference = stats.spearmanr(a, b).statistic
        assert spearman(a, b) == pytest.approx(reference, abs=1e-12)
    else:
        assert np.isnan(spearman(a, b))


def residuals(values, given):
    design = np.stack([np.ones_like(given), given], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@pytest.mark.parametrize("seed", range(5))
def test_partial_correlation_is_that_of_regression_residuals(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=60)
    x, y = z + rng.normal(size=60), 2 * z + rng.normal(size=60)
    expected = np.corrcoef(residuals(x, z), residuals(y, z))[0, 1]
    value = partial_correlation(x, y, given=z, method="pearson")
    assert value == pytest.approx(expected, abs=1e-12)
    ranked = [stats.rankdata(v) for v in (x, y, z)]
    expected = np.corrcoef(residuals(ranked[0], ranked[2]), residuals(ranked[1], ranked[2]))[0, 1]
    assert partial_correlation(x, y, given=z) == pytest.approx(expected, abs=1e-12)


def test_partial_correlation_removes_what_length_explains():
    rng = np.random.default_rng(0)
    length = rng.integers(50, 500, size=3_000)
    correct = rng.random(3_000) < 1 - length / 600
    uncertainty = length * rng.uniform(0.8, 1.2, size=3_000)
    assert spearman(uncertainty, correct) < -0.4
    assert abs(partial_correlation(uncertainty, correct, given=length)) < 0.05
    assert np.isnan(partial_correlation(length, correct, given=length))
    assert np.isnan(partial_correlation(np.ones(5), np.arange(5), given=[3, 1, 2, 5, 4]))


def test_affine_fit_removes_scale_and_offset_learned_elsewhere():
    rng = np.random.default_rng(1)
    truth = rng.random((2, 200))
    estimate = (truth - 0.3) / 5
    fit = fit_affine(estimate[0], truth[0])
    assert fit == pytest.approx((5.0, 0.3, 200))
    assert affine_rmse(estimate[1], truth[1], fit=fit) == pytest.approx(0.0, abs=1e-12)
    assert rmse(estimate[1], truth[1]) > 0.3
    reference = np.polyfit(estimate[0], truth[0] + estimate[0] ** 2, 1)
    assert fit_affine(estimate[0], truth[0] + estimate[0] ** 2)[:2] == pytest.approx(reference)


def test_a_constant_estimate_is_fitted_by_the_mean():
    fit = fit_affine([2.0, 2.0, 2.0], [1.0, 2.0, 6.0])
    assert fit == (0.0, 3.0, 3)


@pytest.mark.parametrize("metric", [rmse, mae, spearman, fit_affine])
@pytest.mark.parametrize(
    ("estimate", "reference", "message"),
    [
        ([1.0, 2.0], [1.0], "same shape, got estimate .2,., reference .1,."),
        ([1.0, float("nan")], [1.0, 2.0], "estimate has 1 NaN"),
        ([1.0], [None], r"reference (has 1 NaN|must hold numbers)"),
        ([], [], "must not be empty"),
    ],
)
def test_bad_input_is_one_clear_line(metric, estimate, reference, message):
    with pytest.raises(ValueError, match=message):
        metric(estimate, reference)


def test_bad_given_is_one_clear_line():
    with pytest.raises(ValueError, match=r"same shape, got estimate .2,., given .3,."):
        partial_correlation([1, 2], [1, 2], given=[1, 2, 3])
    with pytest.raises(ValueError, match="method must be one of"):
        partial_correlation([1, 2], [1, 2], given=[1, 2], method="kendall")


@pytest.mark.parametrize("value", [0.1, 0.3, 1e9 + 0.1])
def test_equal_floats_are_constant_although_their_mean_rounds(value):
    assert fit_affine([value] * 3, [1.0, 2.0, 4.0]) == (0.0, pytest.approx(7 / 3), 3)
    y, z = [1.0, 2.0, 4.0], [3.0, 1.0, 2.0]
    assert np.isnan(partial_correlation([value] * 3, y, given=z, method="pearson"))
    assert np.isnan(partial_correlation(y, z, given=[value] * 3, method="pearson"))

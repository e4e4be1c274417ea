"""Brier, its decomposition, NLL and temperature scaling against scikit-learn and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from lm_eval_ext.metrics import (
    apply_temperature,
    auroc,
    brier,
    fit_temperature,
    murphy_decomposition,
    nll,
)

answers = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 1.0]), st.integers(0, 1)),
    min_size=1,
    max_size=40,
)


@given(answers)
def test_brier_and_nll_equal_scikit_learn(rows):
    confidence, correct = np.array(rows).T
    assert brier(confidence, correct) == pytest.approx(
        brier_score_loss(correct, confidence, labels=[0, 1]), abs=1e-12
    )
    assert nll(confidence, correct) == pytest.approx(
        log_loss(correct, confidence, labels=[0, 1]), abs=1e-12
    )


def test_nll_floor_bounds_the_cost_of_certainty():
    assert nll([1.0], [0], floor=0.01) == pytest.approx(-np.log(0.01))
    assert np.isfinite(nll([1.0, 0.0], [0, 1]))
    with pytest.raises(ValueError, match="floor must lie"):
        nll([0.5], [1], floor=0.0)


@given(answers, st.sampled_from([None, 1, 5, 10]))
def test_murphy_parts_add_up_to_the_brier_score(rows, n_bins):
    confidence, correct = np.array(rows).T
    parts = murphy_decomposition(confidence, correct, n_bins=n_bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
    assert total == pytest.approx(brier(confidence, correct), abs=1e-12)
    assert 0 <= parts.resolution <= parts.uncertainty + 1e-12
    assert 0 <= parts.reliability <= 1
    assert parts.uncertainty == pytest.approx(np.var(correct), abs=1e-12)


def test_murphy_of_known_bins():
    # Confidence 0.2 with accuracy 1/4, confidence 0.8 with accuracy 3/4.
    confidence = np.repeat([0.2, 0.8], 4)
    correct = [1, 0, 0, 0, 1, 1, 1, 0]
    parts = murphy_decomposition(confidence, correct)
    assert parts == pytest.approx((0.05**2, 0.25**2, 0.25, 0.0))
    assert murphy_decomposition(confidence, correct, n_bins=10) == pytest.approx(parts, abs=1e-12)
    assert murphy_decomposition([0.5] * 8, correct).resolution == 0.0


def test_temperature_equals_a_general_optimizer():
    rng = np.random.default_rng(0)
    z = rng.normal(0.5, 2.0, size=2_000)
    correct = rng.random(2_000) < 1 / (1 + np.exp(-z / 1.7))
    confidence = 1 / (1 + np.exp(-z))
    fitted = fit_temperature(confidence, correct)
    reference = minimize_scalar(
        lambda t: nll(apply_temperature(confidence, t), correct),
        bounds=(0.5, 5),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert fitted == pytest.approx(reference.x, abs=1e-5)
    assert fitted == pytest.approx(1.7, abs=0.2)
    scaled = apply_temperature(confidence, fitted)
    assert nll(scaled, correct) < nll(confidence, correct)
    assert auroc(correct, confidence=scaled) == auroc(correct, confidence=confidence)


def test_temperature_of_calibrated_data_is_one():
    assert fit_temperature([0.75] * 4 + [0.5] * 2, [1, 1, 1, 0, 1, 0]) == pytest.approx(1.0)
    np.testing.assert_allclose(apply_temperature([0.1, 0.7], 1.0), [0.1, 0.7], atol=1e-15)


@given(st.floats(0.05, 50), st.lists(st.floats(0, 1), min_size=1))
def test_scaling_keeps_order_and_bounds(temperature, confidence):
    scaled = apply_temperature(confidence, temperature)
    assert (scaled >= 0).all()
    assert (scaled <= 1).all()
    assert (np.diff(scaled[np.argsort(confidence)]) >= 0).all()
    # Nearer to the ends, 1 - confidence itself is rounded.
    inner = np.clip(confidence, 1e-6, 1 - 1e-6)
    mirrored = 1 - apply_temperature(1 - inner, temperature)
    np.testing.assert_allclose(apply_temperature(inner, temperature), mirrored, atol=1e-9)


def test_scaling_keeps_the_digits_of_small_probabilities():
    odds = 1e-12 / (1 - 1e-12)
    assert apply_temperature([1e-12], 0.5)[0] == pytest.approx(odds**2 / (1 + odds**2), rel=1e-9)


def test_a_fit_at_its_bound_says_so():
    with pytest.warns(UserWarning, match="at its bound 100"):
        assert fit_temperature([0.9, 0.9, 0.1], [0, 0, 1]) == 100.0
    with pytest.warns(UserWarning, match=r"at its bound 0\.01"):
        assert fit_temperature([0.6, 0.4], [1, 0]) == 0.01


@pytest.mark.parametrize("metric", [brier, nll, murphy_decomposition, fit_temperature])
@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5, 1.2], [1, 0], r"confidence must be probabilities in \[0, 1\]"),
        ([0.5, float("nan")], [1, 0], "confidence has 1 NaN"),
        ([0.5, 0.6], [1, 0.5], "correct must hold only 0 and 1"),
        ([0.5, 0.6], [1], "same shape"),
        ([], [], "must not be empty"),
    ],
)
def test_bad_input_is_one_clear_line(metric, confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        metric(confidence, correct)


def test_bad_temperature_is_one_clear_line():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        apply_temperature([0.5], 0.0)

"""Holm against its definition, and ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.metrics import holm

p_lists = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.5]), min_size=1, max_size=12)


def holm_by_definition(p_values):
    """Step down through the sorted p-values, one multiplier at a time."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@given(p_lists)
def test_holm_equals_its_definition(p_values):
    np.testing.assert_allclose(holm(p_values), holm_by_definition(p_values), atol=1e-15)


@given(p_lists)
def test_adjusting_only_raises_and_keeps_the_order(p_values):
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p - 1e-15).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_missing_tests_are_not_counted_and_shapes_are_kept():
    with_nan = holm([[0.01, float("nan")], [0.03, 0.2]])
    assert with_nan.shape == (2, 2)
    assert np.isnan(with_nan[0, 1])
    np.testing.assert_array_equal(with_nan[~np.isnan(with_nan)], holm([0.01, 0.03, 0.2]))
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match=r"p_values must lie in \[0, 1\]"):
        holm([0.5, 1.2])


def test_holm_bounds_the_chance_of_any_false_rejection():
    rng = np.random.default_rng(0)
    rejected = [(holm(rng.random(10)) <= 0.05).any() for _ in range(2_000)]
    assert np.mean(rejected) < 0.065

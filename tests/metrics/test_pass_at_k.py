"""pass@k, pass^k and avg@k against enumeration of all subsets and exact fractions."""

from fractions import Fraction
from importlib import import_module
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.metrics import avg_at_k, eligible_count, pass_at_k, pass_hat_k


@st.composite
def counts(draw, max_attempts=40):
    n = draw(st.integers(1, max_attempts))
    return draw(st.integers(0, n)), n


@pytest.mark.parametrize("n", range(1, 13))
def test_equals_the_average_over_all_subsets(n):
    ks = np.arange(1, n + 1)
    for c in range(n + 1):
        verdicts = np.arange(n) < c
        for k in ks:
            subsets = np.array([verdicts[list(s)] for s in combinations(range(n), k)])
            assert pass_at_k(c, n, k) == pytest.approx(subsets.any(axis=1).mean(), abs=1e-12)
            assert pass_hat_k(c, n, k) == pytest.approx(subsets.all(axis=1).mean(), abs=1e-12)
            assert avg_at_k(c, n, k) == pytest.approx(subsets.mean(), abs=1e-12)


@pytest.mark.parametrize(("c", "n", "k"), [(3, 1000, 500), (1, 5000, 17), (900, 1000, 64)])
def test_large_counts_keep_their_digits(c, n, k):
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(c, n, k) == pytest.approx(float(exact), rel=1e-12)
    all_correct = Fraction(comb(c, k), comb(n, k)) if k <= c else 0
    assert pass_hat_k(c, n, k) == pytest.approx(float(all_correct), rel=1e-12)


def test_shapes():
    assert isinstance(pass_at_k(1, 4, 2), float)
    assert pass_at_k([1, 2], [4, 4], 2).shape == (2,)
    assert pass_at_k([1, 2, 3], 4, [1, 2]).shape == (3, 2)
    assert pass_at_k(1, 4, [1, 2, 3]).shape == (3,)
    assert avg_at_k([1, 2, 3], 4, [1, 2]).shape == (3, 2)
    assert pass_hat_k([[1, 2]], 4, [1, 2]).shape == (1, 2, 2)


def test_too_few_attempts_give_nan_never_one():
    values = pass_at_k([3, 3, 0], [3, 8, 0], [1, 4])
    np.testing.assert_array_equal(np.isnan(values), [[False, True], [False, False], [True, True]])
    assert values[1, 1] == 1.0 - 5 / 70
    np.testing.assert_array_equal(eligible_count([3, 8, 0], [1, 4]), [2, 1])
    assert eligible_count([3, 8, 0], 4) == 1
    assert np.isnan(avg_at_k(3, 3, 4))
    assert np.isnan(pass_hat_k(3, 3, 4))


def test_a_table_too_large_for_one_piece_is_split(monkeypatch):
    n = np.arange(20, 60)
    whole = pass_at_k(n // 3, n, [1, 5, 20])
    # import_module, because the package's attribute of this name is the function.
    monkeypatch.setattr(import_module("lm_eval_ext.metrics.pass_at_k"), "_MAX_TABLE", 50)
    np.testing.assert_array_equal(pass_at_k(n // 3, n, [1, 5, 20]), whole)


@given(counts(), st.integers(1, 39))
def test_bounds_and_order(count, k):
    c, n = count
    if k > n:
        return
    assert 0 <= pass_hat_k(c, n, k) <= avg_at_k(c, n, k) + 1e-12
    assert avg_at_k(c, n, k) <= pass_at_k(c, n, k) + 1e-12 <= 1 + 1e-12


@given(counts())
def test_monotone_in_k_and_in_correct(count):
    c, n = count
    ks = np.arange(1, n + 1)
    assert (np.diff(pass_at_k(c, n, ks)) >= -1e-12).all()
    assert (np.diff(pass_hat_k(c, n, ks)) <= 1e-12).all()
    if c < n:
        assert (pass_at_k(c + 1, n, ks) >= pass_at_k(c, n, ks) - 1e-12).all()


@given(counts())
def test_all_wrong_is_the_complement_of_any_right(count):
    c, n = count
    ks = np.arange(1, n + 1)
    np.testing.assert_allclose(pass_at_k(c, n, ks), 1 - pass_hat_k(n - c, n, ks), atol=1e-12)


@given(st.lists(counts(), min_size=1, max_size=8), st.randoms())
def test_questions_are_independent_of_their_order(questions, random):
    order = list(range(len(questions)))
    random.shuffle(order)
    c, n = np.array(questions).T
    values = pass_at_k(c, n, [1, 3])
    np.testing.assert_array_equal(pass_at_k(c[order], n[order], [1, 3]), values[order])


def test_is_unbiased():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 1.5, size=40_000)
    estimate = pass_at_k(rng.binomial(10, p), 10, [1, 4, 10]).mean(axis=0)
    truth = np.array([(1 - (1 - p) ** k).mean() for k in (1, 4, 10)])
    np.testing.assert_allclose(estimate, truth, atol=0.006)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 4, 1), r"n_correct must not exceed n_attempts, got 5 > 4"),
        (([0, 5], [4, 4], 1), r"5 > 4 at question 1"),
        ((1, 4, 0), "k must be at least 1"),
        ((1, 4, []), "k must be"),
        ((-1, 4, 1), "n_correct must not be negative"),
        ((0.5, 4, 1), "n_correct must be whole numbers"),
        ((float("nan"), 4, 1), "n_correct has 1 NaN"),
        (([1, 2, 3], [4, 4], 1), "same shape"),
        (("many", 4, 1), "n_correct must hold numbers"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    for function in (pass_at_k, pass_hat_k, avg_at_k):
        with pytest.raises(ValueError, match=message) as error:
            function(*arguments)
        assert "\n" not in str(error.value)

"""Paired tests against enumeration, SciPy and their error rates."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lm_eval_ext.metrics import (
    mcnemar,
    mean_over_questions,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_permutation,
)


def test_bootstrap_of_a_mean_is_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60)
    result = paired_bootstrap(mean_over_questions, {"values": a}, {"values": b}, seed=3)
    state = int(np.random.default_rng(3).integers(2**63))
    drawn = np.random.default_rng(state).integers(0, 60, size=(1_000, 60), dtype=np.int32)
    means = (a - b)[drawn].mean(axis=1)
    assert result.difference == pytest.approx((a - b).mean())
    assert result.low == pytest.approx(np.quantile(means, 0.025))
    assert result.high == pytest.approx(np.quantile(means, 0.975))
    assert result.standard_error == pytest.approx(means.std(ddof=1))
    tail = 1 + min((means <= 0).sum(), (means >= 0).sum())
    assert result.p_value == pytest.approx(min(1, 2 * tail / 1_001))
    assert (result.estimate_a, result.estimate_b) == (pytest.approx(a.mean()), b.mean())


def test_swapping_the_runs_mirrors_the_result():
    rng = np.random.default_rng(1)
    a, b = {"values": rng.random(40)}, {"values": rng.random(40)}
    ab = paired_bootstrap(mean_over_questions, a, b)
    ba = paired_bootstrap(mean_over_questions, b, a)
    assert ab.difference == -ba.difference
    assert ab.low == pytest.approx(-ba.high)
    assert ab.p_value == ba.p_value


def test_pairing_removes_what_the_runs_share():
    rng = np.random.default_rng(2)
    difficulty = rng.random(100)
    a = difficulty + rng.normal(0, 0.01, 100)
    b = difficulty + 0.01 + rng.normal(0, 0.01, 100)
    result = paired_bootstrap(mean_over_questions, {"values": a}, {"values": b})
    assert result.high < 0
    assert result.standard_error < 0.002
    same = paired_bootstrap(mean_over_questions, {"values": a}, {"values": a})
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("flat", [False, True])
def test_questions_without_a_value_in_one_run_are_left_out_of_both(flat):
    rng = np.random.default_rng(7)
    difficulty = rng.random(40)
    a, b = difficulty.copy(), difficulty - 0.01
    a[:5], b[3:9] = np.nan, np.nan
    order = rng.permutation(40)
    clusters = (np.arange(40), order) if flat else None
    of_b = b[order] if flat else b
    with_nan = paired_bootstrap(
        mean_over_questions, {"values": a}, {"values": of_b}, clusters=clusters
    )
    in_partial = partial(mean_over_questions)
    wrapped = paired_bootstrap(in_partial, {"values": a}, {"values": of_b}, clusters=clusters)
    assert wrapped == with_nan
    dropped = paired_bootstrap(mean_over_questions, {"values": a[9:]}, {"values": b[9:]})
    np.testing.assert_allclose(with_nan[:9], dropped[:9], atol=1e-12)
    assert with_nan.difference == pytest.approx(0.01)
    assert with_nan.standard_error < 1e-9, "the difference is 0.01 for every question"
    assert (with_nan.n_questions, with_nan.n_left_out, dropped.n_left_out) == (31, 9, 0)


def test_runs_without_a_common_value_have_no_difference():
    nan = float("nan")
    result = paired_bootstrap(mean_over_questions, {"values": [1, nan]}, {"values": [nan, 0]})
    assert np.isnan([result.difference, result.low, result.p_value]).all()
    assert result.n_left_out == 2


def test_runs_may_differ_in_attempts_but_not_in_questions():
    rng = np.random.default_rng(4)
    a, b = rng.random((20, 4)), rng.random((20, 7))
    ids_a, ids_b = np.repeat(np.arange(20), 4), np.repeat(np.arange(20), 7)
    shuffled = rng.permutation(140)
    by_axis = paired_bootstrap(lambda v: v.mean(), {"v": a}, {"v": b})
    flat = paired_bootstrap(
        lambda v: v.mean(),
        {"v": a.ravel()},
        {"v": b.ravel()[shuffled]},
        clusters=(ids_a, ids_b[shuffled]),
    )
    np.testing.assert_allclose(flat[:5], by_axis[:5], atol=1e-12)
    with pytest.raises(ValueError, match=r"share their questions: 1 only in a .*19.*, 0 only in b"):
        paired_bootstrap(
            lambda v: v.mean(),
            {"v": a.ravel()},
            {"v": b.ravel()[:133]},
            clusters=(ids_a, ids_b[:133]),
        )


def test_bootstrap_and_permutation_keep_their_level_without_a_difference():
    rng = np.random.default_rng(5)
    n_pairs = 400
    rejected = np.zeros(3)
    for i in range(n_pairs):
        p = rng.beta(0.7, 0.7, size=150)
        a, b = rng.binomial(4, p) / 4, rng.binomial(4, p) / 4
        bootstrap = paired_bootstrap(mean_over_questions, {"values": a}, {"values": b}, seed=i)
        permutation = paired_permutation(a, b, n_resamples=400, seed=i)
        both = mcnemar(a > 0.5, b > 0.5)
        rejected += [r.p_value <= 0.05 for r in (bootstrap, permutation, both)]
        assert (bootstrap.low > 0 or bootstrap.high < 0) <= (bootstrap.p_value <= 0.06)
    # Three binomial standard errors of 400 pairs above 5% is 8.3%.
    assert (rejected / n_pairs < 0.083).all()
    assert (rejected[:2] / n_pairs > 0.02).all()


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(3), np.zeros(2)]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(3), np.zeros(2)]
    exact = mcnemar(a, b)
    n = only_a + only_b
    reference = stats.binomtest(only_a, n).pvalue if n else 1.0
    assert exact.p_value == pytest.approx(reference, abs=1e-12)
    assert (exact.only_a, exact.only_b, exact.n_questions) == (only_a, only_b, n + 5)
    assert mcnemar(b, a).p_value == exact.p_value
    mid_p = mcnemar(a, b, method="mid_p").p_value
    if only_a == only_b:
        assert mid_p == 1.0
    else:
        reference -= stats.binom.pmf(min(only_a, only_b), n, 0.5)
        assert mid_p == pytest.approx(reference, abs=1e-12)
    if n:
        statistic = max(0, abs(only_a - only_b) - 1) ** 2 / n
        chi2 = mcnemar(a, b, method="chi2").p_value
        assert chi2 == pytest.approx(stats.chi2.sf(statistic, 1), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_permutation_equals_all_sign_flips(pairs):
    a, b = np.array(pairs).T / 4
    gaps = a - b
    flips = np.array([np.dot(s, gaps) for s in product([1, -1], repeat=len(gaps))])
    expected = (np.abs(flips) >= abs(gaps.sum()) - 1e-9).mean()
    result = paired_permutation(a, b)
    assert result.exact
    assert result.p_value == pytest.approx(expected)
    assert result.difference == pytest.approx(gaps.mean())


def test_sampled_permutation_is_near_the_exact_one():
    rng = np.random.default_rng(6)
    a, b = rng.random(16), rng.random(16) + 0.15
    exact = paired_permutation(a, b)
    tail = np.zeros(100)
    sampled = paired_permutation(np.r_[a, tail], np.r_[b, tail])
    assert sampled.exact, "questions with equal values need no flip"
    assert sampled.p_value == exact.p_value
    noise = rng.normal(size=200) * 1e-9
    sampled = paired_permutation(np.r_[a, noise], np.r_[b, np.zeros(200)])
    assert not sampled.exact
    assert sampled.n_flips == 10_000
    assert sampled.p_value == pytest.approx(exact.p_value, abs=0.02)


def test_the_detectable_effect_is_detected_with_the_stated_power():
    error = 0.02
    effect = minimum_detectable_effect(error, alpha=0.05, power=0.8)
    found = stats.norm.sf(stats.norm.ppf(0.975) - effect / error)
    assert found == pytest.approx(0.8, abs=1e-4)
    np.testing.assert_allclose(minimum_detectable_effect([error, 2 * error]), [effect, 2 * effect])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([1, 0], [1]), "same shape"),
        (lambda: mcnemar([1, 2], [1, 0]), "correct_a must hold only 0 and 1"),
        (lambda: mcnemar([[1]], [[0]]), "one verdict per question"),
        (lambda: mcnemar([1], [0], method="yates"), "method must be one of"),
        (lambda: paired_permutation([1.0], [1.0, 2.0]), "same shape"),
        (lambda: paired_permutation([float("nan")], [1.0]), "values_a has 1 NaN"),
        (lambda: minimum_detectable_effect(-1.0), "standard_error must not be negative"),
        (lambda: minimum_detectable_effect(1.0, power=1.0), "power must lie"),
        (
            lambda: paired_bootstrap(mean_over_questions, {"values": [1]}, {"values": [1, 2]}),
            "share their questions",
        ),
        (
            lambda: paired_bootstrap(
                mean_over_questions, {"values": np.ones((3, 2))}, {"values": np.ones((3, 2))}
            ),
            "metric must give one number",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()

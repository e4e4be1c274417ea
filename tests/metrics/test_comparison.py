"""Paired tests against enumeration, SciPy and their error rates."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from lm_eval_ext.metrics import (
    mean_over_questions,
    minimum_detectable_effect,
    paired_bootstrap,
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


def test_bootstrap_keeps_its_level_without_a_difference():
    rng = np.random.default_rng(5)
    n_pairs, rejected = 400, 0
    for i in range(n_pairs):
        p = rng.beta(0.7, 0.7, size=150)
        a, b = rng.binomial(4, p) / 4, rng.binomial(4, p) / 4
        bootstrap = paired_bootstrap(mean_over_questions, {"values": a}, {"values": b}, seed=i)
        rejected += bootstrap.p_value <= 0.05
        assert (bootstrap.low > 0 or bootstrap.high < 0) <= (bootstrap.p_value <= 0.06)
    # Three binomial standard errors of 400 pairs above 5% is 8.3%.
    assert 0.02 < rejected / n_pairs < 0.083


def test_the_detectable_effect_is_detected_with_the_stated_power():
    error = 0.02
    effect = minimum_detectable_effect(error, alpha=0.05, power=0.8)
    found = stats.norm.sf(stats.norm.ppf(0.975) - effect / error)
    assert found == pytest.approx(0.8, abs=1e-4)
    np.testing.assert_allclose(minimum_detectable_effect([error, 2 * error]), [effect, 2 * effect])


@pytest.mark.parametrize(
    ("call", "message"),
    [
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

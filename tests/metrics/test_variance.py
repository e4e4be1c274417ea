"""What noise is made of: exact expectations, and simulations with known parts."""

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from lm_eval_ext.metrics import (
    attempt_variance,
    minimum_detectable_effect,
    pass_at_k,
    pass_hat_k,
    variance_parts,
)


@pytest.mark.parametrize(("n", "k", "at"), [(2, 1, 2), (4, 2, 4), (8, 3, 64), (16, 8, 16)])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize(("metric", "all_correct"), [(pass_at_k, False), (pass_hat_k, True)])
def test_the_expected_estimate_is_the_variance_over_all_draws(n, k, at, p, metric, all_correct):
    counts, drawn = np.arange(n + 1), np.arange(at + 1)
    estimates = attempt_variance(counts, n, k, at=at, all_correct=all_correct)
    values, chances = metric(drawn, at, k), binom.pmf(drawn, at, p)
    variance = chances @ values**2 - (chances @ values) ** 2
    assert binom.pmf(counts, n, p) @ estimates == pytest.approx(variance, abs=1e-13)


def test_the_variance_of_a_mean_is_that_of_its_attempts():
    attempts = np.random.default_rng(0).integers(0, 2, size=(30, 12))
    expected = attempts.var(axis=1, ddof=1) / 12
    np.testing.assert_allclose(attempt_variance(attempts.sum(axis=1), 12), expected, atol=1e-15)
    np.testing.assert_allclose(attempt_variance(attempts.sum(axis=1), 12, at=3), 4 * expected)


def test_too_few_attempts_have_no_variance():
    found = attempt_variance([1, 1, 2], [3, 4, 1 + 3], 2)
    assert np.isnan(found).tolist() == [True, False, False]
    assert np.isnan(attempt_variance(1, 4, 2, at=1))
    with pytest.raises(ValueError, match="must not exceed"):
        attempt_variance(5, 4)


def two_runs(rng, n_questions, n_attempts, *, shift=0.0, spread=0.1):
    """Draw correct attempts of two runs, shape (2, n_questions), on shared difficulties.

    The difference of their true means varies by `spread` between questions, about `shift`.
    """
    p = rng.uniform(0.3, 0.7, size=n_questions)
    other = p + shift + spread * rng.choice([-1, 1], size=n_questions)
    return rng.binomial(n_attempts, np.stack([other, p]))


def parts_of(counts, n):
    noise = sum(attempt_variance(one, n) for one in counts)
    return variance_parts((counts[0] - counts[1]) / n, noise)


def test_the_split_is_that_of_a_two_way_simulation_with_known_parts():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        one = parts_of(two_runs(rng, 200, 8), 8)
        found.append((one.attempts, one.questions))
    # E p (1 - p) with p uniform on (.3, .7), and with .1 added or taken.
    of_one = 0.25 - 0.4**2 / 12
    known = np.array([(of_one + of_one - 0.1**2) / 8, 0.1**2])
    error = np.std(found, axis=0, ddof=1) / np.sqrt(200)
    assert (np.abs(np.mean(found, axis=0) - known) < 3.5 * error).all()
    assert (error < 0.05 * known).all()
    value = variance_parts(np.array([0.0, 1.0, 0.5]), np.zeros(3))
    assert (value.attempts, value.questions, value.n_questions) == (0.0, 0.25, 3)


def test_the_detectable_difference_predicted_for_64_attempts_is_found_with_80_percent():
    rng = np.random.default_rng(2)
    counts = two_runs(rng, 1_000, 16)
    parts = parts_of(counts, 16)
    noise = sum(attempt_variance(one, 16, at=64) for one in counts)
    at_64 = parts._replace(attempts=float(noise.mean()))
    shift = minimum_detectable_effect(at_64.standard_error(400))
    assert shift < minimum_detectable_effect(parts.standard_error(400))
    found = [
        ttest_1samp(np.subtract(*two_runs(rng, 400, 64, shift=shift)) / 64, 0).pvalue < 0.05
        for _ in range(1_000)
    ]
    # 3 standard errors of the share, and what 1,000 questions know of the parts.
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_questions_to_see_an_effect_are_those_at_which_it_is_detectable():
    parts = parts_of(two_runs(np.random.default_rng(3), 500, 16), 16)
    n = parts.questions_to_see(0.02)
    assert minimum_detectable_effect(parts.standard_error(n)) <= 0.02
    assert minimum_detectable_effect(parts.standard_error(n - 1)) > 0.02


def test_noise_beyond_the_spread_leaves_nothing_to_the_questions():
    parts = variance_parts([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    assert (parts.attempts, parts.questions) == (pytest.approx(0.1), 0.0)
    assert np.isnan(variance_parts([0.0, 1.0], [np.nan, 0.1]).questions)
    with pytest.raises(ValueError, match="at least 2"):
        variance_parts([0.5], [0.1])

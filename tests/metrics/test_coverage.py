"""Do 95% intervals cover the truth? 200 questions x 16 attempts, 400 simulated runs each.

Attempts share the difficulty of their question, so they are far from independent. The truth is the
value on a population of many questions. The binomial error of a coverage is 1.1 points.
"""

import numpy as np
import pytest

from lm_eval_ext.metrics import (
    auroc,
    cluster_bootstrap,
    debiased_ece,
    ece,
    mean_over_questions,
    pass_at_k,
    proportion_interval,
    t_interval,
    within_question_auroc,
)

N_RUNS, N_QUESTIONS, N_ATTEMPTS, N_RESAMPLES = 400, 200, 16, 400


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simulate(rng, n_questions, *, calibrated):
    """Confidence and verdicts, shape (n_questions, 16).

    The stated log-odds scatter about those of the question. Calibrated: the verdict is drawn at
    the stated confidence. Otherwise at flatter, lower and question-dependent odds.
    """
    z = rng.normal(0.5, 1.2, (n_questions, 1)) + rng.normal(0, 0.7, (n_questions, N_ATTEMPTS))
    true_z = z if calibrated else 0.7 * z - 0.6 + rng.normal(0, 0.8, (n_questions, 1))
    return sigmoid(z), rng.random(z.shape) < sigmoid(true_z)


def coverage(intervals, truth):
    low, high = np.array([(i.low, i.high) for i in intervals]).T
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.fixture(scope="module", params=[True, False], ids=["calibrated", "overconfident"])
def runs(request):
    """Simulate runs, and a population to take the truth from."""
    rng = np.random.default_rng(20)
    population = simulate(rng, 60_000, calibrated=request.param)
    samples = [simulate(rng, N_QUESTIONS, calibrated=request.param) for _ in range(N_RUNS)]
    return request.param, population, samples


def bootstrap(metric, data, seed):
    return cluster_bootstrap(metric, data, n_resamples=N_RESAMPLES, seed=seed)


def test_pass_at_k(runs):
    _, (_, population), samples = runs
    ks = [1, 4, 16]
    truth = pass_at_k(population.sum(axis=1), N_ATTEMPTS, ks).mean(axis=0)
    values = [pass_at_k(correct.sum(axis=1), N_ATTEMPTS, ks) for _, correct in samples]
    for i in range(len(ks)):
        assert 0.92 <= coverage([proportion_interval(v[:, i]) for v in values], truth[i]) <= 0.98
        percentile = coverage(
            [bootstrap(mean_over_questions, {"values": v[:, i]}, s) for s, v in enumerate(values)],
            truth[i],
        )
        t = coverage([t_interval(v[:, i]) for v in values], truth[i])
        if N_QUESTIONS * (1 - truth[i]) > 10:
            assert 0.92 <= min(percentile, t) <= max(percentile, t) <= 0.98
        elif N_QUESTIONS * (1 - truth[i]) < 2:
            # Hardly a question fails, so many samples show no spread at all.
            assert max(percentile, t) < 0.75


@pytest.mark.parametrize("metric", [auroc, within_question_auroc])
def test_auroc(runs, metric):
    _, (confidence, correct), samples = runs
    truth = metric(correct, confidence=confidence)
    intervals = [
        bootstrap(metric, {"correct": y, "confidence": c}, s) for s, (c, y) in enumerate(samples)
    ]
    assert 0.92 <= coverage(intervals, truth) <= 0.98


def test_debiased_ece(runs):
    calibrated, (confidence, correct), samples = runs
    # A calibrated predictor has an error of exactly 0; its population shows a little more.
    truth = 0.0 if calibrated else ece(confidence, correct)
    intervals = [
        bootstrap(debiased_ece, {"confidence": c, "correct": y}, s)
        for s, (c, y) in enumerate(samples)
    ]
    assert 0.92 <= coverage(intervals, truth) <= 0.98
    bias = np.mean([i.estimate for i in intervals]) - truth
    plain_bias = np.mean([ece(c, y) for c, y in samples]) - truth
    assert abs(bias) < 0.006
    assert plain_bias > 0.015 if calibrated else abs(plain_bias) < 0.006


def test_debiased_ece_where_gaps_are_as_small_as_their_noise():
    """The hardest case: the estimate is a little too low, and the interval must not be."""
    rng = np.random.default_rng(22)

    def simulate_shifted(n_questions):
        z = rng.normal(0.5, 1, (n_questions, 1)) + rng.normal(0, 0.7, (n_questions, N_ATTEMPTS))
        true_z = 1.16 * z - 0.25 + rng.normal(0, 1, (n_questions, 1))
        return sigmoid(z), rng.random(z.shape) < sigmoid(true_z)

    truth = ece(*simulate_shifted(60_000))
    assert 0.03 < truth < 0.05
    intervals = []
    for seed in range(N_RUNS):
        confidence, correct = simulate_shifted(N_QUESTIONS)
        data = {"confidence": confidence, "correct": correct}
        intervals.append(bootstrap(debiased_ece, data, seed))
    assert 0.92 <= coverage(intervals, truth) <= 0.98
    assert -0.007 < np.mean([i.estimate for i in intervals]) - truth < 0


def test_treating_attempts_as_rows_covers_far_too_little(runs):
    """The counterexample that makes the tests above worth something."""
    _, (_, population), samples = runs
    rows = [t_interval(correct.ravel()) for _, correct in samples]
    assert coverage(rows, population.mean()) < 0.8

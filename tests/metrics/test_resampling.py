"""Every weighted formula against the metric on repeated rows, and against scikit-learn."""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_error,
)

from lm_eval_ext.metrics import (
    AffineFit,
    UndefinedMetricWarning,
    accuracy_at_coverage,
    affine_rmse,
    auprc,
    aurc,
    auroc,
    brier,
    cluster_bootstrap,
    debiased_ece,
    e_aurc,
    ece,
    mae,
    mean_over_questions,
    nll,
    paired_bootstrap,
    prr,
    rmse,
)
from lm_eval_ext.metrics.resampling import formula_of, questions_of

PROBABILITY = [
    ece,
    partial(ece, n_bins=4),
    partial(ece, norm="l2"),
    partial(ece, norm="max"),
    partial(ece, binning="mass"),
    partial(ece, binning="mass", n_bins=4, norm="l2"),
    brier,
    nll,
    partial(nll, floor=0.01),
]
RANKED = [
    auroc,
    auprc,
    partial(auprc, positive="incorrect"),
    aurc,
    e_aurc,
    prr,
    partial(prr, max_rejection=0.5),
    accuracy_at_coverage,
    partial(accuracy_at_coverage, coverage=0.3),
]
ESTIMATION = [rmse, mae, partial(affine_rmse, fit=AffineFit(2.0, -0.5, 10))]


def questions_and_attempts(seed=0, n_questions=25, n_attempts=6):
    rng = np.random.default_rng(seed)
    # Two decimals, so that scores tie; question effects, so that attempts depend.
    confidence = rng.beta(2, 2, size=(n_questions, 1)) + rng.normal(
        0, 0.1, (n_questions, n_attempts)
    )
    confidence = confidence.clip(0, 1).round(2)
    return confidence, rng.random((n_questions, n_attempts)) < confidence


def arguments(metric, confidence, correct):
    if metric in RANKED:
        return {"correct": correct, "uncertainty": 1 - confidence}
    if metric in ESTIMATION:
        return {"estimate": confidence, "reference": correct.astype(float)}
    return {"confidence": confidence, "correct": correct}


@pytest.mark.parametrize("metric", [*PROBABILITY, *RANKED, *ESTIMATION])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_fast_resampling_equals_repeating_rows(metric, method):
    data = arguments(metric, *questions_and_attempts())
    fast = cluster_bootstrap(metric, data, n_resamples=200, method=method)
    plain = cluster_bootstrap(lambda **rows: metric(**rows), data, n_resamples=200, method=method)
    np.testing.assert_allclose(fast[:4], plain[:4], atol=1e-10)
    assert fast.n_undefined == plain.n_undefined
    assert fast.low < fast.estimate < fast.high


@pytest.mark.parametrize("metric", [*PROBABILITY, *RANKED, *ESTIMATION, debiased_ece])
def test_flat_rows_with_clusters_equal_attempts_by_axis(metric):
    confidence, correct = questions_and_attempts()
    by_axis = cluster_bootstrap(metric, arguments(metric, confidence, correct), n_resamples=100)
    order = np.random.default_rng(1).permutation(confidence.size)
    ids = np.repeat(np.arange(25), 6)[order]
    flat = arguments(metric, confidence.ravel()[order], correct.ravel()[order])
    by_id = cluster_bootstrap(metric, flat, clusters=ids, n_resamples=100)
    np.testing.assert_allclose(by_id[:4], by_axis[:4], atol=1e-10)


@pytest.mark.parametrize("metric", [*PROBABILITY, *RANKED, *ESTIMATION])
def test_questions_may_have_different_numbers_of_attempts(metric):
    confidence, correct = questions_and_attempts()
    kept = np.random.default_rng(2).random(confidence.size) < 0.6
    ids = np.repeat([f"q{i}" for i in range(25)], 6)[kept]
    data = arguments(metric, confidence.ravel()[kept], correct.ravel()[kept])
    fast = cluster_bootstrap(metric, data, clusters=ids, n_resamples=100)
    plain = cluster_bootstrap(lambda **rows: metric(**rows), data, clusters=ids, n_resamples=100)
    np.testing.assert_allclose(fast[:4], plain[:4], atol=1e-10)


def _of(score):
    return lambda correct, confidence, weights: score(correct, confidence, sample_weight=weights)


SCIKIT_LEARN = [
    (auroc, _of(roc_auc_score)),
    (auprc, _of(average_precision_score)),
    (
        partial(auprc, positive="incorrect"),
        lambda y, c, w: average_precision_score(1 - y, -c, sample_weight=w),
    ),
    (brier, _of(brier_score_loss)),
    (
        partial(nll, floor=1e-9),
        lambda y, c, w: log_loss(y, c.clip(1e-9, 1 - 1e-9), sample_weight=w),
    ),
    (rmse, _of(root_mean_squared_error)),
    (mae, _of(mean_absolute_error)),
]


@pytest.mark.parametrize(("metric", "theirs"), SCIKIT_LEARN)
def test_weighted_formulas_are_those_of_scikit_learn(metric, theirs):
    confidence, correct = questions_and_attempts(seed=3)
    data = {"confidence": confidence, "correct": correct}
    if metric in (rmse, mae):
        data = {"estimate": confidence, "reference": correct.astype(float)}
    questions = questions_of(data, None)
    formula = formula_of(metric, data, questions)
    weights = np.random.default_rng(4).integers(0, 4, size=(20, 25)).astype(float)
    found = formula.value(np.concatenate([np.ones((1, 25)), weights]))
    assert found[0] == pytest.approx(metric(**data), rel=1e-14)  # weight 1 is the plain call
    y, c = correct.ravel().astype(int), confidence.ravel()
    expected = [theirs(y, c, np.repeat(row, 6)) for row in weights]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-10)


def test_a_metric_without_a_formula_is_called_on_repeated_rows():
    confidence, correct = questions_and_attempts()

    def share_above(confidence, correct):
        return (confidence > correct).mean()

    data = {"confidence": confidence, "correct": correct}
    interval = cluster_bootstrap(share_above, data, n_resamples=100)
    assert interval.estimate == share_above(**data)
    assert interval.low < interval.estimate < interval.high


def test_a_resample_of_one_class_is_undefined_not_half():
    data = {"correct": np.array([1, 1, 0, 0, 0, 0]), "confidence": np.arange(6.0)}
    # The two right answers are missed by (4 / 6) ** 6 of the resamples.
    with pytest.warns(UndefinedMetricWarning, match="which the interval leaves out"):
        interval = cluster_bootstrap(auroc, data)
    assert interval.n_undefined == pytest.approx(89, abs=35)
    assert interval.estimate == 0.0
    assert not np.isnan(interval.high)


def test_the_debiased_interval_is_shifted_to_its_estimate():
    confidence, correct = questions_and_attempts(n_questions=80)
    data = {"confidence": confidence, "correct": correct}
    interval = cluster_bootstrap(debiased_ece, data)
    assert interval.estimate == pytest.approx(debiased_ece(confidence, correct))
    assert interval.low < interval.estimate < interval.high
    plain = cluster_bootstrap(ece, data)
    # Resampling adds noise to the plain error a second time: its interval lies too high.
    assert interval.high < plain.high
    bca = cluster_bootstrap(debiased_ece, data, method="bca")
    assert bca.low < bca.estimate < bca.high


def test_two_runs_are_compared_by_any_metric():
    confidence, correct = questions_and_attempts(n_questions=150)
    good = {"confidence": confidence, "correct": correct}
    bad = {"confidence": np.sqrt(confidence), "correct": correct}
    for metric in (ece, debiased_ece, brier):
        result = paired_bootstrap(metric, bad, good)
        assert result.low > 0
        assert result.p_value < 0.05
        assert result.estimate_a == pytest.approx(metric(**bad))
    ranked = [{"correct": correct, "confidence": d["confidence"]} for d in (bad, good)]
    assert paired_bootstrap(auroc, *ranked).difference == pytest.approx(0.0)


def test_a_mean_that_ignores_missing_values_is_resampled_with_them():
    values = np.array([0.0, 1.0, np.nan, 1.0, np.nan])
    interval = cluster_bootstrap(mean_over_questions, {"values": values})
    assert interval.estimate == pytest.approx(2 / 3)
    assert interval.n_undefined == pytest.approx(0.4**5 * 1_000, abs=20)

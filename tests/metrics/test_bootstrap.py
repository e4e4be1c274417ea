"""The cluster bootstrap against resampling written out, SciPy's BCa, and closed forms."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy import stats

from lm_eval_ext.metrics import (
    UndefinedMetricWarning,
    auroc,
    cluster_bootstrap,
    debiased_ece,
    mean_over_questions,
    paired_bootstrap,
    pass_at_k,
    resampling,
    t_interval,
)


def plain_mean(values):
    """Average without a fast path."""
    return np.nanmean(values, axis=0)


def test_equals_resampling_written_out():
    values = np.random.default_rng(1).random((30, 4))
    interval = cluster_bootstrap(lambda values: values.mean(), {"values": values}, seed=5)
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 30, size=(1_000, 30), dtype=np.int32)
    means = [values[questions].mean() for questions in drawn]
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(np.quantile(means, 0.025))
    assert interval.high == pytest.approx(np.quantile(means, 0.975))
    assert interval.standard_error == pytest.approx(np.std(means, ddof=1))
    assert interval.n_questions == 30
    assert interval.n_undefined == 0


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_fast_and_plain_paths_agree(method):
    rng = np.random.default_rng(2)
    values = rng.random((40, 3))
    values[rng.random((40, 3)) < 0.2] = np.nan
    fast = cluster_bootstrap(mean_over_questions, {"values": values}, method=method)
    plain = cluster_bootstrap(plain_mean, {"values": values}, method=method)
    for ours, theirs in zip(fast[:4], plain[:4], strict=True):
        assert ours.shape == (3,)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_clusters_name_the_questions_of_flat_rows():
    values = np.random.default_rng(3).random((25, 4))
    ids = np.repeat([f"q{i:02d}" for i in range(25)], 4)
    order = np.random.default_rng(4).permutation(100)
    by_axis = cluster_bootstrap(lambda values: values.mean(), {"values": values})
    for metric in (mean_over_questions, plain_mean):
        flat = cluster_bootstrap(metric, {"values": values.ravel()[order]}, clusters=ids[order])
        np.testing.assert_allclose(flat[:4], by_axis[:4], atol=1e-12)
        assert flat.n_questions == 25


def test_bca_equals_scipy():
    values = np.random.default_rng(5).exponential(size=60) ** 2
    ours = cluster_bootstrap(
        mean_over_questions, {"values": values}, n_resamples=60_000, method="bca"
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=60_000, method="BCa", rng=np.random.default_rng(0)
    )
    # Monte Carlo noise of a bound is near 0.012 standard errors of the mean.
    error = ours.standard_error
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * error)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * error)
    # The sample is skewed to the right: BCa moves both bounds up by more than that.
    percentile = cluster_bootstrap(mean_over_questions, {"values": values}, n_resamples=60_000)
    assert ours.low > percentile.low + 0.12 * error
    assert ours.high > percentile.high + 0.12 * error


def test_agrees_with_the_clustered_standard_error():
    rng = np.random.default_rng(6)
    correct = rng.random((200, 16)) < rng.beta(0.5, 0.5, size=(200, 1))
    interval = cluster_bootstrap(lambda correct: correct.mean(), {"correct": correct})
    assert interval.standard_error == pytest.approx(t_interval(correct).standard_error, rel=0.1)


def test_several_ks_at_once_equal_one_at_a_time():
    rng = np.random.default_rng(7)
    values = pass_at_k(rng.integers(0, 9, size=50), 8, [1, 4, 8])
    together = cluster_bootstrap(mean_over_questions, {"values": values})
    for i in range(3):
        alone = cluster_bootstrap(mean_over_questions, {"values": values[:, i]})
        np.testing.assert_allclose([f[i] for f in together[:4]], alone[:4], atol=1e-12)


def test_the_seed_decides_and_the_chunk_size_does_not(monkeypatch):
    data = {"values": np.random.default_rng(8).random(30)}
    one = cluster_bootstrap(mean_over_questions, data, seed=1, method="bca")
    assert one == cluster_bootstrap(mean_over_questions, data, seed=1, method="bca")
    assert one != cluster_bootstrap(mean_over_questions, data, seed=2, method="bca")
    generator = np.random.default_rng(1)
    assert one == cluster_bootstrap(mean_over_questions, data, seed=generator, method="bca")
    monkeypatch.setattr(resampling, "_CHUNK", 7 * 30)
    assert one == cluster_bootstrap(mean_over_questions, data, seed=1, method="bca")


def test_undefined_resamples_are_counted_and_left_out():
    def zero_or_undefined(values):
        return float("nan") if values.min() > 0 else values.mean()

    data = {"values": np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])}
    # The two zeros are missed by (2/3)^6 of the resamples.
    with pytest.warns(UndefinedMetricWarning, match=r"on \d+% of 1000 .* leaves out"):
        interval = cluster_bootstrap(zero_or_undefined, data)
    assert interval.n_undefined == pytest.approx(88, abs=35)
    assert interval.low <= interval.estimate <= interval.high
    always = cluster_bootstrap(lambda values: float("nan"), {"values": np.ones(3)})
    assert np.isnan([always.estimate, always.low, always.high, always.standard_error]).all()
    assert always.n_undefined == 1_000


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_no_spread_and_one_question(method):
    constant = cluster_bootstrap(mean_over_questions, {"values": np.ones(9)}, method=method)
    assert constant[:4] == (1.0, 1.0, 1.0, 0.0)
    single = cluster_bootstrap(mean_over_questions, {"values": np.ones(1)}, method=method)
    assert single.estimate == 1.0
    assert np.isnan([single.low, single.high, single.standard_error]).all()


def test_options_are_fixed_by_partial():
    def power_mean(values, *, power):
        return np.mean(values**power)

    data = {"values": np.random.default_rng(9).random(20)}
    squared = cluster_bootstrap(partial(power_mean, power=2), data)
    assert squared.estimate == pytest.approx(np.mean(data["values"] ** 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_resamples": 1}, "n_resamples must be at least 2"),
        ({"confidence_level": 95}, "confidence_level must lie strictly between 0 and 1"),
        ({"method": "basic"}, "method must be one of"),
        ({"clusters": [1, 2]}, "same number of rows"),
        ({"data": {}}, "data must name"),
        ({"data": {"values": []}}, "must not be empty|at least one question"),
        ({"metric": partial(lambda scale, values: scale * values.mean(), 2.0)}, "by name"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {"metric": mean_over_questions, "data": {"values": np.ones(3)}, **change}
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(**arguments)


def test_no_interval_where_most_resamples_are_undefined():
    data = {"correct": [1, 0], "confidence": [0.9, 0.1]}
    # Half of the resamples draw one question twice; on the others AUROC is 1.
    with pytest.warns(UndefinedMetricWarning, match="too many for an interval"):
        interval = cluster_bootstrap(auroc, data)
    assert interval.estimate == 1.0
    assert interval.n_undefined == pytest.approx(500, abs=60)
    assert np.isnan([interval.low, interval.high, interval.standard_error]).all()
    with pytest.warns(UndefinedMetricWarning, match="too many for an interval"):
        paired = paired_bootstrap(auroc, data, data)
    assert np.isnan([paired.low, paired.high, paired.standard_error, paired.p_value]).all()
    assert paired.difference == 0.0


def test_only_the_values_that_are_often_undefined_lose_their_interval():
    values = np.full((12, 2), np.nan)
    values[:, 0] = np.arange(12)
    values[0, 1] = 1.0  # missed by (11/12)^12 = 35% of the resamples
    with pytest.warns(UndefinedMetricWarning):
        interval = cluster_bootstrap(mean_over_questions, {"values": values})
    assert np.isnan(interval.low).tolist() == [False, True]
    assert np.isnan(interval.standard_error).tolist() == [False, True]


def test_few_undefined_resamples_are_left_out_silently():
    data = {"correct": [1, 0] * 5, "confidence": np.arange(10) / 10}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = cluster_bootstrap(auroc, data)
    assert 0 <= interval.n_undefined < 50
    assert interval.low < interval.estimate < interval.high


def test_a_metric_sees_arrays_when_given_lists():
    interval = cluster_bootstrap(lambda values: values.mean(), {"values": [0.0, 1.0, 1.0, 0.0]})
    assert interval.estimate == 0.5
    a, b = {"values": [1.0, 1.0, 0.0]}, {"values": [0.0, 1.0, 0.0]}
    assert paired_bootstrap(lambda values: values.mean(), a, b).difference == pytest.approx(1 / 3)


def test_clusters_of_debiased_ece_must_be_the_questions_resampled():
    rng = np.random.default_rng(10)
    confidence, ids = rng.random(60), np.repeat(np.arange(20), 3)
    data = {"confidence": confidence, "correct": rng.random(60) < confidence}
    right = cluster_bootstrap(debiased_ece, data, clusters=ids)
    named = {**data, "clusters": [f"q{19 - i}" for i in ids]}  # other names, the same questions
    assert cluster_bootstrap(debiased_ece, named, clusters=ids) == right
    for clusters in (None, ids // 2, np.arange(60), np.arange(60) % 20):
        with pytest.raises(ValueError, match="clusters in the data of debiased_ece must tell"):
            cluster_bootstrap(debiased_ece, named, clusters=clusters)

"""The ROC curve against its area and a count over thresholds."""

import numpy as np
import pytest

from lm_eval_ext.metrics import UndefinedMetricWarning, auroc, roc_curve


@pytest.mark.parametrize("n_levels", [2, 7, 1000])
def test_area_is_auroc(n_levels):
    rng = np.random.default_rng(n_levels)
    confidence = rng.integers(0, n_levels, 300) / n_levels
    correct = rng.random(300) < 0.2 + 0.5 * confidence
    x, y = roc_curve(correct, confidence=confidence)
    area = ((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum()
    assert area == pytest.approx(auroc(correct, confidence=confidence), abs=1e-12)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()


def test_each_point_counts_what_a_threshold_keeps():
    rng = np.random.default_rng(1)
    confidence, correct = rng.integers(0, 5, (20, 3)), rng.random((20, 3)) < 0.6
    x, y = roc_curve(correct, confidence=confidence)
    for i, level in enumerate([*range(4, -1, -1)], start=1):
        kept = confidence >= level
        assert x[i] == pytest.approx((kept & ~correct).sum() / (~correct).sum())
        assert y[i] == pytest.approx((kept & correct).sum() / correct.sum())


def test_uncertainty_is_the_other_direction():
    scores, correct = [0.1, 0.7, 0.7, 0.3], [1, 0, 1, 0]
    negative = [-score for score in scores]
    for a, b in zip(
        roc_curve(correct, uncertainty=scores),
        roc_curve(correct, confidence=negative),
        strict=True,
    ):
        assert (a == b).all()


def test_one_class_has_no_curve():
    with pytest.warns(UndefinedMetricWarning, match="all 2 answers are correct"):
        assert np.isnan(roc_curve([1, 1], confidence=[0.1, 0.2]).true_positive_rate).all()

"""AUROC, AUPRC, AURC and PRR against scikit-learn and all orders of ties."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lm_eval_ext.metrics import (
    UndefinedMetricWarning,
    accuracy_at_coverage,
    auprc,
    aurc,
    auroc,
    e_aurc,
    prr,
    risk_coverage_curve,
)

RANKED = [auroc, auprc, aurc, e_aurc, prr, accuracy_at_coverage]


@st.composite
def answers(draw, max_size=40):
    """Verdicts of both classes and scores with ties."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 1), st.integers(-3, 3) | st.floats(-5, 5)),
            min_size=2,
            max_size=max_size,
        ).filter(lambda rows: len({y for y, _ in rows}) == 2)
    )
    correct, score = np.array(rows, dtype=float).T
    return correct, score


@given(answers())
def test_equals_scikit_learn(rows):
    correct, score = rows
    reference = roc_auc_score(correct, score)
    assert auroc(correct, confidence=score) == pytest.approx(reference, abs=1e-12)
    assert auroc(correct, uncertainty=-score) == pytest.approx(reference, abs=1e-12)
    assert auprc(correct, confidence=score) == pytest.approx(
        average_precision_score(correct, score), abs=1e-12
    )
    wrong_found = average_precision_score(1 - correct, -score)
    assert auprc(correct, confidence=score, positive="incorrect") == pytest.approx(
        wrong_found, abs=1e-12
    )


@given(answers(max_size=6))
def test_ties_are_the_mean_over_all_their_orders(rows):
    correct, score = rows
    n, errors = len(score), 1 - correct
    risks = np.array(
        [
            np.cumsum(errors[list(order)]) / np.arange(1, n + 1)
            for order in permutations(range(n))
            if (np.diff(score[list(order)]) <= 0).all()
        ]
    ).mean(axis=0)
    assert aurc(correct, confidence=score) == pytest.approx(risks.mean(), abs=1e-12)
    curve = risk_coverage_curve(correct, confidence=score)
    np.testing.assert_allclose(curve.risk, risks, atol=1e-12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, n + 1) / n)
    best = np.cumsum(np.sort(errors)) / np.arange(1, n + 1)
    assert e_aurc(correct, confidence=score) == pytest.approx((risks - best).mean(), abs=1e-12)
    for share in (1.0, 0.5):
        n_rejected = int(share * n)
        if not n_rejected:
            continue
        kept = slice(n - n_rejected, n)
        gained = errors.mean() - risks[kept].mean()
        possible = errors.mean() - best[kept].mean()
        value = prr(correct, confidence=score, max_rejection=share)
        if possible > 1e-12:
            assert value == pytest.approx(gained / possible, abs=1e-9)
        else:
            assert np.isnan(value)
    for share in (0.3, 0.5, 1.0):
        n_kept = int(np.ceil(share * n))
        accuracy = accuracy_at_coverage(correct, confidence=score, coverage=share)
        assert accuracy == pytest.approx(1 - risks[n_kept - 1], abs=1e-12)


@given(answers(), st.randoms())
def test_only_the_order_of_scores_counts(rows, random):
    correct, score = rows
    order = list(range(len(score)))
    random.shuffle(order)
    # Ranks are an exactly monotone transform; exp and the like can merge neighbors.
    ranks = np.unique(score, return_inverse=True)[1] * 2.0 - 7
    for metric in RANKED:
        value = metric(correct, confidence=score)
        np.testing.assert_allclose(metric(correct[order], confidence=score[order]), value)
        np.testing.assert_allclose(metric(correct, confidence=ranks), value)
        np.testing.assert_allclose(metric(correct, uncertainty=-score), value)


@given(answers())
def test_bounds_and_mirror_images(rows):
    correct, score = rows
    value = auroc(correct, confidence=score)
    assert 0 <= value <= 1
    assert auroc(correct, uncertainty=score) == pytest.approx(1 - value, abs=1e-12)
    assert auroc(1 - correct, uncertainty=score) == pytest.approx(value, abs=1e-12)
    assert 0 <= aurc(correct, confidence=score) <= 1
    assert e_aurc(correct, confidence=score) >= -1e-12
    assert prr(correct, confidence=score) <= 1 + 1e-12
    assert accuracy_at_coverage(correct, confidence=score, coverage=1.0) == pytest.approx(
        correct.mean()
    )
    # AURC's excess and PRR are one quantity on two scales.
    error_rate = 1 - correct.mean()
    excess = e_aurc(correct, confidence=score)
    perfect = aurc(correct, confidence=correct)
    expected = 1 - excess / (error_rate - perfect)
    assert prr(correct, confidence=score) == pytest.approx(expected, abs=1e-9)


def test_perfect_and_useless_scores():
    correct = np.array([1, 1, 1, 0, 0])
    assert auroc(correct, confidence=correct) == 1.0
    assert auprc(correct, confidence=correct) == 1.0
    assert auprc(correct, confidence=correct, positive="incorrect") == 1.0
    assert prr(correct, confidence=correct) == pytest.approx(1.0)
    assert e_aurc(correct, confidence=correct) == pytest.approx(0.0)
    flat = np.zeros(5)
    assert auroc(correct, confidence=flat) == 0.5
    assert auprc(correct, confidence=flat) == 0.6
    assert aurc(correct, confidence=flat) == pytest.approx(0.4)
    assert prr(correct, confidence=flat) == pytest.approx(0.0)
    assert accuracy_at_coverage(correct, confidence=flat) == pytest.approx(0.6)


def test_shares_are_not_fooled_by_rounding():
    correct = np.array([1] * 7 + [0] * 18)
    score = np.arange(25, 0, -1)
    # 0.28 * 25 is 7.000000000000001: an eighth answer must not be kept.
    assert accuracy_at_coverage(correct, confidence=score, coverage=0.28) == 1.0
    rng = np.random.default_rng(0)
    correct, score = rng.integers(0, 2, 100), rng.random(100)
    # 0.29 * 100 is 28.999999999999996: the 29th answer is to be rejected.
    rejected_29 = prr(correct, confidence=score, max_rejection=0.29)
    assert rejected_29 == prr(correct, confidence=score, max_rejection=0.2901)
    assert rejected_29 != prr(correct, confidence=score, max_rejection=0.28)


def test_infinite_scores_rank_at_the_ends():
    correct = [1, 1, 0, 0]
    score = [np.inf, np.inf, 0.3, -np.inf]
    assert auroc(correct, confidence=score) == 1.0
    assert auroc(correct, uncertainty=score) == 0.0


def test_attempts_of_questions_are_pooled():
    rng = np.random.default_rng(0)
    correct, score = rng.integers(0, 2, (20, 8)), rng.normal(size=(20, 8))
    for metric in RANKED:
        assert metric(correct, confidence=score) == metric(
            correct.ravel(), confidence=score.ravel()
        )


@pytest.mark.parametrize("metric", [auroc, auprc, prr])
@pytest.mark.parametrize(("verdict", "state"), [(1, "correct"), (0, "incorrect")])
def test_one_class_is_nan_and_says_why(metric, verdict, state):
    message = f"{metric.__name__} is undefined .NaN.: all 3 answers are {state}"
    with pytest.warns(UndefinedMetricWarning, match=message) as caught:
        assert np.isnan(metric([verdict] * 3, confidence=[0.1, 0.2, 0.3]))
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_risk_is_defined_for_one_class():
    assert aurc([1, 1], confidence=[0.1, 0.2]) == 0.0
    assert aurc([0, 0], confidence=[0.1, 0.2]) == 1.0
    assert e_aurc([0, 0], confidence=[0.1, 0.2]) == 0.0
    assert accuracy_at_coverage([0, 0], confidence=[0.1, 0.2]) == 0.0


@pytest.mark.parametrize("metric", [*RANKED, risk_coverage_curve])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either uncertainty= or confidence=, got neither"),
        ({"uncertainty": [1, 2], "confidence": [1, 2]}, "got both"),
        ({"confidence": [0.1]}, "same shape, got correct .2,., confidence .1,."),
        ({"uncertainty": [0.1, float("nan")]}, "uncertainty has 1 NaN"),
        ({"confidence": ["high", "low"]}, "confidence must hold numbers"),
    ],
)
def test_bad_input_is_one_clear_line(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric([1, 0], **arguments)


def test_bad_options_are_one_clear_line():
    scores = {"confidence": [0.1, 0.2]}
    with pytest.raises(ValueError, match="max_rejection must lie in"):
        prr([1, 0], **scores, max_rejection=0.0)
    with pytest.raises(ValueError, match="coverage must lie in"):
        accuracy_at_coverage([1, 0], **scores, coverage=1.5)
    with pytest.raises(ValueError, match="positive must be one of"):
        auprc([1, 0], **scores, positive="wrong")
    with pytest.raises(ValueError, match="correct must hold only 0 and 1"):
        auroc([1, 3], **scores)

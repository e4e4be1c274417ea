"""AUROC within questions against counting pairs, closed forms and its resamples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from lm_eval_ext.metrics import (
    UndefinedMetricWarning,
    auroc,
    cluster_bootstrap,
    paired_bootstrap,
    within_question_auroc,
)
from lm_eval_ext.metrics.resampling import formula_of, questions_of

ROWS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(0, 1),
        st.integers(-2, 2) | st.sampled_from([float("inf"), float("-inf")]),
    ),
    min_size=1,
    max_size=30,
)


def by_pairs(questions, correct, confidence):
    """Return the score of every pair of a right and a wrong attempt at one question."""
    rows = list(zip(questions, correct, confidence, strict=True))
    return [
        1.0 if c > d else 0.5 if c == d else 0.0
        for q, right, c in rows
        for other, also_right, d in rows
        if q == other and right and not also_right
    ]


@given(ROWS)
def test_equals_brute_force_over_pairs(rows):
    questions, correct, confidence = (np.array(c, float) for c in zip(*rows, strict=True))
    pairs = by_pairs(questions, correct, confidence)
    if not pairs:
        with pytest.warns(UndefinedMetricWarning, match="both a right and a wrong attempt"):
            value = within_question_auroc(correct, confidence=confidence, clusters=questions)
        assert np.isnan(value)
        return
    value = within_question_auroc(correct, confidence=confidence, clusters=questions)
    assert value == pytest.approx(np.mean(pairs), abs=1e-12)
    mirrored = within_question_auroc(correct, uncertainty=confidence, clusters=questions)
    assert mirrored == pytest.approx(1 - value, abs=1e-12)


def test_one_question_has_the_plain_auroc():
    rng = np.random.default_rng(0)
    confidence = rng.random((1, 40)).round(1)
    correct = rng.random((1, 40)) < confidence
    expected = auroc(correct, confidence=confidence)
    assert within_question_auroc(correct, confidence=confidence) == pytest.approx(expected)


def test_two_normal_distributions_have_their_closed_form():
    """Right attempts are higher by delta: P(win) is Phi(delta / sqrt 2), whatever the question."""
    rng, delta = np.random.default_rng(1), 0.8
    correct = rng.random((4_000, 8)) < rng.random((4_000, 1))
    difficulty = rng.normal(0, 5, (4_000, 1))
    score = difficulty + delta * correct + rng.normal(size=correct.shape)
    value = within_question_auroc(correct, confidence=score)
    assert value == pytest.approx(ndtr(delta / np.sqrt(2)), abs=0.01)
    assert auroc(correct, confidence=score) < value - 0.1


def test_difficulty_alone_is_worth_nothing():
    rng = np.random.default_rng(2)
    ability = np.repeat(rng.random((500, 1)), 8, axis=1)
    correct = rng.random((500, 8)) < ability
    assert auroc(correct, confidence=ability) > 0.8
    assert within_question_auroc(correct, confidence=ability) == 0.5


def test_a_question_weighs_its_pairs():
    # 4 pairs, all won; 3 pairs, all lost; one outcome only.
    correct = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    confidence = [[0.9, 0.8, 0.2, 0.1], [0.1, 0.9, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]]
    assert within_question_auroc(correct, confidence=confidence) == 4 / 7


def test_attempts_may_be_counted_apart():
    rng = np.random.default_rng(3)
    correct, confidence = rng.integers(0, 2, (20, 6)), rng.random((20, 6))
    questions = np.repeat(np.arange(20), 6)
    order = rng.permutation(120)
    assert within_question_auroc(
        correct.ravel()[order], confidence=confidence.ravel()[order], clusters=questions[order]
    ) == within_question_auroc(correct, confidence=confidence)


def test_resamples_keep_pairs_in_their_question():
    rng = np.random.default_rng(4)
    data = {"correct": rng.integers(0, 2, (6, 5)), "confidence": rng.random((6, 5)).round(1)}
    formula = formula_of(within_question_auroc, data, questions_of(data, None))
    drawn = rng.multinomial(6, np.full(6, 1 / 6), size=50)
    for counts, value in zip(drawn, formula.value(drawn.astype(float)), strict=True):
        rows = np.repeat(np.arange(6), counts)  # a question drawn twice is two questions
        repeated = {name: array[rows] for name, array in data.items()}
        assert value == pytest.approx(within_question_auroc(**repeated), abs=1e-12)


def test_interval_is_that_of_flat_rows():
    rng = np.random.default_rng(5)
    data = {"correct": rng.integers(0, 2, (30, 4)), "confidence": rng.random((30, 4))}
    flat = {name: array.ravel() for name, array in data.items()}
    ids = np.repeat(np.arange(30), 4)
    expected = cluster_bootstrap(within_question_auroc, data, n_resamples=200)
    assert cluster_bootstrap(within_question_auroc, flat, clusters=ids, n_resamples=200) == expected
    again = cluster_bootstrap(
        within_question_auroc, {**flat, "clusters": ids}, clusters=ids, n_resamples=200
    )
    assert again == expected
    assert expected.low < expected.estimate < expected.high
    better = {**data, "confidence": data["confidence"] + data["correct"]}
    paired = paired_bootstrap(within_question_auroc, better, data, n_resamples=200)
    assert paired.difference == pytest.approx(1 - expected.estimate)


def test_other_questions_than_those_resampled_are_refused():
    data = {"correct": [1, 0, 1, 0], "confidence": [0.4, 0.3, 0.2, 0.1], "clusters": [0, 0, 1, 1]}
    with pytest.raises(ValueError, match="within_question_auroc must tell apart the same"):
        cluster_bootstrap(within_question_auroc, data, clusters=[0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either uncertainty= or confidence=, got neither"),
        ({"confidence": [0.1]}, "same shape, got correct .2,., confidence .1,."),
        ({"confidence": [0.1, float("nan")]}, "confidence has 1 NaN"),
        ({"confidence": [0.1, 0.2], "clusters": [1]}, "same number of rows"),
        ({"confidence": [0.1, 0.2], "clusters": [[1], [2]]}, "one question id per row"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        within_question_auroc([1, 0], **arguments)

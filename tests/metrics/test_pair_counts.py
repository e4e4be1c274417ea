"""AUROC on resamples from counted pairs, against counting them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.metrics import auroc, cluster_bootstrap, pair_counts
from lm_eval_ext.metrics.pair_counts import twice_lost_pairs
from lm_eval_ext.metrics.resampling import questions_of, resampler_of

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.integers(-2, 2) | st.just(float("inf"))),
    min_size=1,
    max_size=25,
)


@given(ROWS)
def test_pairs_are_counted(rows):
    of_row, verdicts, score = (np.array(column) for column in zip(*rows, strict=True))
    expected = np.zeros((5, 5), dtype=int)
    for q, right, s in rows:
        for other, also_right, t in rows:
            if right and not also_right:
                expected[q, other] += 2 if t > s else 1 if t == s else 0
    found = twice_lost_pairs(of_row, 5, verdicts.astype(float), score.astype(float))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("limit", ["MAX_QUESTIONS", "_EXACT_FLOAT32"])
def test_the_ways_agree_to_the_last_bit(monkeypatch, limit):
    rng = np.random.default_rng(0)
    confidence = rng.random((60, 8)).round(2)
    data = {"confidence": confidence, "correct": rng.random((60, 8)) < confidence}
    fast = cluster_bootstrap(auroc, data, n_resamples=200)
    monkeypatch.setattr(pair_counts, limit, 0)
    assert cluster_bootstrap(auroc, data, n_resamples=200) == fast


def test_the_matrix_is_for_several_attempts_only(monkeypatch):
    monkeypatch.setattr(pair_counts, "twice_lost_pairs", lambda *_: pytest.fail("called"))
    data = {"confidence": np.arange(30.0), "correct": np.arange(30) % 2}
    resampler_of(auroc, data, questions_of(data, None))


def test_resamples_of_one_class_are_undefined():
    data = {"confidence": np.ones((2, 5)), "correct": np.repeat([[0], [1]], 5, axis=1)}
    resampler = resampler_of(auroc, data, questions_of(data, None))
    np.testing.assert_array_equal(
        resampler.evaluate(np.array([[1, 1], [2, 0], [0, 2]])), [0.5, np.nan, np.nan]
    )

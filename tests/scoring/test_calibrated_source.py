"""A calibrator as a source: its values, and votes that see only their own attempts."""

from itertools import combinations

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_settings import read_settings
from lm_eval_ext.methods.calibrator import Calibrator, Layer
from lm_eval_ext.metrics import answer_entropy, weighted_vote
from lm_eval_ext.scoring.calibrated_source import source_values, with_calibrated
from lm_eval_ext.scoring.metric_suites import passn

ANSWERS = ("4", "5", None, "4", "6")


def calibrator(*sources, weights=None, n_attempts=5):
    n = len(sources)
    weights = np.reshape(weights or [1.0] * n, (n, 1))
    layers = (Layer(weights, np.zeros(1)),)
    ones = np.ones(n)
    nothing = frozenset()
    return Calibrator("c", sources, n_attempts, 0 * ones, ones, layers, None, nothing, nothing)


def question(answers=ANSWERS):
    return [
        {"attempt": i, "answer": a, "correct": a == "4", "n_tokens": 3, "mean_logprob": -0.1 * i}
        for i, a in enumerate(answers)
    ]


def test_sources_of_subsets_are_those_of_their_attempts_alone():
    names = ("length", "answer_groups", "answer_share", "answer_entropy")
    for k in (1, 2, 4, 5):
        members = np.array(list(combinations(range(5), k)))
        found = source_values(question(), names, members)
        for row, chosen in zip(found, members, strict=True):
            alone = [ANSWERS[i] for i in chosen]
            groups = len({a for a in alone if a is not None}) / k
            shares = [0.0 if a is None else alone.count(a) / k for a in alone]
            entropy = answer_entropy(alone)
            expected = [[3, groups, share, entropy] for share in shares]
            np.testing.assert_allclose(row, expected, atol=1e-15)


def test_a_calibrator_of_attempts_is_a_source_like_others():
    source = with_calibrated(calibrator("mean_logprob", n_attempts=16), question())["calibrated"]
    np.testing.assert_allclose(source.confidence, 1 / (1 + np.exp(0.1 * np.arange(5))))
    assert source.is_probability
    assert source.of_subsets is None
    assert source.votes == source.vote_weight == source.confidence
    bare = [{"attempt": 0, "answer": "4", "correct": True}]
    assert "calibrated" not in with_calibrated(calibrator("mean_logprob"), bare)


def test_a_logged_probability_of_the_name_is_replaced():
    attempts = question()
    for attempt in attempts:
        attempt["probabilities"] = {"calibrated": 0.123}
    found = with_calibrated(calibrator("mean_logprob"), attempts)["calibrated"]
    assert found.confidence[0] == 0.5


def test_votes_of_k_attempts_do_not_see_the_others():
    """The share among all 5 would favour "4" in every vote; among 2 attempts it cannot."""
    shares = calibrator("answer_share", "mean_logprob", weights=[30.0, -1.0])
    suite = passn(read_settings({"attempts": 5, "vote_ks": [2, 3], "tau": 0.01}))
    suite.sources = lambda q: with_calibrated(shares, q)
    values = suite.values(question())
    for k in (2, 3):
        scores = []
        for chosen in combinations(range(5), k):
            alone = [question()[i] for i in chosen]
            confidence = with_calibrated(shares._replace(n_attempts=k), alone)["calibrated"].votes
            answers, correct = [a["answer"] for a in alone], [a["correct"] for a in alone]
            vote = weighted_vote(answers, correct, confidence, k, tau=0.01)
            scores.append(vote.score)
        assert values[f"cisc@{k}:calibrated"] == pytest.approx(np.mean(scores))
    # With the shares of all five, "4" would win wherever it is there: 7 of 10 pairs.
    everyone = with_calibrated(shares, question())["calibrated"].votes
    leaked = weighted_vote(
        ANSWERS, [a == "4" for a in ANSWERS], everyone, 2, rule="best_of_n"
    ).score
    assert leaked == pytest.approx(0.7)
    assert values["best_of@2:calibrated"] < leaked


def test_another_number_of_attempts_is_refused_where_they_are_compared():
    with pytest.raises(UserError, match=r"fitted at 16 .* has 5; score with --attempts 16"):
        with_calibrated(calibrator("answer_share", n_attempts=16), question())

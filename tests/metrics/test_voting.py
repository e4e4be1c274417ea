"""Votes against enumeration of all subsets, their limits, and their rules."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lm_eval_ext.metrics import group_answers, maj_at_k, pass_at_k, weighted_vote
from lm_eval_ext.metrics.vote_counts import expected_majority, majority_is_feasible
from lm_eval_ext.metrics.vote_subsets import subsets


def brute_force(answers, correct, weights, k):
    """Hold the vote in every subset: the definition, with nothing clever."""
    scores = []
    for subset in combinations(range(len(answers)), k):
        tally = {}
        for i in subset:
            if answers[i] is not None:
                tally[answers[i]] = tally.get(answers[i], 0.0) + weights[i]
        if not tally:
            scores.append(0.0)
            continue
        best = max(tally.values())
        winners = [a for a, w in tally.items() if w >= best - 1e-12 * abs(best)]
        scores.append(np.mean([correct[answers.index(a)] for a in winners]))
    return np.mean(scores)


@st.composite
def questions(draw, max_attempts=8):
    n = draw(st.integers(1, max_attempts))
    answers = draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=n, max_size=n))
    right = draw(st.sampled_from(["a", "b", "z"]))
    confidence = draw(st.lists(st.integers(0, 100), min_size=n, max_size=n))
    correct = [int(answer == right) for answer in answers]
    return answers, correct, np.array(confidence) / 100


@given(questions(), st.integers(1, 8))
def test_majority_equals_brute_force(question, k):
    answers, correct, _ = question
    assume(k <= len(answers))
    result = maj_at_k(answers, correct, k)
    assert result.exact
    expected = brute_force(answers, correct, np.ones(len(answers)), k)
    assert result.score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 4, 2, 1), (3, 3, 3, 1, 1), (1,) * 12, (12,)])
@pytest.mark.parametrize("k", [1, 2, 5, 8, 12])
def test_majority_equals_brute_force_at_twelve_attempts(sizes, k):
    answers = [chr(97 + g) for g, m in enumerate(sizes) for _ in range(m)]
    answers += [None] * (12 - len(answers))
    correct = [int(a == "a") for a in answers]
    expected = brute_force(answers, correct, np.ones(12), k)
    assert maj_at_k(answers, correct, k).score == pytest.approx(expected, abs=1e-12)


@given(questions(), st.integers(1, 8), st.sampled_from([0.05, 0.3, 2.0]))
def test_softmax_vote_equals_brute_force(question, k, tau):
    answers, correct, confidence = question
    assume(k <= len(answers))
    result = weighted_vote(answers, correct, confidence, k, tau=tau)
    assert result.exact
    expected = brute_force(answers, correct, np.exp(confidence / tau), k)
    assert result.score == pytest.approx(expected, abs=1e-12)


@given(questions(), st.integers(1, 8))
def test_linear_vote_equals_brute_force(question, k):
    answers, correct, confidence = question
    assume(k <= len(answers))
    result = weighted_vote(answers, correct, confidence, k, rule="linear")
    assert result.score == pytest.approx(brute_force(answers, correct, confidence, k), abs=1e-12)


@given(questions(), st.integers(1, 8))
def test_best_of_n_equals_brute_force(question, k):
    answers, correct, confidence = question
    assume(k <= len(answers))
    scores = []
    for subset in combinations(range(len(answers)), k):
        valid = [i for i in subset if answers[i] is not None]
        top = max((confidence[i] for i in valid), default=0)
        best = [correct[i] for i in valid if confidence[i] == top]
        scores.append(np.mean(best) if best else 0.0)
    result = weighted_vote(answers, correct, confidence, k, rule="best_of_n")
    assert result.score == pytest.approx(np.mean(scores), abs=1e-12)
    assert result.exact


@given(questions(), st.integers(1, 8))
def test_large_tau_is_the_majority_vote(question, k):
    answers, correct, confidence = question
    assume(k <= len(answers))
    majority = maj_at_k(answers, correct, k).score
    softmax = weighted_vote(answers, correct, confidence, k, tau=1e14).score
    assert softmax == pytest.approx(majority, abs=1e-12)


@given(questions(), st.integers(1, 8))
def test_small_tau_is_best_of_n(question, k):
    answers, correct, confidence = question
    assume(k <= len(answers))
    assume(len(set(confidence)) == len(confidence))
    best = weighted_vote(answers, correct, confidence, k, rule="best_of_n").score
    softmax = weighted_vote(answers, correct, confidence, k, tau=1e-6).score
    assert softmax == pytest.approx(best, abs=1e-12)


@given(questions(), st.randoms())
def test_order_of_attempts_does_not_matter(question, random):
    answers, correct, confidence = question
    order = list(range(len(answers)))
    random.shuffle(order)
    ks = [1, len(answers)]
    moved = ([answers[i] for i in order], [correct[i] for i in order])
    same = maj_at_k(answers, correct, ks).score
    np.testing.assert_allclose(maj_at_k(*moved, ks).score, same, atol=1e-12)
    for rule in ("softmax", "linear", "best_of_n"):
        same = weighted_vote(answers, correct, confidence, ks, rule=rule).score
        shuffled = weighted_vote(*moved, confidence[order], ks, rule=rule).score
        np.testing.assert_allclose(shuffled, same, atol=1e-12)


@given(questions())
def test_one_attempt_is_accuracy_and_no_vote_beats_pass_at_k(question):
    answers, correct, confidence = question
    n = len(answers)
    ks = np.arange(1, n + 1)
    bound = pass_at_k(sum(correct), n, ks)
    for result in (
        maj_at_k(answers, correct, ks),
        weighted_vote(answers, correct, confidence, ks),
        weighted_vote(answers, correct, confidence, ks, rule="linear"),
        weighted_vote(answers, correct, confidence, ks, rule="best_of_n"),
    ):
        assert result.score[0] == pytest.approx(np.mean(correct), abs=1e-12)
        assert (result.score >= 0).all()
        assert (result.score <= bound + 1e-12).all()


def test_two_equal_groups_share_the_credit():
    assert maj_at_k(["a", "a", "b", "b"], [1, 1, 0, 0], 4).score == 0.5
    assert weighted_vote(["a", "b"], [1, 0], [0.5, 0.5], 2).score == 0.5
    # 0.1 + 0.2 and 0.3 are one tie although the floats differ.
    tied = weighted_vote(["a", "a", "b"], [1, 1, 0], [0.1, 0.2, 0.3], 3, rule="linear")
    assert tied.score == 0.5


def test_invalid_answers_never_vote():
    assert maj_at_k(["a", None, None, None], [1, 0, 0, 0], 4).score == 1.0
    assert maj_at_k([None, None], [0, 0], [1, 2]).score.tolist() == [0.0, 0.0]
    confidence = [0.2, float("nan"), 0.9]
    for rule in ("softmax", "linear", "best_of_n"):
        answers = ["a", None, None]
        assert weighted_vote(answers, [1, 0, 0], confidence, 3, rule=rule).score == 1.0
        nothing = weighted_vote([None] * 3, [0] * 3, confidence, [1, 3], rule=rule)
        assert nothing.score.tolist() == [0.0, 0.0]


def test_confidence_of_zero_still_votes():
    result = weighted_vote(["a", "b"], [1, 0], [0.0, 0.0], 2, rule="linear")
    assert result.score == 0.5


def test_tiny_tau_does_not_underflow():
    # Every weight but the largest of the question is 0 at this tau; subsets without it still vote.
    answers, correct = ["a", "b", "b"], [1, 0, 0]
    result = weighted_vote(answers, correct, [0.8, 0.1, 0.9], 2, tau=1e-300)
    assert result.score == pytest.approx(1 / 3)


def test_answers_are_grouped_before_they_vote():
    answers, correct = ["1/2", "0.5", "3", "3 "], [1, 1, 0, 0]
    assert maj_at_k(answers, correct, 4).score == 0.5
    calls = []

    def equivalent(a, b):
        calls.append((a, b))
        return a.strip() == b.strip() or {a, b} == {"1/2", "0.5"}

    assert group_answers(answers, equivalent=equivalent).tolist() == [0, 0, 1, 1]
    assert maj_at_k(answers[:3], correct[:3], 3, equivalent=equivalent).score == 1.0
    calls.clear()
    group_answers(["x"] * 50, equivalent=equivalent)
    assert calls == []


def test_too_few_attempts_give_nan():
    result = maj_at_k(["a", "b"], [1, 0], [1, 3])
    assert result.score[0] == 0.5
    assert np.isnan(result.score[1])
    assert result.n_attempts == 2
    assert np.isnan(weighted_vote(["a"], [1], [0.3], 2).score)


def test_beyond_enumeration_the_same_random_subsets_serve_every_rule():
    rng = np.random.default_rng(3)
    n, k = 64, 16
    correct = rng.random(n) < 0.45
    answers = np.where(correct, "right", rng.choice(["x", "y"], size=n)).tolist()
    confidence = rng.random(n)
    majority = maj_at_k(answers, correct, k)
    assert majority.exact
    sampled = weighted_vote(answers, correct, np.full(n, 0.5), k, n_draws=20_000)
    assert not sampled.exact
    # Binomial error of 20,000 draws is at most 0.0035.
    assert sampled.score == pytest.approx(majority.score, abs=0.014)
    assert weighted_vote(answers, correct, confidence, k, tau=1e14).score == pytest.approx(
        weighted_vote(answers, correct, np.ones(n), k, rule="linear").score, abs=1e-12
    )
    again = weighted_vote(answers, correct, confidence, k, seed=0)
    assert again == weighted_vote(answers, correct, confidence, k)
    assert again != weighted_vote(answers, correct, confidence, k, seed=1)


def test_majority_says_when_it_is_sampled():
    n = 1_200
    answers = ["a"] * 700 + ["b"] * 500
    result = maj_at_k(answers, [1] * 700 + [0] * 500, [1, 101], n_draws=4_000)
    assert result.exact.tolist() == [True, False]
    # Hypergeometric majority of 101: the normal approximation is good to a percent.
    assert result.score[1] == pytest.approx(0.96, abs=0.02)
    assert not majority_is_feasible(n, np.array([700, 500]), 101)
    assert majority_is_feasible(64, np.array([20, 20, 12, 12]), 32)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 10), st.data())
def test_shares_add_up_to_the_chance_that_anyone_votes(sizes, n_invalid, data):
    n = sum(sizes) + n_invalid
    k = data.draw(st.integers(1, n))
    shares = expected_majority(sizes, n_invalid, k)
    nobody = 1 - pass_at_k(n - n_invalid, n, k)
    assert shares.sum() == pytest.approx(1 - nobody, abs=1e-10)


def test_subsets_are_all_or_uniform():
    everything = subsets(6, 3, n_draws=5, seed=0)
    assert everything.exact
    assert len({tuple(s) for s in everything.members}) == 20
    drawn = subsets(60, 20, n_draws=3_000, seed=0)
    assert not drawn.exact
    assert drawn.members.shape == (3_000, 20)
    assert all(len(set(s)) == 20 for s in drawn.members[:100])
    share = np.bincount(drawn.members.ravel(), minlength=60) / 3_000
    assert np.abs(share - 1 / 3).max() < 5 * np.sqrt(1 / 3 * 2 / 3 / 3_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [1]}, "same shape"),
        ({"correct": [1, 2]}, "only 0 and 1"),
        ({"k": 0}, "k must be"),
        ({"k": 1.5}, "k must be whole"),
        ({"n_draws": 0}, "n_draws must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {"answers": ["a", "b"], "correct": [1, 0], "k": 1, **change}
    with pytest.raises(ValueError, match=message):
        maj_at_k(**arguments)
    with pytest.raises(ValueError, match=message):
        weighted_vote(**arguments, confidence=[0.5, 0.6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": [0.5]}, "same shape"),
        ({"confidence": [0.5, float("nan")]}, "NaN"),
        ({"confidence": [0.5, float("inf")]}, "finite"),
        ({"confidence": [0.5, 1.5], "rule": "linear"}, r"probabilities in \[0, 1\]"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"tau": float("nan")}, "tau must be above 0"),
        ({"rule": "loudest"}, "rule must be one of"),
    ],
)
def test_bad_weights_are_one_clear_line(change, message):
    arguments = {"confidence": [0.5, 0.6], **change}
    with pytest.raises(ValueError, match=message):
        weighted_vote(["a", "b"], [1, 0], k=1, **arguments)


@pytest.mark.parametrize("rule", ["softmax", "linear", "best_of_n"])
@pytest.mark.parametrize("k", [1, 3, 5, 6])
def test_confidences_may_depend_on_the_subset(rule, k):
    answers, correct = ["4", "5", None, "4", "6", "5"], [1, 0, 0, 1, 0, 0]
    confidence = np.array([0.3, 0.6, 0.9, 0.3, 0.6, 0.2])
    expected = weighted_vote(answers, correct, confidence, k, rule=rule, tau=0.5)
    found = weighted_vote(answers, correct, lambda m: confidence[m], k, rule=rule, tau=0.5)
    assert found.score == pytest.approx(expected.score, abs=1e-12)
    # The first of a subset decides, whoever that is.
    first = weighted_vote(
        answers, correct, lambda m: (np.arange(k) == 0) * np.ones(m.shape), k, rule="best_of_n"
    )
    drawn = [[a for a in chosen if answers[a] is not None] for chosen in combinations(range(6), k)]
    scores = [
        0.0
        if not valid
        else correct[chosen[0]]
        if answers[chosen[0]] is not None
        else np.mean([correct[a] for a in valid])
        for chosen, valid in zip(combinations(range(6), k), drawn, strict=True)
    ]
    assert first.score == pytest.approx(np.mean(scores), abs=1e-12)

"""The metrics of each kind of task, from the logged details of a question."""

import math
from itertools import combinations

import numpy as np
import pytest

from lm_eval_ext import metrics
from lm_eval_ext.harness.attempt_settings import read_settings
from lm_eval_ext.scoring.metric_suites import suite


def question(*verdicts, **annotations):
    """Return details of attempts given as (answer, correct)."""
    return [
        {"attempt": i, "answer": answer, "correct": correct, **annotations}
        for i, (answer, correct) in enumerate(verdicts)
    ]


def values(attempts, name="passn", **metadata):
    settings = read_settings({"attempts": len(attempts), **metadata})
    return suite(name, settings).values(attempts)


def test_pass_at_k_counts_the_subsets_with_a_correct_attempt():
    verdicts = [("1", False), ("2", True), ("2", True), (None, False), ("3", False), ("4", False)]
    found = values(question(*verdicts), ks=[1, 2, 3, 4, 5, 6])
    for k in range(1, 7):
        subsets = list(combinations([correct for _, correct in verdicts], k))
        assert found[f"pass@{k}"] == pytest.approx(np.mean([any(s) for s in subsets]))


def test_invalid_answers_never_vote():
    found = values(question((None, False), (None, False), (None, False), ("2", True)))
    assert found["maj@4"] == 1.0
    assert found["invalid_rate"] == 0.75
    assert values(question((None, False), (None, False)))["maj@2"] == 0.0


def test_a_tie_shares_the_credit():
    assert values(question(("1", True), ("2", False)))["maj@2"] == 0.5


def test_more_k_than_attempts_is_nan_and_never_one():
    found = suite("passn", read_settings({"attempts": 4})).values(
        question(("1", True), ("1", True))
    )
    assert (found["pass@1"], found["pass@2"]) == (1.0, 1.0)
    assert math.isnan(found["pass@4"])
    assert math.isnan(found["maj@4"])


def test_rates_of_the_records_are_there_only_with_records():
    plain = question(("1", True), ("2", False))
    assert not {"truncated_rate", "mean_tokens"} & set(values(plain))
    plain[0].update(finish_reason="length", n_tokens=10)
    assert "truncated_rate" not in values(plain)
    plain[1].update(finish_reason="eos", n_tokens=5)
    assert values(plain)["truncated_rate"] == 0.5
    assert values(plain)["mean_tokens"] == 7.5


def test_pass_hat_k_counts_the_subsets_that_are_all_correct():
    verdicts = [("1", False), ("2", True), ("2", True), ("2", True)]
    found = values(question(*verdicts), ks=[1, 2, 3, 4])
    assert found["pass^2"] == pytest.approx(3 / 6)
    assert found["pass^4"] == 0.0
    assert "pass^1" not in found  # it is pass@1


def self_evaluated(*rows):
    """Return details of attempts given as (answer, correct, confidence)."""
    return [
        {"attempt": i, "answer": a, "correct": c, "probabilities": {"self_eval": p}, "n_tokens": i}
        for i, (a, c, p) in enumerate(rows)
    ]


ROWS = (("4", True, 0.9), ("5", False, 0.3), ("5", False, 0.2), (None, False, 0.95))


def test_votes_are_weighted_by_each_source_that_has_weights():
    attempts = self_evaluated(*ROWS)
    for attempt in attempts:
        attempt["uncertainties"] = {"draft_eu": 10.0 * attempt["attempt"]}
    found = values(attempts, tau=0.1, vote_ks=[3, 4])
    assert (found["maj@4"], found["cisc@4:self_eval"], found["linear@4:self_eval"]) == (0, 1, 1)
    assert found["best_of@4:self_eval"] == 1.0
    assert found["best_of@4:draft_eu"] == 1.0
    answers, correct, weight = zip(*ROWS, strict=True)
    expected = metrics.weighted_vote(answers, correct, weight, 3, tau=0.1).score
    assert found["cisc@3:self_eval"] == expected
    # An uncertainty has no scale on which it could weigh votes, a share of votes is no attempt's.
    assert not [n for n in found if n.startswith(("cisc", "linear")) and "self_eval" not in n]


def test_a_question_stays_in_the_vote_when_an_attempt_has_no_confidence():
    attempts = self_evaluated(("4", True, 0.9), ("5", False, 0.3))
    del attempts[0]["probabilities"]
    found = values(attempts)
    assert (found["maj@2"], found["linear@2:self_eval"], found["best_of@2:self_eval"]) == (
        0.5,
        0,
        0.5,
    )


def test_likelihood_weighs_votes_as_the_probability_per_token():
    attempts = question(("4", True), ("5", False), ("5", False))
    for attempt, mean_logprob in zip(attempts, (-0.01, -2.0, -2.5), strict=True):
        attempt.update(mean_logprob=mean_logprob, mean_entropy=1.0, mean_self_certainty=2.0)
    found = values(attempts, tau=0.1)
    expected = metrics.weighted_vote(
        ["4", "5", "5"], [1, 0, 0], np.exp([-0.01, -2.0, -2.5]), 3, tau=0.1
    )
    assert found["cisc@3:mean_logprob"] == expected.score == 1.0
    assert "cisc@3:mean_entropy" not in found
    assert "ece:mean_logprob" not in found


def test_calibration_is_measured_on_probabilities_and_ranking_on_every_source():
    attempts = self_evaluated(*ROWS)
    for attempt in attempts:
        attempt["uncertainties"] = {"draft_eu": 1.0}
    found = values(attempts)
    for name in ("ece", "debiased_ece", "brier", "nll"):
        assert found[f"{name}:self_eval"] == [(p, c) for _, c, p in ROWS]
        assert found[f"{name}:vote_share"] == [(0.5, False)]
        assert f"{name}:draft_eu" not in found
    for name in ("hallucination_auroc", "auprc", "aurc", "prr"):
        assert found[f"{name}:draft_eu"] == [(-1.0, c) for _, c, _ in ROWS]


def test_within_questions_only_sources_of_attempts_are_ranked():
    found = values(self_evaluated(*ROWS))
    name = "within_question_auroc"
    assert found[f"{name}:self_eval"] == [(p, c) for _, c, p in ROWS]
    assert f"{name}:vote_share" not in found
    assert f"{name}:self_eval" not in values(self_evaluated(ROWS[0]))
    assert f"{name}:self_eval" not in values(self_evaluated(ROWS[0]), "calib")


def test_one_answer_has_an_accuracy_and_no_votes():
    attempt = self_evaluated(("4", True, 0.75))
    found = values(attempt, "calib")
    assert found["accuracy"] == 1.0
    assert found["ece:self_eval"] == found["accuracy_at_50:self_eval"] == [(0.75, True)]
    assert found["partial_correlation:self_eval"] == [(0.75, True, 0)]
    assert not [name for name in found if name.startswith(("pass", "maj", "cisc"))]
    assert not [name for name in found if name.endswith("vote_share")]


def test_a_correlation_given_length_needs_lengths():
    attempt = [{"answer": "4", "correct": True, "probabilities": {"self_eval": 0.5}}]
    assert "partial_correlation:self_eval" not in values(attempt, "calib")


@pytest.mark.parametrize("name", ["passn", "calib"])
def test_every_value_is_aggregated_as_lm_eval_would(name):
    rng = np.random.default_rng(0)
    settings = read_settings({"attempts": 1 if name == "calib" else 4, "n_bins": 5})
    metric_suite = suite(name, settings)
    items = {}
    for _ in range(40):
        confidence = rng.random(settings.attempts)
        attempts = self_evaluated(
            *((str(rng.integers(3)), bool(rng.random() < p), float(p)) for p in confidence)
        )
        for attempt in attempts:
            attempt["n_tokens"] = int(rng.integers(5, 50))
        for value_name, value in metric_suite.values(attempts).items():
            items.setdefault(value_name, []).append(value)
    pairs = np.array([pair for item in items["ece:self_eval"] for pair in item])
    aggregate = metric_suite["ece:self_eval"].aggregation
    assert aggregate(items["ece:self_eval"]) == metrics.ece(*pairs.T, n_bins=5)
    assert aggregate(items["ece:self_eval"]) != metrics.ece(*pairs.T, n_bins=10)
    for value_name, values_of_questions in items.items():
        aggregation = metric_suite[value_name].aggregation
        if aggregation != "mean":
            assert math.isfinite(aggregation(values_of_questions)), value_name


def test_an_unknown_suite_names_the_known_ones():
    with pytest.raises(ValueError, match="metrics='pass' is unknown: use one of calib, "):
        suite("pass", read_settings({}))


def estimated(rng, n_tokens):
    reference = rng.exponential(size=n_tokens)
    scores = {
        "reference_eu": reference.tolist(),
        "eu": (0.5 * reference + 0.1 * rng.random(n_tokens)).tolist(),
        "reference_au": [0.0] * n_tokens,
        "target_entropy": rng.exponential(size=n_tokens).tolist(),
    }
    return [{"answer": "4", "correct": True, "token_scores": scores}]


def test_estimates_of_uncertainty_are_compared_over_all_tokens():
    rng = np.random.default_rng(0)
    metric_suite = suite("eu", read_settings({"attempts": 1}))
    questions = [estimated(rng, n) for n in rng.integers(3, 30, size=20)]
    rows = {}
    for question in questions:
        for name, value in metric_suite.values(question).items():
            rows.setdefault(name, []).append(value)

    estimates = {name.partition(":")[2] for name in rows if name.startswith("eu_rmse:")}
    assert estimates == {"draft_eu", "target_entropy", "zero", "mean"}

    def aggregated(name):
        return metric_suite[name].aggregation(rows[name])

    def tokens(name, chosen=questions):
        return np.concatenate([q[0]["token_scores"][name] for q in chosen])

    reference, estimate = tokens("reference_eu"), tokens("eu")
    assert aggregated("eu_rmse:draft_eu") == pytest.approx(metrics.rmse(estimate, reference))
    assert aggregated("eu_mae:draft_eu") == pytest.approx(metrics.mae(estimate, reference))
    assert aggregated("eu_spearman:draft_eu") == pytest.approx(
        metrics.spearman(estimate, reference)
    )
    assert aggregated("eu_rmse:zero") == pytest.approx(np.sqrt(np.mean(reference**2)))
    even, odd = questions[::2], questions[1::2]
    errors = []
    for here, there in ((even, odd), (odd, even)):
        mean = tokens("reference_eu", there).mean()
        errors.append(tokens("reference_eu", here) - mean)
    expected = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    assert aggregated("eu_rmse:mean") == pytest.approx(expected)
    # The drafts see the reference, at half its size: a line brings it back.
    assert aggregated("eu_affine_rmse:draft_eu") < 0.1 < aggregated("eu_rmse:draft_eu")
    assert metric_suite["eu_affine_rmse:draft_eu"].aggregation.interval(
        rows["eu_affine_rmse:draft_eu"]
    ).high < aggregated("eu_rmse:mean")


def test_without_a_reference_there_are_no_estimates_and_a_warning():
    metric_suite = suite("eu", read_settings({"attempts": 1}))
    with pytest.warns(metrics.UndefinedMetricWarning, match="reference=tokur"):
        found = metric_suite.values(question(("4", True)))
    assert set(found) == {"accuracy", "invalid_rate"}

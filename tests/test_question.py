"""Details and metrics of one question."""

import json
import math
import pickle
from itertools import combinations

import numpy as np
import pytest

from lm_eval_ext.generation import Generation, GenerationRecord, TokenStatistics
from lm_eval_ext.grading import Attempt
from lm_eval_ext.question import QuestionResult, attempt_details, question_metrics

STATISTICS = TokenStatistics(
    log_prob=np.array([-1.0, -2.0, -0.25], np.float32),
    entropy=np.array([0.5, 0.25, 0.75], np.float32),
    self_certainty=np.array([2.0, 3.0, 4.0], np.float32),
    margin=np.array([0.1, 0.2, 0.3], np.float32),
)


def question(*verdicts, **annotations):
    """Return details of attempts given as (answer, correct)."""
    return [
        {"attempt": i, "answer": answer, "correct": correct, **annotations}
        for i, (answer, correct) in enumerate(verdicts)
    ]


def values(attempts, n_attempts=None, ks=(1, 2)):
    metrics = question_metrics(n_attempts or len(attempts), ks)
    return {metric.name: metric.value(attempts) for metric in metrics}


def test_pass_at_k_counts_the_subsets_with_a_correct_attempt():
    verdicts = [("1", False), ("2", True), ("2", True), (None, False), ("3", False), ("4", False)]
    found = values(question(*verdicts), ks=range(1, 7))
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
    found = values(question(("1", True), ("1", True)), n_attempts=4, ks=(1, 2, 4))
    assert (found["pass@1"], found["pass@2"]) == (1.0, 1.0)
    assert math.isnan(found["pass@4"])
    assert math.isnan(found["maj@4"])


def test_rates_of_the_records_are_there_only_with_records():
    plain = question(("1", True), ("2", False))
    assert values(plain)["truncated_rate"] is None
    assert values(plain)["mean_tokens"] is None
    plain[0].update(finish_reason="length", n_tokens=10)
    assert values(plain)["truncated_rate"] is None
    plain[1].update(finish_reason="eos", n_tokens=5)
    assert values(plain)["truncated_rate"] == 0.5
    assert values(plain)["mean_tokens"] == 7.5


def test_details_of_a_plain_string_are_the_verdict():
    assert attempt_details(2, "text", Attempt("4", True)) == {
        "attempt": 2,
        "answer": "4",
        "correct": True,
    }
    assert attempt_details(2, "text", None) == {"attempt": 2}
    # A record without tokens is the default one, not a measurement.
    assert attempt_details(2, Generation("text"), None) == {"attempt": 2}


def test_details_of_a_generation_hold_its_record():
    record = GenerationRecord(
        attempt=5,
        token_ids=(7, 8, 9),
        finish_reason="length",
        statistics=STATISTICS,
        extra={"draft_eu": 0.5},
    )
    details = attempt_details(0, Generation("text", record), Attempt(None, False))
    assert details == {
        "attempt": 5,
        "answer": None,
        "correct": False,
        "finish_reason": "length",
        "n_tokens": 3,
        "mean_logprob": pytest.approx(-3.25 / 3, abs=1e-12),
        "mean_entropy": 0.5,
        "mean_self_certainty": 3.0,
        "mean_margin": pytest.approx(0.2, abs=1e-7),
        "extra": {"draft_eu": 0.5},
    }
    assert json.loads(json.dumps(details)) == details


def test_the_details_of_a_result_are_logged_and_are_no_metrics():
    result = QuestionResult({"pass@1": 1.0}, attempts=[1, 2])
    sample = {}
    sample.update(result)
    assert sample == {"pass@1": 1.0, "attempts": [1, 2]}
    assert dict(result.items()) == {"pass@1": 1.0}
    assert list(result) == list(result.keys()) == ["pass@1", "attempts"]
    copy = pickle.loads(pickle.dumps(result))
    assert dict(copy.items()) == {"pass@1": 1.0}
    assert copy["attempts"] == [1, 2]

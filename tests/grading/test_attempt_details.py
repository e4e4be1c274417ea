"""What is logged of an attempt."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lm_eval_ext.grading import Attempt
from lm_eval_ext.grading.attempt_details import attempt_details
from lm_eval_ext.models.generation import (
    AnswerTokens,
    Generation,
    GenerationRecord,
    TokenStatistics,
)

STATISTICS = TokenStatistics(
    log_prob=np.array([-1.0, -2.0, -0.25], np.float32),
    entropy=np.array([0.5, 0.25, 0.75], np.float32),
    self_certainty=np.array([2.0, 3.0, 4.0], np.float32),
    margin=np.array([0.1, 0.2, 0.3], np.float32),
)


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
        probabilities={"self_eval": np.float32(0.5)},
        uncertainties={"draft_eu": 1.5},
        token_scores={"eu": np.float32([0.1, 0.2, 1.2])},
        extra={"n_drafts": 4},
    )
    details = attempt_details(0, Generation("text", record), Attempt(None, False, "timeout"))
    assert details == {
        "attempt": 5,
        "answer": None,
        "correct": False,
        "reason": "timeout",
        "finish_reason": "length",
        "n_tokens": 3,
        "token_ids": [7, 8, 9],
        "mean_logprob": pytest.approx(-3.25 / 3, abs=1e-12),
        "mean_entropy": 0.5,
        "mean_self_certainty": 3.0,
        "mean_margin": pytest.approx(0.2, abs=1e-7),
        "lowest_window_logprob": pytest.approx(-3.25 / 3, abs=1e-12),
        "tail_logprob": pytest.approx(-3.25 / 3, abs=1e-12),
        "probabilities": {"self_eval": 0.5},
        "uncertainties": {"draft_eu": 1.5},
        "token_scores": {"eu": [0.1, 0.2, 1.2]},
        "extra": {"n_drafts": 4},
    }
    assert json.loads(json.dumps(details)) == details


@pytest.mark.parametrize(
    ("text", "in_box", "answer", "expected"),
    [
        ("1,234", False, "1234", -1.125),
        ("18.00", False, "18", -1.125),
        ("-3", False, "-3", -1.125),
        ("7", False, "1/7", None),  # the number is not the answer
        ("7", False, "def f(x):\n    return 7", None),
        (r"\frac{1}{2}", True, "1/2", -1.125),
        (r"\frac{1}{2}", True, None, None),  # invalid
    ],
)
def test_the_log_probability_of_the_answer_is_that_of_what_was_graded(
    text, in_box, answer, expected
):
    found = AnswerTokens(text, 1, 3, in_box)
    record = GenerationRecord(token_ids=(7, 8, 9), statistics=STATISTICS, answer=found)
    details = attempt_details(0, Generation("text", record), Attempt(answer, True))
    assert details.get("answer_logprob") == expected
    unknown = replace(record, statistics=None)
    assert "answer_logprob" not in attempt_details(
        0, Generation("text", unknown), Attempt(answer, True)
    )


def test_logged_token_scores_give_the_float32_values_back():
    scores = np.random.default_rng(0).exponential(size=50).astype(np.float32)
    record = GenerationRecord(token_ids=tuple(range(50)), token_scores={"eu": scores})
    logged = json.loads(json.dumps(attempt_details(0, Generation("text", record), None)))
    assert np.array_equal(np.float32(logged["token_scores"]["eu"]), scores)

"""What the page shows of a question, for our tasks and for plain ones."""

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.page.questions import (
    attempts_of,
    confidences_by_attempt,
    excerpt_of,
    index_row,
    plain_details,
    prompt_of,
)
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring.confidence_sources import confidence_sources

LIMITS = PageLimits()


def attempts(*verdicts, probabilities=None):
    made = [
        {"attempt": i, "answer": None if v is None else str(v), "correct": v == 4}
        for i, v in enumerate(verdicts)
    ]
    for attempt, p in zip(made, probabilities or [], strict=False):
        attempt["probabilities"] = {"p": p}
    return made


def test_index_of_a_question():
    details = attempts(4, 5, 5, None, probabilities=[0.2, 0.9, 0.4, 0.1])
    row = index_row(details, confidence_sources(details))
    assert row["attempts"] == 4
    assert row["correct"] == 1
    assert row["invalid"] == 1
    assert (row["answer"], row["votes"], row["majority"]) == ("5", 2, False)
    assert row["wrong"] == {"vote_share": 0.5, "answer_entropy": -1.03972, "p": 0.9}


def test_without_valid_answers_the_majority_is_wrong():
    row = index_row(attempts(None, None), {})
    assert (row["answer"], row["majority"]) == (None, False)


def test_an_attempt_without_confidence_keeps_its_place():
    details = attempts(4, 4, 5, probabilities=[0.5, float("nan"), 0.25])
    with pytest.warns(UndefinedMetricWarning):
        found = confidences_by_attempt(details, confidence_sources(details))
    assert found == {"p": [0.5, None, 0.25]}


def test_limits_cut_texts_and_attempts():
    sample = {
        "attempts": attempts(4, 4, 4),
        "resps": [["x" * 500, "y", "z"]],
        "arguments": {"gen_args_0": {"arg_0": "p" * 500}},
    }
    limits = PageLimits(attempts=2, characters=100)
    shown = attempts_of(sample, {}, limits)
    assert "[... 400 characters left out ...]" in shown[0]["text"]
    assert shown[1]["text"] == "y"
    assert "text" not in shown[2]
    assert "400 characters" in prompt_of(sample, limits)["prompt"]


@pytest.mark.parametrize(
    ("field", "value"), [("characters", 10), ("questions", -1), ("token_score_attempts", -2)]
)
def test_impossible_limits_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field}={value}"):
        PageLimits(**{field: value})


def test_token_scores_of_the_first_attempts():
    details = attempts(4, 4)
    for attempt in details:
        attempt["token_scores"] = {"eu": [0.12345, 0.5]}
        attempt["extra"] = {"token_texts": ["a", "b"]}
    sample = {"attempts": details, "resps": [["ab", "ab"]]}
    shown = attempts_of(sample, {}, PageLimits(token_score_attempts=1))
    assert shown[0]["tokens"] == {"texts": ["a", "b"], "scores": {"eu": [0.123, 0.5]}}
    assert "tokens" not in shown[1]


def test_a_plain_generation_task():
    sample = {
        "resps": [["The answer is 4"]],
        "filtered_resps": ["4"],
        "exact_match": 1.0,
        "arguments": {"gen_args_0": {"arg_0": "2+2?"}},
        "target": "4",
        "doc": {"problem": "2+2\n?"},
    }
    details = plain_details(sample)
    assert details == [{"attempt": 0, "correct": True, "answer": "4"}]
    assert attempts_of(sample, {}, LIMITS)[0]["text"] == "The answer is 4"
    assert excerpt_of(sample) == "2+2 ?"


def test_a_multiple_choice_task_shows_its_choices():
    sample = {
        "resps": [[[-1.5, True]], [[-2.5, False]]],
        "filtered_resps": [[-1.5, True], [-2.5, False]],
        "acc": 1.0,
        "arguments": {
            "gen_args_0": {"arg_0": "Q", "arg_1": " yes"},
            "gen_args_1": {"arg_0": "Q", "arg_1": " no"},
        },
        "target": 0,
    }
    shown = attempts_of(sample, {}, LIMITS)
    assert [attempt["text"].split("\n")[0] for attempt in shown] == [" yes", " no"]
    assert "-1.5" in shown[0]["text"]
    assert index_row(plain_details(sample), {})["correct"] is None
    assert prompt_of(sample, LIMITS) == {"prompt": "Q", "target": "0"}

"""The metrics of a kind of task, and what one question gives them."""

import json
import math
import pickle

import pytest

from lm_eval_ext.scoring.question import MetricSuite, QuestionMetric, QuestionResult, SourceMetric

QUESTION = [
    {"answer": "4", "correct": True, "probabilities": {"self_eval": 0.9}},
    {"answer": "5", "correct": False, "probabilities": {"self_eval": 0.2}},
]


@pytest.fixture
def suite():
    return MetricSuite(
        [
            QuestionMetric("best", lambda question: max(a["correct"] for a in question), True),
            QuestionMetric("never", lambda question: None, None),
        ],
        [SourceMetric("top", lambda question, source: max(source.confidence), False)],
    )


def test_a_source_metric_is_reported_once_per_source(suite):
    assert suite.values(QUESTION) == {
        **{"best": True, "top:vote_share": 0.5, "top:self_eval": 0.9},
        "top:answer_entropy": pytest.approx(-math.log(2)),
    }


def test_a_metric_without_a_value_has_no_row(suite):
    assert "never" not in suite.values(QUESTION)


def test_a_name_leads_to_its_metric_whatever_the_source(suite):
    assert suite["best"].higher_is_better is True
    assert suite["top:anything"].higher_is_better is False
    for name in ("top", "other", "other:self_eval", "best:self_eval"):
        with pytest.raises(KeyError):
            suite[name]


def test_what_is_logged_and_what_is_aggregated():
    result = QuestionResult({"pass@1": 1.0, "ece:x": [(0.5, 1)]}, attempts=[1, 2])
    sample = {}
    sample.update(result)
    assert sample == {"pass@1": 1.0, "attempts": [1, 2]}
    assert dict(result.items()) == {"pass@1": 1.0, "ece:x": [(0.5, 1)]}
    assert list(result) == list(result.keys()) == ["pass@1", "attempts"]
    copy = pickle.loads(pickle.dumps(result))
    assert dict(copy.items()) == dict(result.items())
    assert copy["attempts"] == [1, 2]
    assert json.loads(json.dumps(sample)) == sample

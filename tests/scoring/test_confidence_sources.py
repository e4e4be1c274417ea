"""Confidences by source, from the logged details of a question."""

import math

import pytest

from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring.confidence_sources import confidence_sources


def attempts(*verdicts, **annotations):
    return [{"answer": a, "correct": c, **annotations} for a, c in verdicts]


def test_plain_strings_have_what_their_answers_say_only():
    sources = confidence_sources(attempts(("4", True), ("5", False), ("4", True), (None, False)))
    assert list(sources) == ["vote_share", "answer_entropy"]
    entropy = sources["answer_entropy"]
    assert entropy.confidence == [pytest.approx(-1.5 * math.log(2))]  # shares 1/2, 1/4, 1/4
    assert (entropy.correct, entropy.is_probability, entropy.votes) == ([True], False, None)
    source = sources["vote_share"]
    assert (source.confidence, source.correct, source.is_probability) == ([0.5], [True], True)
    assert math.isnan(source.n_tokens[0])
    assert source.vote_weight is None


def test_of_equal_shares_the_first_answer_counts():
    source = confidence_sources(attempts((None, False), ("5", False), ("4", True)))["vote_share"]
    assert (source.confidence, source.correct) == ([1 / 3], [False])


def test_without_an_answer_there_is_no_share():
    sources = confidence_sources(attempts((None, False), (None, False)))
    for source in sources.values():
        assert (source.confidence, source.correct, source.n_tokens) == ([], [], [])
    assert sources["vote_share"].is_probability


def test_a_single_attempt_has_no_share():
    assert confidence_sources(attempts(("4", True))) == {}


def test_statistics_are_oriented_so_that_higher_is_surer():
    question = attempts(
        ("4", True), mean_logprob=-0.5, mean_entropy=0.25, mean_self_certainty=3.0, n_tokens=7
    )
    sources = confidence_sources(question)
    assert {name: source.confidence for name, source in sources.items()} == {
        "mean_logprob": [-0.5],
        "mean_entropy": [-0.25],
        "self_certainty": [3.0],
    }
    assert all(source.n_tokens == [7] for source in sources.values())
    assert not any(source.is_probability for source in sources.values())
    assert sources["mean_logprob"].vote_weight == [pytest.approx(math.exp(-0.5))]


def test_a_source_that_no_attempt_has_is_absent():
    question = attempts(("4", True), ("5", False), mean_logprob=-0.5, tail_logprob=-0.25)
    question[0]["answer_logprob"] = -0.125
    sources = confidence_sources(question)
    ours = [name for name in sources if name not in ("vote_share", "answer_entropy")]
    assert ours == ["mean_logprob", "tail_logprob", "answer_logprob"]
    assert sources["tail_logprob"].confidence == [-0.25, -0.25]
    assert sources["answer_logprob"].confidence == [-0.125]
    assert sources["answer_logprob"].vote_weight is None


def test_what_wrappers_add_keeps_its_kind():
    question = attempts(
        ("4", True), ("5", False), probabilities={"self_eval": 0.75}, uncertainties={"eu": 2.0}
    )
    sources = confidence_sources(question)
    assert sources["self_eval"].is_probability
    assert sources["self_eval"].vote_weight == sources["self_eval"].confidence == [0.75, 0.75]
    assert not sources["eu"].is_probability
    assert (sources["eu"].confidence, sources["eu"].vote_weight) == ([-2.0, -2.0], None)


def test_an_attempt_without_the_annotation_has_no_row_and_no_weight():
    question = attempts(("4", True), ("5", False), ("6", False))
    question[0]["probabilities"] = {"self_eval": 0.75}
    question[2]["probabilities"] = {"self_eval": 0.5}
    source = confidence_sources(question)["self_eval"]
    assert (source.confidence, source.correct) == ([0.75, 0.5], [True, False])
    assert (source.vote_weight, source.votes) == ([0.75, 0.0, 0.5], [0.75, 0.5, 0.5])


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_is_no_confidence(value):
    question = attempts(("4", True), ("5", False), mean_entropy=1.0, mean_self_certainty=2.0)
    question[0]["mean_logprob"], question[1]["mean_logprob"] = -0.5, value
    with pytest.warns(UndefinedMetricWarning, match="not finite"):
        sources = confidence_sources(question)
    assert sources["mean_logprob"].confidence == [-0.5]
    assert sources["mean_logprob"].vote_weight == [pytest.approx(math.exp(-0.5)), 0.0]


def test_perplexity_which_ranks_as_the_log_probability_is_no_source_of_its_own():
    question = attempts(("4", True), mean_logprob=-800.0, mean_entropy=1.0, mean_self_certainty=2.0)
    assert list(confidence_sources(question)) == ["mean_logprob", "mean_entropy", "self_certainty"]

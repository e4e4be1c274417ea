"""What a run says at its end."""

import logging

import pytest

from lm_eval_ext.grading.run_report import RunReport


@pytest.fixture
def said(caplog):
    """Return a function that reports on attempts and returns what was said."""

    def report(*attempts):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            counts = RunReport("sums")
            counts.add([dict(one) for one in attempts])
            counts.write()
        return [record.getMessage() for record in caplog.records]

    return report


GOOD = {"answer": "4", "finish_reason": "eos"}


def test_a_run_with_few_of_them_says_nothing(said):
    bad = {"answer": None, "finish_reason": "length", "unfinished_thought": True}
    assert said(*[GOOD] * 19, bad) == []
    assert said(*[{"answer": "4"}] * 3) == []
    assert said() == []


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ({"answer": "4", "finish_reason": "length"}, ["10.0% ended at", "max_gen_toks"]),
        ({"answer": None, "finish_reason": "eos"}, ["10.0% have no answer", "--log_samples"]),
        ({"answer": None}, ["10.0% have no answer", "--apply_chat_template"]),
        (
            {"answer": None, "finish_reason": "length"},
            ["10.0% ended at", "10.0% have no answer", "max_gen_toks"],
        ),
        (
            {"answer": None, "finish_reason": "length", "unfinished_thought": True},
            ["2 ended inside their thought", "thinking_budget"],
        ),
    ],
)
def test_one_line_names_the_shares_and_the_remedy(said, bad, parts):
    (line,) = said(*[GOOD] * 18, bad, bad)
    assert line.startswith("sums: of 20 attempts ")
    assert [part for part in parts if part not in line] == []
    assert "\n" not in line


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([["", " "], ["", ""]], "of 4 attempts 100.0% are empty and "),
        ([["4", "4"], ["4", "4"]], "of 4 attempts 100.0% are one and the same text"),
        ([["4", "4"]], None),  # of one question: equal attempts have a line of their own
        ([["4", "5"], ["4", ""]], None),
    ],
)
def test_nearly_all_empty_or_alike(caplog, texts, told):
    counts = RunReport("sums")
    for of_question in texts:
        attempts = [{"answer": text.strip() or None} for text in of_question]
        counts.add(attempts if told else [GOOD] * len(attempts), of_question)
    counts.write()
    messages = [record.getMessage() for record in caplog.records]
    assert [told in message for message in messages] == ([True] if told else [])
    counts.write()
    assert len(caplog.records) == len(messages)  # it has begun again

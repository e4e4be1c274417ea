"""Percentages that are integers or not."""

import pytest

from lm_eval_ext.grading import grade

EQUAL = [
    ("17.5", r"17.5\%"),
    (r"17.5\%", "17.5"),
    ("0.175", r"17.5\%"),
    (r"66\frac23", r"66\frac23\%"),
    (r"\frac{200}{3}", r"66\frac23\%"),
    (r"66\frac23\%", r"66\frac23"),
    (r"\frac23", r"66\frac23\%"),
    ("37.5", r"37.5\text{ percent}"),
    ("0.005", r"0.5\%"),
    ("1.98", r"198\%"),
    ("1", r"1\%"),
    ("1.5", r"1.5\%"),
    ("12.5", "12.5 percent"),
    (r"33\frac13", r"33.\overline{3}\%"),
]

UNEQUAL = [
    ("50", r"5000\%"),
    ("0.5", r"0.5\%"),
    (r"0.5\%", "0.5"),
    ("1.75", r"17.5\%"),
    ("17.5", r"17.6\%"),
    ("0.75", r"0.75\%"),
    ("2.5", r"250.5\%"),
    ("0.25", r"0.25\%"),
    ("3.5", r"35\%"),
]


def verdict(gold, answer):
    attempt = grade("math", rf"So it is $\boxed{{{answer}}}$.", {"answer": gold})
    assert attempt.reason is None
    return attempt.correct


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_right(gold, answer):
    assert verdict(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal_answers_are_wrong(gold, answer):
    assert not verdict(gold, answer)

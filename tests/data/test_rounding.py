"""Rounded decimals against references that no decimal ends."""

from fractions import Fraction

import pytest

from lm_eval_ext.data.rounding import WrittenDecimal, exact_gold, is_rounded, terminates
from lm_eval_ext.grading import grade
from lm_eval_ext.grading.rational import parse_exact


def test_a_decimal_knows_its_places_and_is_a_number_like_others():
    number = parse_exact("-1,234.50")
    assert isinstance(number, WrittenDecimal)
    assert (number, number.places, str(number)) == (Fraction(-2469, 2), 2, "-2469/2")
    assert hash(number) == hash(Fraction(-2469, 2))
    for text in ("1234", "-2/3", "1 2/3"):
        assert not isinstance(parse_exact(text), WrittenDecimal)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        ("5", True),
        ("-3/8", True),
        ("7/1000", True),
        ("1/3", False),
        ("-5/12", False),
        ("7/15", False),
    ],
)
def test_whether_a_decimal_ends(fraction, expected):
    assert terminates(Fraction(fraction)) is expected


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("2/3", ["0.67", "0.667", "0.6666666667", ".67", "2/3", "4/6"], ["0.66", "0.7", "0.666"]),
        ("1/3", ["0.33", "0.3333", "$0.33"], ["0.3", "0.34", "0.333333334", "33/100"]),
        ("10/3", ["3.33", "3.33333", "3 1/3", "+3.33"], ["3.3", "3", "3.34", "3.00"]),
        ("-2/3", ["-0.67", "-0.667"], ["0.67", "-0.66"]),
        ("8/9", ["0.89", "0.889"], ["0.88", "0.9", "1"]),
        ("1399/700", ["2.00", "1.9986"], ["2.0", "2", "1.99"]),
        ("151/300", ["0.50", "0.503"], ["0.5", "1/2"]),
        # a decimal ends these, and has to be given
        ("3/8", ["0.375", "0.3750", "3/8"], ["0.38", "0.37", "0.4"]),
        ("23.86", ["23.86", "23.860"], ["23.9", "23.87", "24", "23.859"]),
        ("0.0625", ["0.0625"], ["0.06", "0.063"]),
        ("14", ["14", "14.00"], ["14.001", "13.999"]),
    ],
)
def test_an_answer_may_be_rounded_where_the_reference_never_ends(gold, right, wrong):
    doc = {"answer": f"#### {gold}"}
    for text in right:
        attempt = grade("gsm8k", f"#### {text}", doc)
        assert attempt.correct, text
        assert attempt.answer == str(Fraction(gold)), "right answers vote together"
    for text in wrong:
        attempt = grade("gsm8k", f"#### {text}", doc)
        assert attempt.answer is not None, text
        assert not attempt.correct, text


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ("0.6666666667", "2/3"),
        ("0.3333333333", "1/3"),
        ("10.3333333333", "31/3"),
        ("0.9166666667", "11/12"),
        ("0.8888888889", "8/9"),
        ("3.33333", "10/3"),
        ("-1.66667", "-5/3"),
        ("0.142857", "1/7"),
        # no such fraction, or too few decimals to tell one
        ("0.67", "67/100"),
        ("0.3333", "3333/10000"),
        ("0.875", "7/8"),
        ("0.66666", "33333/50000"),
        ("1.23457", "123457/100000"),
        ("3.14159265", "62831853/20000000"),
        ("0.12500", "1/8"),
        ("7", "7"),
    ],
)
def test_a_rounded_reference_is_its_fraction(published, expected):
    assert exact_gold(parse_exact(published)) == Fraction(expected)


def test_a_reference_may_be_a_number_as_published():
    assert grade("gsm8k", "The answer is 2/3.", {"answer": 0.6666666667}).correct
    assert not grade("gsm8k", "The answer is 5/3.", {"answer": 0.6666666667}).correct


def test_only_a_written_decimal_is_rounded():
    assert is_rounded(WrittenDecimal("0.67"), Fraction(2, 3))
    assert not is_rounded(Fraction("0.67"), Fraction(2, 3))

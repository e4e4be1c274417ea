import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.grading.math_text import MAX_ANSWER, decide, refusal, tidy

fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=50)


def spellings(value: Fraction) -> list[str]:
    """Return ways to write a fraction exactly."""
    over, under = value.numerator, value.denominator
    ways = [
        f"{over}/{under}",
        rf"\frac{{{over}}}{{{under}}}",
        rf"\dfrac{{{3 * over}}}{{{3 * under}}}",
    ]
    if under == 1:
        ways += [str(over), f"${over}$", f"{over}.0"]
    return ways


@given(fractions, fractions, st.data())
def test_plain_numbers_are_compared_by_value(first, second, data):
    one, other = (tidy(data.draw(st.sampled_from(spellings(value)))) for value in (first, second))
    assert decide(one, other) in ({True} if first == second else {False, None})
    if not re.search(r"\.", one + other):
        assert decide(one, other) is (first == second)


@given(st.text(alphabet="0123456789abxy(){}[],.;^_+-*/= \\&$", max_size=30))
def test_tidying_twice_changes_nothing_and_text_equals_itself(text):
    once = tidy(text)
    assert decide(once, tidy(text)) is True
    assert len(once) <= 4 * len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\begin{pmatrix} 1 \\ 234 \end{pmatrix}", r"\begin{pmatrix}1\\234\end{pmatrix}"),
        (r"45^\circ, 135^\circ", r"45^\circ, 135^\circ"),
        ("1, 234", "1, 234"),
        (r"(12,\,102)", "(12, 102)"),
        (r"12,\!102 + 1\,000\,000 + 2{,}000", "12102+1000000+2000"),
        ("12 3", "12 3"),
        (".5", ".5"),
        (r"\frac\pi4", r"\frac{\pi}{4}"),
        (r"\sqrt2+\sqrt{2}", r"\sqrt{2}+\sqrt{2}"),
        (r"x\in\mathbb R", r"x\in\mathbb{R}"),
        (r"5 \text { percent}", r"5\%"),
        (r"(1,\; x)", "(1,x)"),
        ("1, 2, ...", r"1, 2,\ldots"),
        (r"5\text{ million}", "5000000"),
        (r"\$1.5 \text{ million dollars}", r"1500000\text{dollars}"),
        ("1,200 thousand", "1200000"),
        ("1,2 thousand", "1,2 thousand"),
        (r"x\text{ million}", r"x\text{million}"),
        (r"5\text{ hundred thousand}", r"5\text{hundred thousand}"),
        (r"\sin 30^\circ", r"\sin\frac{30\pi}{180}"),
        (r"\angle A = 30^\circ", r"\angle A=30"),
        (r"\binom52", r"\binom{5}{2}"),
    ],
)
def test_what_tidying_keeps_apart(text, expected):
    assert tidy(text) == expected


@given(st.integers(0, 999), st.integers(0, 999), st.integers(1, 999))
def test_a_repeating_decimal_is_a_fraction(whole, start, cycle):
    digits = f"{start:03d}"
    value = whole + Fraction(start, 1000) + Fraction(cycle, 1000 * (10 ** len(str(cycle)) - 1))
    decimal = rf"{whole}.{digits}\overline{{{cycle}}}"
    assert decide(rf"\frac{{{value.numerator}}}{{{value.denominator}}}", decimal) is True
    assert decide(rf"\frac{{{value.numerator + 1}}}{{{value.denominator}}}", decimal) is False


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_an_equation_between_numbers_has_to_hold(left, right):
    assert decide(str(right), f"{left}={right}") is (None if left == right else False)


@given(st.integers(0, 10**6), st.integers(2, 36))
def test_a_numeral_in_another_base_is_no_plain_number(number, base):
    assert decide(str(number), f"{number}_{{{base}}}") is (base == 10)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1" * (MAX_ANSWER + 1), "too long"),
        ("1" * 301, "too long"),
        ("(" * 30 + ")" * 30, "too deep"),
        ("9^{9^{9^9}}", "too deep"),
        ("9^9^9^9", "too deep"),
        ("9**9**9**9", "too deep"),
        ("5!!!", "too deep"),
        ("5 ! ! !", "too deep"),
        ("&" * 101, "too many entries"),
        ("9^{9^{9}}", None),
        ("5!!", None),
        (r"x^2+y^2+z^2+w^2+v^2", None),
        (r"\left(x^{2}\right)^{2}", None),
        ("1" * 300, None),
    ],
)
def test_what_is_refused(text, reason):
    assert refusal(text) == reason

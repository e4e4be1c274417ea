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
    ],
)
def test_what_tidying_keeps_apart(text, expected):
    assert tidy(text) == expected


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

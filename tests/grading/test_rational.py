"""Numbers as people and models write them: read exactly or not at all."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.grading.rational import MAX_DIGITS, parse_exact, parse_leading

WRITTEN = {
    "18": 18,
    "18.0": 18,
    "1,234": 1234,
    "1,00,000": 100000,
    "12,345,678.50": Fraction(24691357, 2),
    "$1,234": 1234,
    "-$5": -5,
    "$-5": -5,
    "\u22125": -5,
    "+5": 5,
    ".5": Fraction(1, 2),
    "50%": 50,
    "3/4": Fraction(3, 4),
    "6/8": Fraction(3, 4),
    "1 1/2": Fraction(3, 2),
    "-1 1/2": Fraction(-3, 2),
    r"\frac{3}{4}": Fraction(3, 4),
    r"-\dfrac{3}{4}": Fraction(-3, 4),
    r"1\frac{1}{2}": Fraction(3, 2),
    r"\$18": 18,
    r"1{,}234": 1234,
    r"1,\!234": 1234,
    r"1\,234": 1234,
    "1\u202f234": 1234,
    r"18\text{ dollars}": 18,
    r"\text{18 eggs}": 18,
    r"\textbf{\text{18}}": 18,
    r"18\ dollars": 18,
    r"18\%": 18,
    r"45^\circ": 45,
    "18 dollars": 18,
    "18 dollars.": 18,
    "60 miles/hour": 60,
    "5kg": 5,
    "(18)": 18,
    "**18**": 18,
    "x = 18": 18,
    "5*3 = 15": 15,
    "007": 7,
    "36/2 = 18": 18,
    "18.0 = 18": 18,
    "1/3 = 0.33": Fraction(33, 100),
    "17.6 ≈ 18": 18,
    "0.5 = 50%": 50,
    "60 minutes = 1 hour": 1,
    "18% of the cake": 18,
    "18 more eggs": 18,
}
NOT_ONE_NUMBER = [
    "",
    "eighteen",
    "1 234",
    "1,23",
    "12,50",
    "1.234.567",
    "5 or 6",
    "5, 6",
    "5-6",
    "5\u20136",
    "5 to 6",
    "5 million",
    "5k",
    "5M",
    "8:30",
    "3x",
    "2e9",
    "2^5",
    "2**5",
    "5$3",
    "5!",
    "9 * 2",
    r"9 \times 2",
    "9 - 2",
    "3/0",
    r"2\sqrt{3}",
    r"2\pi",
    r"\pi",
    "5\u00b2",
    "\u0661\u0668",
    "10 hours and 30 minutes",
    "18 and a half",
    "18 cups and one-half",
    "18 dozen",
    "18 thousandths",
    "18 squared",
    "18 or more",
    "18 eggs or fewer",
    "18% of 50",
    "18 percent of 50",
    "18 less than 30",
    "18 years older than 30",
    "18; no, 19",
    "18 (no, it is 19)",
    "36 = 18",
    "36 = x = 18",
    "17.6 = 18",
    "9" * 5000 + " = 18",
    "- 5",
    "--5",
    "9" * (MAX_DIGITS + 1),
]


@pytest.mark.parametrize(("text", "value"), WRITTEN.items())
def test_a_number_alone_is_read(text, value):
    assert parse_exact(text) == value


@pytest.mark.parametrize("text", NOT_ONE_NUMBER)
def test_text_that_is_not_one_number_is_refused(text):
    assert parse_exact(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 18.", 18),
        (": $18.", 18),
        (":\n\n$$18$$", 18),
        (" 18 eggs, since 16 - 3 = 13 and 5 more are laid.", 18),
        (" 18 (not 20).", 18),
        (" 18!", 18),
        (" about 18.5 km.", Fraction(37, 2)),
        (" 3/4 of the cake.", Fraction(3, 4)),
        (" 9 * 2 = $18.", 18),
        (r" \$9 \times 2 = \$18.", 18),
        (" 18\n19", 18),
        (" 18-year-old", 18),
        (" 18 because that is more than 10.", 18),
        (" 18, which is more than 10.", 18),
        (" 18, no doubt.", 18),
        (" 36 = 18.", None),
        (" 36 = 18. That is 50% of it, or 0.5.", None),
        (" 0.5 = 50%.", 50),
        (" 36/2 = 18.", 18),
        (" 18 more than 30.", None),
        (" 18 and a half.", None),
        (" 18, sorry, 19.", None),
        (" not 5.", None),
        (" that she has 5.", None),
        (" 9 * 2.", None),
        (" $5 * 3 hours = $15.", None),
        (" 5 or 6 eggs.", None),
        (" 5 apples and 6 pears.", None),
        (" between 5 and 6.", None),
        (" 0.5 (50%).", None),
        (" 1 234.", None),
        (" 5 million.", None),
        (" 8:30 pm.", None),
    ],
)
def test_the_number_a_sentence_begins_with(text, value):
    assert parse_leading(text) == value


@given(st.integers(-(10**12), 10**12))
def test_every_way_to_write_an_integer_gives_it(number):
    for written in (f"{number}", f"{number:,}", f"${number:,}", f"{number}.00", f"{number} eggs"):
        assert parse_exact(written) == number
        assert parse_leading(f" {written}.") == number
        assert parse_leading(f" {written} because 2 + 2 = 4.") == number


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_fractions_are_exact(over, under):
    assert parse_exact(f"{over}/{under}") == Fraction(over, under)


@given(st.decimals(-(10**9), 10**9, places=6))
def test_decimals_are_exact(number):
    assert parse_exact(f"{number:f}") == Fraction(number)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from("+-*/:^"))
def test_what_would_have_to_be_evaluated_is_refused(left, right, operator):
    text = f"{left} {operator} {right}"
    if operator != "/":
        assert parse_exact(text) is None
        assert parse_leading(f" {text}.") is None


@given(st.text(max_size=60))
def test_arbitrary_text_never_raises(text):
    for parse in (parse_exact, parse_leading):
        value = parse(text)
        assert value is None or isinstance(value, Fraction)

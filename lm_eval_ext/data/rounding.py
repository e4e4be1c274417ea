"""Rounded decimals: when one stands for a fraction such as 2/3, which no decimal ends.

A reference answer published as 0.6666666667 is the fraction, and an answer of 0.67 is right against
it. Where a decimal can give the reference exactly, it has to.
"""

from __future__ import annotations

from fractions import Fraction

MIN_PLACES = 2  # decimals to which an answer may be rounded at least
_MIN_GOLD_PLACES = 5
_MAX_DENOMINATOR = 100


class WrittenDecimal(Fraction):
    """A number that was written as a decimal, with the number of its decimals.

    Examples
    --------
    >>> number = WrittenDecimal("0.50")
    >>> number == Fraction(1, 2), number.places
    (True, 2)
    """

    places: int

    def __new__(cls, text: str) -> WrittenDecimal:  # noqa: D102
        number = super().__new__(cls, text)
        number.places = len(text.partition(".")[2])
        return number


def terminates(number: Fraction) -> bool:
    """Tell whether a decimal can give the number exactly.

    Examples
    --------
    >>> terminates(Fraction(7, 40)), terminates(Fraction(7, 30))
    (True, False)
    """
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def is_rounded(answer: Fraction, gold: Fraction) -> bool:
    """Tell whether an answer is the reference, rounded to the decimals it has, two or more.

    Examples
    --------
    >>> [is_rounded(WrittenDecimal(text), Fraction(2, 3)) for text in ("0.67", "0.66", "0.7")]
    [True, False, False]
    >>> is_rounded(WrittenDecimal("0.38"), Fraction(3, 8))
    False
    """
    return (
        isinstance(answer, WrittenDecimal)
        and answer.places >= MIN_PLACES
        and not terminates(gold)
        and round(gold, answer.places) == answer
    )


def exact_gold(number: Fraction) -> Fraction:
    """Return the fraction that a reference answer of five or more decimals was rounded from.

    Only fractions with a small denominator are looked for, the smaller the fewer decimals there
    are: one that fits by chance is then unlikely.

    Examples
    --------
    >>> [str(exact_gold(WrittenDecimal(text))) for text in ("0.6666666667", "3.33333", "0.125")]
    ['2/3', '10/3', '1/8']
    """
    if not isinstance(number, WrittenDecimal) or number.places < _MIN_GOLD_PLACES:
        return number
    limit = min(_MAX_DENOMINATOR, 10 ** (number.places // 2 - 1))
    fraction = Fraction(number).limit_denominator(limit)
    return fraction if is_rounded(number, fraction) else number

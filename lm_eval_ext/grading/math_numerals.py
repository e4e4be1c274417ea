r"""Read a plain number in tidy LaTeX exactly: integers, decimals, fractions, percentages, numerals.

Nothing is evaluated, and no float is involved.
"""

from __future__ import annotations

import re
from fractions import Fraction

_INTEGER = r"-?[0-9]{1,60}"
_PLAIN = re.compile(
    rf"(?:(?P<integer>{_INTEGER})|(?P<decimal>-?[0-9]{{0,60}}\.[0-9]{{1,60}})"
    r"|(?P<start>-?[0-9]{0,60}\.[0-9]{0,60})\\overline\{(?P<cycle>[0-9]{1,60})\}"
    rf"|(?P<sign>-?)\\frac\{{(?P<over>{_INTEGER})\}}\{{(?P<under>{_INTEGER})\}}"
    r"|(?P<whole>-?[0-9]{1,60})\\frac\{(?P<part>[0-9]{1,60})\}\{(?P<parts>[0-9]{1,60})\}"
    rf"|(?P<upper>{_INTEGER})/(?P<lower>[0-9]{{1,60}}))"
)
_PERCENTAGE = re.compile(r"(.{1,200}?)\\?%")
_BASED = re.compile(r"(?P<digits>-?[0-9][0-9A-Fa-f.]{0,60})_\{?(?P<base>[0-9]{1,2})\}?")


def plain(text: str) -> Fraction | None:
    r"""Return the exact value of an integer, a decimal, a fraction of integers or a mixed number.

    Examples
    --------
    >>> plain(r"16\frac{2}{3}") == plain(r"16.\overline{6}"), plain(r"2\sqrt{3}")
    (True, None)
    """
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    if match["cycle"]:
        start, cycle = match["start"].lstrip("-"), match["cycle"]
        scale = 10 ** len(start.partition(".")[2])
        value = Fraction(start.rstrip(".") or "0") + Fraction(
            int(cycle), scale * (10 ** len(cycle) - 1)
        )
        return -value if match["start"].startswith("-") else value
    if match["integer"] or match["decimal"]:
        return Fraction(match["integer"] or match["decimal"])
    over, under = next(
        (int(match[over]), int(match[under]))
        for over, under in (("over", "under"), ("part", "parts"), ("upper", "lower"))
        if match[over]
    )
    if under == 0:
        return None
    value = Fraction(over, under)
    if match["whole"]:
        value = abs(int(match["whole"])) + value
    return -value if match["sign"] or (match["whole"] or "").startswith("-") else value


def is_rounded(text: str) -> bool:
    """Return whether a plain number is a decimal, which may stand for another."""
    return "." in text and "overline" not in text


def rounding(text: str) -> Fraction:
    """Return the unit of the last digit of a decimal, and 0 for an exact number."""
    return Fraction(1, 10 ** len(text.partition(".")[2])) if is_rounded(text) else Fraction(0)


def based(text: str) -> tuple[str, str] | None:
    """Return the digits and the base of a numeral that states its base."""
    match = _BASED.fullmatch(text)
    return (match["digits"].upper(), match["base"]) if match else None


def percentages_equal(one: str, other: str) -> bool | None:
    """Compare two plain numbers of which one is a percentage; None where that is not certain.

    50% is 0.5, or 50 where the question asked for percents; an integer above one is the latter, and
    so may be any number above one.
    """
    rates = [_PERCENTAGE.fullmatch(text) for text in (one, other)]
    first, second = (plain(r[1] if r else t) for r, t in zip(rates, (one, other), strict=True))
    if first is None or second is None or not any(rates):
        return None
    if all(rates):
        return True if first == second else None
    rate, number = (first, second) if rates[0] else (second, first)
    if rate == number and (abs(number) > 1 or number.denominator == 1):
        return True
    return False if abs(number) > 1 and number.denominator == 1 else None

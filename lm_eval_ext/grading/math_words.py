r"""What the words of an answer say: which change its number, and which answers they keep apart.

All other words are units, and passed over.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lm_eval_ext.grading.math_numerals import plain

_MULTIPLIERS = {
    "dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
_MULTIPLE = re.compile(
    r"(?P<number>[-+0-9.,]+|-?\\frac\{[0-9]+\}\{[0-9]+\})\s*(?:\\text\{\s*)?"
    rf"(?P<word>{'|'.join(_MULTIPLIERS)})s?\b(?P<unit>[A-Za-z ]*)\}}?",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_CHANGING = re.compile(
    rf"(?<![A-Za-z\\])(?:{'|'.join(_MULTIPLIERS)}|(?:ten|hundred|thousand|million)th"
    r"|factorial|half|halves|and (?:a|an|one|two|three) (?:third|quarter|fourth|fifth)"
    r"|or (?:more|less|fewer|greater|higher|lower|above|below|larger|smaller)"
    r"|(?:more|less|fewer|greater|larger|smaller|higher|lower) than|at (?:least|most)"
    r"|under|above|below|up to|not|never|minus|negative|plus|twice|thrice|double|triple"
    r"|squares? of|cubes? of|square root|cube root|reciprocal|opposite|inverse"
    r")s?(?![A-Za-z])"
    # "cm squared" is a unit, "5 squared" is not five.
    r"|(?:(?<=[0-9)}])|(?<=\\text\{))\s*(?:squared|cubed)(?![A-Za-z])",
    re.IGNORECASE,
)
# Thousands, millions, billions; K would be kelvin.
_SUFFIXED = re.compile(r"(?<=[0-9])(?:\\text\{\s*|\s)(?:k|M|B|bn|mn)(?:(?=\})|$)")
# Words with an opposite, by their beginnings; those of AD and BC are segments in lower case, too.
_OPPOSITES = tuple(
    tuple(re.compile(rf"(?<![A-Za-z\\])(?:{words})", flags) for words in (one, two))
    for one, two, flags in (
        (r"a\.? ?m\b|in the morning", r"p\.? ?m\b|in the (?:afternoon|evening)|at night", re.I),
        (r"noon\b", r"midnight", re.I),
        (r"increas|ris[ei]|grow|gain", r"decreas|fall|declin|reduc|drop|loss|los[et]", re.I),
        (r"profit|gain|earn|w[io]n\b", r"loss|los[et]|deficit", re.I),
        (r"north", r"south", re.I),
        (r"(?:north|south)?[- ]?east", r"(?:north|south)?[- ]?west", re.I),
        (r"(?:A\.?D|C\.?E)\.?(?![A-Za-z])", r"B\.?C(?:\.?E)?\.?(?![A-Za-z])", 0),
        (r"left", r"right", re.I),
        (r"up(?:wards?|hill|stream|stairs)?\b", r"down(?:wards?|hill|stream|stairs)?\b", re.I),
        (r"clockwise", r"(?:counter|anti)[- ]?clockwise", re.I),
        (r"before", r"after\b", re.I),
        (r"earl(?:y|ier)", r"late", re.I),
        (r"forward|ahead", r"backward|behind", re.I),
        (r"inside|inward", r"outside|outward", re.I),
        (r"more|greater|larger", r"less|fewer|smaller", re.I),
        (r"older", r"younger", re.I),
        (r"fast", r"slow", re.I),
        (r"tall|long", r"short", re.I),
        (r"high", r"low", re.I),
        (r"deposit|credit|surplus", r"withdr|debit|deficit|debt|owe", re.I),
        (r"maxim", r"minim", re.I),
        (r"odd\b", r"even\b", re.I),
        (r"posit", r"negat", re.I),
    )
)
_CLOCK = re.compile(
    r"(?:\\text\{)?(?P<hour>0?[0-9]|1[0-2])(?::(?P<minute>[0-5][0-9]))?(?:\\text\{)?\s*"
    r"(?P<half>[ap])\.?\s?m\.?\}?",
    re.IGNORECASE,
)
_TIME = re.compile(r"(?P<hour>1[3-9]|2[0-3]):(?P<minute>[0-5][0-9])")
_CHOICE = re.compile(
    r"(?:\\text\{\s*)?(?:\(\s*(?P<closed>[A-J])\s*\)|(?P<open>[A-J])(?:\s*[.:)](?!\s*$)))"
    r"\s*(?:\}\s*)?[.:]?\s*(?P<rest>.*)",
    re.DOTALL,
)
_LETTER = re.compile(r"(?:\\text\{)?\s*\(?\s*([A-J])\s*[).:]{0,2}\s*\}?")
_MORE_CHOICES = re.compile(
    r"(?:^|[\s,&}])(?:and|or|,|&)[\s{]*(?:\\text\{)?\s*\(?[A-J](?![A-Za-z])|\([A-J]\)|^\s*(?:and|or)\b"
)
_OPERATOR = re.compile(
    r"\s*(?:[-+*/^_=<>,;&!|'\])]|\\(?:cdot|times|div|[lg]e|[lg]eq|cup|cap|to|in|pm|mp|neq?|equiv|sim"
    r"|cong|sub|sup|perp|parallel|circ|right|left)(?![A-Za-z]))"
)


def multiplied_out(text: str) -> str:
    """Return "5 million" as the number it is; other text as it is."""
    match = _MULTIPLE.fullmatch(text)
    if match is None or changing_words(match["unit"]):
        return text
    number = match["number"]
    value = plain(number.replace(",", "") if _GROUPED.fullmatch(number) else number)
    if value is None:
        return text
    value *= _MULTIPLIERS[match["word"].lower()]
    exact = f"{value.numerator}"
    if value.denominator > 1:
        exact = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    unit = match["unit"].strip()
    return rf"{exact}\text{{{unit}}}" if unit else exact


@lru_cache(maxsize=1024)
def changing_words(text: str) -> tuple[str, ...]:
    r"""Return the words of an answer that make its number another, in alphabetical order.

    Examples
    --------
    >>> changing_words(r"5\text{or more}"), changing_words("5 cm squared")
    (('or more',), ())
    """
    words = [match[0].strip().lower() for match in _CHANGING.finditer(text)]
    return tuple(sorted(words + [match[0] for match in _SUFFIXED.finditer(text)]))


def opposed(one: str, other: str) -> bool:
    """Return whether one answer has a word (``a.m.``) and the other its opposite (``PM``)."""
    sides = _sides(one), _sides(other)
    return any(
        sides[0][pair].isdisjoint(sides[1][pair]) for pair in sides[0].keys() & sides[1].keys()
    )


@lru_cache(maxsize=1024)
def _sides(text: str) -> dict[int, set[int]]:
    """Return which side of each pair of opposites is in an answer."""
    if not re.search("[A-Za-z.]{2}", re.sub(r"\\[A-Za-z]+", "", text)):
        return {}
    found: dict[int, set[int]] = {}
    for number, pair in enumerate(_OPPOSITES):
        for side, words in enumerate(pair):
            if words.search(text):
                found.setdefault(number, set()).add(side)
    return found


def clock_time(text: str) -> int | None:
    r"""Return the minutes since midnight of a time with a.m. or p.m., or of one after 12:59.

    Examples
    --------
    >>> clock_time(r"4:30\text{PM}"), clock_time("4:30p.m"), clock_time("16:30"), clock_time("4:30")
    (990, 990, 990, None)
    """
    match = _CLOCK.fullmatch(text)
    if match and int(match["hour"]) > 0:
        hour = int(match["hour"]) % 12 + 12 * (match["half"].lower() == "p")
        return 60 * hour + int(match["minute"] or 0)
    match = _TIME.fullmatch(text)
    return 60 * int(match["hour"]) + int(match["minute"]) if match else None


def same_choice(one: str, other: str) -> bool | None:
    r"""Compare two answers of which one is a letter and the other a letter with its text.

    None where they are no such pair.

    Examples
    --------
    >>> same_choice("C", r"\text{(C)Plane}"), same_choice(r"\text{(C)}", "B.Line")
    (True, False)
    >>> same_choice("C", "C+1"), same_choice("C", "(A),(C)")
    (None, None)
    """
    for bare, full in ((one, other), (other, one)):
        letter, choice = _LETTER.fullmatch(bare), _CHOICE.fullmatch(full)
        if letter is None or choice is None:
            continue
        rest = choice["rest"].strip(" }.")
        either = re.match(r"both|neither|either", rest, re.IGNORECASE)
        if len(rest) < 2 and not rest.isdigit():
            continue
        if _OPERATOR.match(rest) or (_MORE_CHOICES.search(rest) and not either):
            continue
        return letter[1] == (choice["closed"] or choice["open"])
    return None

r"""Read a number as people and models write it, exactly.

Everything is a `fractions.Fraction`: 18, 18.0 and 36/2 are one number, and no float is involved.
One with a decimal point also knows its decimals; see `lm_eval_ext.data.rounding`.
Nothing is evaluated; text that would have to be (``9 * 2``) is not a number. Nor is text that
could mean two numbers: ``1 234`` and ``12,50`` (which separator?), ``5 or 6``, ``5 million`` and
``5 dozen`` (the question may have asked for millions), ``8:30``, ``5 less than 8``, ``6 = 5``.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lm_eval_ext.data.rounding import WrittenDecimal
from lm_eval_ext.grading.extraction import CUT, UNFINISHED
from lm_eval_ext.grading.math_notation import without_ordinals
from lm_eval_ext.grading.math_words import changing_words

MAX_DIGITS = 100
"""Longest number read; the rest of a babbling model's digits is not worth the arithmetic."""

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{2,3}){0,40},[0-9]{3}(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?:(?P<whole>[0-9]+) +)?(?P<over>{_INTEGER}) ?/ ?(?P<under>{_INTEGER})"
    rf"|(?P<decimal>{_DECIMAL}))"
)
_DIGITS = re.compile(rf"(?:(?<![0-9A-Za-z.])[-+])?{_DECIMAL}(?: ?/ ?{_INTEGER})?")
# Words that may stand between "the answer is" and the number.
_LEAD_IN = re.compile(
    r"\A(?:[\s:=(\"'≈~]|(?:approximately|about|roughly|around|exactly|equal to|just|only)\s"
    r"|(?:USD|US|EUR|GBP|CAD|AUD|Rs\.?)(?=\s*[-+0-9.])){0,8}"
)
# A unit written onto the number; any other letter there (5k, 5M, 3x, 2e9) may change its value.
_ATTACHED = re.compile(
    r"%|°[CF]?|¢|(?:[kmc]?g|lbs?|oz|k?m|[cm]m|mi|ft|in|ml|L|hrs?|h|mins?|s|secs?|mph|kph|th|st|nd|rd)"
    r"(?![A-Za-z0-9])"
)
_MAGNITUDE = re.compile(
    r"\s*-?(?:(?:hundred|thousand|[mbtr]+illion)(?:th)?s?|dozens?|tenths?|half|halves|squared|cubed"
    r"|factorial|(?:[a-z]+ ){0,2}(?:or (?:more|less|fewer|above|below)"
    r"|and (?:a|an|one|two|three)[ -](?:half|third|quarter|fourth|fifth)s?))\b",
    re.IGNORECASE,
)
# What makes the number only a part of the answer: a sum, a range, a list, a second quantity.
_CONTINUES = re.compile(
    r"[.,:]?[0-9]"
    r"|(?:\s+[A-Za-z]+){0,4}\s*[-+*/÷^=<>≈:][-(\s]*[0-9.]"
    r"|\s*[(,x]?\s*-?[0-9]"
    r"|(?:\s+[A-Za-z]+){0,3}\s*,?\s*(?:\b(?:or|and|to|through|plus|times|minus)\b|&)"
    r"\s+(?:[A-Za-z]+\s+){0,2}-?[0-9.]"
    r"|(?:\s+(?!(?:since|because|as|so|which|that|is|if|when)\b)[A-Za-z]+){0,2}"
    r"\s+(?:more|less|fewer|greater|larger|smaller|higher|lower|older|younger)\s+than"
    r"\s+(?:[A-Za-z]+\s+){0,2}-?\.?[0-9]"
    r"|\s*(?:%|percent)\s+(?:more\s+than|less\s+than|of)\s+(?:[A-Za-z]+\s+){0,2}-?\.?[0-9]"
    # a correction: "18; no, 19"
    r"|[\s;,(-]*\b(?:no|wait|actually|sorry|oops|correction|rather)\b[\s,:;-]*"
    r"(?:(?:it|that)(?:'s|\s+is|\s+should\s+be)\s+)?-?\.?[0-9]",
    re.IGNORECASE,
)
_ARITHMETIC_LEFT_SIDE = re.compile(r"[-\s0-9.,+*/÷x()%]*=\s*(?=[-+0-9.])")
_UNIT_WORDS = re.compile(r"(?:\s*(?:/\s?)?[A-Za-z][A-Za-z'-]*\.?){0,4}[\s)\"']*")
_VARIABLE = re.compile(r"\s*[a-z]\.?\s*", re.IGNORECASE)

_GROUP_SPACE = re.compile(r"(?<=[0-9])(?:\\[,;: ]|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_SPACING = re.compile(
    r"\\(?:[,;: ]|(?:quad|qquad|left|right|displaystyle)(?![A-Za-z]))|[~\u00a0\u2009\u202f]"
)
_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|mbox|emph|bm|pmb|boldsymbol|operatorname"
    r"|underline|(?:text)?color\s*\{[a-zA-Z!0-9]{1,30}\})\s*\{([^{}]*)\}"
)
_COLORED = re.compile(r"\{\s*\\color\s*\{[a-zA-Z!0-9]{1,30}\}([^{}]*)\}")
_FRACTION_COMMAND = re.compile(
    r"(?:([0-9])\s*)?\\(?:[dtc]?frac|nicefrac|sfrac)"
    r"(?:\s*\{\s*([0-9,]+)\s*\}\s*\{\s*([0-9,]+)\s*\}|\s?([0-9])\s?([0-9])(?![0-9]))"
)
_MARKUP = r"(?:\\[()\[\]]|\\(?=%)|\\?\$|[€£¥`]|\*\*|__|\^?\{?\\circ\}?)"
# Without markup, "5$3" or "2**5" must not become one number; the other markup is dropped.
_MARKUP_BETWEEN_DIGITS = re.compile(rf"(?<=[0-9]){_MARKUP}+(?=[0-9])")
_DROPPED = re.compile(rf"{_MARKUP}|\\!")
_TIMES = re.compile(r"\u00d7|\\(?:times|cdot)(?![A-Za-z])")
# A number that is closed like this ends, wherever the text was cut; "5 *" goes on.
_CLOSED_END = re.compile(rf"(?<=[$*_`)\]}}!?;\"'])(?<!\s\*)(?<!\{{,\}})[ \t]*{CUT}")
_SPACED_GROUPS = re.compile(
    r"(?<![0-9.,/^+*=-])(?<![0-9.,/^+*=-] )(?P<number>[1-9][0-9]{0,2}(?: [0-9]{3}){1,4})"
    r"(?=[$*_`\"')]{0,4}[.!]?[$*_`\"')]{0,4}\s*(?:\n|\Z|[.!]\s))"
)
# A number that is set off from the sentence around it.
_SET_OFF = re.compile(
    r"\*\*(?P<bold>[^*\n]{1,60})\*\*|\\\((?P<round>[^\n]{1,60}?)\\\)"
    r"|(?<![\\$])\$(?P<formula>[^$\s][^$\n]{0,60})(?<![\s\\])\$(?![0-9])"
)
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)[.!](?=[\s*_)]|$)|\?|\n"
    r"|\s(?:because|since)\b"
)
_COPULA = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|becomes?)\b|=|:(?![0-9]))(?=[^=:]*$)", re.IGNORECASE
)
# Words by which a sentence does not state its number as it stands, or numbers a thing with it.
_OTHER_NUMBER = re.compile(
    r"\b(?:times|multiplied by|divided by|(?:sum|product|difference|ratio|quotient|average) of"
    r"|(?:thirds?|quarters?|fourths?|fifths?|tenths?|percent) of|or|between|versus|if|n't)\b"
    r"|%\s*of\b"
    r"|\b(?:step|day|week|month|year|question|problem|part|case|option|choice|equation|line|figure)"
    r"\s+#?[0-9]",
    re.IGNORECASE,
)
_MINUS = re.compile(r"[\u2212\u2012\u2013\u2014\ufe63\uff0d]")


def plain_text(text: str) -> str:
    r"""Return ``text`` without LaTeX and Markdown noise, currency signs and odd dashes.

    Examples
    --------
    >>> plain_text(r"\(-\$1{,}234.50\)\text{ dollars}"), plain_text(r"1\frac{1}{2}")
    ('-1,234.50 dollars', '1 1/2')
    """
    text = without_ordinals(_CLOSED_END.sub("", text))
    text = _MINUS.sub("-", text).replace("{,}", ",")
    text = _SPACING.sub(" ", _GROUP_SPACE.sub("", text))
    for _ in range(3):  # commands inside one another
        text = _TEXT_COMMAND.sub(r" \1 ", _COLORED.sub(r" \1 ", text))
    text = _FRACTION_COMMAND.sub(
        lambda m: f"{m[1]} " * bool(m[1]) + f"{m[2] or m[4]}/{m[3] or m[5]}", text
    )
    text = _TIMES.sub("*", text).replace("\\approx", "≈")
    text = _DROPPED.sub("", _MARKUP_BETWEEN_DIGITS.sub(" ", text))
    return re.sub(" {2,}", " ", text).strip()


def parse_exact(text: str) -> Fraction | None:
    r"""Read ``text`` that should be a number and at most a unit, such as the inside of a box.

    Return None unless the whole text is one number, possibly with a currency, ``%`` or a unit. What
    stands before a last ``=`` is ignored (``x = 5``), unless it is a plain number that differs
    (``6 = 5`` is not a number).

    Examples
    --------
    >>> parse_exact("$1,234"), parse_exact("3/4 of the cake"), parse_exact("18 or 19")
    (Fraction(1234, 1), Fraction(3, 4), None)
    """
    text = plain_text(text)
    *left_sides, last = text.replace("≈", "≈=").split("=")
    found = _leading_number(last.strip(" #*_"))
    if found is None:
        return None
    value, tail = found
    if any(_differs(side, last, value) for side in left_sides):
        return None
    attached = _ATTACHED.match(tail)
    tail = (tail[attached.end() :] if attached else tail).replace(CUT, "")
    unit = _UNIT_WORDS.fullmatch(tail.rstrip(". ,;"))
    return value if unit and not _VARIABLE.fullmatch(tail) else None


def parse_leading(text: str) -> Fraction | None:
    """Read the number a sentence begins with, such as what follows "the answer is".

    Only the first line with text is read. Return None unless it begins with one number. A sum with
    its result counts as its result (``9 * 2 = 18``), a sum without one is not a number.

    Examples
    --------
    >>> parse_leading(" 9 * 2 = $18."), parse_leading(" 9 * 2."), parse_leading(" not clear")
    (Fraction(18, 1), None, None)
    """
    line = _LEAD_IN.sub("", plain_text(text), count=1).partition("\n")[0]
    left_side = _ARITHMETIC_LEFT_SIDE.match(line)
    line = line[left_side.end() :] if left_side else line
    found = _leading_number(line)
    if found is None:
        return None
    value, tail = found
    right_side = line.removesuffix(tail) + tail[:1]
    if left_side and _differs(left_side[0].rstrip("= "), right_side, value):
        return None
    return value


def parse_sentence(text: str, *, set_off: bool = False) -> Fraction | None:
    """Read the number that a sentence states, such as one after the label "Final Answer:".

    Only the first sentence is read. Return the one number that is set off, in bold or in a formula;
    else, unless it has to be ``set_off``, the only number, or the one that ends the sentence after
    "is" or "="; None where there is none, or words make it another ("at least", "half of", "not").

    Examples
    --------
    >>> parse_sentence("The cost of 3 boxes is 18 dollars.")
    Fraction(18, 1)
    >>> parse_sentence("Each of the 3 boxes has 6 eggs."), parse_sentence("It is not 5.")
    (None, None)
    """
    text = join_groups(text.lstrip(" \t\r\n:").rstrip())
    end = _SENTENCE_END.search(text)
    sentence = text[: end.start()] if end else text
    if (end and end[0] == "?") or changing_words(sentence) or _OTHER_NUMBER.search(sentence):
        return None
    marked = [parse_exact(next(filter(None, m.groups()))) for m in _SET_OFF.finditer(sentence)]
    values = {value for value in marked if value is not None}
    if values or set_off:
        return values.pop() if len(values) == 1 else None
    plain = plain_text(sentence + text[end.start() : end.end() + 1] if end else sentence)
    numbers = list(_DIGITS.finditer(plain))
    if len(numbers) > 1:
        copula = _COPULA.search(plain)
        plain = plain[copula.end() :] if copula else ""
        numbers = list(_DIGITS.finditer(plain))
    return parse_leading(plain[numbers[0].start() :]) if len(numbers) == 1 else None


def join_groups(text: str) -> str:
    """Return the text with ``9 500`` as ``9500`` where the sentence ends after it.

    Elsewhere the space may separate two numbers ("9 500 g bags").
    """
    return _SPACED_GROUPS.sub(lambda match: match["number"].replace(" ", ""), text)


def _differs(left_side: str, right_side: str, value: Fraction) -> bool:
    """Return whether a plain number left of ``=`` is another than the value on the right.

    A decimal may be rounded in its last digit; a percentage equals its hundredth.
    """
    match = _NUMBER.fullmatch(left_side.strip(" #*_()")[: 2 * MAX_DIGITS])
    plain = _value(match) if match else None
    if match is None or plain is None:
        return False
    decimals = [len(part) for part in re.findall(r"\.([0-9]+)", match[0] + right_side)]
    tolerance = Fraction(1, 10 ** min(decimals)) if decimals else Fraction(0)
    values = [value, value / 100] if "%" in right_side else [value]
    return all(plain != each and abs(plain - each) >= tolerance for each in values)


def _leading_number(text: str) -> tuple[Fraction, str] | None:
    """Return the number ``text`` begins with and the rest, or None when the rest changes it."""
    text = _LEAD_IN.sub("", text, count=1)
    match = _NUMBER.match(text)
    if match is None or sum(character.isdigit() for character in match[0]) > MAX_DIGITS:
        return None
    tail = text[match.end() :]
    if _CONTINUES.match(tail) or _MAGNITUDE.match(tail) or UNFINISHED.match(tail):
        return None
    if (tail[:1].isalnum() or tail[:1] == "\\") and not _ATTACHED.match(tail):
        return None
    value = _value(match)
    return None if value is None else (value, tail)


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the exact value of a match of `_NUMBER`; None for a division by zero."""
    sign = match["sign"].strip("+")
    if match["decimal"]:
        text = sign + match["decimal"].replace(",", "")
        return WrittenDecimal(text) if "." in text else Fraction(text)
    over, under = (int(match[part].replace(",", "")) for part in ("over", "under"))
    if under == 0:
        return None
    magnitude = int(match["whole"] or 0) + Fraction(over, under)
    return -magnitude if sign else magnitude

r"""What can be said about two answers without a computer algebra system, and what is refused.

`tidy` rewrites notation that means the same to a reader (``5,\!525``, ``\$3``, ``\dfrac12``), so
that equal answers are often equal strings; `decide` compares exactly where both are plain; and
`refusal` names what is too large to be worth a parser's time.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from lm_eval_ext.grading.math_notation import rewrite_notation
from lm_eval_ext.grading.math_numerals import based, is_rounded, percentages_equal, plain, rounding
from lm_eval_ext.grading.math_words import (
    changing_words,
    clock_time,
    multiplied_out,
    opposed,
    same_choice,
)

MAX_ANSWER = 1000
"""Characters of an answer that is verified; the longest reference answer of MATH has 81."""

MAX_DEPTH = 25  # brackets inside one another
MAX_ENTRIES = 100  # separators (``&``, commas, semicolons): entries of a matrix, a tuple or a set
MAX_TOWER = 2  # exponents on top of one another, and factorial signs in a row
MAX_DIGITS = 300  # digits of one number

_CHARACTERS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ",
    "\u00f7": r"\div ", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ",
    "\u2265": r"\ge ", "\u2260": r"\ne ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u2208": r"\in ", "\u211d": r"\mathbb{R}", "\u2205": r"\emptyset ", "\u00b1": r"\pm ",
    "\u00b0": r"^\circ ", "\u00b2": "^2", "\u00b3": "^3", "\u00bd": r"\frac{1}{2}",
    "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ", "\u2019": "'",
}  # fmt: skip
_TRANSLATION = str.maketrans(_CHARACTERS)
_CONTINUATION = re.compile(r",\s*(?:\.{3,}|\u2026)")
_ELLIPSIS = re.compile(r"\\dotsc?(?![A-Za-z])")
_ROOT = re.compile(r"\u221a\s*(?:\(([^()]*)\)|([0-9]+|[a-z]))")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,?\\!|\\[,: ]|\{,\})\s*(?=[0-9]{3}(?![0-9]))")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])")
_SPACING = re.compile(
    r"(?<!\\)\\(?:[!,;:> ]|(?:quad|qquad|displaystyle)(?![A-Za-z]))|~"  # but not a row's end
)
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_ANGLE = re.compile(rf"([0-9]+(?:\.[0-9]+)?){_DEGREES.pattern}")
_CURRENCY = re.compile(r"\\?\$|\\(?:pounds|euro|textdollar)(?![A-Za-z])\s*|[\u20ac\u00a3\u00a5]")
_FONT = re.compile(r"\\(?:text(?:bf|it|rm|normal|sf|tt)|mathrm|mathbf|mathit|mbox|emph)\s*\{")
_PERCENT = re.compile(r"\s*(?:\\text\s*\{\s*)?\b(?:percent|per cent)\b(?:\s*\})?")
_BLACKBOARD = re.compile(r"\\mathbb\s*([A-Z])")
_EMPTY_TEXT = re.compile(r"\\text\{\s*\}")
# TeX reads one token where no brace opens an argument.
_TOKEN = r"\s*(\{[^{}]*\}|\\pi(?![A-Za-z])|[0-9A-Za-z])"
_SHORT_FRACTION = re.compile(rf"\\frac{_TOKEN}{_TOKEN}")
_SHORT_BINOMIAL = re.compile(rf"\\[dt]?binom{_TOKEN}{_TOKEN}")
_SHORT_ARGUMENT = re.compile(r"\\(sqrt|overline)\s*([0-9A-Za-z])")
_BLANK = re.compile(r"\s+")
# Space that separates nothing; "1, 234" keeps its own, as "1,234" is one number.
_NEEDLESS_SPACE = re.compile(r"(?<![0-9A-Za-z,])\s+|\s+(?![0-9A-Za-z])|(?<=,)\s+(?![0-9])")

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]{2,})*")

_DOTS = re.compile(r"(?P<decimal>\.[0-9]+)?\s*\\[lc]?dots[a-z]?(?![A-Za-z])")
_COMMAND = re.compile(r"\\[A-Za-z]+")


def tidy(text: str) -> str:
    r"""Return an answer without typography: sizes, spacing, currency signs, odd dashes.

    A plain number of hundreds, thousands, millions, billions or dozens is multiplied out, and
    degrees inside a trigonometric expression are converted to radians.

    Examples
    --------
    >>> tidy(r"\left( 5,\!525,\; \dfrac{1}{2} \right)."), tidy(r"\$2.5\text{ million}")
    ('(5525,\\frac{1}{2})', '2500000')
    """
    text = _BLANK.sub(" ", text)
    text = _ELLIPSIS.sub(r"\\ldots", _CONTINUATION.sub(r",\\ldots ", text))
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = text.translate(_TRANSLATION)
    text = _THOUSANDS.sub("", text)
    text = _SIZING.sub("", _FRACTION.sub(r"\\frac", text))
    text = rewrite_notation(_SPACING.sub(" ", text))
    if _ANGLE_FUNCTION.search(text):  # the sine of 30 degrees is not that of the number 30
        text = _ANGLE.sub(r"\\frac{\1\\pi}{180}", text)
    if "," not in text:  # "45^\circ,135^\circ" must not become one number
        text = _DEGREES.sub(" ", text)
    text = _PERCENT.sub(r"\\%", _CURRENCY.sub("", text))
    text = _BLACKBOARD.sub(r"\\mathbb{\1}", text.replace("\\varnothing", "\\emptyset"))
    text = _EMPTY_TEXT.sub(" ", _FONT.sub(r"\\text{", text))
    text = _SHORT_ARGUMENT.sub(r"\\\1{\2}", text)
    text = _SHORT_BINOMIAL.sub(lambda match: rf"\binom{_braced(match[1])}{_braced(match[2])}", text)
    text = _SHORT_FRACTION.sub(lambda match: rf"\frac{_braced(match[1])}{_braced(match[2])}", text)
    text = _NEEDLESS_SPACE.sub("", _BLANK.sub(" ", text))
    return multiplied_out(text.strip(' ,;:*`"').removesuffix("\\").rstrip(". "))


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"


def decide(gold: str, answer: str) -> bool | None:
    r"""Compare two tidy answers where that is certain without algebra, else return None.

    Equal strings are equal, words with or without ``\text``; so are plain numbers of equal value.
    Integers and fractions of unequal value are unequal; with a decimal among them the verdict is
    left to math-verify, which rounds. Numerals with a stated base are compared by digits and base,
    as math-verify ignores the base; so are a numeral with a base and a plain reference answer. The
    other way round, where the reference answer states its base, bare digits may be equal.

    Words that change a number ("or more", "squared", "million"), an ellipsis, sides of an equation
    that are different numbers, and the case of a variable make answers unequal unless both have
    them.

    Examples
    --------
    >>> decide("0.5", r"\frac{1}{2}"), decide("3", "4"), decide("0.33", r"\frac{1}{3}")
    (True, False, None)
    >>> decide("101_2", "101_{3}"), decide("5", "x=5")
    (False, None)
    >>> decide("10", "10_2"), decide("5", "6=5"), decide("5", r"5\text{or more}")
    (False, False, False)
    """
    if gold == answer or _words(gold) == _words(answer):
        return True
    choice = same_choice(gold, answer)
    if choice is not None:
        return choice
    if len(answer) <= MAX_ANSWER and _says_otherwise(gold, answer):
        return False
    times = clock_time(gold), clock_time(answer)
    if None not in times:
        return times[0] == times[1]
    percentages = percentages_equal(gold, answer)
    if percentages is not None:
        return percentages
    bases = based(gold), based(answer)
    if bases[0] and bases[1]:
        return bases[0] == bases[1]
    numbers = plain(gold), plain(answer)
    if numbers[0] is not None and bases[1]:
        return bases[1][1] == "10" and plain(bases[1][0]) == numbers[0]
    if numbers[0] is None or numbers[1] is None:
        return None
    if numbers[0] == numbers[1]:
        return True
    # math-verify rounds to six digits after the point, of which a small number has few.
    if abs(numbers[0] - numbers[1]) > max(abs(numbers[0]), abs(numbers[1])) / 100:
        return False
    return None if is_rounded(gold) or is_rounded(answer) else False


def _says_otherwise(gold: str, answer: str) -> bool:
    """Return whether one answer has a sign that it is another number, which math-verify ignores."""
    return (
        changing_words(gold) != changing_words(answer)
        or _goes_on(gold) != _goes_on(answer)
        or _is_false_equation(gold)
        or _is_false_equation(answer)
        or opposed(gold, answer)
        or _is_other_case(gold, answer)
    )


def _goes_on(text: str) -> bool:
    """Return whether an answer has an ellipsis, but for that of a decimal."""
    return any(not match["decimal"] for match in _DOTS.finditer(text))


def _is_false_equation(text: str) -> bool:
    """Return whether two sides of an equation are plain numbers that differ, such as 6 = 5."""
    sides = [side.strip() for side in text.split("=")]
    numbers = [(side, value) for side in sides if (value := plain(side)) is not None]
    return any(
        one != other and abs(one - other) >= max(rounding(first), rounding(second))
        for (first, one), (second, other) in pairwise(numbers)
    )


def _is_other_case(gold: str, answer: str) -> bool:
    """Return whether two formulas differ in nothing but the case of a variable."""
    if gold.lower() != answer.lower() or "\\text" in gold + answer:
        return False
    return not (based(gold) or re.search(r"[A-Za-z]{3}", _COMMAND.sub(" ", gold)))


def refusal(text: str) -> str | None:
    r"""Say why an answer is not verified, or return None for one of ordinary size.

    Examples
    --------
    >>> refusal("9^{9^{9^9}}"), refusal("{" * 200), refusal("3" * 2000)
    ('too deep', 'too deep', 'too long')
    >>> refusal(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}") is None
    True
    """
    if len(text) > MAX_ANSWER:
        return "too long"
    if _bracket_depth(text) > MAX_DEPTH or _tower(text) > MAX_TOWER:
        return "too deep"
    if sum(map(text.count, "&,;")) > MAX_ENTRIES:
        return "too many entries"
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}", text):
        return "too long"
    return None


def _words(text: str) -> str:
    """Return the text with its words bare, in lower case if there is nothing but words."""
    bare = _BLANK.sub(" ", _TEXT.sub(r" \1 ", text)).strip()
    return bare.lower() if _ONLY_WORDS.fullmatch(bare) else bare


def _bracket_depth(text: str) -> int:
    """Return how many brackets of any kind are open at most."""
    steps = ((c in "{[(") - (c in "}])") for c in text)
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


def _tower(text: str) -> int:
    """Return the longest chain of exponents or factorial signs, at least as it is written."""
    powers = text.replace("**", "^").replace(" ", "")
    chains = [len(run) for run in re.findall(r"!+", powers)]
    chains += [run.count("^") for run in re.findall(r"(?:\^\(?[0-9A-Za-z]+)+", powers)]
    open_exponents: list[bool] = []
    for position, character in enumerate(powers):
        if character == "{":
            open_exponents.append(position > 0 and powers[position - 1] == "^")
        elif character == "}" and open_exponents:
            open_exponents.pop()
        elif character == "^":
            chains.append(1 + sum(open_exponents))
    return max(chains, default=0)

r"""Rewrite notation that math-verify's grammar lacks, or reads as something else.

It reads ``2(3)`` and ``3 1/2`` as 5 and 2, ``\underline{42}`` and ``pi/2`` not at all, and drops
``\mathrm{e}`` as a unit. Nothing is computed here; the text is rewritten to what the grammar knows.
"""

from __future__ import annotations

import re

_BASES = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip

# Commands that show their argument in another way; fonts of words stay, as they mark words.
_SHOWN = re.compile(
    r"\\(?:boldsymbol|bm|pmb|underline|uline|textcolor\s*\{[^{}]{1,30}\}|color\s*\{[^{}]{1,30}\}"
    r"|colorbox\s*\{[^{}]{1,30}\}|(?P<font>text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|tt)"
    r"|emph|mbox))\s*(?=\{)"
)
_COLOR = re.compile(r"\{\s*\\color\s*\{[^{}]{1,30}\}([^{}]*)\}|\\color\s*\{[^{}]{1,30}\}")
_FORMULA_INSIDE = re.compile(r"\\(?:[dtc]?frac|sqrt|pi|cdot|times|infty|d?binom)(?![A-Za-z])")
_ROMAN_LETTER = re.compile(
    r"(?P<before>(?<=[A-Za-z]))?\\(?:math(?:rm|it|sf|normal)|operatorname)"
    r"\s*\{\s*(?P<letter>[eixyzn])\s*\}"
)
_FRACTION = re.compile(r"\\(?:nicefrac|sfrac|flatfrac)(?![A-Za-z])")
_SUFFIX = r"\s?(?:st|nd|rd|th)\s?"
_RAISED = rf"(?:\\[a-z]{{2,9}}\s?\{{{_SUFFIX}\}}|{_SUFFIX})"
_ORDINAL = re.compile(
    rf"(?<=[0-9])\s?(?:\^\s?(?:\{{\s?{_RAISED}\s?\}}|{_RAISED})"
    rf"|\\(?:text|mathrm|textrm|textsuperscript)\s?\{{{_SUFFIX}\}}|(?:st|nd|rd|th))(?![A-Za-z])"
)
_BASE = re.compile(
    rf"_\s*\{{?\s*(?:\\(?:text|mathrm)\s*\{{)?\s*(?:base\s+)?({'|'.join(_BASES)})\s*\}}{{0,2}}",
    re.IGNORECASE,
)
_MODULUS_WORD = (
    r"(?:\\[pb]?mod(?![A-Za-z])|\\(?:text|mathrm|operatorname)\s*\{\s*mod\s*\}"
    r"|(?<![A-Za-z\\])mod(?![A-Za-z]))"
)
_MODULUS = re.compile(
    rf"\(\s*{_MODULUS_WORD}\s*(?:\{{\s*([^{{}}]{{1,40}}?)\s*\}}|([0-9]+|[a-z]))\s*\)"
    rf"|\\text\s*\{{\s*\(?\s*mod\s+([0-9a-z]{{1,40}})\s*\)?\s*\}}"
    rf"|{_MODULUS_WORD}\s*(?:\{{\s*([^{{}}]{{1,40}}?)\s*\}}|([0-9]+|[a-z](?![a-z])))"
)
_CONGRUENT = re.compile(r"\s*[A-Za-z]\s*\\equiv(?![A-Za-z])\s*(?=[^=]*\\pmod\{[^{}]*\}\s*$)")
_CYCLE_BETWEEN = re.compile(
    r"(?<=[0-9.])\\dot\s*\{?\s*([0-9])\s*\}?([0-9]{0,60})\\dot\s*\{?\s*([0-9])\s*\}?"
)
_CYCLE = re.compile(r"(?<=[0-9.])\\(?:bar|dot)\s*(?:\{\s*([0-9]{1,60})\s*\}|([0-9]))")
_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_ROOT = re.compile(
    r"(?<![A-Za-z\\])sqrt\s?(?:\(([^()]{1,100})\)|\{([^{}]{1,100})\}|([0-9]{1,60}|[a-z](?![a-z])))"
)
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|infty|oo)(?![A-Za-z])")
_COMPARISON = re.compile(r"(?<![<>=])([<>])=(?!=)")
# A number and a bracket, or two brackets around numbers: a product, and no mixed number.
_IN_BRACKETS = r"\([-+]?[0-9]{1,60}(?:\.[0-9]{1,60})?\)"
_TIMES_BRACKET = re.compile(
    rf"(?<![_^A-Za-z0-9.\\])([0-9]{{1,60}}(?:\.[0-9]{{1,60}})?)\s?(?={_IN_BRACKETS})"
)
_BRACKET_TIMES = re.compile(rf"(?:(?<=\\cdot)|(?<![A-Za-z}}0-9]))({_IN_BRACKETS})\s?(?=[(0-9])")
_SPACED_GROUPS = re.compile(r"-?[1-9][0-9]{0,2}(?: [0-9]{3}){1,6}")
_MIXED = re.compile(r"(-?[0-9]{1,30}) ([0-9]{1,30})\s?/\s?([0-9]{1,30})")


def rewrite_notation(text: str) -> str:
    r"""Return an answer in notation that math-verify reads, of the same value.

    Examples
    --------
    >>> rewrite_notation(r"\frac{24}{2(1)}"), rewrite_notation(r"\underline{\frac{1}{2}}")
    ('\\frac{24}{2\\cdot(1)}', '\\frac{1}{2}')
    >>> rewrite_notation("3 1/2"), rewrite_notation("9 500"), rewrite_notation("9 500 g")
    ('3\\frac{1}{2}', '9500', '9 500 g')
    """
    text = _COLOR.sub(lambda match: match[1] or "", _shown(text.replace("{:}", ":")))
    text = _ROMAN_LETTER.sub(
        lambda match: " " * (match["before"] is not None) + match["letter"],
        _FRACTION.sub(r"\\frac", text),
    )
    text = without_ordinals(text)
    text = _BASE.sub(lambda match: f"_{{{_BASES.index(match[1].lower()) + 2}}}", text)
    text = _MODULUS.sub(lambda m: rf"\pmod{{{next(filter(None, m.groups()))}}}", text)
    text = _CONGRUENT.sub("", text, count=1) if text.count("\\equiv") == 1 else text
    text = _CYCLE.sub(
        lambda match: rf"\overline{{{match[1] or match[2]}}}",
        _CYCLE_BETWEEN.sub(r"\\overline{\1\2\3}", text),
    )
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3]}}}", text)
    text = _INFINITY.sub(r"\\infty ", _PI.sub(r"\\pi ", text))
    text = _COMPARISON.sub(lambda match: r"\le " if match[1] == "<" else r"\ge ", text)
    text = _BRACKET_TIMES.sub(r"\1\\cdot", _TIMES_BRACKET.sub(r"\1\\cdot", text))
    bare = text.strip(" $.")
    if _SPACED_GROUPS.fullmatch(bare):
        return bare.replace(" ", "")
    mixed = _MIXED.fullmatch(bare)
    return rf"{mixed[1]}\frac{{{mixed[2]}}}{{{mixed[3]}}}" if mixed else text


def without_ordinals(text: str) -> str:
    r"""Return text with ordinal numbers (``3rd``, ``12^{\mathrm{th}}``) as numbers."""
    return _ORDINAL.sub("", text)


def _shown(text: str) -> str:
    """Return text without commands that only change how what is in their braces looks.

    A font is one of them where a formula is inside; else it marks words, and stays.
    """
    parts, position = [], 0
    while match := _SHOWN.search(text, position):
        end = _closing(text, match.end())
        if end is None or (match["font"] and not _FORMULA_INSIDE.search(text, match.end(), end)):
            parts.append(text[position : match.end()])
            position = match.end()
        else:
            inside = _shown(text[match.end() + 1 : end])
            parts += [text[position : match.start()], inside]
            position = end + 1
    return "".join([*parts, text[position:]])


def _closing(text: str, opening: int) -> int | None:
    """Return where the brace at ``opening`` is closed."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
    return None

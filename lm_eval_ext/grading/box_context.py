r"""Read a box with what stands around it and changes its value.

A sign, a numerical factor and words that change a number belong to a box, wherever its brace was
closed: ``-\boxed{256}``, ``\boxed{3}\sqrt2``, ``\boxed{5}\text{ or more}``. Units, a variable
(whose coefficient was asked for), a modulus and the other side of a relation do not.
"""

from __future__ import annotations

import re

from lm_eval_ext.grading.box_groups import RELATION
from lm_eval_ext.models.boxes import Box

MAX_AROUND = 120  # characters read before and after a box

# What may stand between the last relation (or the start of a formula) and a box, and after it.
_SIGN = r"[-+\u2212]|\\(?:pm|mp)(?![A-Za-z])"
_TIMES = r"\\(?:cdot|times)(?![A-Za-z])"
_CONSTANT = (
    r"[0-9]+(?:\.[0-9]+)?|\\pi(?![A-Za-z])|\\sqrt(?:\[[0-9]{1,2}\])?\s*(?:[0-9]|\{[0-9.]{1,20}\})"
    r"|\\[dt]?frac\s*(?:[0-9]\s*[0-9]|\{-?[0-9.]{1,20}\}\s*\{[0-9.]{1,20}\})"
)
_POWER = r"\^\s*(?:[0-9]|\{\s*-?[0-9]{1,9}(?:/[0-9]{1,9})?\s*\})"
_TOKEN = re.compile(
    rf"\s*(?:\\[,!;:]\s*)*(?:(?P<sign>{_SIGN})|(?P<times>{_TIMES})|(?P<over>/)"
    rf"|(?P<constant>{_CONSTANT})|(?P<power>{_POWER}))"
)
_BOUNDARY = re.compile(
    rf"(?<!\\)\$+|\\[(\[]|{RELATION.pattern}|\\\\|[&,;\n]|\\(?:begin|end)\s*\{{[a-z]+\*?\}}"
    r"|\\(?:q?quad|Rightarrow|rightarrow|to|implies)(?![A-Za-z])|\\text\s*\{[^{}]*\}"
)
_MATH_END = re.compile(
    r"(?:\s|\\[,;!: ]|[.,;!])*(?:\$|\\[)\]]|\\\\|\\end|\\q?quad|\\text|\\mbox|\\pmod|&)"
)
_TEXT_END = re.compile(r"[.,;!?)*]*(?:\s|$)(?!\s*[-+*/=<>\\])")
# Attached to the box, but no item of a list.
_SIGN_IN_TEXT = re.compile(
    r"(?:(?:^|[\s*(:\"'])(?P<sign>[-\u2212])|(?<=[^\s])[ \t]+(?P<outside>[-\u2212])\$"
    r"|(?:^|[\s*(:\"'$])(?P<both>\\(?:pm|mp))[ \t]*\$?)$"
)
_SPACED_DASH = re.compile(r"\s*[-\u2212]\s+")
_KNOWN = re.compile(r"(?:^|[^0-9A-Za-z})^.\s])\s*[0-9.]+\s*=$")
_NEGATIVE = re.compile(r"\b(?:is|are|be|equals?)\s+(?:minus|negative)\s+[$\\(]*$", re.IGNORECASE)
_MULTIPLES = "hundred|thousand|million|billion|trillion|dozen"
_CHANGE = re.compile(
    r"(?:\s|\\[ ,;:!]|~|(?<!\\)\$|\\[)\]]|\*\*)*(?:\\(?:text|mbox|textrm|mathrm)\s*\{[\s~]*)?"
    rf"(?P<words>(?:{_MULTIPLES})s?(?![A-Za-z-])"
    r"|(?:[A-Za-z]+ ){0,2}or (?:more|less|fewer|greater|higher|lower|above|below|larger|smaller)\b"
    r"(?! (?:than|[a-z]+ly)\b)"
    r"|and (?:a|an|one|two|three)[ -](?:half|third|quarter|fourth|fifth)s?\b"
    r"|(?:squared|cubed|factorial)\b)",
    re.IGNORECASE,
)
_NO_NUMBER = re.compile(r"[,;=<>&]|\\(?:text|mbox|\{|begin|in|le|ge|lt|gt|cup)(?![A-Za-z])")
_GROUPED = re.compile(r"[0-9]{1,3}(?:(?:,|\{,\}|,\\!)[0-9]{3})+(?:\.[0-9]+)?")
_SINGLE = re.compile(
    r"[0-9.]+|[A-Za-z]|\([^()]*\)|\\pi|\\sqrt(?:\[[0-9]+\])?(?:[0-9]|\{[^{}]*\})"
    r"|\\[dt]?frac(?:[0-9]{2}|\{[^{}]*\}\{[^{}]*\})"
)


def in_context(text: str, box: Box) -> str:
    r"""Return the inside of a box with what stands around it and changes its value.

    Examples
    --------
    >>> from lm_eval_ext.models.boxes import find_boxes
    >>> for text in (r"$a=-\boxed{256}$", r"$\boxed{5}\text{ or more}$", r"$\boxed{-15}x^3$"):
    ...     print(in_context(text, next(find_boxes(text, 400))))
    -256
    5\text{ or more}
    -15
    """
    inside = box.inside.strip()
    change = _CHANGE.match(text[box.end : box.end + MAX_AROUND])
    words = rf"\text{{ {change['words']}}}" if change and inside else ""
    grouped = bool(_GROUPED.fullmatch(inside))
    if not inside or (_NO_NUMBER.search(inside.partition("\\text")[0]) and not grouped):
        return inside + words
    is_number = grouped or not _NO_NUMBER.search(inside)
    after = _after(text, box) if is_number and not change else ""
    before = _before(text, box, is_number=is_number, ends=_ends(text, box.end + len(after)))
    # A sign would refer to a part of a sum only.
    is_sum = re.search(r"[0-9A-Za-z})]\s*(?:[-+\u2212]|\\[pm]{2}(?![A-Za-z]))", inside)
    is_part = (before or after.lstrip()[:1] not in "+-") and is_sum
    is_signed = before and re.match(r"[-+\u2212]|\\[pm]{2}", inside)
    if (is_part or is_signed or after.startswith("^")) and not _SINGLE.fullmatch(inside):
        inside = f"({inside})"
    return f"{before}{inside}{after}{words}"


def _before(text: str, box: Box, *, is_number: bool, ends: bool) -> str:
    """Return the sign, the factor or the terms before a box in its formula."""
    window = text[max(0, box.start - MAX_AROUND) : box.start]
    window = window.removesuffix("\\$")
    if _NEGATIVE.search(window):
        return "" if box.inside.lstrip().startswith("-") else "-"
    in_text = _SIGN_IN_TEXT.search(window)
    if in_text:
        return next(sign for sign in in_text.groups() if sign)
    boundaries = list(_BOUNDARY.finditer(window))
    if not boundaries:
        return ""
    boundary, rest = boundaries[-1][0], window[boundaries[-1].end() :]
    tokens = _tokens(rest.rstrip())
    if not tokens or tokens[0] in ("times", "over", "power"):
        return ""
    if tokens == ["sign"]:
        spaced = _SPACED_DASH.fullmatch(rest)
        is_dash = spaced and (boundary in "\n:,;<>" or ("$" in boundary and not ends))
        return "" if is_dash or "+" in rest else rest.strip()
    if not (is_number and ends) or _KNOWN.search(window[: boundaries[-1].end()]):
        return ""
    if tokens[-1] in ("constant", "power") and re.match(r"[-+\u22120-9.]", box.inside.strip()):
        return ""  # a number next to a number is not a product
    return rest.strip()


def _after(text: str, box: Box) -> str:
    """Return the factor, the divisor or the terms after a box in its formula."""
    window = text[box.end : box.end + MAX_AROUND]
    end, kinds = 0, []
    while token := _TOKEN.match(window, end):
        kinds.append(str(token.lastgroup))
        end = token.end()
    after = window[:end]
    if not kinds or kinds[-1] in ("sign", "times", "over") or re.match(r"\s*[0-9]", after):
        return ""
    if _ends(text, box.end + end):
        return after
    attached = kinds[0] != "sign" and not window[:1].isspace()
    return after if attached and _TEXT_END.match(window, end) else ""


def _ends(text: str, position: int) -> bool:
    return bool(_MATH_END.match(text, position, position + MAX_AROUND))


def _tokens(text: str) -> list[str]:
    """Return the kinds of the tokens of a numerical expression; none if it is anything else."""
    kinds, end = [], 0
    while end < len(text):
        token = _TOKEN.match(text, end)
        if token is None:
            return []
        kinds.append(str(token.lastgroup))
        end = token.end()
    return kinds

r"""Tell which boxes of a text are one answer.

The last one says the answer, together with those before it that are in one list or coordinated in
one sentence with it: ``$\boxed{-2}$ and $\boxed{1}$``. A correction, a repetition and the box of a
later step (``$x=\boxed3$, so $x+4=\boxed7$``) stand alone. `lm_eval_ext.grading.box_context` reads
what stands around a box.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lm_eval_ext.models.boxes import Box

MAX_BETWEEN = 300  # characters between two boxes of one answer
MAX_MENTIONED = 40  # characters of a value that is looked for in the formula of the next box
_TEXT = re.compile(r"\\(?:text(?:rm|bf|it)?|mbox|mathrm)\s*\{([^{}]*)\}")
_DELIMITER = re.compile(r"(?<!\\)\$+|\\[()\[\]]|\*\*|\\(?:left|right)(?![A-Za-z])")
_SPACING = re.compile(r"\\(?:[,;:!]|\s|q?quad(?![A-Za-z]))|~")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\*?\}")
_JOINT = re.compile(r"(?:\s|[,;&]|\\\\|\b(?:and|or|as well as)\b)*", re.IGNORECASE)
_COORDINATOR = re.compile(r"[,;&]|\\\\|\b(?:and|or|as well as)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n\s*\n")
_BROKEN_LINE = re.compile(
    r"(?:[,;&]|\\\\|\b(?:and|or))[ \t]*\n|\n[ \t]*(?:and|or)\b", re.IGNORECASE
)
_ITEM = re.compile(
    r"(?P<rest>[A-Za-z ,;.]*)\s*\n\s*(?:(?:[-*\u2022+]|\\item)[ \t]+"
    r"(?:(?P<label>[A-Z][a-z]+(?: [A-Za-z]+)?)[ \t]*:)?|(?:[0-9]{1,2}[.)]|\(?[a-z0-9]\))[ \t]+)"
    r"(?:(?P<left>[^\n=]{1,40})=)?[ \t]*"
)
_NEXT_LINE = re.compile(r"[ \t]*[.,;]?[ \t]*\n[ \t]*(?P<left>[^\n=]{1,40})=\s*")
RELATION = re.compile(
    r"[=\u2248<>\u2264\u2265:]|\\(?:approx|equiv|sim|cong|neq?|leq?|geq?|in)(?![A-Za-z])"
    r"|\bequals?\b"
)
_STEP = re.compile(
    r"[\u2192\u21d2]|\\(?:(?:long)?(?:right|left|leftright)arrow|implies|iff|to|therefore|because)"
    r"(?![A-Za-z])|\b(?:so|thus|hence|therefore|then|thereby|consequently|which|that|i\.e|mean(?:s|ing)"
    r"|impl(?:y|ies|ying)|giv(?:es?|ing)|yield(?:s|ing)?|leav(?:es?|ing)|get(?:s|ting)?|mak(?:es?|ing)"
    r"|becom(?:es?|ing)|obtain(?:s|ing)?|find(?:s|ing)?|calculat\w+|comput\w+|simplif\w+|substitut\w+"
    r"|squaring|doubling|halving|taking|using"
    r"|evaluat\w+|add(?:s|ing)?|subtract\w*|multipl\w+|divid\w+|plus|minus|times|total(?:s|ing)?"
    r"|altogether|sum|overall|combined|remain\w*|answers?|results?|final(?:ly)?|conclusion|steps?"
    r"|because|since|as|wait|no|not|wrong|incorrect|actually|instead|rather|correct\w*|sorry|oops"
    r"|mistake|reject\w*|discard\w*|extraneous|invalid|should|but|equivalent(?:ly)?|approx\w*|about|roughly|again|simply"
    r"|precisely|exactly|alternative(?:ly)?|now|next|check|verify|let|written|expressed)\b",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    r"\b(?:other|another|second|third|one)\s+(?:answer|result|number)\b|\bas well as\b",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:(?:m?\\angle|\\(?:sin|cos|tan|cot|sec|csc|log|ln))\s*)?(?:[A-Z]{1,4}|[A-Za-z]|\\[A-Za-z]+)"
    r"(?:_(?:[0-9A-Za-z]|\{[0-9A-Za-z]+\}))?"
    r"(?:\([^()]{1,10}\))?'?"
)
_NAMED = re.compile(
    rf"(?<![A-Za-z\\0-9+*/^)-])(?P<name>{_NAME.pattern})\s*&?\s*=\s*[$&]?\s*[-+]?\s*$"
)
_LEADING_WORDS = re.compile(r"\s*(?:[A-Za-z]{2,}\b(?!\s*$)\s*)*")
_SUM_OF_NAMES = re.compile(r"[a-z](?:\s*[-+]\s*[a-z])+")
_FORMULA_START = re.compile(r"\$|\\\\|\\[(\[]|[\n,;:]")
_CONVERSION = re.compile(
    r"\s*(?P<unit>[A-Za-z]+)(?: [A-Za-z]+){0,2}\s*[,(]?\s*or\s*", re.IGNORECASE
)
_UNIT_AFTER = re.compile(r"[\s$.,)\\]*(?:text\{\s*)?(?P<unit>[A-Za-z]+)")


def one_answer(text: str, boxes: Sequence[Box]) -> list[Box]:
    r"""Return the first of some boxes, the last first, and those that are one answer with it.

    They come in the order of the text; coordinates, each after its name, in that of x, y, z.

    Examples
    --------
    >>> from lm_eval_ext.models.boxes import find_boxes
    >>> for text in (r"$y=\boxed{4}$ and $x=\boxed{3}$", r"$x=\boxed{3}$, so $x+4=\boxed{7}$"):
    ...     print([box.inside for box in one_answer(text, list(find_boxes(text, 400)))])
    ['3', '4']
    ['7']
    """
    group = [boxes[0]]
    for box in boxes[1:]:
        if box.end > group[0].start:  # the one is inside the other
            continue
        if not _are_joined(text, box, group[0]):
            break
        group.insert(0, box)
    named = [(name_of(text, box), box) for box in group]
    if len(group) > 1 and len({name for name, _ in named} & set("xyz")) == len(group):
        return [box for _, box in sorted(named)]
    return group


def name_of(text: str, box: Box) -> str:
    r"""Return the name that a box is the value of (``$x_1 = \boxed{3}$``), or an empty string."""
    window = text[max(0, box.start - 40) : box.start]
    match = _NAMED.search(window)
    if match is None or window[: match.start()].rstrip()[-1:] in set("+-*/^"):
        return ""
    return match["name"]


def _are_joined(text: str, one: Box, other: Box) -> bool:
    """Return whether two boxes that follow one another are parts of one answer."""
    if other.start - one.end > MAX_BETWEEN:
        return False
    between = _ENVIRONMENT.sub("", _TEXT.sub(r" \1 ", text[one.end : other.start]))
    between = _SPACING.sub(" ", between.replace("\\\\", "\x00")).replace("\x00", "\\\\")
    between = re.sub(r"&(?=\s*=)|(?<==)\s*&", "", _DELIMITER.sub("", between))
    if _JOINT.fullmatch(between):
        return "\n" not in between or bool(_COORDINATOR.search(between))
    item = _ITEM.fullmatch(between)
    if item:
        said = f"{item['rest']} {item['label'] or ''}"
        return not _STEP.search(said) and _is_name(item["left"] or "x")
    line = _NEXT_LINE.fullmatch(between)
    if line and _is_name(line["left"]) and name_of(text, one) not in ("", line["left"].strip()):
        return True
    if _SENTENCE_END.search(between) or ("\n" in between and not _BROKEN_LINE.search(between)):
        return False
    parts = _COORDINATOR.split(between)
    if len(parts) == 1 or RELATION.search(parts[0]) or _STEP.search(_ANOTHER.sub("", between)):
        return False
    conversion, unit = _CONVERSION.fullmatch(between), _UNIT_AFTER.match(text, other.end)
    if conversion and unit and conversion["unit"].lower() != unit["unit"].lower():
        return False  # "2 hours, or 120 minutes"
    left, equals, _ = parts[-1].partition("=")
    if not equals:
        return True
    left = left[_LEADING_WORDS.match(left).end() :].strip()  # type: ignore[union-attr]
    if _is_name(left):
        return True
    if not left or ("\\\\" in between and not re.search(r"[,;]|\band\b|\bor\b", between)):
        return False
    if _SUM_OF_NAMES.fullmatch(left) and not _has_terms_of(text, one, left):
        return False  # "$\frac{m}{n}=\boxed{\frac23}$ and $m+n=\boxed{5}$"
    return not _mentions(parts[-1], one.inside.strip()) and not _mentions(left, name_of(text, one))


def _has_terms_of(text: str, box: Box, formula: str) -> bool:
    """Return whether a box is the value of an expression, no quotient, in the same names."""
    window = text[max(0, box.start - MAX_BETWEEN) : box.start]
    left, equals, _ = _FORMULA_START.split(window)[-1].partition("=")
    if not equals or re.search(r"/|\\[dt]?frac", left):
        return False
    return set(re.findall("[a-z]", formula)) <= set(re.findall("[a-z]", left))


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text.strip()))


def _mentions(formula: str, value: str) -> bool:
    """Return whether a formula has a value or a name among its terms."""
    if not 0 < len(value) <= MAX_MENTIONED:
        return False
    if value[0].isalpha():
        terms = re.findall(
            r"(?<![A-Za-z])[A-Za-z]{1,2}(?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", formula)
        )
        return value in formula if len(value) > 1 else any(value in term for term in terms)
    return bool(re.search(rf"(?<![0-9.]){re.escape(value)}(?![0-9]|\.[0-9])", formula))

r"""Find the answer of a completion, and the reference answer of a record, in LaTeX.

The answer of a completion is looked for after its thinking section, in this order; the first step
that finds one decides:

1. the last brace-matched ``\boxed{...}`` or ``\fbox{...}`` (``\boxed 2`` where there is no other);
2. the last "the answer is ...", "final answer: ..." and close variants: the formula that follows,
   or the words up to the end of the sentence. A formula counts only after words that introduce it
   ("equal to", "the fraction", ...); after others ("less than $5$") the words are the answer, which
   is wrong then, and there is none if they are many. Words that change the number of the formula
   ("$5$ million", "$5$ or more") are part of it;
3. the last formula in dollars (or in ``\(...\)``, ``\[...\]``).

There is no fallback to the last number of the text, for the reason given in
`lm_eval_ext.grading.gsm8k`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.extraction import after_thinking, announced, boxed
from lm_eval_ext.grading.math_text import changing_words

MAX_TEXT = 400_000
"""Characters of a completion that are read, counted from its end."""

MAX_BOX = 100_000
"""Characters in which a box has to be closed. Much longer than any answer that is verified, so that
an oversized answer is seen as one, and not passed over for an earlier box."""

MAX_TAIL = 20_000
"""Characters, counted from the end, in which a formula that nothing announces is looked for."""

MAX_WORDS = 60
"""Characters of an announced answer that is not a formula; longer ones are prose."""

_SPACED_BOX = re.compile(r"\\(boxed|fbox)\s+\{")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[0-9\\]))(\\[dt]?frac\s?[0-9]{2}|[-+]?[0-9A-Za-z.,/]+)"
)
# Dollars that are not escaped, in pairs on one paragraph; the doubled form first.
_FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>(?:[^$\\]|\\.){1,2000}?)\$\$"
    r"|(?<!\\)\$(?P<inline>(?:[^$\\\n]|\\.|\n(?!\n)){1,2000}?)\$"
    r"|\\\((?P<round>(?:[^\\]|\\[^()]){1,2000}?)\\\)"
    r"|\\\[(?P<square>(?:[^\\]|\\[^\[\]]){1,2000}?)\\\]",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|\s(?:because|since|as|so|which|where|I hope)\s", re.I)
# What may stand between "the answer is" and its formula.
_LEAD_IN = re.compile(
    r"(?:[\s:=(*_~\"'`,\u2248]|\([A-E]\)|\b(?:is|are|was|be|equals?|equal to|approximately|about"
    r"|roughly|around|exactly|precisely|simply|just|only|actually|indeed|clearly|then|thus|hence"
    r"|so|therefore|consequently|finally|again|given by|found to be|as follows|that|either|both"
    r"|namely|we (?:have|get|find|obtain)|a|an|the|all|any|final|correct|ordered|unique|exact"
    r"|simplified|closed|open|real|complex|common|mixed|following|single|positive"
    r"|negative(?= (?:number|integer|real))|maximum|minimum|largest|smallest|greatest|least"
    r"|(?:total|area|volume|length|distance|probability|perimeter|radius|cost|time|measure|value)"
    r"(?: of)?|(?:number|integer|value|fraction|expression|equation|function|polynomial|formula|set"
    r"|list|pair|triple|triplet|tuple|point|vector|matrix|interval|union|solution|root|choice"
    r"|option|letter|coordinate|angle|line|form|result|answer)s?)\b)*",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(r"[A-Za-z ,']{1,80}:\s*")
_NEGATION = re.compile(r"(?:[-\u2212]|\b(?:minus|negative))\s*$", re.IGNORECASE)
_SINGLE_TERM = re.compile(r"[0-9.,/]+|\\[dtc]?frac\s*(?:[0-9]{2}|\{[^{}]+\}\s*\{[^{}]+\})")
# Words right after a formula, where some change it: "$5$ million", "$5$ eggs or more".
_NEW_CLAUSE = r"(?!(?:since|because|as|so|which|where|that|when|if|is|are|not|and(?! [aot]))\b)"
_FOLLOWING_WORDS = re.compile(
    rf"[ -]{{0,3}}({_NEW_CLAUSE}[a-z]+(?: {_NEW_CLAUSE}[a-z]+){{0,3}})", re.I
)
_OPERATOR = re.compile(
    r"\s*(?:\b(?:times|plus|minus|of|divided by|multiplied by)\b|[-+*/^\u2212])\s*(?:\$|\\[(\[])"
)
_JOINT = re.compile(r"\s*(?:,|;|,?\s*(?:and|or))\s*", re.I)


def extract(completion: str) -> str | None:
    r"""Return the answer of a completion as it is written there, or None.

    Examples
    --------
    >>> extract(r"So $x^2 = 9$ and the solutions are $\boxed{\{-3, 3\}}$.")
    '\\{-3, 3\\}'
    >>> extract("The final answer is $\\frac{1}{2}$. I hope it is correct.")
    '\\frac{1}{2}'
    >>> extract("There are 12 ways, and 5 of them") is None
    True
    """
    text = after_thinking(completion)[-MAX_TEXT:]
    box = last_box(text)
    if box:
        return box
    for candidate in announced(text):
        answer = _leading_answer(candidate)
        if answer is not None:
            return answer or None
    return _last_formula(text)


def last_box(text: str) -> str | None:
    r"""Return the inside of the last box that is closed and not empty, or None.

    Examples
    --------
    >>> last_box(r"\boxed{1} then \fbox{\text{two}} and \boxed{unfinished")
    '\\text{two}'
    >>> last_box(r"Hence the sum is $\boxed 2$.")
    '2'
    """
    for inside in boxed(_SPACED_BOX.sub(r"\\\1{", text), max_length=MAX_BOX):
        if inside.strip():
            return inside.strip()
    bare = [match[1] for match in _BARE_BOX.finditer(text)]
    return bare[-1].strip(".,") if bare else None


def reference(doc: Mapping[str, Any]) -> str:
    r"""Return the reference answer of a record: ``answer``, or the last box of ``solution``.

    Raises
    ------
    UserError
        If the record has neither.
    """
    answer = doc.get("answer")
    if answer is not None and str(answer).strip():
        return str(answer).strip()
    found = last_box(str(doc.get("solution") or ""))
    if found is None:
        problem = str(doc.get("problem", ""))[:60]
        raise UserError(
            f"problem={problem!r} has no reference answer: a MATH record has an 'answer', or a "
            "'solution' with a \\boxed{...}"
        )
    return found


def _leading_answer(candidate: str) -> str | None:
    """Return the formulas a sentence leads to, or else its words if they are few.

    A sentence that says something about a formula in more words than that is an empty answer.
    """
    formula = _FORMULA.search(candidate)
    if formula and _SENTENCE_END.search(candidate[: formula.start()]):
        formula = None
    if formula:
        sign = _sign(candidate[: formula.start()], _inside(formula))
        if sign is not None and not _OPERATOR.match(candidate, formula.end()):
            return sign + _formulas(candidate, formula)
    end = _SENTENCE_END.search(candidate, formula.end() if formula else 0)
    words = candidate[: end.start() if end else len(candidate)].replace("$", "").strip(" \t:*_,;")
    if len(words) > MAX_WORDS:
        return "" if formula else None
    return words or None


def _sign(before: str, inside: str) -> str | None:
    """Return the sign that the words before a formula give it; None if they say anything else."""
    negation = _NEGATION.search(before)
    if negation and _SINGLE_TERM.fullmatch(inside):
        return "-" if _introduces(before[: negation.start()]) else None
    return "" if _introduces(before) else None


def _introduces(before: str) -> bool:
    """Return whether text leads to a formula and says nothing about its value."""
    if _LEAD_IN.fullmatch(before):
        return True
    return bool(_INTRODUCTION.fullmatch(before)) and not changing_words(before)


def _formulas(candidate: str, formula: re.Match[str]) -> str:
    """Return a formula, those joined to it, and the words after them that change a number."""
    parts = [_inside(formula)]
    end = formula.end()
    while following := _joined(candidate, end):
        parts.append(_inside(following))
        end = following.end()
    words = _FOLLOWING_WORDS.match(candidate, end)
    if words and _changes(words[1]):
        parts[-1] += rf"\text{{ {words[1]}}}"
    return ", ".join(parts)


def _changes(words: str) -> bool:
    return bool(changing_words(rf"1\text{{{words}}}"))


def _joined(text: str, position: int) -> re.Match[str] | None:
    """Return the formula joined by "and", "or" or a comma to one that ends at ``position``."""
    joint = _JOINT.match(text, position)
    return _FORMULA.match(text, joint.end()) if joint else None


def _last_formula(text: str) -> str | None:
    formulas = list(_FORMULA.finditer(text[-MAX_TAIL:]))
    return _inside(formulas[-1]) if formulas else None


def _inside(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part is not None).strip()

r"""Find the answer of a completion, and the reference answer of a record, in LaTeX.

The answer of a completion is looked for after its thinking section, in this order; the first step
that finds one decides:

1. the last brace-matched ``\boxed{...}`` or ``\fbox{...}`` (``\boxed 2`` where there is no other),
   with the others of its sentence or list, as ``-2, 1``, and with what stands around them and
   belongs to them (see `lm_eval_ext.grading.boxes` and `lm_eval_ext.grading.box_context`);
2. the last "the answer is ...", "final answer: ..." and close variants: the formula that follows,
   or the words up to the end of the sentence. A formula counts only after words that introduce it
   ("equal to", "the fraction", ...); after others ("less than $5$") the words are the answer, which
   is wrong then, and there is none if they are many. Words that change the number of the formula
   ("$5$ million", "$5$ or more") are part of it;
3. the last formula in dollars (or in ``\(...\)``, ``\[...\]``); an amount of money opens and ends
   none.

There is no fallback to the last number of the text, for the reason given in
`lm_eval_ext.grading.gsm8k`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.box_context import in_context
from lm_eval_ext.grading.boxes import MAX_BOXES, Box, find_boxes, name_of, one_answer
from lm_eval_ext.grading.extraction import after_thinking, announced
from lm_eval_ext.grading.math_text import changing_words, decide, tidy
from lm_eval_ext.grading.rational import parse_exact

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
_SEVERAL_WANTED = re.compile(r"separated by (?:a )?comma", re.IGNORECASE)
_EITHER_ACCEPTED = re.compile(
    r"\balso (?:accepted|(?:an? )?(?:acceptable|correct|valid))"
    r"|\beither \w+ is (?:accepted|an? (?:acceptable|correct|valid) answer)",
    re.IGNORECASE,
)
# Answers that a solution leaves without a box, by the BLAKE2b hash of the problem: MATH has one,
# whose problem uses the box as an operation.
_UNBOXED = {"46fd1f6c5bd5e2b1": "6"}
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?:\s+|(?=[0-9\\]))(\\[dt]?frac\s?[0-9]{2}|[-+]?[0-9A-Za-z.,/]+)"
)
# Dollars that are not escaped, in pairs on one paragraph; the doubled form first.
_FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>(?:[^$\\]|\\.){1,2000}?)\$\$"
    # "$5 and $10" and "$5 for $x$ hours" are amounts of money
    r"|(?<!\\)\$(?![0-9][^$\\]{0,200}\s\$[0-9A-Za-z\\(])"
    r"(?P<inline>(?:[^$\\\n]|\\.|\n(?!\n)){1,2000}?)\$(?![0-9])"
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
    text = _closed_up(after_thinking(completion)[-MAX_TEXT:])
    boxes = _boxes(text)
    if boxes:
        return _joined_answer(text, boxes)
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
    boxes = _boxes(_closed_up(text))
    return boxes[0].inside if boxes else None


def _closed_up(text: str) -> str:
    """Return a text without space between the command of a box and its brace."""
    return _SPACED_BOX.sub(r"\\\1{", text)


def _boxes(text: str) -> list[Box]:
    """Return closed boxes that are not empty, the last first; bare ones if there are no others."""
    found = [box for box in find_boxes(text, MAX_BOX) if box.inside.strip()]
    if not found:
        matches = list(_BARE_BOX.finditer(text))[: -MAX_BOXES - 1 : -1]
        found = [Box(match.start(), match.end(), match[1].strip(".,")) for match in matches]
    return [box._replace(inside=box.inside.strip()) for box in found]


def _joined_answer(text: str, boxes: Sequence[Box]) -> str:
    """Return what the last box says with those that are one answer with it."""
    group = one_answer(text, boxes)
    answers = [in_context(text, box) for box in group]
    names = {name_of(text, box) for box in group} - {""}
    if len(names) < len(group) and all(_is_same(answers[-1], other) for other in answers[:-1]):
        return answers[-1]
    return ", ".join(answers)


def _is_same(one: str, other: str) -> bool:
    """Return whether two answers are equal in a way that needs no algebra."""
    if one == other:
        return True
    if max(len(one), len(other)) > MAX_WORDS:
        return False
    if decide(tidy(one), tidy(other)) or sorted(_terms(one)) == sorted(_terms(other)):
        return True
    values = parse_exact(one), parse_exact(other)
    return values[0] is not None and values[0] == values[1]


def _terms(text: str) -> list[str]:
    """Return the terms of a sum with their signs; a text with brackets is one term."""
    bare = re.sub(r"\s", "", tidy(text))
    if re.search(r"[({\[,=]", bare):
        return [bare]
    return re.findall(r"[-+]?[^-+]+", bare if bare.startswith("-") else f"+{bare}")


def reference(doc: Mapping[str, Any]) -> str:
    """Return the reference answer of a record, the first if there are several.

    Raises
    ------
    UserError
        If there is none; see `references`.
    """
    return references(doc)[0]


def references(doc: Mapping[str, Any]) -> tuple[str, ...]:
    r"""Return the reference answers of a record, each of which is right.

    That is ``answer``, or what ``solution`` boxes: all boxes, as one answer, where the problem asks
    for values separated by commas; each box on its own where the solution accepts either; else the
    last box with the others of its sentence. What stands around a box in a solution does not count.

    Raises
    ------
    UserError
        If the record has neither.

    Examples
    --------
    >>> references({"solution": r"The roots are $\boxed{-2}$ and $\boxed{1}$."})
    ('-2, 1',)
    >>> references({"solution": r"So $d=\boxed{-3}$. Note: $\boxed{3}$ is also accepted."})
    ('-3', '3')
    """
    answer = doc.get("answer")
    if answer is not None and str(answer).strip():
        return (str(answer).strip(),)
    problem, solution = str(doc.get("problem") or ""), str(doc.get("solution") or "")
    unboxed = _UNBOXED.get(blake2b(" ".join(problem.split()).encode(), digest_size=8).hexdigest())
    if unboxed:
        return (unboxed,)
    solution = _closed_up(solution)
    boxes = _boxes(solution)
    if not boxes:
        raise UserError(
            f"problem={problem[:60]!r} has no reference answer: a MATH record has an 'answer', or "
            "a 'solution' with a \\boxed{...}"
        )
    values = _distinct([box.inside for box in reversed(boxes)])
    if len(values) > 1 and _SEVERAL_WANTED.search(problem):
        return (", ".join(values),)
    if len(values) > 1 and _EITHER_ACCEPTED.search(solution):
        return tuple(values)
    group = [box.inside for box in one_answer(solution, boxes)]
    different = _distinct(group)
    return (", ".join(group) if len(different) > 1 else group[-1],)


def _distinct(answers: Sequence[str]) -> list[str]:
    """Return answers in their order, of equal ones the last."""
    return [
        answer
        for place, answer in enumerate(answers)
        if not any(_is_same(answer, later) for later in answers[place + 1 :])
    ]


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

r"""Find the answer of a completion, and the reference answer of a record, in LaTeX.

The answer of a completion is looked for after its thinking section, in this order; the first step
that finds one decides:

1. the last brace-matched ``\boxed{...}`` or ``\fbox{...}`` (``\boxed 2`` where there is no other);
2. the last "the answer is ...", "final answer: ..." and close variants: the formula that follows,
   or the words up to the end of the sentence;
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
    return last_box(text) or _last_announced(text) or _last_formula(text)


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


def _last_announced(text: str) -> str | None:
    for candidate in announced(text):
        answer = _leading_answer(candidate)
        if answer:
            return answer
    return None


def _leading_answer(candidate: str) -> str | None:
    """Return the formulas a sentence leads to, or else its words if they are few."""
    formula = _FORMULA.search(candidate)
    if formula and not _says_something(candidate[: formula.start()]):
        parts = [_inside(formula)]
        following = _joined(candidate, formula.end())
        while following:
            parts.append(_inside(following))
            following = _joined(candidate, following.end())
        return ", ".join(parts)
    end = _SENTENCE_END.search(candidate)
    words = candidate[: end.start() if end else len(candidate)].replace("$", "").strip(" \t:*_,;")
    return words if 0 < len(words) <= MAX_WORDS else None


def _says_something(before: str) -> bool:
    """Return whether the text before a formula is a number, or ends the sentence."""
    return bool(re.search(r"[0-9=]", before) or _SENTENCE_END.search(before))


def _joined(text: str, position: int) -> re.Match[str] | None:
    """Return the formula joined by "and", "or" or a comma to one that ends at ``position``."""
    joint = _JOINT.match(text, position)
    return _FORMULA.match(text, joint.end()) if joint else None


def _last_formula(text: str) -> str | None:
    formulas = list(_FORMULA.finditer(text[-MAX_TAIL:]))
    return _inside(formulas[-1]) if formulas else None


def _inside(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part is not None).strip()

"""The answer of a program, for votes: what it returned.

Two programs give the same answer when the tests' calls returned equal values, or failed in the same
way. The expected values play no part. This is the grouping of Shi et al. 2022, "Natural Language to
Code Translation with Execution" (MBR-EXEC), arXiv:2204.11454, with the tests' calls as the inputs.
"""

from __future__ import annotations

import copy
import hashlib
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from lm_eval_ext.grading.sandbox.session import Handle
from lm_eval_ext.grading.sandbox.wire import Match

MAX_SHOWN = 60  # characters of an answer that are shown as they are; longer ones end in a digest
_LIST_ITERATOR: type[Any] = type(iter([]))
_VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))


def canonical(value: Any) -> str:
    """Return one text for all values that are equal, and different texts for others.

    Examples
    --------
    >>> canonical([1, 2.0, True]) == canonical([1.0, 2, 1]), canonical([1]) == canonical((1,))
    (True, False)
    """
    match value:
        case None | str() | bytes() | bytearray() | type():
            return repr(bytes(value) if isinstance(value, bytearray) else value)
        case range():
            return f"range({_joined((value.start, value.stop, value.step))})"
        case Fraction():
            over = "" if value.denominator == 1 else f"/{canonical(value.denominator)}"
            return f"{canonical(value.numerator)}{over}"
        case bool() | int():
            return hex(value) if abs(value) >= 10**15 else str(int(value))
        case float() if value.is_integer():
            return canonical(int(value))
        case list():
            return f"[{_joined(value)}]"
        case tuple():
            return f"({_joined(value)},)"
        case set() | frozenset():
            return f"{{{', '.join(sorted(map(canonical, value)))}}}"
        case dict():
            pairs = (f"{canonical(key)}: {canonical(held)}" for key, held in value.items())
            return f"{{{', '.join(sorted(pairs))}:}}"
        case deque():
            return f"deque({_joined(value)})"
        case Match():
            return f"match{value.spans}"
        case Handle():
            return "an object"
    if isinstance(value, _LIST_ITERATOR):  # a copy, so that the test still finds the elements
        return f"iterator({_joined(list(copy.copy(value)))})"
    if isinstance(value, _VIEWS):
        return f"{type(value).__name__}({_joined(list(value))})"
    return repr(value)


def _joined(values: Any) -> str:
    return ", ".join(map(canonical, values))


def answer_of(outcomes: Sequence[str]) -> str:
    """Return the answer of a program from the outcomes of its tests, in order.

    Examples
    --------
    >>> answer_of(["3", "4", "!ZeroDivisionError"])
    '3; 4; !ZeroDivisionError'
    """
    text = "; ".join(outcomes)
    if len(text) <= MAX_SHOWN and text.isprintable():
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{ascii(text[:MAX_SHOWN])[1:-1]}... {digest}"

r"""Compare two answers by math-verify, in a worker process.

The parts of math-verify that are unsafe here are left out: answers go through its LaTeX grammar
only (`math_verify.parse` also tries text as a Python expression), and its timers are off (they
raise an exception from a signal handler, which code in C never sees). Two things are added for
speed, which change no verdict, and some that do: numbers near zero are compared by their ratio; i
is the imaginary unit in both answers if it occurs in one; a set is no tuple, and a tuple has an
order, also where the other answer is a bare list; an inequality in one variable is an interval if
the other answer is one; and an equation between numbers has to hold.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from itertools import accumulate
from typing import Any, NamedTuple

_JOINT = re.compile(r",?\s*\\text\s*\{\s*(?:and|or)\s*\}")
_LEFT_SIDE = re.compile(r"(?:\([A-Za-z](?:,[A-Za-z])+\)|[A-Za-z])=(?=[(\[\\])")
_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_ASSIGNMENT = re.compile(r"([A-Za-z](?:_\{?[0-9A-Za-z]\}?)?)=([^=]+)")
_RELATION = re.compile(r"\s*(<|>|\\leq?(?![A-Za-z])|\\geq?(?![A-Za-z])|\\[lg]eqslant)\s*")
_SURE_INTERVAL = re.compile(r"[(\[].*,.*[)\]]", re.DOTALL)
_ARITHMETIC = re.compile(r"\\(?:frac|sqrt|cdot|times|div|pi|left|right)(?![A-Za-z])")
_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")


def compare(gold: str, answer: str) -> dict[str, Any]:
    """Return whether two answers are equal, and whether each is an expression of the grammar."""
    from math_verify import verify

    forms = _comparable(gold, answer)
    if forms is None:
        return {"equal": False, "parsed": [True, True]}
    gold, answer = forms
    equal, parsed = False, [False, False]
    # MemoryError and RecursionError among them: the answer is then not verified.
    with contextlib.suppress(Exception):
        is_complex = bool(_IMAGINARY_UNIT.search(gold) or _IMAGINARY_UNIT.search(answer))
        gold_forms, answer_forms = _parse(gold, is_complex), _parse(answer, is_complex)
        parsed = [len(gold_forms) == 2, len(answer_forms) == 2]
        which = 0 if all(parsed) else -1
        equal = bool(verify(gold_forms[which], answer_forms[which], timeout_seconds=None))
        equal = equal and not _is_false_equation(answer)
    return {"equal": equal, "parsed": parsed}


def _is_false_equation(text: str) -> bool:
    """Return whether two sides of an equation in nothing but exact numbers differ: 2+4 = 5."""
    sides = text.split("=")
    if len(sides) < 2 or re.search(r"[A-Za-z.,%]", _ARITHMETIC.sub(" ", text)):
        return False
    with contextlib.suppress(Exception):
        values = [_expression(side, is_real=True) for side in sides]
        return any(_far_apart(values[0], value) for value in values[1:])
    return False


class _Collection(NamedTuple):
    """The entries of a set, a tuple, an interval or a list without brackets."""

    kind: str
    entries: list[str]

    def as_tuple(self, names: list[str] | None = None) -> str:
        """Return the entries in round brackets; the values of some names, if there are names."""
        values = self.assigned()
        entries = [values[name] for name in names or values] if values else self.entries
        return f"({','.join(entries)})"

    def assigned(self) -> dict[str, str]:
        """Return the values by name if every entry is one of a name of its own, else nothing."""
        matches = [_ASSIGNMENT.fullmatch(entry) for entry in self.entries]
        values = {match[1]: match[2] for match in matches if match}
        return values if len(values) == len(matches) > 1 else {}


def _comparable(gold: str, answer: str) -> tuple[str, str] | None:
    """Return the forms in which math-verify compares two answers, or None if they are unequal."""
    gold, answer = _as_intervals(gold, answer)
    one, other = _collection(gold), _collection(answer)
    if one is None or other is None:
        return gold, answer
    kinds = {one.kind, other.kind}
    if "interval" in kinds:
        return None if "list" in kinds else (gold, answer)
    names = list(one.assigned()), list(other.assigned())
    if all(names) and "set" not in kinds:
        same = sorted(names[0]) == sorted(names[1])
        return (one.as_tuple(), other.as_tuple(names[0])) if same else None
    if kinds == {"set", "tuple"} or ("set" in kinds and any(names)):
        return None
    if kinds == {"list", "tuple"} or any(names):
        return one.as_tuple(), other.as_tuple()
    return gold, answer


def _collection(text: str) -> _Collection | None:
    """Return what an answer with several entries consists of; None for any other."""
    text = _LEFT_SIDE.sub("", _JOINT.sub(",", text.strip()), count=1).strip()
    if _THOUSANDS.fullmatch(text):
        return None
    entries = split_entries(text)
    if len(entries) > 1:
        return _Collection("list", entries)
    if text.startswith("\\{") and text.endswith("\\}"):
        return _Collection("set", split_entries(text[2:-2]))
    if not _SURE_INTERVAL.fullmatch(text):
        return None
    entries = split_entries(text[1:-1])
    if text[0] + text[-1] == "()" and "\\infty" not in text:
        return _Collection("tuple", entries) if len(entries) > 1 and _is_closed(text) else None
    return _Collection("interval", entries) if len(entries) == 2 and _is_closed(text) else None


def _depths(text: str) -> Iterator[int]:
    """Yield how many brackets are open after each character."""
    return accumulate((c in "([{") - (c in ")]}") for c in text)


def _is_closed(text: str) -> bool:
    """Return whether the first bracket of a text is closed by its last character."""
    return all(depth > 0 for depth in _depths(text[:-1]))


def split_entries(text: str) -> list[str]:
    """Return what stands between the commas outside of brackets."""
    ends = [i for i, depth in enumerate(_depths(text)) if text[i] == "," and depth == 0]
    starts = [0, *(end + 1 for end in ends)]
    return [text[i:j].strip() for i, j in zip(starts, [*ends, len(text)], strict=True)]


def _as_intervals(gold: str, answer: str) -> tuple[str, str]:
    """Return two answers with an inequality as an interval, if the other answer is one, too.

    math-verify does so for a reference answer that is an inequality. Round brackets around finite
    ends may be a point, and stay one.
    """
    of_gold, of_answer = _interval(gold), _interval(answer)
    is_interval = _SURE_INTERVAL.fullmatch(gold) and re.search(r"[\[\]]|\\infty", gold)
    if of_answer and is_interval:
        return gold, of_answer[1]
    if of_gold and of_answer and of_gold[0] == of_answer[0]:
        return of_gold[1], of_answer[1]
    return gold, answer


def _interval(text: str) -> tuple[str, str] | None:
    """Return the variable of an inequality and the interval it is in; None for any other text."""
    parts = _RELATION.split(text)
    sides, signs = parts[::2], parts[1::2]
    ascending = {sign == "<" or sign.startswith("\\l") for sign in signs}
    if len(signs) not in (1, 2) or len(ascending) > 1 or re.search("[,=]", text):
        return None
    if ascending == {False}:
        sides, signs = sides[::-1], signs[::-1]
    strict = [sign in ("<", ">") for sign in signs]
    if len(signs) == 1:
        if _is_name(sides[0]) and not _has_name(sides[1]):
            sides, strict = [r"-\infty", *sides], [True, *strict]
        else:
            sides, strict = [*sides, r"\infty"], [*strict, True]
    low, variable, high = sides
    if not _is_name(variable) or _has_name(low) or _has_name(high):
        return None
    return variable, f"{'(' if strict[0] else '['}{low},{high}{')' if strict[1] else ']'}"


def _is_name(text: str) -> bool:
    return bool(re.fullmatch("[A-Za-z]", text))


def _has_name(text: str) -> bool:
    """Return whether a side of an inequality is empty, or not a constant."""
    return not text or bool(re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)))


def clear_cache() -> None:
    """Forget what was parsed."""
    _parse.cache_clear()


def compare_relatively() -> None:
    """Let math-verify compare numbers by their ratio, and exact ones exactly.

    By itself it rounds decimals to six digits after the point, and takes a difference below 1e-15
    for none, so that numbers near zero are all equal. Differences far from zero at one point are
    refuted before they are simplified, which spares half of its time: most wrong answers are.
    """
    import math_verify.grader as grader

    by_number, by_simplification = grader.sympy_numeric_eq, grader.sympy_symbolic_eq

    def numeric_eq(gold: Any, answer: Any, *precision: int) -> bool:
        from sympy import Expr, Number

        if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
            return bool(by_number(gold, answer, *precision))
        if not any(grader.is_atomic_or_pct_atomic(each, Number) for each in (gold, answer)):
            with contextlib.suppress(Exception):
                return _same_number(gold, answer)
            return False
        with contextlib.suppress(Exception):
            if _unequal_numbers(gold, answer):
                return False  # the digits of a factorial may take long
        return bool(by_number(gold, answer, *precision)) and _same_size(gold, answer)

    def symbolic_eq(gold: Any, answer: Any) -> bool:
        with contextlib.suppress(Exception):
            if _far_apart(gold, answer) or _unequal_numbers(gold, answer):
                return False
        return bool(by_simplification(gold, answer))

    grader.sympy_numeric_eq, grader.sympy_symbolic_eq = numeric_eq, symbolic_eq


def _same_number(gold: Any, answer: Any) -> bool:
    """Return whether the difference of two expressions is a number, and no more than a rounding."""
    from sympy import Float

    difference = (gold - answer).evalf(15)
    if not (difference.is_number and difference.is_finite):
        return False
    if gold.has(Float) or answer.has(Float):
        sizes = [abs(each.evalf(15)) for each in (gold, answer)]
        if all(size.is_number for size in sizes):
            return bool(abs(difference) <= max(sizes) * Float("1e-12"))
        return bool(abs(difference) <= Float("1e-15"))
    # Of a difference that cancels out, not one digit is known after evaluation to a hundred.
    parts = difference.as_real_imag()
    return all(part.is_zero or (part.is_Float and part._prec < 8) for part in parts)


def _unequal_numbers(gold: Any, answer: Any) -> bool:
    """Return whether two exact numbers with a factorial are known to differ, without its digits."""
    from sympy import factorial, preorder_traversal

    if not (gold.has(factorial) or answer.has(factorial)):
        return False
    elementary = (*_elementary(), factorial)
    parts = [part for each in (gold, answer) for part in preorder_traversal(each)]
    exact = all(
        isinstance(part, elementary) and not (part.is_Float or part.is_Symbol) for part in parts
    )
    return exact and not _same_number(gold, answer)


def _elementary() -> tuple[type, ...]:
    """Return what evaluates fast and to digits that are known to hold."""
    from sympy import Abs, Add, Atom, Mul, Pow, cos, exp, log, sin, tan

    return (Atom, Add, Mul, Pow, Abs, cos, exp, log, sin, tan)


def _same_size(gold: Any, answer: Any) -> bool:
    """Return whether two numbers that were rounded to the same one are within a hundredth."""
    with contextlib.suppress(Exception):
        one, other = gold.doit().evalf(15), answer.doit().evalf(15)
        return bool(abs(one - other) * 100 <= max(abs(one), abs(other)))
    return True


def _far_apart(gold: Any, answer: Any) -> bool:
    """Return whether two expressions, or two entries of matrices, differ at a point by much."""
    from sympy import Expr, Float, MatrixBase, preorder_traversal

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        return gold.shape == answer.shape and any(map(_far_apart, gold.flat(), answer.flat()))
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return False
    elementary = _elementary()
    values = []
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    point = {symbol: Float(0.7 + 0.1234567 * number) for number, symbol in enumerate(symbols)}
    for expression in (gold, answer):
        if not all(isinstance(part, elementary) for part in preorder_traversal(expression)):
            return False  # an integral or a sum may take long, or be formal
        values.append(complex(expression.xreplace(point).evalf(15)))
    return abs(values[0] - values[1]) > 1e-3 * (abs(values[0]) + abs(values[1]))


@lru_cache(maxsize=64)
def _parse(text: str, is_complex: bool) -> tuple[Any, ...]:
    """Return the expression and the normalized text of an answer; only the text if it is none.

    Texts are compared where one of two answers is not an expression.
    """
    from math_verify import LatexExtractionConfig, parser

    percent = text.endswith("%")
    # Its own settings, but for the boxes, which are off already.
    settings = replace(LatexExtractionConfig().normalization_config, boxed="none")
    normalized = parser.normalize_latex(text, settings)
    bare = normalized.rstrip("\\% ") if percent else normalized
    is_real = not (is_complex or parser.should_treat_as_complex(bare))
    try:
        try:
            expression = _expression(bare, is_real)
        except Exception:
            # The grammar has no "2+3=4+1=5"; what follows its last sign may be a relation.
            last = parser.get_last_eq(bare)
            if last == bare:
                raise
            expression = _expression(last, is_real)
        if is_complex:
            expression = _with_imaginary_unit(expression)
    except Exception:
        return (normalized,)
    return (parser.convert_to_pct(expression) if percent else expression), normalized


def _expression(latex: str, is_real: bool) -> Any:
    """Parse in the two stages that ANTLR recommends.

    Prediction without the full context is several times faster. What it accepts, it reads as
    prediction in context does; what it does not accept is parsed again in that mode.
    """
    reader = _readers()
    with contextlib.suppress(Exception):
        return reader["SLL"](is_real=is_real).parse(latex)
    return reader["LL"](is_real=is_real).parse(latex)


@lru_cache(maxsize=1)
def _readers() -> dict[str, Any]:
    """Return math-verify's converter in both modes of prediction."""
    converter = import_module("latex2sympy2_extended.latex2sympy2")._Latex2Sympy
    modes = import_module("antlr4.atn.PredictionMode").PredictionMode

    def in_mode(name: str) -> Any:
        class Reader(converter):  # type: ignore[misc, valid-type]
            def create_parser(self, latex: str) -> Any:
                parser = super().create_parser(latex)
                parser._interp.predictionMode = getattr(modes, name)
                return parser

        return Reader

    return {name: in_mode(name) for name in ("SLL", "LL")}


def _with_imaginary_unit(expression: Any) -> Any:
    """Return the expression with the symbol i as the number; math-verify leaves it a symbol."""
    from sympy import I

    named = {symbol: I for symbol in expression.free_symbols if symbol.name == "i"}
    return expression.xreplace(named) if named else expression

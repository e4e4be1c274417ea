r"""Compare two answers by math-verify, in a worker process.

The parts of math-verify that are unsafe here are left out: answers go through its LaTeX grammar
only (`math_verify.parse` also tries text as a Python expression), and its timers are off (they
raise an exception from a signal handler, which code in C never sees). Two things are added for
speed, which change no verdict, and one that does: i is the imaginary unit in both answers if it
occurs in one.
"""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from importlib import import_module
from typing import Any

_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")


def compare(gold: str, answer: str) -> dict[str, Any]:
    """Return whether two answers are equal, and whether each is an expression of the grammar."""
    from math_verify import verify

    equal, parsed = False, [False, False]
    # MemoryError and RecursionError among them: the answer is then not verified.
    with contextlib.suppress(Exception):
        is_complex = bool(_IMAGINARY_UNIT.search(gold) or _IMAGINARY_UNIT.search(answer))
        gold_forms, answer_forms = _parse(gold, is_complex), _parse(answer, is_complex)
        parsed = [len(gold_forms) == 2, len(answer_forms) == 2]
        which = 0 if all(parsed) else -1
        equal = bool(verify(gold_forms[which], answer_forms[which], timeout_seconds=None))
    return {"equal": equal, "parsed": parsed}


def clear_cache() -> None:
    """Forget what was parsed."""
    _parse.cache_clear()


def refute_numerically_first() -> None:
    """Spare math-verify the simplification of differences that are far from zero at one point.

    Most answers that are wrong are; to find that out by `sympy.simplify` is half of its time.
    """
    import math_verify.grader as grader

    by_simplification = grader.sympy_symbolic_eq

    def symbolic_eq(gold: Any, answer: Any) -> bool:
        with contextlib.suppress(Exception):
            if _far_apart(gold, answer):
                return False
        return bool(by_simplification(gold, answer))

    grader.sympy_symbolic_eq = symbolic_eq


def _far_apart(gold: Any, answer: Any) -> bool:
    """Return whether two expressions, or two entries of matrices, differ at a point by much."""
    from sympy import Abs, Add, Atom, Expr, Float, MatrixBase, Mul, Pow, preorder_traversal
    from sympy import cos, exp, log, sin, tan  # isort: skip

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        return gold.shape == answer.shape and any(map(_far_apart, gold.flat(), answer.flat()))
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return False
    elementary = (Atom, Add, Mul, Pow, Abs, cos, exp, log, sin, tan)
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

    Texts are compared where one of two answers is no expression.
    """
    from math_verify.parser import (
        convert_to_pct,
        get_last_eq,
        normalize_latex,
        should_treat_as_complex,
    )

    percent = text.endswith("%")
    normalized = normalize_latex(text, _normalization())
    bare = normalized.rstrip("\\% ") if percent else normalized
    is_real = not (is_complex or should_treat_as_complex(bare))
    try:
        try:
            expression = _expression(bare, is_real)
        except Exception:
            # "2+3=4+1=5" is no relation the grammar knows; what follows its last sign may be one.
            last = get_last_eq(bare)
            if last == bare:
                raise
            expression = _expression(last, is_real)
        if is_complex:
            expression = _with_imaginary_unit(expression)
    except Exception:
        return (normalized,)
    return (convert_to_pct(expression) if percent else expression), normalized


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


@lru_cache(maxsize=1)
def _normalization() -> Any:
    """Return math-verify's own settings, but for the boxes, which are off already."""
    from dataclasses import replace

    from math_verify import LatexExtractionConfig

    return replace(LatexExtractionConfig().normalization_config, boxed="none")

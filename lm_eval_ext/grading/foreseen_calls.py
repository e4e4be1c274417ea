"""Read from the text of tests which calls they will make.

Most tests make one call with constant arguments. Asking for all of them when the program starts
saves a wait between two processes per test. Where anything about a call is open, none is foreseen,
so that a program always sees the same calls in the same order.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

Call = tuple[str, tuple[Any, ...]]
"""A name and the arguments it is called with."""

# Whatever is evaluated at most once, and always, when what it belongs to is.
_PLAIN = (ast.Call, ast.UnaryOp, ast.BinOp, ast.Attribute, ast.Subscript, ast.keyword)
_LISTS = (ast.List, ast.Tuple, ast.Set)


def foreseen_calls(
    setup: ast.Module, tests: Sequence[ast.Module], names: Sequence[str]
) -> tuple[Call, ...]:
    """Return one call per test, in order, or nothing.

    Parameters
    ----------
    setup
        What runs before the tests.
    tests
        The tests.
    names
        The names of the program that the tests use.

    Examples
    --------
    >>> tests = [ast.parse(f"assert set(f([1], {n})) == {{1}}") for n in (2, 3)]
    >>> foreseen_calls(ast.parse("import math"), tests, ["f"])
    (('f', ([1], 2)), ('f', ([1], 3)))
    >>> foreseen_calls(ast.parse(""), [ast.parse("assert all(f(n) for n in [1])")], ["f"])
    ()
    """
    if _uses(setup, names):
        return ()
    found = [_call_of(test, names) for test in tests]
    return tuple(call for call in found if call is not None) if None not in found else ()


def _uses(node: ast.AST, names: Sequence[str]) -> int:
    """Count the uses of the names below a node."""
    return sum(isinstance(inner, ast.Name) and inner.id in names for inner in ast.walk(node))


def _call_of(test: ast.Module, names: Sequence[str]) -> Call | None:
    """Return the one call a test is sure to make, if there is one."""
    if len(test.body) != 1 or not isinstance(test.body[0], ast.Assert) or _uses(test, names) != 1:
        return None
    node: ast.AST = test.body[0].test
    while not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ):
        certain = isinstance(node, _PLAIN + _LISTS) or (
            isinstance(node, ast.Compare) and len(node.ops) == 1
        )
        inside = [child for child in ast.iter_child_nodes(node) if _uses(child, names)]
        if not certain or len(inside) != 1:
            return None
        node = inside[0]
    try:
        for argument in node.args:
            ast.literal_eval(argument)
    except ValueError:
        return None
    # Computed as the test will compute them: `literal_eval` puts a set together in another way, and
    # it would be iterated in another order.
    arguments = ast.Expression(ast.Tuple(node.args, ast.Load()))
    code = compile(ast.fix_missing_locations(arguments), "<test>", "eval", dont_inherit=True)
    return None if node.keywords else (node.func.id, eval(code, {}))

"""The tests of a record, and how a program does on them.

The tests run here, in this process: they are the data set's own text. Only the names that the
program is to define stand for objects in the program's process, so that the program's part in a
test is to receive arguments and to return plain data.

Which names those are: every name that the tests or their setup use and do not define or import
themselves; a built-in name only where the reference solution defines it (``sum`` in one record). A
standard module that the tests use and nobody imports (``sys.getsizeof`` in another) is imported
here: in the published data it comes from the reference solution's own imports.

Most tests make one call with constant arguments. Asking for all of them when the program starts
saves a wait between two processes per test. Where anything about a call is open, none is foreseen,
so that a program always sees the same calls in the same order.

What the tests' setup imports is imported in the program's process too, before the program, as if
both shared one namespace. Each side has its own: a program that replaces ``math.isclose`` replaces
it for itself.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.code_answers import answer_of, canonical
from lm_eval_ext.grading.sandbox.session import HandleError, ProgramError, ProgramGone, Session

_DEFINITION = re.compile(
    r"^(?:(?:async\s+)?def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE
)

Call = tuple[str, tuple[Any, ...]]
"""A name and the arguments it is called with."""

# Whatever is evaluated at most once, and always, when what it belongs to is.
_PLAIN = (ast.Call, ast.UnaryOp, ast.BinOp, ast.Attribute, ast.Subscript, ast.keyword)
_LISTS = (ast.List, ast.Tuple, ast.Set)


class CodeTests(NamedTuple):
    """The tests of one record."""

    setup: CodeType  # runs once before the tests, after the program
    tests: tuple[CodeType, ...]
    names: tuple[str, ...]  # what the program is to define
    modules: tuple[str, ...]  # of the standard library, used without being imported
    reference: str  # the reference solution, empty where the record has none
    calls: tuple[Call, ...]  # that the tests will make, where that is known; see `Session.load`
    imports: tuple[str, ...]  # the setup's, which the program finds done


class Verdict(NamedTuple):
    """What a program returned, and the first thing that went wrong, None where all tests passed."""

    answer: str
    reason: str | None


def read_tests(doc: Mapping[str, Any]) -> CodeTests:
    """Read the tests of a record of MBPP, full or sanitized.

    ``test_list`` and, where the record has them, ``test_setup_code`` and ``test_imports`` are used;
    ``challenge_test_list`` is not, as in the published evaluation.

    Raises
    ------
    UserError
        If there are no tests or they are no Python.
    """
    texts = list(doc.get("test_list") or ())
    if not texts:
        raise UserError("test_list is empty: a record of MBPP has its tests there")
    setup = "\n".join([*(doc.get("test_imports") or ()), doc.get("test_setup_code") or ""])
    reference = str(doc.get("code") or "")
    try:
        trees = [ast.parse(text) for text in (setup, *texts)]
    except SyntaxError as error:
        raise UserError(f"test_list or test_setup_code is no Python: {error}") from None
    # Found in its text: parsing it would warn of the odd escape sequences in published solutions.
    defined = {match[1] or match[2] for match in _DEFINITION.finditer(reference)}
    names, modules = _names(trees, defined)
    # Optimization 0: under `python -O` an assertion would be left out, and every program pass.
    setup_code, *tests = (
        compile(tree, "<test>", "exec", dont_inherit=True, optimize=0) for tree in trees
    )
    calls = foreseen_calls(trees[0], trees[1:], names)
    imports = tuple(
        ast.unparse(node) for node in trees[0].body if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return CodeTests(setup_code, tuple(tests), names, modules, reference, calls, imports)


def _names(trees: list[ast.Module], reference: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that are to come from the program, and the modules to import.

    ``reference`` are those that the reference solution defines at its top level.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            own |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
    used = dict.fromkeys(node.id for node in names if node.id not in own)
    bases = {
        node.value.id
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = {name for name in bases & set(used) if name in sys.stdlib_module_names} - reference
    wanted = [
        name
        for name in used
        if name in reference or (name not in modules and not hasattr(builtins, name))
    ]
    return tuple(wanted), tuple(sorted(modules))


def foreseen_calls(
    setup: ast.Module, tests: Sequence[ast.Module], names: Sequence[str]
) -> tuple[Call, ...]:
    """Return one call of a program's names per test, in order, or nothing.

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


def run_tests(tests: CodeTests, program: str, session: Session) -> Verdict:
    """Run a program and all tests on it, also after one has failed, for the sake of its answer."""
    run = _Run(session)
    space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    space |= {name: importlib.import_module(name) for name in tests.modules}

    def prepare() -> None:
        space.update(session.load(program, tests.names, tests.calls, tests.imports))
        exec(tests.setup, space)

    run.step("program", prepare)
    if run.reason is None:
        for number, test in enumerate(tests.tests, 1):
            run.step(f"test {number}", lambda test=test: exec(test, space))
    return Verdict(answer_of(run.outcomes), run.reason)


class _Run:
    """What happened so far while the tests ran.

    In an outcome, what failed stands after ``!``, which no returned value begins with: an exception
    may be called ``1``.
    """

    def __init__(self, session: Session) -> None:
        self.reason: str | None = None
        self.outcomes: list[str] = []
        self._returned: list[str] = []
        session.on_return = lambda value: self._returned.append(canonical(value))

    def step(self, name: str, work: Any) -> None:
        """Do one step; note what its calls returned and what went wrong."""
        self._returned.clear()
        wrong = None
        try:
            work()
        except AssertionError:
            wrong = f"{name}: wrong value"
        except ProgramError as error:
            wrong = f"{name}: {error}"
            self._returned.append(f"!{error}")
        except ProgramGone as gone:
            wrong = str(gone) if str(gone) == "timeout" else f"{name}: {gone}"
            self._returned.append(f"!{gone}")
        except HandleError:
            wrong = f"{name}: result is no plain data"
        except Exception as error:  # of the test itself, on a value of the wrong type
            wrong = f"{name}: {type(error).__name__}"
        if name != "program" or wrong is not None:
            failed = "!" + (wrong or "").partition(": ")[2]
            self.outcomes.append(", ".join(self._returned) or failed)
        if self.reason is None:
            self.reason = wrong

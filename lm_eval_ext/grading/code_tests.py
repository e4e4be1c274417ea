"""The tests of a record, and how a program does on them.

The tests run here, in this process: they are the data set's own text. Only the names that the
program is to define stand for objects in the program's process, so that the program's part in a
test is to receive arguments and to return plain data.

Which names those are: every name that the tests or their setup use and do not define or import
themselves; a built-in name only where the reference solution defines it (``sum`` in one record). A
standard module that the tests use and nobody imports (``sys.getsizeof`` in another) is imported
here: in the published data it comes from the reference solution's own imports.

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
from collections.abc import Mapping
from types import CodeType
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.code_answers import answer_of, canonical
from lm_eval_ext.grading.foreseen_calls import Call, foreseen_calls
from lm_eval_ext.grading.sandbox.session import HandleError, ProgramError, ProgramGone, Session

_DEFINITION = re.compile(
    r"^(?:(?:async\s+)?def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE
)


class CodeTests(NamedTuple):
    """The tests of one record.

    Parameters
    ----------
    setup
        What runs once before the tests, after the program.
    tests
        The assertions.
    names
        What the program is to define.
    modules
        Standard modules that the tests use without importing them.
    reference
        The reference solution, empty where the record has none.
    calls
        The calls that the tests will make, where that can be told from their text; see
        `Session.load`.
    imports
        The import statements of the setup, which the program finds done.
    """

    setup: CodeType
    tests: tuple[CodeType, ...]
    names: tuple[str, ...]
    modules: tuple[str, ...]
    reference: str
    calls: tuple[Call, ...]
    imports: tuple[str, ...]


class Verdict(NamedTuple):
    """How one program did.

    Parameters
    ----------
    answer
        What it returned, see `lm_eval_ext.grading.code_answers`.
    reason
        The first thing that went wrong, None where all tests passed.
    """

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
    names, modules = _names(trees, _defined_by(reference))
    setup_code, *tests = (_compiled(tree) for tree in trees)
    calls = foreseen_calls(trees[0], trees[1:], names)
    imports = tuple(
        ast.unparse(node) for node in trees[0].body if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return CodeTests(setup_code, tuple(tests), names, modules, reference, calls, imports)


def _compiled(tree: ast.Module) -> CodeType:
    # Optimization 0: under `python -O` an assertion would be left out, and every program pass.
    return compile(tree, "<test>", "exec", dont_inherit=True, optimize=0)


def _defined_by(reference: str) -> set[str]:
    """Return the names the reference solution defines at its top level, imports left out.

    Found in its text: parsing it would warn of the odd escape sequences in published solutions.
    """
    return {match[1] or match[2] for match in _DEFINITION.finditer(reference)}


def _names(trees: list[ast.Module], reference: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that are to come from the program, and the modules to import."""
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

"""Refuse to run text as Python in a process that computes with a model's answers.

SymPy turns a string into an expression by compiling it (``sympify("2+x")``), and even its numbers
go that way. Two layers, each enough for what is known:

- `replace_text_evaluation` takes the compiler out of SymPy's reach: a string is a numeral or an
  error. `lambdify`, which prints an expression as source and compiles that, is an error.
- `enforce` adds an audit hook, which Python code cannot take off again: compiling or running code,
  processes, sockets, writing or removing files, and calls into C are refused from then on, but for
  imports, and for code that libraries of known names make from integers.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NoReturn

_NUMERAL = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<integer>[0-9]+)|[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]{1,4})?)"
)

_REFUSED = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link",
    "os.symlink", "os.truncate", "os.kill", "os.killpg", "os.putenv", "pty.spawn",
    "subprocess.Popen", "socket.", "shutil.", "ctypes.", "signal.pthread_kill", "code.__new__",
    "webbrowser.open", "urllib.Request", "pickle.find_class",
)  # fmt: skip
"""Beginnings of the audit events that no comparison of answers raises."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_TRUSTED_CALLERS = (
    "<frozen importlib._bootstrap>",
    "<frozen importlib._bootstrap_external>",
    "/importlib/_bootstrap.py",
    "/importlib/_bootstrap_external.py",
    "/collections/__init__.py",
    "/dataclasses.py",
    "/sympy/polys/monomials.py",
)
"""Source files that compile text of their own making: imports, record types, products of powers."""


class EvaluationRefusedError(RuntimeError):
    """Something was about to happen that computing with answers never needs."""


def replace_text_evaluation() -> None:
    """Make SymPy read a string as a numeral or not at all, in this process."""
    import sympy
    import sympy.parsing.sympy_parser as sympy_parser
    import sympy.polys.rootoftools

    def parse_numeral(text: object, *_args: object, **_settings: object) -> Any:
        match = _NUMERAL.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise sympy.SympifyError("text is not evaluated")
        return sympy.Integer(int(text)) if match["integer"] else sympy.Float(text)  # type: ignore[call-overload]

    def refuse(*_args: object, **_settings: object) -> NoReturn:
        raise EvaluationRefusedError("text is not evaluated")

    replacements = {"parse_expr": parse_numeral, "eval_expr": refuse, "lambdify": refuse}
    originals = (sympy_parser.parse_expr, sympy_parser.eval_expr, sympy.lambdify)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("sympy", "latex2sympy2_extended", "math_verify"):
            for attribute, replacement in replacements.items():
                # By identity: `sympy.utilities.lambdify` is a module and a function.
                if any(getattr(module, attribute, None) is original for original in originals):
                    setattr(module, attribute, replacement)


def enforce() -> None:
    """Refuse, for the rest of this process' life, the events listed above."""
    sys.dont_write_bytecode = True  # an import that cannot write its cache would fail
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("compile", "exec"):
        caller = sys._getframe(1).f_code.co_filename
        if not caller.endswith(_TRUSTED_CALLERS):
            raise EvaluationRefusedError(f"{event} from {caller}")
    elif event == "open":
        mode, flags = arguments[1], arguments[2]
        if (mode and set(mode) & set("wax+")) or (flags and flags & _WRITING):
            raise EvaluationRefusedError("open for writing")
    elif event.startswith(_REFUSED):
        raise EvaluationRefusedError(event)

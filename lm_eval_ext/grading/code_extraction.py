"""Find the program in a completion.

The rule, in this order, on what follows the thinking section:

1. The text ends at the first ``[DONE]`` outside a closed fence and begins after the last
   ``[BEGIN]`` before it, where there are such marks: the few-shot format of MBPP.
2. Fenced blocks (`lm_eval_ext.grading.code_fences`). Blocks marked as another language than Python
   are passed over. The last block that defines every name the tests use is taken; else the last
   that defines one of them; else the last block. A fence that is never closed, as in a completion
   cut off, runs to the end.
3. What is outside fences, where there are none, or no block defines a name that the tests use and
   this does: as when the opening fence is part of the prompt. It counts if a line of it looks like
   a statement that makes a function, a class, a name or an import.

Prose and tags around the code, in a block or outside, are left out, and code that is indented as a
whole is moved to the left (`lm_eval_ext.grading.code_lines`). Definitions that the program uses and
that stand in another block come with it (`lm_eval_ext.grading.code_joining`).

Otherwise there is no program.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from lm_eval_ext.grading.code_fences import Block, blocks
from lm_eval_ext.grading.code_joining import with_definitions
from lm_eval_ext.grading.code_lines import STATEMENT, runs
from lm_eval_ext.models.thoughts import after_thinking

_PYTHON = {"", "python", "python3", "py", "python-code"}
_BYTE_ORDER_MARK = re.compile("^[ \t]*\ufeff+", re.MULTILINE)
_QUOTED = re.compile(r"^[ \t]*> ?", re.MULTILINE)


def extract_code(completion: str, names: Sequence[str] = ()) -> str | None:
    r"""Return the program a completion gives as its answer, or None.

    Parameters
    ----------
    completion
        What the model wrote after the prompt.
    names
        The names that the tests use and the program is to define.

    Examples
    --------
    >>> extract_code("def f(x):\n    return x\n[DONE]\nYou are an expert", ["f"])
    'def f(x):\n    return x\n'
    >>> extract_code("Sure.\n```python\nf = abs\n```\nCall it:\n```python\nf(1)\n```", ["f"])
    'f = abs\n'
    >>> extract_code("I cannot answer that.") is None
    True
    """
    text = _BYTE_ORDER_MARK.sub("", after_thinking(completion))
    text = _until_done(text).rpartition("[BEGIN]")[2]
    fenced = blocks(text)
    inside = [
        run
        for block in fenced
        if block.language in _PYTHON and block.body.strip()
        for run in runs(_unquoted(textwrap.dedent(block.body)))
    ]
    outside = [
        run for part in _outside(text, fenced) for run in runs(part) if STATEMENT.search(run)
    ]
    program = _best(inside, names)
    if program is None or not _defined(program, names):
        other = _best(outside, names)
        if other is not None and (not fenced or _only_there(names, other, inside)):
            program = other
    if program is None:
        return None
    return with_definitions(program, [*outside, *inside], names)


def _until_done(text: str) -> str:
    """Return the text before the first ``[DONE]`` that is not part of a fenced program."""
    marks = list(re.finditer(re.escape("[DONE]"), text))
    closed = [block for block in blocks(text) if block.closed] if marks else []
    for mark in marks:
        while closed and closed[0].end <= mark.start():
            del closed[0]
        if not closed or mark.start() < closed[0].start:
            return text[: mark.start()]
    return text


def _outside(text: str, fenced: Sequence[Block]) -> Iterator[str]:
    """Yield the parts of a text that are in no block."""
    place = 0
    for block in fenced:
        yield text[place : block.start]
        place = block.end
    yield text[place:]


def _unquoted(body: str) -> str:
    """Return a block without the marks of a quotation, if every line has one."""
    lines = [line for line in body.splitlines() if line.strip()]
    return _QUOTED.sub("", body) if all(map(_QUOTED.match, lines)) else body


def _only_there(names: Sequence[str], piece: str, others: Sequence[str]) -> bool:
    """Tell whether a piece defines one of the names, and no other does, at any depth."""
    some = "|".join(map(re.escape, names))
    deep = re.compile(rf"\b(?:def|class)\s+(?:{some})\b|\b(?:{some})\s*=[^=]")
    return bool(_defined(piece, names)) and not any(map(deep.search, others))


def _best(pieces: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the last of the pieces that define the most."""
    return max(reversed(pieces), key=lambda piece: _defined(piece, names), default=None)


def _defined(block: str, names: Sequence[str]) -> int:
    """Return 2 if a block defines all the names, 1 if it defines one, 0 if none."""
    found = [
        re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b", block, re.MULTILINE)
        or re.search(rf"^{re.escape(name)}\s*(?::[^=\n]+)?=[^=]", block, re.MULTILINE)
        for name in names
    ]
    return 2 * all(found) or int(any(found))

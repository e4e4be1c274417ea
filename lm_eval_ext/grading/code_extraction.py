"""Find the program in a completion.

The rule, in this order, on what follows the thinking section:

1. The text ends at the first ``[DONE]`` outside a closed fence and begins after the last
   ``[BEGIN]`` before it, where there are such marks: the few-shot format of MBPP.
2. Fenced blocks. Blocks marked as another language than Python are passed over. The last block
   that defines every name the tests use is taken; else the last that defines one of them; else the
   last block. A fence that is never closed, as in a completion cut off, runs to the end.
3. Without a fence, the whole text, if a line of it looks like a statement that makes a function, a
   class, a name or an import.

Otherwise there is no program.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from lm_eval_ext.grading.extraction import after_thinking

_FENCE = re.compile(
    r"^[ \t>]*```[ \t]*([\w+-]*)[^\n`]*\n(.*?)(?:^[ \t>]*```|\Z)", re.MULTILINE | re.DOTALL
)
_PYTHON = {"", "python", "python3", "py", "python-code"}
_STATEMENT = re.compile(
    r"^[ \t]*(?:def\s|class\s|import\s|from\s+\S+\s+import\b|@|[^\W\d]\w*[ \t]*=[^=])", re.MULTILINE
)


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
    text = _until_done(after_thinking(completion)).rpartition("[BEGIN]")[2]
    found = list(_FENCE.finditer(text))
    blocks = [match[2] for match in found if match[1].lower() in _PYTHON]
    blocks = [textwrap.dedent(block) for block in blocks if block.strip()]
    if blocks:
        return max(reversed(blocks), key=lambda block: _defined(block, names))
    if found or not _STATEMENT.search(text):
        return None
    return text


def _until_done(text: str) -> str:
    """Return the text before the first ``[DONE]`` that is not part of a fenced program."""
    closed = [match.span() for match in _FENCE.finditer(text) if match[0].rstrip().endswith("```")]
    for mark in re.finditer(re.escape("[DONE]"), text):
        if not any(start < mark.start() < end for start, end in closed):
            return text[: mark.start()]
    return text


def _defined(block: str, names: Sequence[str]) -> int:
    """Return 2 if a block defines all the names, 1 if it defines one, 0 if none."""
    found = [
        re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b", block, re.MULTILINE)
        or re.search(rf"^{re.escape(name)}\s*(?::[^=\n]+)?=[^=]", block, re.MULTILINE)
        for name in names
    ]
    return 2 * all(found) or int(any(found))

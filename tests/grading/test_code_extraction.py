"""Which part of a completion is the program."""

from __future__ import annotations

import pytest

from lm_eval_ext.grading.code_extraction import extract_code

F = "def f(x):\n    return x\n"
G = "def g(x):\n    return f(x)\n"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (f"\n{F}[DONE]\n", f"\n{F}"),
        (f"{F}[DONE]\n\nYou are an expert.\n[BEGIN]\n{G}[DONE]", F),
        (f"[BEGIN]\n{F}[DONE]", f"\n{F}"),
        (f"Here it is.\n[BEGIN]\n```python\n{F}```\n[DONE]", F),
        (F, F),
        (f"<think>def f(): pass\n```python\n{G}```</think>\n```python\n{F}```", F),
        (f"```python\n{F}```", F),
        (f"```\n{F}```", F),
        (f"```py\n{F}```\nIt works.", F),
        (f"```Python\r\n{F}```", F),
        (f"Let me write it.\n```python\n{F}", F),  # cut off
        (f"```python\n{F}```\nAn example:\n```python\nprint(f(1))\n```", F),
        (f"```python\n{G}```\nBetter:\n```python\n{F}```", F),
        (f"```python\n{F}```\nBetter:\n```python\n{F}# 2\n```", f"{F}# 2\n"),
        (f"```python\n{F}```\nIt prints:\n```text\n3\n```", F),
        (f"```bash\npip install f\n```\n```python\n{F}```", F),
        ("1. First\n   ```python\n   def f(x):\n       return x\n   ```", F),
        ("```python\nf = lambda x: x\n```\n```python\nf(2)\n```", "f = lambda x: x\n"),
        ("```python\nprint(1)\n```\n```python\nprint(2)\n```", "print(2)\n"),
        ("import math\nf = math.sqrt", "import math\nf = math.sqrt"),
    ],
)
def test_program(completion: str, program: str) -> None:
    assert extract_code(completion, ["f"]) == program


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "   \n",
        "I do not know.",
        "[DONE]",
        "<think>def f(x): return x",
        "```python\n```",
        "```bash\nls\n```",
        "The answer is x == 3",
    ],
)
def test_no_program(completion: str) -> None:
    assert extract_code(completion, ["f"]) is None


def test_the_block_with_all_names_is_taken() -> None:
    both = f"{F}\n{G}"
    completion = f"```python\n{both}```\nor\n```python\n{G}```"
    assert extract_code(completion, ["f", "g"]) == both
    assert extract_code(completion, ["g"]) == f"{F}{G}"  # which uses f


def test_a_megabyte_of_fences_takes_no_time() -> None:
    for text in ("```" * 300_000, "```python\n" * 100_000, " " * 1_000_000, "`" * 1_000_000):
        extract_code(text, ["f"])


def test_the_mark_of_the_end_inside_a_fence_is_part_of_the_program():
    program = "def f(text):\n    return text.split('[DONE]')\n"
    assert extract_code(f"```python\n{program}```\n[DONE]\n```python\nf = 1\n```", ["f"]) == program
    # A fence that is not closed does not protect it.
    assert extract_code("```python\ndef f():\n    pass\n[DONE]\nf = 1", ["f"]) == (
        "def f():\n    pass\n"
    )

"""Right and wrong programs in every wrapping that models put around them, graded."""

from __future__ import annotations

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade_many
from lm_eval_ext.grading.sandbox.pool import shared_pool

DOC = {
    "code": "def f(x):\n    return x + 1",
    "test_list": ["assert f(1) == 2", "assert f(5) == 6"],
}
F = "def f(x):\n    return x + 1\n"
BAD = "def f(x):\n    return x + 2\n"
INDENTED = "    def f(x):\n        return x + 1\n"
G = "def g(x):\n    return x + 1\n"
USES_G = "def f(x):\n    return g(x)\n"
DOCSTRING = (
    'def f(x):\n    """Add one.\n\n    Example:\n    ```\n    >>> f(1)\n    2\n    ```\n    """\n'
    "    return x + 1\n"
)
DOCSTRING_AT_MARGIN = (
    'def f(x):\n    """Add one.\n\n```python\nf(1)\n```\n    """\n    return x + 1\n'
)
MODULE_DOCSTRING = '"""\nModule.\n```\nf(1)\n```\n"""\nimport math\ndef f(x):\n    return x + 1\n'

STRAY_FENCES = {
    "a closing fence and prose": F + "```\nThis function adds one to x.",
    "a closing fence and a list": F + "```\n\nExplanation:\n- It adds one.\n- It's fast.\n",
    "a closing fence and a usage": F + "```\n\nUsage:\n```python\nprint(f(1))\n```\nDone.",
    "a closing fence and an output": F + "```\nOutput:\n```\n2\n```\n",
    "a closing fence at the end": F + "```",
    "a closing fence on the line of code": F.rstrip() + "```\nThis is it.",
    "a closing fence of four": F + "````\nprose of a few words",
    "a closing fence of tildes": F + "~~~\nprose of a few words",
    "and then a whole program": "import math\n```\nHere's all of it:\n```\n" + F + "```\n",
    "after a docstring with a fence": DOCSTRING + "```\nThis adds one.",
    "with line ends of Windows": (F + "```\nThat is all.").replace("\n", "\r\n"),
}
FENCES_IN_PROGRAMS = {
    "in a docstring": "```python\n" + DOCSTRING + "```\nThis adds one.",
    "in a docstring, at the margin": "```python\n" + DOCSTRING_AT_MARGIN + "```\nIt adds one.",
    "in a module's docstring": "```python\n" + MODULE_DOCSTRING + "```\nprose of it",
    "in a docstring of a block cut off": "```python\n" + DOCSTRING,
    "in a docstring without a block": DOCSTRING,
    "in a docstring before a usage": f"```python\n{DOCSTRING}```\nUse:\n```python\nf(2)\n```",
    "in a docstring in apostrophes": "```python\n" + DOCSTRING.replace('"""', "'''") + "```\nA",
    "in a docstring with apostrophes": "```python\n"
    + DOCSTRING.replace("Add one.", "It's one more; don't worry.")
    + "```\nThat's it.",
    "in comments": "```python\n# ```\n" + F + "# ```\n```\nprose of it",
    "in a string": "```python\ndef f(x):\n    s = '```'\n    return x + 1\n```\nprose of it",
    "in a docstring between tildes": "~~~python\n" + DOCSTRING_AT_MARGIN + "~~~",
    "with line ends of Windows": f"```python\n{DOCSTRING}```\nIt adds.".replace("\n", "\r\n"),
}
OTHER_FENCES = {
    "four backticks": "````python\n" + F + "````\nprose of it",
    "four backticks, no language": "````\n" + F + "````",
    "four around a docstring with three": "````python\n" + DOCSTRING_AT_MARGIN + "````\nprose",
    "four closed by three": "````python\n" + F + "```\nprose of it",
    "five backticks": "`````py\n" + F + "`````",
    "Markdown in four around three": "````markdown\n```python\n" + F + "```\n````",
    "four around three": "````\n```python\n" + F + "```\n````",
    "tildes": "~~~python\n" + F + "~~~\nprose of it",
    "tildes, no language": "Sure:\n~~~\n" + F + "~~~",
    "tildes that are not closed": "~~~python\n" + F,
    "four tildes": "~~~~ python\n" + F + "~~~~\n",
    "begun on a line of text": "The code: ```python\n" + F + "```\nprose of it",
    "closed on a line of code": "```python\n" + F.rstrip() + "```\nThis is prose.",
    "begun on the line of the definition": "```def f(x):\n    return x + 1\n```",
    "the same after the language": "```python def f(x):\n    return x + 1\n```",
    "never closed, then prose": "```python\n" + F + "\nThis function adds one to it.",
    "closed by the next": f"```python\n{F}\nUse it so:\n```python\nf(1)\n```",
    "the language below the fence": "```\npython\n" + F + "```",
    "in a quotation": "> ```python\n> def f(x):\n>     return x + 1\n> ```",
    "another language, then the program": "```bash\npip install x\n```\n" + F,
}
TAGS = {
    "[PYTHON]": "[PYTHON]\n" + F + "[/PYTHON]",
    "[PYTHON] in prose": f"Here is it all.\n[PYTHON]\n{F}[/PYTHON]\nIt adds one to x.\n"
    "[TESTS]\nassert f(1) == 2\n[/TESTS]",
    "[/PYTHON] alone": F + "[/PYTHON]\nThis is it.",
    "[PYTHON] alone": "[PYTHON]\n" + F,
    "[PYTHON] around a fence": "[PYTHON]\n```python\n" + F + "```\n[/PYTHON]",
    "[PYTHON] in a fence": "```\n[PYTHON]\n" + F + "[/PYTHON]\n```",
    "[PYTHON] on the lines of code": "[PYTHON]" + F.rstrip() + "[/PYTHON]",
    "<code>": "<code>\n" + F + "</code>",
    "<code> in prose": "Here it is:\n<code>\n" + F + "</code>\nThis adds one.",
    "<code> on the lines of code": "<code>" + F.rstrip() + "</code>\nthat is all of it",
    "<pre><code>": '<pre><code class="language-python">\n' + F + "</code></pre>",
    "</code> alone": F + "</code>\nGood luck with it",
    "<python>": "<python>\n" + F + "</python>",
    "<answer>": "<answer>\n" + F + "</answer>",
    "<answer> around a fence": "<answer>\n```python\n" + F + "```\n</answer>",
    "the end of a text": F + "</s>",
    "the end of a turn": F.rstrip() + "<|im_end|>",
}
MARKS_AND_INDENTATION = {
    "a byte-order mark": "\ufeff" + F,
    "a byte-order mark before a fence": "\ufeff```python\n" + F + "```",
    "a byte-order mark in a block": "```python\n\ufeff" + F + "```",
    "a byte-order mark before [DONE]": "\ufeff" + F + "[DONE]",
    "a byte-order mark after [BEGIN]": "[BEGIN]\n\ufeff" + F + "[DONE]",
    "indented": INDENTED,
    "indented after an empty line": "\n" + INDENTED + "\n",
    "indented by tabs": "\tdef f(x):\n\t\treturn x + 1\n",
    "indented between prose": "Here is the code:\n\n" + INDENTED + "\nIt adds one.",
    "indented with an import": "    import math\n\n" + INDENTED,
    "indented before [DONE]": INDENTED + "[DONE]",
    "indented by two": "  def f(x):\n    return x + 1\n",
    "indented, and a call that is not": INDENTED + "\nf(3)\n",
    "indented, with a docstring": '    def f(x):\n        """Add.\n\n        one\n        """\n'
    "        return x + 1\n",
}
PROSE = {
    "a line before": "Here is the function:\n\n" + F,
    "lines around": "Sure! I'd be happy to help.\n\n" + F + "\nThis function adds one.",
    "a remark after": "To solve this, we add one.\n" + F + "\nLet me know how it goes!",
    "before an import": "Here you go, as asked:\nimport math\n\n" + F,
    "one word": "Solution\n" + F,
    "two words": "python code\n" + F,
    "one word and a colon": "Solution:\n" + F,
    "the language": "python\n" + F,
    "headings": "## Solution\n\n" + F + "\n## Explanation\n\nIt adds one.",
    "bold": "**Solution**\n" + F + "\n**Explanation:** adds one.",
    "a numbered list": F + "\n1. It adds one.\n2. It returns x.\n",
    "a list before": "- Add one.\n- Return it.\n\n" + F,
    "a session": F + ">>> f(1)\n2\n",
    "in Chinese": "这是函数\uff1a\n" + F + "\n它返回 x 加一。",
    "with typographic quotes": "Here\u2019s the code:\n" + F,
    "with line ends of Windows": f"Here is it:\n\n{F}\nThat is all.".replace("\n", "\r\n"),
}
PROGRAMS_AS_THEY_ARE = {
    "plain": F,
    "with a main part": F + "\nif __name__ == '__main__':\n    print(f(1))\n",
    "with calls": F + "print(f(1))\nf(2)\n",
    "with prose and tags in a string": (
        'T = """\nHere is some text that looks like prose.\n<code>\n[/PYTHON]\n"""\n' + F
    ),
    "with a fence in a string": 'T = """\nIt is\n```\nx\n```\n"""\n' + F,
    "the same in a block": f'```python\nT = """\nThis is prose.\n<code>\n</code>\n"""\n{F}```',
    "with a line that goes on": "x = 1 + \\\n2\n" + F,
    "with a comment that is indented": "# a comment of words\n    # an odd one\n" + F,
    "with statements of all kinds": (
        "from math import (\n    floor,\n)\nx, y = 1, 2\nx += 1\n[n for n in range(3)]\n"
        "x if y else 3\nnot x\nx is y\nf'a' f'b'\n5.\n...\nx: int = 3\nlambda: 0\n"
        "for i in range(3): pass\ntry:\n    pass\nfinally:\n    pass\n{1: 2,\n 3: 4}\n"
        "assert x != y\ndel x\nglobal q\n"
    )
    + F,
}
HELPERS = {
    "a function": f"First:\n```python\n{G}```\nThen:\n```python\n{USES_G}```",
    "and a test": f"```python\n{G}```\n```python\n{USES_G}```\n```python\nassert f(1) == 2\n```",
    "with a call that fails": f"```python\n{G}print(g(missing))\n```\n```python\n{USES_G}```",
    "with a test that fails": f"```python\n{G}assert g(1) == 7\n```\n```python\n{USES_G}```",
    "with a loop without end": f"```python\n{G}while True: g(1)\n```\n```python\n{USES_G}```",
    "an import": "```python\nimport math\n```\n```python\n"
    "def f(x):\n    return math.floor(x) + 1\n```",
    "a name imported as another": "```python\nfrom math import floor as fl\n```\n```python\n"
    "def f(x):\n    return fl(x) + 1\n```",
    "a constant": "```python\nONE = 1\n```\n```python\ndef f(x):\n    return x + ONE\n```",
    "one that uses another": "```python\nONE = 1\ndef one():\n    return ONE\n```\n```python\n"
    f"def g(x):\n    return x + one()\n```\n```python\n{USES_G}```",
    "below the solution": f"```python\n{USES_G}```\nwith\n```python\n{G}```",
    "a class": "```python\nclass A:\n    def go(self, x):\n        return x + 1\n```\n"
    "```python\ndef f(x):\n    return A().go(x)\n```",
    "a decorated one": "```python\nfrom functools import lru_cache\n\n@lru_cache(None)\n"
    f"{G}```\n```python\n{USES_G}```",
    "of an earlier version": f"```python\n{G}{BAD}```\nBetter:\n```python\n{USES_G}```",
    "without fences": f"First a helper function:\n{G}\nNow the function itself:\n{USES_G}",
    "in an annotation": "```python\nclass N:\n    pass\n```\n```python\n"
    "def f(x: N) -> int:\n    return x + 1\n```",
    "none, for a built-in name": "```python\ndef sum(a):\n    return 0\n```\nNo.\n```python\n"
    "def f(x):\n    return sum([x, 1])\n```",
    "none, for a parameter": "```python\nx = 1 / 0\n```\n```python\n" + F + "```",
}
KINDS = {
    "stray fences": STRAY_FENCES,
    "fences in programs": FENCES_IN_PROGRAMS,
    "other fences": OTHER_FENCES,
    "tags": TAGS,
    "marks and indentation": MARKS_AND_INDENTATION,
    "prose": PROSE,
    "programs as they are": PROGRAMS_AS_THEY_ARE,
    "helpers": HELPERS,
}
WRONG = {
    "a helper that is nowhere": "```python\ndef h(x):\n    return x + 1\n```\n```python\n"
    f"{USES_G}```",
    "a helper that is only called": f"```python\ng(3)\n```\n```python\n{USES_G}```",
    "the last version is wrong": f"```python\n{F}```\nBetter:\n```python\n{BAD}```",
    "the last version is broken": f"```python\n{F}```\nNo:\n```python\ndef f(x:\n    return\n```",
    "the last version, without fences": f"First:\n{F}\nWait, that is wrong. Better:\n{BAD}",
    "fences count before what is outside": f"{F}\nNo, better:\n```python\n{BAD}```",
    "a statement of Python 2": F + "print f(1)\n",
    "another": F + "print 'x'\n",
    "an assignment that is none": F + "x = 3 4\n",
    "no colon": "def f(x)\n    return x + 1\n",
    "one line that is no Python": "def f(x) return x + 1",
    "wrong indentation": "def f(x):\n  y = 1\n    return x + 1\n",
    "cut off": F + "\ndef g(y",
    "cut off in a block": "```python\n" + F + "\ndef g(y",
    "a string left open": '```python\ndef f(x):\n    """Doc\n    return x + 1\n```\nprose of it',
    "prose only": "The function returns x + 1.",
    "a usage only": "```python\nprint(f(1))\n```",
    "another language": "```javascript\nfunction f(x) { return x + 1; }\n```",
    "a name without its module": "import math random\n" + BAD,
}


@pytest.fixture(autouse=True, scope="module")
def sandbox() -> None:
    try:
        shared_pool().zygote()
    except UserError as error:
        pytest.skip(f"programs cannot be isolated here: {error}")


@pytest.mark.parametrize("kind", KINDS)
def test_right_programs_are_right(kind: str) -> None:
    attempts = grade_many("mbpp", list(KINDS[kind].values()), DOC)
    failed = {
        name: attempt.reason
        for name, attempt in zip(KINDS[kind], attempts, strict=True)
        if not attempt.correct
    }
    assert failed == {}


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_programs_in_the_same_wrapping_are_wrong(kind: str) -> None:
    wrong = [text.replace("+ 1", "+ 2") for text in KINDS[kind].values()]
    wrong = [text for text in wrong if "+ 2" in text]
    assert len(wrong) > 5
    attempts = grade_many("mbpp", wrong, DOC)
    assert [text for text, attempt in zip(wrong, attempts, strict=True) if attempt.correct] == []
    assert all(attempt.reason == "test 1: wrong value" for attempt in attempts)


def test_what_is_wrong_stays_wrong() -> None:
    attempts = grade_many("mbpp", list(WRONG.values()), DOC)
    assert [name for name, attempt in zip(WRONG, attempts, strict=True) if attempt.correct] == []

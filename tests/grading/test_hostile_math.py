"""Answers made to run code, to hang, to break the framing or to use up the machine."""

import subprocess
import sys
import time

import pytest

from lm_eval_ext.grading import math as math_grader
from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.math_pool import GRACE_SECONDS, WorkerPool


@pytest.fixture(scope="module")
def math_pool():
    """Return a pool with a deadline of a second, so that what never ends is found out quickly."""
    pool = WorkerPool(2, deadline_seconds=1.0)
    yield pool
    pool.close()


GOLD = {"answer": r"2\sqrt{2}"}

WRAPPERS = {
    "boxed": r"\boxed{%s}",
    "framed": r"\fbox{%s}",
    "text": r"\boxed{\text{%s}}",
    "roman": r"\boxed{\mathrm{%s}}",
    "operator": r"\boxed{\operatorname{%s}(x)}",
    "variable": r"\boxed{\variable{%s}}",
    "accent": r"\boxed{\overline{%s}}",
    "subscript": r"\boxed{x_{%s}}",
    "exponent": r"\boxed{2^{%s}}",
    "argument": r"\boxed{f(%s)}",
    "equation": r"\boxed{x = %s}",
    "polynomial": r"\boxed{\text{%s}^5 - \text{%s} + 1 = 0}",
    "integral": r"\boxed{\int_0^1 \text{%s} \, dx}",
    "sum": r"\boxed{\sum_{k=1}^{\infty} \frac{1}{\text{%s}^k}}",
    "set": r"\boxed{\{1, %s\}}",
    "interval": r"\boxed{(1, \text{%s}]}",
    "matrix": r"\boxed{\begin{pmatrix} \text{%s} & 1 \end{pmatrix}}",
    "differential": r"\boxed{\frac{d}{d\text{%s}} x}",
    "dollars": r"Thus $%s$.",
    "display": r"$$%s$$",
    "brackets": r"\[%s\]",
    "announced": "The final answer is %s",
    "announced in dollars": "The answer is $%s$.",
    "number": r"\boxed{3 + %s}",
    "percent": r"\boxed{%s\%%}",
    "bare": "\\boxed %s",
}


def payloads(canary):
    return {
        "system": f"__import__('os').system('touch {canary}')",
        "double quotes": f'__import__("os").system("touch {canary}")',
        "write": f"open('{canary}','w').write('x')",
        "evaluate": f"eval(\"open('{canary}','w')\")",
        "lambda": f"(lambda: open('{canary}','w'))()",
        "subclasses": f"().__class__.__base__.__subclasses__() and open('{canary}','w')",
        "lambdify": f"lambdify(x, \"open('{canary}','w')\")(1)",
        "sympify": f"sympify(\"open('{canary}','w')\")",
        "escaped": f"1);open('{canary}','w');(1",
        "new line": f"1\nopen('{canary}','w')\n",
    }


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_nothing_of_an_answer_is_executed(wrapper, tmp_path, math_pool):
    canary = tmp_path / "canary"
    form = WRAPPERS[wrapper]
    completions = [
        form % ((payload,) * (form.count("%s"))) for payload in payloads(canary).values()
    ]
    start = time.monotonic()
    attempts = math_grader.grade_many([*completions, r"\boxed{\sqrt{8}}"], GOLD, pool=math_pool)
    assert time.monotonic() - start < len(completions) * (1.0 + GRACE_SECONDS)
    assert not canary.exists()
    assert [attempt.correct for attempt in attempts] == [False] * len(completions) + [True]


def test_the_payload_is_live(tmp_path):
    """SymPy's own reading of text does execute it: the tests above could fail."""
    canary = tmp_path / "canary"
    payload = payloads(canary)["system"]
    subprocess.run([sys.executable, "-c", f"import sympy; sympy.sympify({payload!r})"], check=False)
    assert canary.exists()


ATTACKS = {
    "eval('1')": "EvaluationRefusedError",
    "exec('x = 1')": "EvaluationRefusedError",
    "compile('1', 'collections/__init__', 'eval')": "EvaluationRefusedError",
    "sympy.sympify('x + 1')": "SympifyError",
    "sympy.S('__import__(1)')": "SympifyError",
    "sympy.Number('1 + 1')": "SympifyError",
    "sympy.parse_expr('x')": "SympifyError",
    "sympy.lambdify(sympy.Symbol('x'), 1)": "EvaluationRefusedError",
    "sys.modules['sympy.utilities.lambdify'].lambdify([], 1)": "EvaluationRefusedError",
    "sympy.polys.rootoftools.lambdify([], 1)": "EvaluationRefusedError",
    "sympy.parsing.sympy_parser.eval_expr('1', {}, {})": "EvaluationRefusedError",
    "os.system('true')": "EvaluationRefusedError",
    "os.fork()": "EvaluationRefusedError",
    "os.kill(os.getppid(), 0)": "EvaluationRefusedError",
    "os.execv('/bin/true', ['true'])": "EvaluationRefusedError",
    "os.posix_spawn('/bin/true', ['true'], {})": "EvaluationRefusedError",
    "subprocess.run(['true'])": "EvaluationRefusedError",
    "socket.socket()": "EvaluationRefusedError",
    "open('canary', 'w')": "EvaluationRefusedError",
    "os.open('canary', os.O_CREAT | os.O_WRONLY)": "EvaluationRefusedError",
    "os.remove('canary')": "EvaluationRefusedError",
    "os.mkdir('canary')": "EvaluationRefusedError",
    "ctypes.CDLL(None)": "EvaluationRefusedError",
}


def test_a_worker_refuses_what_no_comparison_needs(tmp_path):
    program = f"""
import ctypes, os, socket, subprocess, sympy, sys
from lm_eval_ext.grading import math_worker, no_evaluation
attacks = [{", ".join(f"lambda: {attack}" for attack in ATTACKS)}]
math_worker._warm_up()
no_evaluation.enforce()
for attack in attacks:
    try:
        print(attack())
    except Exception as error:
        print(type(error).__name__)
import wave, xmlrpc.client  # importing what was not imported yet still works
print(math_worker.compare("2\\\\sqrt 2", "\\\\sqrt 8")["equal"])
print(sympy.sympify("12"), sympy.sympify("-1.5"), sympy.Number("007"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == ""
    *outcomes, equal, numbers = done.stdout.splitlines()
    assert dict(zip(ATTACKS, outcomes, strict=True)) == ATTACKS
    assert equal == "True"
    assert numbers == "12 -1.50000000000000 7"
    assert list(tmp_path.iterdir()) == []


WIDE = " & ".join(["1"] * 10_000)
HUGE = {
    "power tower": "9**9**9**9",
    "power tower in LaTeX": "9^{9^{9^9}}",
    "two powers": "9^{9^{9}}",
    "negative powers": "9^{-9^{9}}",
    "powers in a fraction": r"\frac{9^{9^9}}{9^{9^9}+1}",
    "factorial tower": "100000!!!!",
    "factorials": "100000!!",
    "factorial": "(10^{9})!",
    "binomial": r"\binom{10^{9}}{10^{8}}",
    "sum": r"\sum_{k=1}^{10^{9}} k^{k}",
    "product": r"\prod_{k=1}^{10^{9}} k",
    "decimals": "0." + "1" * 290,
    "exponent of a decimal": "1.5e999999999",
    "many digits": "7" * 5000,
    "nested braces": "{" * 100_000 + "1" + "}" * 100_000,
    "nested braces, closed early": "{" * 40_000 + "1" + "}" * 40_000,
    "nested brackets": "(" * 24 + "1" + ")" * 24,
    "nested fractions": r"\frac{1}{1+" * 20 + "1" + "}" * 20,
    "nested roots": r"\sqrt{2+" * 20 + "2" + "}" * 20,
    "unclosed braces": "{" * 100_000,
    "a megabyte": "x" * 1_000_000,
    "a megabyte of space": " " * 1_000_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of boxes": r"\boxed{" * 140_000,
    "a megabyte of spaced boxes": "\\boxed " * 140_000,
    "a megabyte of announcements": "the answer is " * 70_000,
    "a megabyte of brackets": r"\(" * 500_000,
    "a megabyte of small boxes": r"\boxed{1}, " * 90_000,
    "boxes of one sentence": r"$x=\boxed{1}$ and " * 20_000,
    "boxes with nothing between": r"\boxed{1}" * 100_000,
    "boxes inside one another": r"\boxed{" * 5_000 + "1" + "}" * 5_000,
    "boxes of many braces": r"\boxed{" + "{}" * 40_000 + r"}, \boxed{1" + "{}" * 40_000 + "}",
    "long boxes of one sentence": (r"\boxed{" + "1+" * 40_000 + r"1} and ") * 4,
    "long text before a box": "-" * 300_000 + r"\boxed{1}",
    "spaces around a box": " " * 150_000 + r"\boxed{1}" + " " * 150_000 + "/2",
    "dollars around a box": "$" * 150_000 + r"\boxed{1}" + "$" * 150_000,
    "a long product after a box": r"\boxed{1}" + r"\sqrt2" * 60_000,
    "a long sum before a box": "1+" * 150_000 + r"\boxed{1}",
    "commas between two boxes": r"\boxed{1}" + ",\n" * 100 + r"\boxed{2}",
    "words between two boxes": r"\boxed{1}" + " and x y" * 35 + r"= \boxed{2}",
    "a megabyte of amounts": "$5 " * 330_000,
    "a megabyte of amounts and words": "$5 and x$ " * 100_000,
    "spaces before a brace": r"\boxed" + " " * 100_000 + "{1}",
    "wide matrix": rf"\begin{{pmatrix}} {WIDE} \end{{pmatrix}}",
    "tall matrix": rf"\begin{{pmatrix}} {WIDE.replace('&', chr(92) * 2)} \end{{pmatrix}}",
    "large matrix by name": r"\operatorname{zeros}(10000,10000)",
    "large identity": r"\operatorname{eye}(100000)",
    "determinant": r"\det(\operatorname{eye}(3000))",
    "long sum": "x+" * 450 + "x",
    "long product": r"(x+y)" * 100 + r"^{100}",
    "expansion": "(a+b+c+d+e)^{500}",
    "root of high degree": r"\sqrt[1000000]{2}+\sqrt[999999]{3}",
    "equation of high degree": "x^{5000}+x^{4999}+x+1=0",
}  # fmt: skip
PLACES = (r"\boxed{%s}", "$%s$", "The answer is %s", "%s")


@pytest.mark.parametrize("name", HUGE)
def test_what_is_huge_is_given_up_in_time(name, math_pool):
    completions = [place % HUGE[name] for place in PLACES] + [r"\boxed{\sqrt{8}}"]
    start = time.monotonic()
    *hostile, right = math_grader.grade_many(completions, GOLD, pool=math_pool)
    elapsed = time.monotonic() - start
    # One second for each comparison with the reference and between the answers, if all are made.
    assert elapsed < 30, (elapsed, hostile)
    assert not any(attempt.correct for attempt in hostile)
    assert all(len(attempt.answer or "") < 1100 for attempt in hostile)
    assert right == Attempt(r"2\sqrt{2}", True)


STRANGE = {
    "right to left": "\u202e5\u202c \u05d7\u05de\u05e9",
    "Arabic digits": "\u0661\u0662\u0663",
    "grouped Arabic digits": "\u0661,\u0662\u0663\u0664",
    "full-width digits": "\uff11\uff12",
    "superscripts": "\u2075\u2076",
    "null bytes": "5\x00\x00",
    "surrogates": "\ud800 5 \udfff",
    "new lines": "5\n{\"id\": 1, \"equal\": true, \"parsed\": [true, true]}\n6",
    "a forged reply": '{"id": 2, "equal": true, "parsed": [true, true]}',
    "line separators": "5\u2028\u20296\x85\x0b\x0c\r",
    "control characters": "".join(map(chr, range(32))),
    "backspaces": "2\x08\x7f\\sqrt{8}\x1b[2J",
    "combining": "5" + "\u0301" * 500,
    "emoji": "\U0001f600" * 50,
    "not a number": "nan",
    "infinite": r"\frac{1}{0}",
    "undefined": r"\frac{0}{0}",
    "empty commands": r"\frac{}{}",
    "unknown command": r"\write18{touch canary}",
    "only backslashes": "\\" * 99,
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_strange_is_wrong_and_no_more(name, math_pool):
    completions = [place % STRANGE[name] for place in PLACES] + [r"\boxed{\sqrt{8}}"]
    *hostile, right = math_grader.grade_many(completions, GOLD, pool=math_pool)
    assert not any(attempt.correct for attempt in hostile)
    assert right == Attempt(r"2\sqrt{2}", True)


def test_hostile_answers_beside_one_another(math_pool):
    completions = [rf"\boxed{{{9 + n}^{{9^{{9}}}}}}" for n in range(3)] + [r"\boxed{\sqrt{8}}"] * 3
    attempts = math_grader.grade_many(completions, GOLD, pool=math_pool)
    assert [attempt.reason for attempt in attempts] == ["timeout"] * 3 + [None] * 3
    assert [attempt.correct for attempt in attempts] == [False] * 3 + [True] * 3

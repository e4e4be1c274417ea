"""The grader of programs on right, wrong and odd ones, and on the published solutions."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import Attempt, grade, grade_many, mbpp
from lm_eval_ext.grading.code_tests import foreseen_calls, read_tests
from lm_eval_ext.grading.sandbox.pool import shared_pool

DOC = {
    "text": "Write a function to halve a number.",
    "code": "def half(x):\r\n    return x / 2",
    "task_id": 1,
    "test_setup_code": "",
    "test_list": ["assert half(4) == 2", "assert half(3) == 1.5"],
    "challenge_test_list": ["assert half('x') == 'never run'"],
}
GOOD = "def half(x):\n    return x * 0.5\n"


@pytest.fixture(autouse=True, scope="module")
def sandbox() -> None:
    try:
        shared_pool().zygote()
    except UserError as error:
        pytest.skip(f"programs cannot be isolated here: {error}")


@pytest.mark.parametrize(
    ("completion", "attempt"),
    [
        (GOOD, Attempt("2; 1.5", True)),
        (f"{GOOD}[DONE]\nmore", Attempt("2; 1.5", True)),
        (f"Sure:\n```python\n{GOOD}```", Attempt("2; 1.5", True)),
        ("def half(x):\n    return x // 2", Attempt("2; 1", False, "test 2: wrong value")),
        (
            "def half(x):\n    return 2 / (x - 4)",
            Attempt("!ZeroDivisionError; -2", False, "test 1: ZeroDivisionError"),
        ),
        ("def half(x) return x", Attempt("!SyntaxError", False, "program: SyntaxError")),
        ("def other(x): return x", Attempt("!NameError; !NameError", False, "test 1: NameError")),
        ("half = 3", Attempt("!TypeError; !TypeError", False, "test 1: TypeError")),
        ("import numpy\n" + GOOD, Attempt("!ModuleNotFoundError", False)),
        ("def half(x):\n    assert x > 3\n    return x / 2", Attempt("2; !AssertionError", False)),
        ("def half(x):\n    import os; os._exit(0)", Attempt("!exited; !exited", False)),
        ("I cannot.", Attempt(None, False, "no program")),
        ("", Attempt(None, False, "no program")),
        ("x = 1\n" * 100_000, Attempt("program too long", False)),
    ],
)
def test_verdict(completion: str, attempt: Attempt) -> None:
    found = grade("mbpp", completion, DOC)
    assert found[:2] == attempt[:2]
    if attempt.reason or attempt.correct:
        assert found.reason == attempt.reason
    else:
        assert found.reason


def test_each_distinct_program_runs_once(monkeypatch) -> None:
    runs = []
    real = mbpp.run_tests

    def counted(tests, program, session):
        runs.append(program)
        return real(tests, program, session)

    monkeypatch.setattr(mbpp, "run_tests", counted)
    wrong = "def half(x): return x"
    attempts = grade_many("mbpp", [GOOD, wrong, f"{GOOD}[DONE]", "", wrong, GOOD], DOC)
    assert [attempt.correct for attempt in attempts] == [True, False, True, False, False, True]
    assert sorted(runs) == sorted({GOOD, wrong})
    assert grade_many("mbpp", [], DOC) == []


def test_votes_group_programs_by_behavior() -> None:
    programs = [
        "def half(x): return x / 2",
        "def half(y):\n    return y * 0.5",
        "def half(x): return x // 2",
        "def half(x): return int(x / 2)",
        "def half(x): return 0",
    ]
    answers = [attempt.answer for attempt in grade_many("mbpp", programs, DOC)]
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]
    assert len(set(answers)) == 3


def test_sanitized_records_bring_their_imports() -> None:
    doc = {
        "prompt": "Write a function for the area of a circle.",
        "code": "def area(r):\n    return 3.14159 * r * r",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(area(1), math.pi, rel_tol=0.001)", "assert not area(0)"],
    }
    right = "def area(r): return 355 / 113 * r ** 2"
    assert grade("mbpp", right, doc).correct
    assert not grade("mbpp", "def area(r): return 3 * r", doc).correct


def test_objects_made_by_the_setup() -> None:
    """Trees are built by the setup from a class that the program defines."""
    doc = {
        "code": "class Node: ...\ndef depth(n): ...",
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)",
        "test_list": ["assert depth(root) == 3", "assert depth(root.left) == 2"],
    }
    program = (
        "class Node:\n    def __init__(self, value):\n        self.value = value\n"
        "        self.left = self.right = None\n"
        "def depth(n):\n    return 1 + max(depth(n.left), depth(n.right)) if n else 0\n"
    )
    assert grade("mbpp", program, doc) == ("3; 2", True, None)
    broken = program.replace("self.left = self.right = None", "pass")
    assert grade("mbpp", broken, doc).reason == "test 1: AttributeError"
    assert grade("mbpp", "def depth(n): return 3", doc).reason == "program: NameError"


def test_a_builtin_belongs_to_the_program_only_where_the_reference_defines_it() -> None:
    doc = {"code": "def sum(a, b): return a * b", "test_list": ["assert sum(2, 3) == 6"]}
    assert grade("mbpp", "def sum(a, b): return b * a", doc).correct
    doc = {"code": "def f(a): return [a]", "test_list": ["assert sum(f(2)) == 2"]}
    cheat = "def sum(x): return 2\ndef f(a): return 0"
    assert not grade("mbpp", cheat, doc).correct


def test_a_module_the_tests_use_without_importing_it() -> None:
    doc = {
        "code": "import sys\ndef size(t): return sys.getsizeof(t)",
        "test_list": ["assert size((1, 'a')) == sys.getsizeof((1, 'a'))"],
    }
    assert grade("mbpp", doc["code"], doc).correct
    cheat = "class sys:\n    getsizeof = staticmethod(lambda t: 0)\ndef size(t): return 0"
    assert not grade("mbpp", cheat, doc).correct


def test_calls_inside_calls_and_types_as_arguments() -> None:
    doc = {
        "code": "def f(x, kind=int): return kind(x) + kind(x)",
        "test_list": [
            "assert f(f(1)) == 4",
            "assert f('1', str) == '11'",
            "assert f('2', kind=int) == 4",
        ],
    }
    assert grade("mbpp", doc["code"], doc).correct


def test_a_program_with_state_sees_the_calls_in_order() -> None:
    """Also where calls are foreseen, the program cannot tell."""
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return list(seen)\n"
    doc = {
        "code": program,
        "test_list": ["assert f(1) == [1]", "assert f(1) == [1, 1]", "assert len(f(2)) == 3"],
    }
    assert len(read_tests(doc).calls) == 3
    assert grade("mbpp", program, doc).correct
    doc["test_list"].append("assert f(3) and f(4) == [1, 1, 2, 3, 4]")
    assert read_tests(doc).calls == ()
    assert grade("mbpp", program, doc).correct


def test_a_foreseen_call_that_is_not_made_is_passed_over() -> None:
    doc = {
        "code": "def f(x): return x",
        "test_list": ["assert [][0] == f(1)", "assert f(2) == 2", "assert f(3) == 3"],
    }
    assert len(read_tests(doc).calls) == 3
    assert grade("mbpp", "def f(x): return x", doc) == (
        "!IndexError; 2; 3",
        False,
        "test 1: IndexError",
    )


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == f(2)",
        "assert all(f(n) for n in [1])",
        "assert (lambda: f(1))() == 1",
        "assert True or f(1)",
        "assert 1 < 2 < f(1)",
        "assert f(1) if True else 1",
        "assert f(*[1]) == 1",
        "assert f(x=1) == 1",
        "assert f(1 + g(2)) == 1",
        "for n in [1]: assert f(n)",
        "assert 1 == 1",
        "assert f is f",
    ],
)
def test_calls_that_are_not_foreseen(test: str) -> None:
    assert foreseen_calls(ast.parse(""), [ast.parse(test)], ["f", "g"]) == ()


SLOW = "import time\ndef half(x):\n    time.sleep({})\n    return x / 2\n"


def test_the_limit_grows_with_the_reference(monkeypatch) -> None:
    monkeypatch.setattr(mbpp, "MIN_SECONDS", 0.4)
    doc = DOC | {"code": SLOW.format(0.2)}  # 0.4 s in all: the limit becomes 2 s
    patient, slow = SLOW.format(0.3), SLOW.format(3)
    started = time.monotonic()
    attempts = grade_many("mbpp", [patient, slow, "import math\nwhile True: pass"], doc)
    assert [attempt.correct for attempt in attempts] == [True, False, False]
    assert attempts[1].reason == attempts[2].reason == "timeout"
    assert 1.9 < time.monotonic() - started < 8
    assert not grade("mbpp", patient, DOC).correct  # its reference takes no time


def test_the_reference_is_measured_once_and_only_when_needed(monkeypatch) -> None:
    measured = []
    real = mbpp._Judge._reference_time
    monkeypatch.setattr(
        mbpp._Judge, "_reference_time", lambda judge: measured.append(1) or real(judge)
    )
    grade_many("mbpp", [GOOD, DOC["code"]], DOC)
    assert measured == []
    monkeypatch.setattr(mbpp, "MIN_SECONDS", 0.3)
    late = [SLOW.format(1) + f"# {number}" for number in range(4)]
    assert [attempt.reason for attempt in grade_many("mbpp", late, DOC)] == ["timeout"] * 4
    assert measured == [1]


def test_many_threads_may_grade_at_once() -> None:
    results = []

    def work(number: int) -> None:
        program = f"def half(x):\n    return x / 2 if {number} % 2 else 0\n"
        attempts = grade_many("mbpp", [program, GOOD], DOC)
        results.append((number % 2, [attempt.correct for attempt in attempts]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    assert all(verdicts == [bool(odd), True] for odd, verdicts in results)


@pytest.mark.parametrize(
    ("doc", "words"),
    [
        ({"code": "x"}, "test_list is empty"),
        ({"test_list": []}, "test_list is empty"),
        ({"test_list": ["assert ("]}, "is no Python"),
        ({"test_list": ["assert f(1)"], "test_setup_code": "x ="}, "is no Python"),
    ],
)
def test_a_record_that_cannot_be_used(doc, words: str) -> None:
    with pytest.raises(UserError, match=words) as info:
        grade("mbpp", GOOD, doc)
    assert "\n" not in str(info.value)


def test_assertions_hold_under_optimization() -> None:
    """``python -O`` leaves assertions out of what it compiles; the tests must not be among it."""
    script = (
        "from lm_eval_ext.grading import grade\n"
        "doc = {'code': '', 'test_list': ['assert f(1) == 2']}\n"
        "print(grade('mbpp', 'def f(x): return 1', doc).correct)\n"
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "rows"), [("mbpp", 974), ("mbpp_sanitized", 427)])
def test_every_reference_solution_passes(published_data: Path, name: str, rows: int) -> None:
    path = published_data / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    with path.open() as file:
        docs = [json.loads(line) for line in file]
    assert len(docs) == rows
    with ThreadPoolExecutor(2) as threads:
        attempts = list(threads.map(lambda doc: grade("mbpp", doc["code"], doc), docs))
    missed = {
        doc["task_id"]: attempt.reason
        for doc, attempt in zip(docs, attempts, strict=True)
        if not attempt.correct
    }
    assert missed == {}


def test_a_changed_solution_fails(published_data: Path) -> None:
    """The grader does say no: solutions that return something else are wrong."""
    with (published_data / "mbpp.jsonl").open() as file:
        docs = [json.loads(line) for line in file][:200]
    verdicts = []
    for doc in docs:
        (name, *_) = read_tests(doc).names
        spoiled = f"{doc['code']}\n_right = {name}\ndef {name}(*a):\n    return [_right(*a), 'x']\n"
        if len(read_tests(doc).names) == 1:
            verdicts.append(grade("mbpp", spoiled, doc).correct)
    assert len(verdicts) > 150
    assert not any(verdicts)

"""What of the tests reaches the program: imports of their setup, arguments in their order."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade
from lm_eval_ext.grading.code_tests import read_tests
from lm_eval_ext.grading.sandbox.pool import shared_pool


@pytest.fixture(autouse=True, scope="module")
def sandbox() -> None:
    try:
        shared_pool().zygote()
    except UserError as error:
        pytest.skip(f"programs cannot be isolated here: {error}")


def area_doc(*imports: str, setup: str = "") -> dict[str, Any]:
    return {
        "code": "def area(r):\n    return 3.14159 * r * r",
        "test_imports": list(imports),
        "test_setup_code": setup,
        "test_list": ["assert abs(area(1) - 3.14159) < 0.01", "assert not area(0)"],
    }


IN_THE_CALL = "def area(r): return math.pi * r ** 2"
ON_LOADING = "PI = math.pi\ndef area(r, pi=math.pi): return PI * r ** 2"


@pytest.mark.parametrize(
    ("program", "doc"),
    [
        (IN_THE_CALL, area_doc("import math")),
        (ON_LOADING, area_doc("import math")),
        (f"import math\n{IN_THE_CALL}", area_doc("import math")),
        (f"from __future__ import annotations\n{IN_THE_CALL}", area_doc("import math")),
        ("def area(r): return m.pi * r ** 2", area_doc("import cmath as m", "import math")),
        ("def area(r): return pi * r ** 2", area_doc("from math import pi, isclose")),
        ("def area(r): return pi * r ** 2", area_doc("from math import *")),
        ("def area(r): return pi * r ** 2", area_doc("import os\nfrom math import (\n  pi\n)")),
        (IN_THE_CALL, area_doc(setup="import math\nimport re")),
        (IN_THE_CALL, area_doc("import pytest", "import math")),  # not in the sandbox
        ("math = 3.14159\ndef area(r): return math * r ** 2", area_doc("import math")),
        ("import cmath as math\ndef area(r): return math.pi * r ** 2", area_doc("import math")),
    ],
)
def test_what_the_setup_imports_reaches_the_program(program: str, doc: dict[str, Any]) -> None:
    assert grade("mbpp", program, doc).correct


@pytest.mark.parametrize(
    ("program", "doc", "reason"),
    [
        (IN_THE_CALL, area_doc(), "test 1: NameError"),
        (ON_LOADING, area_doc(), "program: NameError"),
        (IN_THE_CALL, area_doc("import math as m"), "test 1: NameError"),
        ("def area(r): return pi * r ** 2", area_doc("import math"), "test 1: NameError"),
        ("math = None\n" + IN_THE_CALL, area_doc("import math"), "test 1: AttributeError"),
        ("def area(r): return math.e * r ** 2", area_doc("import math"), "test 1: wrong value"),
        # What the setup does besides importing stays here.
        ("def area(r): return pi * r ** 2", area_doc(setup="pi = 3.14159"), "test 1: NameError"),
    ],
)
def test_what_the_setup_does_not_import_is_missing(program: str, doc, reason: str) -> None:
    assert grade("mbpp", program, doc).reason == reason


@pytest.mark.parametrize("setup", ["import math", "from math import *", "from math import isclose"])
@pytest.mark.parametrize(
    "program",
    [
        "math.isclose = lambda *a, **k: True\ndef f(x): return 0",
        "isclose = lambda *a, **k: True\ndef f(x): return 0",
        "import math\nmath.isclose = isclose = lambda *a, **k: True\ndef f(x): return 0",
        "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(x): return 0",
        "import sys, types\nsys.modules['math'] = types.ModuleType('math')\ndef f(x): return 0",
    ],
)
def test_a_program_replaces_an_imported_name_for_itself_alone(setup: str, program: str) -> None:
    isclose = "math.isclose" if setup == "import math" else "isclose"
    doc = {"code": "", "test_imports": [setup], "test_list": [f"assert {isclose}(f(1), 2.0)"]}
    assert not grade("mbpp", program, doc).correct
    assert grade("mbpp", "def f(x): return 2 * x", doc).correct


SETS = [
    "{6, 7, 8, 9, 10, 11}",
    "{7, 15}",
    "{15, 7}",
    "{23, 15, 7, 31}",
    "{5, 37, 69, 101, 133, 3}",
    "{-1, -2, 3, -100}",
    "{-2, -1}",
    "{0.5, 3, 2.25, 1e100, -7.0}",
    "{2**61 - 1, 0, 8, 2**62}",
    "{(3, 1), (1, 3), (2, 2), (0,)}",
    "{'pear', 'apple', 'fig', 'quince'}",
    "{'b', 'a'}",
    "{'a', 1, None, (2, 'b'), 2.5, b'c'}",
    "set('the quick brown fox')",
    "set(range(0, 4000, 40))",
    "set(range(100, 0, -7))",
    "set([8, 16, 24, 0, 32, 40, 48])",
    "{1, 9, 17, 25} | {33, 41}",
    "set(range(40)) - set(range(3, 39))",
    "frozenset([15, 7, 23])",
    "frozenset({6, 7, 8, 9, 10, 11})",
    "set()",
]


@pytest.mark.parametrize("value", SETS)
def test_a_set_reaches_the_program_in_its_order(value: str) -> None:
    doc = {
        "code": "def f(s): return tuple(s)",
        "test_list": [
            f"assert f({value}) == tuple({value})",
            f"s = {value}\nassert f(s) == tuple(s)",
            f"s = {value}\nassert f(list(s)) == tuple(s)",
        ],
    }
    for body in ("tuple(s)", "tuple([x for x in s])", "tuple(dict.fromkeys(s))"):
        assert grade("mbpp", f"def f(s): return {body}", doc).correct, body
    if len(eval(value)) > 1:
        assert not grade("mbpp", "def f(s): return tuple(s)[::-1]", doc).correct


@pytest.mark.parametrize("value", SETS)
def test_a_set_comes_back_in_its_order(value: str) -> None:
    """Whatever order it has there, the test sees it so; the program tells of it in a list too."""
    doc = {
        "code": "def f(): return [set(), []]",
        "test_list": ["found = f()\nassert list(found[0]) == found[1]"],
    }
    assert grade("mbpp", f"def f():\n    s = {value}\n    return [s, list(s)]", doc).correct
    if len(eval(value)) > 1:
        wrong = f"def f():\n    s = {value}\n    return [s, list(s)[::-1]]"
        assert not grade("mbpp", wrong, doc).correct


@pytest.mark.parametrize(
    "removed",
    [
        "s = set(range(20)); s -= set(range(15)); s.add(40); s.add(3)",
        "s = {8, 0, 16}; s.discard(8); s.add(24)",
        "s = {'a', 'b', 'c', 'd'}; s.discard('b')",
        "s = set(range(100)); [s.discard(n) for n in range(95)]; s.add(200)",
        "s = {32, 64, 0, 96}; s.pop()",
    ],
)
def test_a_set_that_lost_elements_keeps_its_order(removed: str) -> None:
    doc = {"code": "", "test_list": [f"{removed}\nassert f(s) == list(s)"]}
    assert grade("mbpp", "def f(s): return list(s)", doc).correct
    assert not grade("mbpp", "def f(s): return list(s)[1:]", doc).correct


@pytest.mark.parametrize("value", [value for value in SETS[:10] if "'" not in value])
def test_what_is_added_to_a_set_goes_where_it_would_have_gone(value: str) -> None:
    doc = {
        "code": "",
        "test_list": [f"s = {value}\ngot = f(s)\ns.update([1, 12, 77])\nassert got == list(s)"],
    }
    assert grade("mbpp", "def f(s):\n    s.update([1, 12, 77])\n    return list(s)", doc).correct
    assert not grade("mbpp", "def f(s):\n    s.add(1)\n    return list(s)[::-1]", doc).correct


@pytest.mark.parametrize(
    "value",
    [
        "{'z': 1, 'a': 2, 3: {5, 13}}",
        "[{9, 1}, {1, 9}]",
        "({15, 7}, frozenset([7, 15]))",
        "dict(b={2, 10}, a={10, 2})",
    ],
)
def test_order_inside_other_values(value: str) -> None:
    doc = {"code": "", "test_list": [f"assert f({value}) == str({value})"]}
    assert grade("mbpp", "def f(x): return str(x)", doc).correct


def test_an_argument_is_the_same_whether_a_call_was_foreseen_or_not() -> None:
    """A program that counts its calls sees each once: the announced call is the one made."""
    tests = [f"assert f({{{', '.join(map(str, range(n, n + 7)))}}})[0] == {n}" for n in range(3)]
    doc = {"code": "", "test_list": tests}
    assert len(read_tests(doc).calls) == 3
    counting = "calls = []\ndef f(s):\n    calls.append(s)\n    return [len(calls) - 1]\n"
    assert grade("mbpp", counting, doc).correct


def test_programs_see_strings_in_one_order_in_every_run() -> None:
    doc = {"code": "", "test_list": ["assert f()"]}
    program = "def f(): return list(set('abcdefgh'))"
    first = grade("mbpp", program, doc).answer
    shared_pool().close()
    assert grade("mbpp", program, doc).answer == first


def test_an_ordered_dictionary_keeps_the_order_it_was_given() -> None:
    program = (
        "from collections import OrderedDict\ndef f():\n    d = OrderedDict(a=1, b=2)\n"
        "    d.move_to_end('a')\n    return d\n"
    )
    doc = {"code": "", "test_list": ["assert list(f().items()) == [('b', 2), ('a', 1)]"]}
    assert grade("mbpp", program, doc).correct

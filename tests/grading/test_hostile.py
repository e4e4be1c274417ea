"""Programs that try to pass without being right.

Each is graded on a question that asks for ``[x, x + 1]`` and must fail, leave what is set up
outside alone, and leave the pool able to grade a right program. Every way of isolating that works
on this machine is attacked.
"""

from __future__ import annotations

import time

import pytest

from lm_eval_ext.grading import grade

DOC = {
    "text": "Write a function that returns x and its successor.",
    "code": "def f(x):\n    return [x, x + 1]",
    "test_setup_code": "",
    "test_list": ["assert f(1) == [1, 2]", "assert f(5) == [5, 6]"],
}
GOOD = "def f(x):\n    return [x] + [x + 1]\n"
LIAR = """
class Liar(BASE):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return hash((1, 2))
    def __bool__(self): return True
    def __len__(self): return 2
    def __iter__(self): return iter([1, 2])
    def __contains__(self, other): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __instancecheck__(self, other): return True
    __class__ = list
"""


def liar(result: str, base: str = "object") -> str:
    return LIAR.replace("BASE", base) + f"\ndef f(x):\n    return {result}\n"


DISHONEST_RESULTS = {
    "equal to everything": liar("Liar()"),
    "a list equal to everything": liar("Liar()", "list"),
    "a string equal to everything": liar("Liar()", "str"),
    "equal elements": liar("[Liar(), Liar()]"),
    "equal numbers": liar("[Liar(0), Liar(0)]", "int").replace("    __class__ = list\n", ""),
    "equal in a tuple": liar("(Liar(), Liar())"),
    "equal in a dictionary": liar("{Liar(): Liar()}"),
    "an equal class": liar("Liar"),
    "equality by its metaclass": (
        "class M(type):\n    def __eq__(self, o): return True\n    __hash__ = type.__hash__\n"
        "class f(metaclass=M):\n    def __init__(self, x): pass\n"
    ),
    "equality put on the function": (
        "class F:\n    def __call__(self, x): return self\n    def __eq__(self, o): return True\n"
        "f = F()\n"
    ),
    "a mock": "from unittest.mock import MagicMock\nf = MagicMock()\nf.return_value = f\n",
    "a generator without end": ("def f(x):\n    while True:\n        yield x\n"),
    "a slow generator without end": (
        "import time\ndef f(x):\n    while True:\n        time.sleep(0.05)\n        yield x\n"
    ),
    "a list that holds itself": "def f(x):\n    a = []\n    a.append(a)\n    return a\n",
    "a gigantic string": "def f(x):\n    return 'x' * 200_000_000\n",
    "a gigantic number": "def f(x):\n    return 1 << 100_000_000\n",
    "a gigantic list": "def f(x):\n    return [x] * 10_000_000\n",
    "a gigantic range": "def f(x):\n    return range(10**18)\n",
    "a deep list": "def f(x):\n    a = x\n    for _ in range(999):\n        a = [a]\n    return a",
    "what no pickle can hold": "def f(x):\n    return [lambda: x, open('/dev/null'), f]\n",
    "numbers that collide in a hash table": (
        "def f(x):\n    return {(2**61 - 1) * k for k in range(3000)}\n"
    ),
}
PATCHES = {
    "builtins": (
        "import builtins\n"
        "for name in ('isinstance', 'len', 'all', 'any', 'list', 'AssertionError', 'print'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\n"
        "def f(x):\n    return True\n"
    ),
    "AssertionError is made harmless": (
        "import builtins\nclass AssertionError(Exception):\n    pass\n"
        "builtins.AssertionError = AssertionError\ndef f(x):\n    return [x]\n"
    ),
    "operator and math": (
        "import operator, math\noperator.eq = lambda a, b: True\n"
        "math.isclose = lambda *a, **k: True\ndef f(x):\n    return x\n"
    ),
    "sys.modules": (
        "import sys, types\n"
        "for name in list(sys.modules):\n"
        "    if 'lm_eval_ext' in name or name in ('builtins', 'operator', 'math'):\n"
        "        sys.modules[name] = types.ModuleType(name)\n"
        "def f(x):\n    return None\n"
    ),
    "the loop it runs in": (
        "import sys\n"
        "inner = sys.modules['lm_eval_ext.grading.sandbox.candidate']\n"
        "inner.encode = lambda *a: b'passed'\n"
        "inner._Program.answer = lambda self, request: b'passed'\n"
        "def f(x):\n    return True\n"
    ),
    "the tests' helpers": (
        "def isclose(*a, **k): return True\ndef set(*a): return True\ndef list(*a): return True\n"
        "def __eq__(*a): return True\n__builtins__ = {}\ndef f(x):\n    return True\n"
    ),
    "tracing": (
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\n"
        "sys.excepthook = lambda *a: None\ndef f(x):\n    raise AssertionError\n"
    ),
}
ENDINGS = {
    "sys.exit at once": "import sys\nsys.exit(0)\n",
    "sys.exit in the call": "import sys\ndef f(x):\n    sys.exit(0)\n",
    "os._exit at once": "import os\nos._exit(0)\n",
    "os._exit in the call": "import os\ndef f(x):\n    os._exit(0)\n",
    "an exit handler": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)\n",
    "quit": "def f(x):\n    raise KeyboardInterrupt\n",
    "a pass marker": "print('passed')\nprint('{\"passed\": true}')\nprint('OK')\ndef f(x): pass\n",
    "a pass marker as its result": "def f(x):\n    return 'passed'\n",
    "a crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)\n",
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return [f(x + 1)]\n"
    ),
    "deep recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __repr__(self): return repr(self)\n"
        "def f(x):\n    return repr(A())\n"
    ),
}
FORGERY = """
import os, struct
from lm_eval_ext.grading.sandbox.wire import encode
def send(data, length=None):
    head = struct.pack("<I", len(data) if length is None else length)
    for number in range(3, 64):
        try:
            os.write(number, head + data)
        except OSError:
            pass
"""
FORGERIES = {
    "a forged verdict": FORGERY + "send(b'passed')\ndef f(x): return None\n",
    "forged replies ahead of time": (
        FORGERY
        + "for n in range(1, 9):\n    send(encode((n, True, True)))\ndef f(x): return None\n"
    ),
    "replies with a wrong number": FORGERY + "def f(x):\n    send(encode((7, True, [1, 2])))\n",
    "a reply of no known form": FORGERY + "def f(x):\n    send(encode({'correct': True}))\n",
    "a reply of 4 GB": FORGERY + "def f(x):\n    send(b'x', 2**32 - 1)\n",
    "a reply cut short": FORGERY + "def f(x):\n    send(b'x', 1000)\n    os._exit(0)\n",
    "a reply nested without end": FORGERY + "def f(x):\n    send(b'l\\x01\\0\\0\\0' * 50000)\n",
    "a reply that promises elements": FORGERY + "def f(x):\n    send(b'l\\xff\\xff\\xff\\xff')\n",
    "a handle in place of data": FORGERY + "def f(x):\n    send(b'h\\x04\\0\\0\\0\\0\\0\\0\\0')\n",
    "a flood of replies": FORGERY + "def f(x):\n    while True:\n        send(bytes(2**20))\n",
    "closing the channel": "import os\nos.close(3)\nwhile True:\n    pass\n",
}
EXHAUSTION = {
    "an endless loop": "def f(x):\n    while True:\n        pass\n",
    "an endless loop in C": ("import itertools\ndef f(x):\n    return sum(itertools.repeat(0))\n"),
    "a catastrophic regular expression": (
        "import re\ndef f(x):\n    return re.match('(a+)+$', 'a' * 64 + 'b')\n"
    ),
    "an endless loop deaf to signals": (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True:\n    pass\n"
    ),
    "an endless loop that catches everything": (
        "def f(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException:\n            pass\n"
    ),
    "sleep": "import time\ntime.sleep(10**6)\n",
    "waiting for input": "def f(x):\n    return [int(input()), 2]\n",
    "10 GB": "a = bytearray(10**10)\ndef f(x):\n    return [x, x + 1]\n",
    "memory piece by piece": ("a = []\nwhile True:\n    a.append(bytearray(2**20))\n"),
    "1 GB of output": ("import sys\nfor _ in range(1024):\n    print('x' * 2**20)\n" + GOOD),
    "1 GB of errors": ("import os\nfor _ in range(1024):\n    os.write(2, b'x' * 2**20)\n" + GOOD),
    "files without end": (
        "n = 0\nwhile True:\n    n += 1\n    open(f'{n}', 'wb').write(bytes(2**20))\n"
    ),
    "a fork bomb": "import os\nwhile True:\n    os.fork()\n",
    "a subprocess": "import subprocess\nsubprocess.run(['true'])\n" + GOOD,
    "a spawned process": ("import os\nos.posix_spawn('/bin/true', ['true'], {})\n" + GOOD),
    "multiprocessing": (
        "import multiprocessing\nmultiprocessing.Process(target=int).start()\n" + GOOD
    ),
    "threads left running": (
        "import threading\ndef loop():\n    while True: pass\n"
        "for _ in range(100):\n    threading.Thread(target=loop, daemon=True).start()\n" + GOOD
    ),
    "bare threads": "import _thread\n_thread.start_new_thread(int, ())\n" + GOOD,
}
NAMES = {
    "a homoglyph": "def \u0192(x):\n    return [x, x + 1]\n",  # ƒ
    "a wide name for a built-in": "\uff45\uff58\uff49\uff54(0)\n" + GOOD,  # exit(0)
    "right to left": "def f(x):\n    return '\u202e[1, 2]'\n",
    "a null character": "def f(x):\n    return [x, x + 1]\n\0",
    "half a character": "def f(x):\n    return '\ud800'\n",
    "no name at all": "(lambda x: [x, x + 1])\nx = 1\n",
    "a name with a space": "globals()['f '] = lambda x: [x, x + 1]\n",
}
PROGRAMS = {
    **DISHONEST_RESULTS,
    **{f"patching {name}": program for name, program in PATCHES.items()},
    **ENDINGS,
    **FORGERIES,
    **EXHAUSTION,
    **NAMES,
}


def test_a_right_program_passes(hostile_sandbox, outside, assert_sandbox_works) -> None:
    assert grade("mbpp", GOOD, DOC) == ("[1, 2]; [5, 6]", True, None)
    outside.assert_untouched()
    assert_sandbox_works()


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_program(hostile_sandbox, outside, name: str, assert_sandbox_works) -> None:
    zygote = hostile_sandbox.zygote()
    started = time.monotonic()
    attempt = grade("mbpp", PROGRAMS[name], DOC)
    assert not attempt.correct
    assert attempt.reason
    assert time.monotonic() - started < 30
    outside.assert_untouched()
    assert_sandbox_works()
    assert hostile_sandbox.zygote() is zygote  # no program can break the sandbox down


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1)",
        "assert not f(1)",
        "assert f(1) == f(1)",
        "assert f(1) != 3",
        "assert f(1) < 3",
        "assert 3 < f(1)",
        "assert len(f(1)) == 2",
        "assert 3 in f(1)",
        "assert f(1) in [3, 4]",
        "assert set(f(1)) == {1, 2}",
        "assert list(f(1)) == [1, 2]",
        "assert sorted([f(1), f(2)])",
        "assert {f(1): 1}",
        "assert str(f(1)) == 'x'",
        "assert f'{f(1)}' == 'x'",
        "assert isinstance(f(1), list)",
        "assert math.isclose(f(1), 3)",
        "assert int(f(1)) == 1",
        "assert f(1)[0] == 1",
        "assert f(1) + 1 == 2",
        "assert -f(1) == 2",
        "assert any([f(1)])",
        "assert next(f(1)) == 1",
    ],
)
@pytest.mark.parametrize("result", ["Liar()", "Liar", "lambda *a: True"])
def test_no_test_takes_a_program_at_its_word(hostile_sandbox, test: str, result: str) -> None:
    doc = {"code": DOC["code"], "test_imports": ["import math"], "test_list": [test]}
    more = (
        "    def __float__(self): return 3.0\n    def __int__(self): return 1\n"
        "    def __index__(self): return 1\n    def __str__(self): return 'x'\n"
        "    def __format__(self, s): return 'x'\n    def __getitem__(self, i): return 1\n"
        "    def __add__(self, o): return 2\n    def __neg__(self): return 2\n"
        "    def __next__(self): raise StopIteration\n"
    )
    program = LIAR.replace("BASE", "object") + more + f"\ndef f(x):\n    return {result}\n"
    if test == "assert not f(1)" or "isinstance" in test:
        program = program.replace("return True", "return False")
    assert not grade("mbpp", program, doc).correct

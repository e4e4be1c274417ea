"""Programs that reach out of the sandbox, and pass if they get there.

See test_hostile.py for those that try to pass where they are.
"""

from __future__ import annotations

import signal

import pytest

from lm_eval_ext.grading import grade

DOC = {
    "text": "Write a function that returns x and its successor.",
    "code": "def f(x):\n    return [x, x + 1]",
    "test_setup_code": "",
    "test_list": ["assert f(1) == [1, 2]", "assert f(5) == [5, 6]"],
}
GOOD = "def f(x):\n    return [x] + [x + 1]\n"
# These succeed in passing if they reach what they reach for: {secret}, {written} and {unix} are
# paths, {tcp} and {udp} ports of this machine, {parent} is the process that runs the tests.
REACHES = {
    "reading a file": "open({secret!r}).read()",
    "reading the account data": "open('/etc/passwd').read()",
    "listing a home": "import os; os.listdir(os.path.dirname({secret!r}))",
    "writing a file": "open({written!r}, 'w').write('x')",
    "writing through a link": (
        "import os; os.symlink({written!r}, 'link'); open('link', 'w').write('x')"
    ),
    "changing a file": "open({secret!r}, 'a').write('x')",
    "removing a file": "import os; os.remove({secret!r})",
    "changing the standard library": "import os, json; open(json.__file__, 'a').write('')",
    "writing beside its folder": "open('/written', 'w').write('x')",
    "the parent in /proc": "open('/proc/{parent}/environ').read()",
    "the memory of the parent": "open('/proc/{parent}/mem', 'rb').read(1)",
    "the tests on its command line": (
        "assert any(b'assert' in open(f'/proc/{{n}}/cmdline', 'rb').read() for n in (1, {parent}))"
    ),
    "an environment variable": "import os; os.environ['SECRET_OF_THE_TESTS']",
    "a TCP socket": "import socket; socket.create_connection(('127.0.0.1', {tcp})).sendall(b'x')",
    "a listening socket": "import socket; socket.create_server(('127.0.0.1', 0))",
    "a UDP socket": (
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))"
    ),
    "a Unix socket": "import socket; socket.socket(socket.AF_UNIX).connect({unix!r})",
    "an abstract socket": (
        "import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + {abstract!r})"
    ),
    "a raw socket": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)"
    ),
    "DNS": "import socket; socket.gethostbyname('localhost'); socket.gethostbyname('example.org')",
    "a page on the web": "import urllib.request as u; u.urlopen('http://127.0.0.1:{tcp}/')",
    "killing the parent": "import os; assert os.getpid() != {parent}; os.kill({parent}, 15)",
    "killing its own parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "killing everything": "import os, signal; os.kill(-1, signal.SIGTERM)",
    "tracing the parent": (
        "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
        "r = c.ptrace(16, {parent}, 0, 0); assert r == 0"
    ),
    "a mount": (
        "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0"
    ),
    "new namespaces": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "becoming root": "import os; os.setgroups([0]); os.setuid(0)",
    "a higher limit": ("import resource as r; r.setrlimit(r.RLIMIT_AS, (2**40, 2**40))"),
    "another program": "import os; os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory as S; S('x', True, 10)"
    ),
    "a network in the kernel": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
}


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("when", ["at once", "in the call"])
def test_reaching_out(hostile_sandbox, outside, name: str, when: str, assert_sandbox_works) -> None:
    reach = REACHES[name].format(**outside.places)
    if when == "at once":
        program = f"{reach}\n{GOOD}"
    else:
        program = f"def f(x):\n    {reach}\n    return [x, x + 1]\n"
    attempt = grade("mbpp", program, DOC)
    assert not attempt.correct, attempt
    outside.assert_untouched()
    assert_sandbox_works()


SECRET_DOC = {
    "code": "def f(x):\n    return 'SECRET' + '-' + str(8191 * x)",
    "test_list": ["assert f(1) == 'SECRET-8191'"],
}
SEARCHES = {
    "gc": "import gc\nfound = look(gc.get_objects())",
    "frames": (
        "import sys\nframe, seen = sys._getframe(), []\n"
        "while frame:\n    seen += [*frame.f_locals.values(), *frame.f_globals.values()]\n"
        "    seen += frame.f_code.co_consts\n    frame = frame.f_back\nfound = look(seen)"
    ),
    "modules": "import sys\nfound = look([vars(m) for m in list(sys.modules.values())])",
    "memory": (
        "import ctypes\nfound = None\n"
        "data = b''.join(ctypes.string_at(id(o), 500) for o in __import__('gc').get_objects())\n"
        "where = data.find(b'SECRET-8')\nassert where >= 0\nfound = data[where:where + 11].decode()"
    ),
    "arguments": "import sys\nfound = look([sys.argv, sys.orig_argv])",
    "files": (
        "import glob\nfound = look([open(n, errors='replace').read() "
        "for n in glob.glob('/tmp/**', recursive=True) + glob.glob('/proc/self/*')])"
    ),
}
LOOK = """
def look(things, depth=0):
    for thing in things:
        if isinstance(thing, str) and thing.startswith("SECRET" + "-8"):
            return thing
        if depth < 3 and isinstance(thing, (list, tuple, dict, set)):
            inner = look(list(thing.values()) if isinstance(thing, dict) else [*thing], depth + 1)
            if inner:
                return inner
"""


@pytest.mark.parametrize("name", SEARCHES)
def test_the_expected_value_is_not_in_the_process(
    hostile_sandbox, name: str, assert_sandbox_works
) -> None:
    search = SEARCHES[name].replace("\n", "\n    ")
    program = f"{LOOK}\ndef f(x):\n    {search}\n    return found\n"
    attempt = grade("mbpp", program, SECRET_DOC)
    assert not attempt.correct
    assert "8191" not in (attempt.answer or "")
    assert_sandbox_works()


def test_the_search_would_find_it() -> None:
    """The search above is able to find a value that is there."""
    space: dict = {"kept": {"a": ["SECRET" + "-8191"]}}
    exec(LOOK, space)
    assert space["look"]([space["kept"]]) == "SECRET-8191"


def test_the_parent_is_deaf_to_no_signal(hostile_sandbox, assert_sandbox_works) -> None:
    """Signals that a program sends itself stay with it."""
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    try:
        grade("mbpp", "import os\nos.killpg(0, 10)\nos.kill(0, 10)\nos.kill(os.getpid(), 10)", DOC)
        assert received == []
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert_sandbox_works()

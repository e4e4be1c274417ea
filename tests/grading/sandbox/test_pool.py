"""Programs run apart from each other, and the pool survives what happens to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.sandbox import launch, pool
from lm_eval_ext.grading.sandbox.launch import BACK_ENDS, Zygote
from lm_eval_ext.grading.sandbox.limits import Limits
from lm_eval_ext.grading.sandbox.pool import Pool
from lm_eval_ext.grading.sandbox.session import Deadline, ProgramError, ProgramGone


@pytest.fixture(scope="module", params=BACK_ENDS)
def sandbox(request) -> Iterator[Pool]:
    found = Pool([request.param], size=2)
    try:
        found.zygote()
    except UserError as error:
        pytest.skip(f"{request.param} does not work here: {str(error)[:120]}")
    yield found
    found.close()


def value_of(sandbox: Pool, program: str, *arguments, seconds: float = 10.0):
    """Run a program and return what its function ``f`` returns."""
    return sandbox.converse(
        lambda session: session.load(program, ["f"])["f"](*arguments), lambda: Deadline(seconds)
    )


LEAVE_TRACES = """
import builtins, gc, math, os, random, signal, sys
builtins.left = 1
builtins.sorted = None
math.left = sys.left = 1
sys.modules["left"] = sys
sys.setrecursionlimit(50000)
random.seed(5)
os.environ["LEFT"] = "1"
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.umask(0o077)
gc.disable()
try:
    open("left", "w").write("x")
    os.mkdir("folder")
except OSError:
    pass
def f():
    return builtins.sorted
"""
FIND_TRACES = """
import builtins, gc, math, os, random, signal, sys
def f():
    try:
        files = os.listdir(".")
    except OSError:
        files = []
    return {
        "names": [hasattr(thing, "left") for thing in (builtins, math, sys)],
        "sorted": callable(builtins.sorted),
        "module": "left" in sys.modules,
        "recursion": sys.getrecursionlimit(),
        "random": random.random(),
        "environment": "LEFT" in os.environ,
        "signal": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
        "gc": gc.isenabled(),
        "files": files,
        "process": os.getpid(),
    }
"""


def test_a_program_leaves_nothing_to_the_next(sandbox) -> None:
    before = value_of(sandbox, FIND_TRACES)
    for _ in range(3):
        value_of(sandbox, LEAVE_TRACES)
    after = value_of(sandbox, FIND_TRACES)
    if sandbox.zygote().report["own_namespaces"]:
        assert before["process"] == after["process"] == 1
    del before["process"], after["process"]
    assert before == after
    assert after["names"] == [False, False, False]
    assert after["files"] == []
    assert after["sorted"]
    assert after["gc"]


def test_objects_of_a_program_are_handled_from_outside(sandbox) -> None:
    program = (
        "class Node:\n    def __init__(self, value):\n        self.value = value\n"
        "        self.next = None\n"
        "def f(node):\n    return [node.value] + (f(node.next) if node.next else [])\n"
        "LIMIT = 3\n"
    )

    def work(session):
        space = session.load(program, ["Node", "f", "LIMIT", "missing"])
        assert set(space) == {"Node", "f", "LIMIT"}
        first = space["Node"](1)
        first.next = space["Node"](value=2)
        first.next.next = space["Node"](space["LIMIT"])
        assert first.next.value == 2
        with pytest.raises(ProgramError, match="AttributeError"):
            first.missing()
        with pytest.raises(ValueError, match="not plain data"):
            space["f"](object())
        return space["f"](first)

    assert sandbox.converse(work, lambda: Deadline(5)) == [1, 2, 3]


def test_a_handle_of_another_program_is_refused(sandbox) -> None:
    def work(session):
        return session.load("def f(x): return x", ["f"])["f"]

    other = sandbox.converse(work, lambda: Deadline(5))
    with pytest.raises(ValueError, match="not plain data"):
        value_of(sandbox, "def f(x): return 1", other)


def test_the_deadline_covers_all_calls_and_is_extended_once(sandbox) -> None:
    asked = []

    def extend() -> float:
        asked.append(1)
        return 1.0

    def work(session):
        program = "import time\ndef f(x):\n    time.sleep(x)\n    return x"
        sleep = session.load(program, ["f"])["f"]
        assert sleep(0.6) == 0.6  # beyond the first limit, within the second
        with pytest.raises(ProgramGone, match="timeout"):
            sleep(0.6)
        with pytest.raises(ProgramGone, match="timeout"):
            sleep(0)

    started = time.monotonic()
    sandbox.converse(work, lambda: Deadline(0.3, extend))
    assert 0.95 < time.monotonic() - started < 2.5
    assert asked == [1]


def test_programs_run_at_once_but_no_more_than_there_are_slots(sandbox) -> None:
    lock = threading.Lock()
    running, most = 0, 0

    def work(session) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        value = session.load("import time\ntime.sleep(0.05)\ndef f(x): return x + 1", ["f"])["f"](1)
        with lock:
            running -= 1
        return value

    results: list[list[int]] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                sandbox.map(lambda _: sandbox.converse(work, lambda: Deadline(10)), range(4))
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[2] * 4] * 3
    assert most == 2


def test_a_killed_sandbox_is_replaced_and_its_programs_run_again(sandbox) -> None:
    first = sandbox.zygote()
    tries = []

    def work(session) -> int:
        tries.append(1)
        if len(tries) == 1:
            os.kill(first._process.pid, signal.SIGKILL)
            first._control.close()
        return session.load("def f(x): return x", ["f"])["f"](7)

    assert sandbox.converse(work, lambda: Deadline(10)) == 7
    # Killed from outside, the program's process may live on for as long as its lease.
    assert value_of(sandbox, "def f(x): return x", 8) == 8
    assert sandbox.zygote() is not first


def test_a_sandbox_that_always_breaks_down_is_the_programs_failure(sandbox) -> None:
    def work(session) -> None:
        raise pool.SandboxLost

    with pytest.raises(ProgramGone, match="broke down"):
        sandbox.converse(work, lambda: Deadline(10))
    assert value_of(sandbox, "def f(x): return x", 8) == 8


def grade_in_child(sandbox: Pool, queue) -> None:
    queue.put(value_of(sandbox, "def f(x): return x + 1", 1))


def test_a_forked_process_gets_a_sandbox_of_its_own(sandbox) -> None:
    zygote = sandbox.zygote()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=grade_in_child, args=(sandbox, queue))
    child.start()
    assert queue.get(timeout=30) == 2
    child.join(30)
    assert child.exitcode == 0
    assert sandbox.zygote() is zygote
    assert value_of(sandbox, "def f(x): return x", 5) == 5


def test_closing_ends_the_processes_and_the_next_program_starts_them_again(sandbox) -> None:
    process = sandbox.zygote()._process
    sandbox.close()
    assert process.poll() is not None
    assert value_of(sandbox, "def f(x): return x", 5) == 5


def test_without_isolation_it_refuses_unless_told(monkeypatch, caplog) -> None:
    monkeypatch.delenv(pool.UNSANDBOXED, raising=False)
    bare = Pool(["process"], without=["seccomp", "landlock"])
    with pytest.raises(UserError, match="cannot be isolated.*files outside cannot be read") as info:
        bare.zygote()
    assert pool.UNSANDBOXED in str(info.value)
    assert "\n" not in str(info.value)
    monkeypatch.setenv(pool.UNSANDBOXED, "1")
    assert value_of(bare, "def f(x): return x", 3) == 3
    assert "without the minimum of isolation" in caplog.text
    bare.close()


@pytest.mark.parametrize("without", [["seccomp"], ["landlock"]])
def test_one_layer_alone_keeps_less_than_the_minimum(monkeypatch, without) -> None:
    """Without namespaces, both the filter and Landlock are needed."""
    monkeypatch.delenv(pool.UNSANDBOXED, raising=False)
    with pytest.raises(UserError, match="does not hold"):
        Pool(["process"], without=without).zygote()


def test_elsewhere_than_on_linux_it_refuses_in_one_line(monkeypatch) -> None:
    monkeypatch.setattr(pool.sys, "platform", "darwin")
    with pytest.raises(UserError, match="darwin: programs are isolated, and run, only on Linux"):
        Pool().zygote()


def test_no_bubblewrap_is_no_obstacle(monkeypatch) -> None:
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    with pytest.raises(launch.LaunchError, match="no `bwrap` on PATH"):
        Zygote("bubblewrap", Limits())
    found = Pool()
    try:
        assert found.zygote().back_end in ("namespaces", "process")
    except UserError as error:
        pytest.skip(str(error))
    finally:
        found.close()


def test_the_end_of_the_user_ends_the_sandbox(tmp_path) -> None:
    """A killed run leaves no process behind."""
    import subprocess
    import sys

    script = (
        "import sys, time\n"
        "from lm_eval_ext.grading.sandbox.pool import Pool\n"
        "from lm_eval_ext.grading.sandbox.session import Deadline\n"
        "pool = Pool()\n"
        "def work(session):\n"
        "    print(pool.zygote()._process.pid, flush=True)\n"
        "    session.load('while True: pass', [])\n"
        "pool.converse(work, lambda: Deadline(60))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        line = user.stdout.readline()
        if not line:
            pytest.skip(f"no sandbox here: {user.stderr.read()[-300:] if user.stderr else ''}")
        time.sleep(0.3)
        user.kill()
    for _ in range(100):
        try:
            os.kill(int(line), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the sandbox outlived its user")

"""Workers under a deadline: killed, killed from outside, forked, and gone when their parent is."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lm_eval_ext.grading import math as math_grader
from lm_eval_ext.grading.math_pool import (
    GRACE_SECONDS,
    ComparisonError,
    WorkerPool,
    default_size,
    shared_pool,
)

ENDLESS = "9^{9^{9}}"  # its 370 million digits are computed in one call into C

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")


@pytest.fixture(scope="module")
def math_pool():
    """Return a pool with a deadline of a second, so that what never ends is found out quickly."""
    pool = WorkerPool(2, deadline_seconds=1.0)
    yield pool
    pool.close()


def children(process_id):
    """Return the processes that a process has forked."""
    path = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def running(process_id):
    path = Path(f"/proc/{process_id}/stat")
    try:
        return path.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=20.0):
    """Wait for a condition and return whether it came true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def ask(pool, answer=r"\sqrt{8}", gold=r"2\sqrt{2}"):
    with pool.borrowed() as compare:
        return compare(gold, answer).equal


def test_the_deadline_is_kept_and_the_worker_goes_on(math_pool):
    assert ask(math_pool)
    process_ids = math_pool.process_ids()
    start = time.monotonic()
    with math_pool.borrowed() as compare:
        with pytest.raises(ComparisonError, match="^timeout$"):
            compare("1", ENDLESS)
        assert 1.0 <= time.monotonic() - start < 1.0 + GRACE_SECONDS
        assert compare("2", r"\sqrt{4}").equal
    assert math_pool.process_ids() == process_ids


@pytest.mark.parametrize("whole_worker", [False, True])
def test_killed_while_idle(math_pool, whole_worker):
    assert ask(math_pool)
    for leader in math_pool.process_ids():
        victims = [leader, *children(leader)] if whole_worker else children(leader)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        assert until(lambda victims=victims: not any(map(running, victims)))
    assert ask(math_pool)
    assert not ask(math_pool, "3")


@pytest.mark.parametrize("whole_worker", [False, True])
def test_killed_while_busy(whole_worker):
    pool = WorkerPool(1, deadline_seconds=3.0)
    try:
        assert ask(pool)
        (leader,) = pool.process_ids()
        (child,) = children(leader)
        outcome = []

        def compare_endless():
            with pool.borrowed() as compare:
                try:
                    outcome.append(compare("1", ENDLESS))
                except ComparisonError as error:
                    outcome.append(str(error))
                outcome.append(compare(r"2\sqrt{2}", r"\sqrt{8}").equal)

        thread = threading.Thread(target=compare_endless)
        thread.start()
        time.sleep(0.5)
        for victim in [leader, child] if whole_worker else [child]:
            os.kill(victim, signal.SIGKILL)
        thread.join(60)
        # Asked once more, it meets the deadline; a worker has died, nobody knows why.
        assert outcome == ["timeout", True]
    finally:
        pool.close()


def test_a_worker_that_dies_of_the_answer_is_given_up(monkeypatch):
    pool = WorkerPool(1, deadline_seconds=5.0)
    try:
        assert ask(pool)
        (leader,) = pool.process_ids()
        stop = threading.Event()

        def kill_every_child():
            while not stop.is_set():
                for child in children(leader):
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.05)

        killer = threading.Thread(target=kill_every_child)
        killer.start()
        with pool.borrowed() as compare, pytest.raises(ComparisonError, match="^worker died$"):
            compare("1", ENDLESS)
        stop.set()
        killer.join()
        assert ask(pool)
    finally:
        pool.close()


def test_memory_is_limited():
    pool = WorkerPool(1, deadline_seconds=20.0, memory_bytes=300 * 1024**2)
    try:
        with pool.borrowed() as compare:
            assert not compare("1", r"\operatorname{zeros}(6000,6000)").equal  # of 8 bytes each
            (leader,) = pool.process_ids()
            (child,) = children(leader)
            limits = Path(f"/proc/{child}/limits").read_text().splitlines()
            (line,) = (line for line in limits if line.startswith("Max address space"))
            assert line.split()[3:5] == [str(300 * 1024**2)] * 2
            assert compare("2", r"\sqrt{4}").equal
    finally:
        pool.close()


def test_threads_wait_for_their_turn():
    pool = WorkerPool(1, deadline_seconds=5.0)
    try:
        results = []
        threads = [threading.Thread(target=lambda: results.append(ask(pool))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [True] * 5
        assert len(pool.process_ids()) == 1
    finally:
        pool.close()
    assert pool.process_ids() == []


def test_settings_are_checked():
    with pytest.raises(ValueError, match="size=0 is not a number of workers"):
        WorkerPool(0)
    with pytest.raises(ValueError, match="deadline_seconds=0"):
        WorkerPool(1, deadline_seconds=0)
    assert 1 <= default_size() == math_grader.max_concurrency()
    assert shared_pool() is shared_pool()


PROGRAM = r"""
import json, os, sys, threading
from lm_eval_ext.grading import grade
from lm_eval_ext.grading.math_pool import shared_pool

def right(number):
    completion = rf"\boxed{{\sqrt{{{number ** 2 * 2}}}}}"
    return grade("math", completion, {"answer": rf"{number}\sqrt 2"}).correct

assert right(2)
before = shared_pool().process_ids()
child = os.fork()
if child == 0:
    fine = all(right(number) for number in range(2, 12)) and before != shared_pool().process_ids()
    shared_pool().close()
    os._exit(0 if fine else 1)
in_parent = [right(number) for number in range(20, 30)]
status = os.waitpid(child, 0)[1]
print(json.dumps([in_parent, status, before == shared_pool().process_ids(), before]), flush=True)
if "killed" in sys.argv:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["exit", "killed"])
def test_a_forked_child_has_its_own_workers_and_none_outlives_its_parent(end):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, end], capture_output=True, text=True, timeout=120
    )
    in_parent, status, same, leaders = json.loads(done.stdout)
    assert in_parent == [True] * 10
    assert status == 0
    assert same
    assert done.stderr == ""
    assert leaders
    assert until(lambda: not any(map(running, leaders)))


def test_a_comparison_under_way_ends_with_its_deadline_when_the_parent_is_killed():
    program = (
        "import os, threading, time\n"
        "from lm_eval_ext.grading.math_pool import WorkerPool\n"
        "pool = WorkerPool(1, deadline_seconds=2)\n"
        "with pool.borrowed() as compare:\n"
        "    assert compare('2', '\\\\sqrt{4}').equal\n"
        "    print(pool.process_ids()[0], flush=True)\n"
        f"    threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()\n"
        f"    compare('1', '{ENDLESS}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    leader = int(done.stdout)
    assert until(lambda: not running(leader), 10)

"""Pools for the graders' tests: math workers with a short deadline; sandboxes of each kind, with
what must stay untouched around them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade, mbpp
from lm_eval_ext.grading.math_pool import WorkerPool
from lm_eval_ext.grading.sandbox import pool as pools
from lm_eval_ext.grading.sandbox.launch import BACK_ENDS
from lm_eval_ext.grading.sandbox.pool import Pool


@pytest.fixture(scope="session")
def math_pool() -> Iterator[WorkerPool]:
    """Return workers that compare math answers, one second for each comparison."""
    pool = WorkerPool(2, deadline_seconds=1.0)
    yield pool
    pool.close()


class Outside:
    """Files and sockets that a program must not reach, open to every user.

    ``places`` are their paths and ports by name, and the process that runs the tests.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._secret = folder / "secret"
        self._secret.write_text("untouched")
        self._secret.chmod(0o666)
        self._written = folder / "written"
        name = f"outside-{os.getpid()}"
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        self._udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "unix"))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        for listening in (unix, abstract):
            listening.listen()
        self._listening = (tcp, unix, abstract)
        for each in (*self._listening, self._udp):
            each.setblocking(False)
        self.places = {
            "secret": str(self._secret),
            "written": str(self._written),
            "unix": str(folder / "unix"),
            "abstract": name,
            "tcp": tcp.getsockname()[1],
            "udp": self._udp.getsockname()[1],
            "parent": os.getpid(),
        }

    def assert_untouched(self) -> None:
        """Check that no program left a trace."""
        assert self._secret.read_text() == "untouched"
        assert not self._written.exists()
        assert not Path("/written").exists()
        for listening in self._listening:
            with pytest.raises(BlockingIOError):
                listening.accept()
        with pytest.raises(BlockingIOError):
            self._udp.recv(1)


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Iterator[Outside]:
    """Set up what must stay untouched."""
    folder = tmp_path_factory.mktemp("outside")
    for above in (folder, *folder.parents):
        if above.is_relative_to(tmp_path_factory.getbasetemp()):
            above.chmod(0o777)
    with contextlib.ExitStack() as stack:
        yield Outside(folder, stack)


@pytest.fixture(scope="module", params=BACK_ENDS)
def hostile_sandbox(request) -> Iterator[Pool]:
    """Let the grader use one way of isolating, and hold the parent's environment a secret."""
    pool = Pool([request.param])
    try:
        pool.zygote()
    except UserError as error:
        pytest.skip(f"{request.param} does not work here: {str(error)[:120]}")
    previous = pools.use(pool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mbpp, "MIN_SECONDS", 1.0)
        patch.setenv("SECRET_OF_THE_TESTS", "1")
        yield pool
    pools.use(previous)
    pool.close()


def children_of(process: int) -> list[int]:
    """Return the processes that live below one, from the whole list of processes."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if stat[0] != "Z":
                    parents[int(folder.name)] = int(stat[1])
    below = {process}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {process})


def wait_for_quiet(pool: Pool, expected: int) -> None:
    """Wait until no program's process is left, at most five seconds."""
    process = pool.zygote()._process.pid
    for _ in range(100):
        left = children_of(process)
        if len(left) <= expected:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {left} are left under {process}")


@pytest.fixture
def assert_sandbox_works(hostile_sandbox: Pool) -> Callable[[], None]:
    """Return a check that a right program passes and that no other process is left."""
    doc = {"code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2"]}
    helpers = {"bubblewrap": 2, "namespaces": 1, "process": 0}

    def check() -> None:
        assert grade("mbpp", "def f(x): return 1 + x", doc).correct
        wait_for_quiet(hostile_sandbox, helpers[hostile_sandbox.zygote().back_end])

    return check

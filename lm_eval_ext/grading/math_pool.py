"""Workers that compare answers, each comparison under a hard deadline.

SymPy can compute for ever, in C code that no signal handler interrupts, and can ask for any amount
of memory. So it runs in worker processes (`lm_eval_ext.grading.math_worker`), and is never imported
here. A worker is started when first needed and kept; a comparison that exceeds the deadline is
killed, and the worker goes on with a fresh process. One that does not even do that is replaced.

A pool belongs to the process that made it. `shared_pool` gives a forked child a pool of its own;
processes started in other ways, such as the ranks of ``accelerate launch``, each have one anyway.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError

DEADLINE_SECONDS = 5.0
"""Wall-clock seconds for one comparison, as in math-verify."""

START_SECONDS = 120.0
"""Wall-clock seconds in which a worker has to be ready; about one on an idle machine."""

MEMORY_BYTES = 2 * 1024**3
"""Address space of a worker."""

MAX_WORKERS = 16
"""Workers of one process, however many cores there are."""

GRACE_SECONDS = 5.0
"""How long after a deadline a worker may take to say that it was missed, before it is replaced."""

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:-1]; "
    "from lm_eval_ext.grading.math_worker import main; main()"
)


class Comparison(NamedTuple):
    """What a worker says about two answers.

    Parameters
    ----------
    equal
        Whether they are equal.
    gold_parsed, answer_parsed
        Whether the LaTeX grammar knows the answer; if not, it was compared as text.
    """

    equal: bool
    gold_parsed: bool
    answer_parsed: bool


class ComparisonError(Exception):
    """A comparison that has no result; its text is the reason, ``timeout`` or ``worker died``."""


class WorkerGoneError(ComparisonError):
    """Both processes of a worker have ended."""


Compare = Callable[[str, str], Comparison]


class Worker:
    """One worker: a process that has imported SymPy, and the one it has forked to compare.

    Parameters
    ----------
    memory_bytes
        Address space a comparison may use.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        # The parent's path, so that both import the same packages; a fixed hash seed, as SymPy's
        # order of arguments depends on it; a session of its own, so that Ctrl-C is the parent's.
        path = [os.path.abspath(entry) for entry in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *path, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._received = b""
        self._ready = False
        self._requests = 0
        self._busy = False

    @property
    def process_id(self) -> int:
        """Process id, and process group, of the process that forks."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it waits for a comparison."""
        return not self._busy and self._process.poll() is None

    def compare(self, gold: str, answer: str, seconds: float) -> Comparison:
        """Return what it says about two answers.

        Raises
        ------
        ComparisonError
            For ``timeout`` or ``worker died``. If it is not `usable` then, `close` it.
        """
        self._busy = True
        self._wait_until_ready()
        for _ in range(2):  # the first may find a process that had died while it was idle
            self._requests += 1
            self._send({"id": self._requests, "gold": gold, "answer": answer, "seconds": seconds})
            reply = self._reply(seconds)
            if reply is not None:
                self._busy = False
                return Comparison(reply["equal"], *reply["parsed"])
        self._busy = False
        raise ComparisonError("worker died")

    def close(self) -> None:
        """End both processes at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close_pipes()

    def abandon(self) -> None:
        """Let go of processes that are the parent's, in a forked child."""
        self._close_pipes()
        self._process.returncode = 0  # no wait, no warning

    def _close_pipes(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        message = self._receive(START_SECONDS)
        if "failed" in message:
            raise UserError(
                f"the math grader cannot start: {message['failed']}; "
                "pip install 'math-verify[antlr4_11_0]'"
            )
        self._ready = True

    def _reply(self, seconds: float) -> dict[str, Any] | None:
        """Return the reply to the last request; None if the process died, and was replaced."""
        while True:
            message = self._receive(seconds + GRACE_SECONDS)
            if message.get("died") == "timeout":
                self._busy = False
                raise ComparisonError("timeout")
            if "died" in message:
                return None
            if message["id"] == self._requests:
                return message

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), json.dumps(message).encode("ascii") + b"\n")
        except OSError as error:
            raise WorkerGoneError("worker died") from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        """Return the next line."""
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise ComparisonError("timeout")
                part = os.read(source, 65536)
                if not part:
                    raise WorkerGoneError("worker died")
                self._received += part
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class WorkerPool:
    """Workers that threads borrow one at a time.

    Parameters
    ----------
    size
        Workers that may run at the same time; a thread that wants one more waits.
    deadline_seconds
        Wall-clock seconds for one comparison.
    memory_bytes
        Address space of a worker.
    """

    def __init__(
        self,
        size: int,
        deadline_seconds: float = DEADLINE_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if size < 1:
            raise ValueError(f"size={size!r} is no number of workers: use 1 or more")
        if deadline_seconds <= 0:
            raise ValueError(f"deadline_seconds={deadline_seconds!r}: use a number above 0")
        self.size = size
        self.deadline_seconds = deadline_seconds
        self.memory_bytes = memory_bytes
        self._turn = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._lent: set[Worker] = set()

    def process_ids(self) -> list[int]:
        """Return the process ids of all workers that run now."""
        with self._lock:
            return [worker.process_id for worker in [*self._idle, *self._lent]]

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Compare]:
        """Lend a worker, as a function that compares two answers.

        The function raises `ComparisonError` for a comparison without a result, and can be called
        again. A worker found dead is replaced and the new one asked, once.
        """
        with self._turn:
            worker: Worker | None = None

            def compare(gold: str, answer: str) -> Comparison:
                nonlocal worker
                for last in (False, True):
                    try:
                        if worker is None or not worker.usable:
                            worker = self._take(instead_of=worker)
                        return worker.compare(gold, answer, self.deadline_seconds)
                    except WorkerGoneError:
                        if last:
                            raise
                raise AssertionError("not reached")

            try:
                yield compare
            finally:
                if worker is not None:
                    self._give_back(worker)

    def close(self) -> None:
        """End all workers; a later comparison starts new ones."""
        with self._lock:
            workers = [*self._idle, *self._lent]
            self._idle.clear()
            self._lent.clear()
        for worker in workers:
            worker.close()

    def abandon(self) -> None:
        """Let go of the workers, in a forked child: they are the parent's."""
        for worker in [*self._idle, *self._lent]:
            worker.abandon()

    def _take(self, instead_of: Worker | None = None) -> Worker:
        if instead_of is not None:
            self._give_back(instead_of)
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.usable:
                    break
                worker.close()
            else:
                worker = Worker(self.memory_bytes)
            self._lent.add(worker)
            return worker

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            self._lent.discard(worker)
            if worker.usable:
                self._idle.append(worker)
                return
        worker.close()


_shared: WorkerPool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """Return this process' pool, made at the first call and closed at exit."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = WorkerPool(default_size())
            _register_once()
        return _shared


def default_size() -> int:
    """Return how many workers a pool has: one for each core this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    return min(os.cpu_count() or 1, MAX_WORKERS)


_registered = False


def _register_once() -> None:
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_close_shared)
        os.register_at_fork(after_in_child=_forget_shared)


def _close_shared() -> None:
    if _shared is not None:
        _shared.close()


def _forget_shared() -> None:
    global _shared, _shared_lock
    _shared_lock = threading.Lock()
    if _shared is not None:
        _shared.abandon()
        _shared = None

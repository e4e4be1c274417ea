"""Workers that compare answers, each comparison under a hard deadline.

SymPy can compute for ever, in C code that no signal handler interrupts, and can ask for any amount
of memory. So it runs in worker processes (`lm_eval_ext.grading.math_worker`), and is never imported
here. A worker is started when first needed and kept; a comparison that exceeds the deadline is
killed, and the worker continues with a fresh process. One that does not even do that is replaced.

Replies are JSON: a pool that pickles them, such as those of `multiprocessing` and `pebble`, would
let a worker that an answer took over run code here.

A pool belongs to the process that made it; `shared_pool` gives a forked child one of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.sandbox.pool import processors

DEADLINE_SECONDS = 5.0  # wall-clock seconds for one comparison, as in math-verify
START_SECONDS = 120.0
"""Wall-clock seconds in which a worker has to be ready; about one on an idle machine."""

MEMORY_BYTES = 2 * 1024**3  # address space of a worker
MAX_WORKERS = 16  # workers of one process, however many cores there are
GRACE_SECONDS = 5.0
"""How long after a deadline a worker may take to say that it was missed, before it is replaced."""

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:-1]; "
    "from lm_eval_ext.grading.math_worker import main; main()"
)


class Comparison(NamedTuple):
    """What a worker says about two answers."""

    equal: bool
    gold_parsed: bool  # whether the LaTeX grammar knows it; if not, it was compared as text
    answer_parsed: bool


class ComparisonError(Exception):
    """A comparison that has no result; its text is the reason, ``timeout`` or ``worker died``."""


class WorkerGoneError(ComparisonError):
    """Both processes of a worker have ended."""


Compare = Callable[[str, str], Comparison]


class Worker:
    """One worker: a process that has imported SymPy, and the one it has forked to compare."""

    def __init__(self, memory_bytes: int) -> None:
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.process_id = self._process.pid  # and process group, of the one that forks
        self._arrival = select.poll()
        self._arrival.register(self._from, select.POLLIN)
        self._received = b""
        self._ready = self._busy = False
        self._requests = 0

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
        if not self._ready:
            started = self._receive(START_SECONDS)
            if "failed" in started:
                raise UserError(
                    f"the math grader cannot start: {started['failed']}; "
                    "pip install 'math-verify[antlr4_11_0]'"
                )
            self._ready = True
        for _ in range(2):  # the first may find a process that had died while it was idle
            self._requests += 1
            request = {"id": self._requests, "gold": gold, "answer": answer, "seconds": seconds}
            try:
                self._to.write(json.dumps(request).encode("ascii") + b"\n")
            except OSError as error:
                raise WorkerGoneError("worker died") from error
            reply = self._receive(seconds + GRACE_SECONDS)
            while reply.get("id", self._requests) != self._requests:
                reply = self._receive(seconds + GRACE_SECONDS)
            if reply.get("died") != "worker died":
                break
        self._busy = False
        if "died" in reply:
            raise ComparisonError(reply["died"])
        return Comparison(reply["equal"], *reply["parsed"])

    def close(self) -> None:
        """End both processes at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process_id, signal.SIGKILL)
            self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the processes; in a forked child they are the parent's."""
        for stream in (self._to, self._from):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.returncode = 0  # no wait, no warning

    def _receive(self, seconds: float) -> dict[str, Any]:
        """Return the next line."""
        end = time.monotonic() + seconds
        while b"\n" not in self._received:
            if not self._arrival.poll(1000 * max(0.0, end - time.monotonic())):
                raise ComparisonError("timeout")
            part = os.read(self._from.fileno(), 65536)
            if not part:
                raise WorkerGoneError("worker died")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return dict(json.loads(line))


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
            raise ValueError(f"size={size!r} is not a number of workers: use 1 or more")
        if deadline_seconds <= 0:
            raise ValueError(f"deadline_seconds={deadline_seconds!r}: use a number above 0")
        self.deadline_seconds = deadline_seconds
        self.memory_bytes = memory_bytes
        self._turn = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []

    def process_ids(self) -> list[int]:
        """Return the process ids of all workers that run now."""
        with self._lock:
            return sorted(worker.process_id for worker in self._workers)

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
                try:
                    worker = self._usable(worker)
                    return worker.compare(gold, answer, self.deadline_seconds)
                except WorkerGoneError:
                    worker = self._usable(worker)
                    return worker.compare(gold, answer, self.deadline_seconds)

            try:
                yield compare
            finally:
                if worker is not None:
                    self._give_back(worker)

    def close(self) -> None:
        """End all workers; a later comparison starts new ones."""
        with self._lock:
            workers = [*self._workers]
            self._workers.clear()
            self._idle.clear()
        for worker in workers:
            worker.close()

    def abandon(self) -> None:
        """Let go of the workers, in a forked child: they are the parent's."""
        for worker in self._workers:
            worker.abandon()

    def _usable(self, worker: Worker | None) -> Worker:
        """Return a worker that can be asked, a given one if it can."""
        while worker is None or not worker.usable:
            if worker is not None:
                self._give_back(worker)
            with self._lock:
                worker = self._idle.pop() if self._idle else Worker(self.memory_bytes)
                self._workers.add(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            if worker.usable:
                self._idle.append(worker)
                return
            self._workers.discard(worker)
        worker.close()


_shared: WorkerPool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """Return this process' pool, made at the first call and closed at exit."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = WorkerPool(default_size())
        return _shared


def default_size() -> int:
    """Return how many workers a pool has: one for each core this process may use."""
    return min(processors(), MAX_WORKERS)


def _close_shared() -> None:
    if _shared is not None:
        _shared.close()


def _forget_shared() -> None:
    global _shared, _shared_lock
    _shared_lock = threading.Lock()
    if _shared is not None:
        _shared.abandon()
        _shared = None


atexit.register(_close_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)

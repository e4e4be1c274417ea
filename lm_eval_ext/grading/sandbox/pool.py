"""A warm pool of isolated processes, one per program. Outside the sandbox."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.sandbox.launch import BACK_ENDS, LaunchError, Zygote
from lm_eval_ext.grading.sandbox.limits import Limits
from lm_eval_ext.grading.sandbox.session import Deadline, ProgramGone, SandboxLost, Session

UNSANDBOXED = "LM_EVAL_EXT_UNSANDBOXED"
"""Environment variable: ``1`` runs programs also where the minimum of isolation does not hold."""

MAX_SIZE = 8  # programs at once, at most; fewer where there are fewer processors
_TRIES = 3
_REMEDY = (
    "use Linux with bubblewrap installed or unprivileged user namespaces allowed (see "
    "`lm-eval-ext doctor` and docs/sandbox.md), or, to let model-written programs act with your "
    f"rights on this machine, set {UNSANDBOXED}=1"
)

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Pool:
    """Runs programs, each in a fresh isolated process forked from a waiting one.

    Nothing starts before the first program. Safe to use from several threads; in a forked copy of
    this process it starts again by itself.

    The first of ``back_ends`` that works is used. ``size`` is how many programs run at once, by
    default one per processor and `MAX_SIZE` at most; for ``without`` see `launch.Zygote`.
    """

    def __init__(
        self,
        back_ends: Sequence[str] = BACK_ENDS,
        *,
        size: int | None = None,
        limits: Limits | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.back_ends = tuple(back_ends)
        self.size = size or min(processors(), MAX_SIZE)
        self.limits = limits or Limits()
        self.without = tuple(without)
        self._lock = threading.Lock()
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._zygote: Zygote | None = None
        self._slots = threading.BoundedSemaphore(self.size)
        self._executor: ThreadPoolExecutor | None = None

    def converse(
        self,
        work: Callable[[Session], _Result],
        deadline: Callable[[], Deadline],
        *,
        wait: bool = True,
    ) -> _Result:
        """Give work a process, a new one if the sandbox breaks down; return its result.

        The deadline is made when the process starts, maybe after a wait for a slot. Work on behalf
        of a program that has a slot must not ``wait`` for a second: that could last for ever.

        Raises
        ------
        UserError
            If this machine lacks the minimum of isolation.
        ProgramGone
            If ``work`` lets it pass, or the sandbox breaks down with this program every time.
        """
        for _ in range(_TRIES):
            with (
                self._slots if wait else contextlib.nullcontext(),
                contextlib.suppress(SandboxLost),
                self._session(deadline) as session,
            ):
                return work(session)
        _logger.warning("the sandbox broke down %d times with one program", _TRIES)
        raise ProgramGone("the sandbox broke down")

    def map(self, work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Call work for every item, as many at once as there are slots; return the results."""
        if len(items) < 2 or self.size == 1:
            return [work(item) for item in items]
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.size, "sandbox")
        return list(self._executor.map(work, items))

    def zygote(self) -> Zygote:
        """Return the waiting process, started now if there is none."""
        with self._lock:
            if self._zygote is None:
                self._zygote = self._launch()
            return self._zygote

    def close(self) -> None:
        """End every process of the pool; the next program starts it again."""
        with self._lock:
            zygote, self._zygote = self._zygote, None
            executor, self._executor = self._executor, None
        if zygote is not None:
            zygote.close()
        if executor is not None:
            executor.shutdown(wait=False)

    def forget(self) -> None:
        """Start again in a forked copy of this process."""
        if self._zygote is not None:
            self._zygote.forget()
        self._lock = threading.Lock()
        self._begin()

    @contextlib.contextmanager
    def _session(self, deadline: Callable[[], Deadline]) -> Iterator[Session]:
        zygote = self.zygote()
        lost = not zygote.reusable
        try:
            with Session(*zygote.program(), deadline()) as session:
                yield session
        except SandboxLost:
            lost = True
            raise
        finally:
            if lost:  # the next program starts another
                with self._lock:
                    self._zygote = None if self._zygote is zygote else self._zygote
                zygote.close()

    def _launch(self) -> Zygote:
        """Start the first back end that works and keeps the minimum."""
        from lm_eval_ext.grading.sandbox.layers import shortfall

        unsandboxed = os.environ.get(UNSANDBOXED) == "1"
        reasons = []
        if sys.platform != "linux":
            reasons.append(f"{sys.platform}: programs are isolated, and run, only on Linux")
        for back_end in self.back_ends if sys.platform == "linux" else ():
            try:
                zygote = Zygote(back_end, self.limits, self.without)
            except LaunchError as error:
                reasons.append(str(error))
                continue
            lacking = shortfall(zygote)
            if not lacking:
                self.back_ends = (back_end,)
                return zygote
            reasons.append(f"{back_end}: {lacking}")
            if unsandboxed and back_end == self.back_ends[-1]:
                _logger.warning("programs run without the minimum of isolation: %s", lacking)
                return zygote
            zygote.close()
        why = "; ".join(reasons)
        raise UserError(f"model-written programs cannot be isolated ({why}): {_REMEDY}")


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_shared_lock = threading.Lock()
_shared: Pool | None = None


def shared_pool() -> Pool:
    """Return the pool of this process, which every grader uses."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Pool()
        return _shared


def use(pool: Pool) -> Pool | None:
    """Make a pool the one that `shared_pool` returns; return the one before."""
    global _shared
    with _shared_lock:
        previous, _shared = _shared, pool
        return previous


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


def _forget_all() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for pool in list(_pools):
        pool.forget()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

"""Say how to resume when a run with a store ends before its time."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from lm_eval_ext.errors import UserError
from lm_eval_ext.store.attempt_store import AttemptStore

_stores: list[AttemptStore] = []


def announce_at_failure(store: AttemptStore) -> None:
    """Let a process that an exception ends say, below the traceback, that its attempts are kept.

    Ctrl-C and a lost connection to another process are exceptions too. A process that has added
    nothing, such as one whose input is wrong, has nothing to say.
    """
    _stores.append(store)
    if len(_stores) > 1:
        return
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        previous(kind, error, traceback)
        if not (isinstance(error, UserError) and str(error).startswith("store=")):
            for one in filter(lambda store: store.n_appended, _stores):
                print(how_to_resume(one), file=sys.stderr)

    sys.excepthook = excepthook


def how_to_resume(store: AttemptStore) -> str:
    """Return the line that says what is kept, and how to resume."""
    return (
        f"store={store.folder} holds {len(store)} attempts, {store.n_appended} "
        "of them from this process: the same command resumes there"
    )


@contextmanager
def stopped_cleanly(store: AttemptStore | None) -> Iterator[None]:
    """Turn a request to terminate into an exit that says how to resume.

    Schedulers, and the launcher of several processes when one of them dies, ask this way. Without a
    store everything is left as it is.
    """
    if store is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum: int, frame: FrameType | None) -> None:
        print(f"terminated; {how_to_resume(store)}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signum)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

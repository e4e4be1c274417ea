r"""The program of a worker: read pairs of answers, say which are equal.

Started by `lm_eval_ext.grading.math_pool` as ``python -c "...; main()" MEMORY_BYTES``. It is two
processes. The first imports SymPy, which takes seconds, and forks the second, which shares its
standard input and output, answers requests, and is killed by the kernel's timer when a comparison
exceeds its deadline; the first then forks another, in milliseconds.

Each line of standard input is a JSON object with ``id``, ``gold``, ``answer`` and ``seconds``. Each
line of standard output is one of ``{"id", "equal", "parsed": [gold, answer]}``, ``{"ready": true}``
(once), ``{"failed": "..."}`` (instead of it) and ``{"died": "timeout" | "worker died"}``.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from lm_eval_ext.grading import no_evaluation
from lm_eval_ext.grading.math_comparison import clear_cache, compare, compare_relatively

MAX_COMPARISONS = 20_000
"""Comparisons after which the serving process is replaced, as SymPy's caches only grow."""

MAX_RESIDENT_BYTES = 700 * 1024**2  # memory in use after which it is replaced, too

_FINISHED, _WORN = 0, 3  # exit codes of the serving process: input ended, to be replaced

_EQUAL = (
    (r"\frac{1}{2}", "0.5"),
    (r"2\sqrt{2}+x^2", r"\sqrt{8}+x\cdot x"),
    ("2x-y=4", "y=2x-4"),
    (r"(1,2]\cup[3,\infty)", r"[3,\infty)\cup(1,2]"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1&\sqrt{4}\end{pmatrix}"),
    (r"\{1,2\}", "2, 1"),
    ("x<5", r"(-\infty,5)"),
    (r"\sin(x)^2+\cos(x)^2", "1"),
    (r"50\%", "0.5"),
    (r"\log_4 2", "1/2"),
    (r"\int_0^1 x\,dx", "0.5"),
    (r"\sum_{k=1}^{3} k", "6"),
)


def main() -> None:
    """Serve until standard input ends."""
    memory_bytes = int(sys.argv[-1])
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not look like a reply
    try:
        _warm_up()
    except Exception as error:
        _send(output, {"failed": f"{type(error).__name__}: {error}"})
        return
    gc.freeze()  # collecting would copy every page that the two processes share
    _send(output, {"ready": True})
    while True:
        process_id = os.fork()
        if process_id == 0:
            try:
                os._exit(_serve(output, memory_bytes))
            finally:
                os._exit(1)
        _, status = os.waitpid(process_id, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == _FINISHED:
            return
        if code != _WORN:
            _send(output, {"died": "timeout" if code == -signal.SIGALRM else "worker died"})


def _serve(output: int, memory_bytes: int) -> int:
    """Answer requests; return the exit code."""
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError):  # macOS does not limit address space
            resource.setrlimit(kind, (limit, limit))
    no_evaluation.enforce()
    for _ in range(MAX_COMPARISONS):
        line = _read_line()
        if not line:
            return _FINISHED
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        reply = compare(request["gold"], request["answer"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(output, {"id": request["id"], **reply})
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MAX_RESIDENT_BYTES:
            return _WORN
    return _WORN


def _read_line() -> bytes:
    """Return the next request.

    Of several that wait, the last: the pool has repeated one that met the death of a process.
    """
    parts = [os.read(0, 65536)]
    while parts[-1] and not parts[-1].endswith(b"\n"):
        parts.append(os.read(0, 65536))
    return b"".join(parts).splitlines()[-1] if parts[-1] else b""


def _send(output: int, message: dict[str, Any]) -> None:
    os.write(output, json.dumps(message).encode("ascii") + b"\n")


def _warm_up() -> None:
    """Import everything by comparing one pair of each kind; raise if a verdict is not as it was."""
    logging.disable(logging.CRITICAL)
    compare_relatively()
    # SymPy imports more on first use, and names of units, for one, go through its compiler then.
    for replace_evaluation in (lambda: None, no_evaluation.replace_text_evaluation):
        replace_evaluation()
        clear_cache()
        for gold, answer in _EQUAL:
            if not compare(gold, answer)["equal"]:
                raise RuntimeError(f"math-verify finds {gold} and {answer} unequal: reinstall it")

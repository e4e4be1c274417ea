"""Time the code grader against one forked process per program, on the same programs and tests.

    python benchmarks/code_grader.py [--quick] [--data FOLDER] [--workers 2] [--bare]

The programs are the 974 reference solutions of MBPP, from ``mbpp.jsonl`` in the folder that
``--data`` or ``LM_EVAL_EXT_DATA`` names; without it, as many generated problems. Every program is
graded once, by both sides on the same number of workers:

- ours: `lm_eval_ext.grading.grade_many`, question by question from that many threads, each program
  in an isolated process and its tests outside it;
- the peer: an executor of the form published with HumanEval (Chen et al. 2021, arXiv:2107.03374)
  and used by ``code_eval``: per program a manager process, a forked process that takes a temporary
  folder, disables destructive functions, and executes program and tests together. It isolates
  nothing.

Both run in a process that has loaded lm-eval and its Hugging Face models, as every run has: what a
fork costs depends on it. ``--bare`` leaves that out.

Both get the same generous limit per program, as one reference solution computes for seconds; with
two processors that one program is a large part of our whole time, so the ratio is given with and
without programs that compute for more than a second. ``--quick`` grades a tenth of the programs.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lm_eval_ext.grading import grade_many
from lm_eval_ext.grading.sandbox import pool as pools

LIMIT = 60.0
LONG = 1.0
_context = multiprocessing.get_context("fork")


def load(folder: str | None, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Return a name and the records."""
    path = Path(folder) / "mbpp.jsonl" if folder else None
    if path is not None and path.is_file():
        with path.open() as file:
            docs = [json.loads(line) for line in file]
        name = "reference solutions of MBPP"
    else:
        from lm_eval_ext.data.tiny.code_problems import code_problem

        rng = random.Random(0)
        docs = [code_problem(rng, 1 + number % 5) for number in range(974)]
        name = "generated programs"
    return name, docs[::10] if quick else docs


def disable_destructive_functions() -> None:
    """Take functions away from the process, so that a program does not break it by accident."""
    builtins.exit = builtins.quit = None  # type: ignore[assignment]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("kill", "system", "putenv", "remove", "removedirs", "rmdir", "fchdir", "setuid"):
        setattr(os, name, None)
    for name in ("fork", "forkpty", "killpg", "rename", "renames", "truncate", "replace", "unlink"):
        setattr(os, name, None)
    for name in ("fchmod", "fchown", "chmod", "chown", "chroot", "lchown", "getcwd", "chdir"):
        setattr(os, name, None)
    for name in ("rmtree", "move", "chown"):
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore[assignment, misc]


def stop(number: int, frame: object) -> None:
    """End a program whose time is up."""
    raise TimeoutError


def execute(text: str, result: Any) -> None:
    """Execute a program with its tests in this process."""
    keep = os.chdir, os.getcwd, shutil.rmtree, os.rmdir, os.unlink
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        disable_destructive_functions()
        try:
            silent = io.StringIO()
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            signal.signal(signal.SIGALRM, stop)
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                exec(text, {})
            result.append("passed")
        except BaseException as error:
            result.append(f"failed: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.chdir, os.getcwd, shutil.rmtree, os.rmdir, os.unlink = keep
            os.chdir("/")


def check_by_fork(doc: dict[str, Any]) -> bool:
    """Judge one program in a process forked for it, as published."""
    parts = [doc["code"], *doc.get("test_imports", []), doc.get("test_setup_code", "")]
    text = "\n".join([*parts, *doc["test_list"]])
    with _context.Manager() as manager:
        result = manager.list()
        process = _context.Process(target=execute, args=(text, result))
        process.start()
        process.join(timeout=LIMIT + 1)
        if process.is_alive():
            process.kill()
        return list(result) == ["passed"]


def check(doc: dict[str, Any]) -> bool:
    """Judge one program with this package."""
    return grade_many("mbpp", [doc["code"]], doc)[0].correct


def timed(
    judge: Callable[[dict[str, Any]], bool], docs: list[dict[str, Any]], workers: int
) -> tuple[float, list[bool], list[float]]:
    """Return the seconds for all programs, the verdicts, and the seconds of each program."""

    def one(doc: dict[str, Any]) -> tuple[bool, float]:
        start = time.perf_counter()
        return judge(doc), time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(one, docs))
    seconds = time.perf_counter() - start
    return seconds, [verdict for verdict, _ in found], [spent for _, spent in found]


def compare(name: str, docs: list[dict[str, Any]], workers: int) -> tuple[float, list[float]]:
    """Time both sides; return the ratio of programs per second, and ours per program."""
    ours, passed, each = timed(check, docs, workers)
    theirs, peer_passed, _ = timed(check_by_fork, docs, workers)
    for side, seconds, verdicts in (("ours", ours, passed), ("peer", theirs, peer_passed)):
        rate = len(docs) / seconds
        print(
            f"{name}, {side}: {seconds:.2f} s, {rate:.0f} programs/s, "
            f"{sum(verdicts)} of {len(docs)} pass",
            flush=True,
        )
    return theirs / ours, each


def main() -> None:
    """Run the comparison and end with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the programs")
    parser.add_argument(
        "--data", default=os.environ.get("LM_EVAL_EXT_DATA"), help="folder of mbpp.jsonl"
    )
    parser.add_argument("--workers", type=int, default=2, help="programs at once")
    parser.add_argument("--bare", action="store_true", help="without lm-eval in the process")
    options = parser.parse_args()
    if not options.bare:
        importlib.import_module("lm_eval.models.huggingface")
    name, docs = load(options.data, options.quick)
    pool = pools.Pool(size=options.workers)
    pools.use(pool)
    start = time.perf_counter()
    print(f"sandbox: {pool.zygote().back_end}, ready in {time.perf_counter() - start:.2f} s")
    ratio, each = compare(f"{len(docs)} {name}", docs, options.workers)
    short = [doc for doc, seconds in zip(docs, each, strict=True) if seconds < LONG]
    shown = f"ratio: {ratio:.1f} (ours / peer, {len(docs)} {name}, programs per second"
    if len(short) < len(docs):
        title = f"the {len(short)} that take less than {LONG:.0f} s"
        short_ratio, _ = compare(title, short, options.workers)
        shown += f"; {short_ratio:.1f} on {title}"
    print(f"{shown})")


if __name__ == "__main__":
    main()

"""Grader of MBPP: programs, run apart from the tests that judge them.

Each distinct program of a question runs once, in an isolated process of its own
(`lm_eval_ext.grading.sandbox`), while the tests run here and call its functions across a pipe
(`lm_eval_ext.grading.code_tests`). It is correct when every assertion of ``test_list`` holds.

Its time is limited on the wall clock, for all tests together: to `FACTOR` times what the reference
solution takes on this machine, at least `MIN_SECONDS` and at most `MAX_SECONDS`. The reference is
timed only when a program has used up `MIN_SECONDS`, once per call of `grade_many`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.code_extraction import extract_code
from lm_eval_ext.grading.code_tests import CodeTests, Verdict, read_tests, run_tests
from lm_eval_ext.grading.sandbox.limits import MAX_PROGRAM
from lm_eval_ext.grading.sandbox.pool import Pool, shared_pool
from lm_eval_ext.grading.sandbox.session import Deadline, ProgramGone, Session

MIN_SECONDS = 3.0  # wall-clock seconds every program has, for all tests together
FACTOR = 5.0  # how many times as long as the reference solution a program may take
MAX_SECONDS = 60.0
"""Wall-clock seconds no program may pass, and what the reference solution itself has."""

SECONDS_WITHOUT_REFERENCE = 10.0  # the limit where the record has no reference solution


def grade_many(
    completions: Sequence[str],
    doc: Mapping[str, Any],
    finish_reasons: Sequence[str | None] | None = None,
) -> list[Attempt]:
    """Grade all attempts at one question; see `lm_eval_ext.grading.grade_many`.

    The answer of an attempt is what its program returned on the tests' calls, in one line, so that
    votes group programs that behave alike (`lm_eval_ext.grading.code_answers`). It is None only
    where the completion holds no program. The reason of a failure is one of ``test 2: wrong
    value``, ``test 2: ZeroDivisionError``, ``program: SyntaxError``, ``timeout``, ``test 1:
    exited``, ``test 1: killed``, ``test 1: malformed reply`` and the like.

    The record is one of MBPP, full (``text``, ``code``, ``test_list``, ``test_setup_code``) or
    sanitized (``prompt``, ``code``, ``test_list``, ``test_imports``). ``finish_reasons`` are not
    used: a program that was cut fails its tests, or is one that passes them.

    Raises
    ------
    UserError
        If the record has no tests, or this machine lacks the minimum of isolation.
    """
    tests = read_tests(doc)
    programs = [extract_code(completion, tests.names) for completion in completions]
    distinct = list(dict.fromkeys(program for program in programs if program is not None))
    judge = _Judge(tests, shared_pool())
    verdicts = dict(zip(distinct, judge.pool.map(judge.verdict, distinct), strict=True))
    attempts = []
    for program in programs:
        if program is None:
            attempts.append(Attempt(None, False, "no program"))
        else:
            answer, reason = verdicts[program]
            attempts.append(Attempt(answer, reason is None, reason))
    return attempts


class _Judge:
    """Runs the programs of one question."""

    def __init__(self, tests: CodeTests, pool: Pool) -> None:
        self.tests = tests
        self.pool = pool
        self._lock = threading.Lock()
        self._limit: float | None = None

    def verdict(self, program: str) -> Verdict:
        """Run one program."""
        if len(program) > MAX_PROGRAM:
            return Verdict("program too long", f"program of more than {MAX_PROGRAM} characters")

        def work(session: Session) -> Verdict:
            return run_tests(self.tests, program, session)

        try:
            return self.pool.converse(work, lambda: self._deadline(program))
        except ProgramGone as gone:
            return Verdict(str(gone), str(gone))

    def _deadline(self, program: str) -> Deadline:
        if not self.tests.reference:
            return Deadline(SECONDS_WITHOUT_REFERENCE)
        if program.strip() == self.tests.reference.strip():
            return Deadline(MAX_SECONDS)
        return Deadline(MIN_SECONDS, self._scaled_limit)

    def _scaled_limit(self) -> float:
        """Return the limit in seconds that the reference solution's own time gives."""
        with self._lock:
            if self._limit is None:
                self._limit = min(max(FACTOR * self._reference_time(), MIN_SECONDS), MAX_SECONDS)
            return self._limit

    def _reference_time(self) -> float:
        """Run the reference solution and return the seconds it took."""

        def work(session: Session) -> float:
            run_tests(self.tests, self.tests.reference, session)
            return session.deadline.spent()

        try:
            return self.pool.converse(work, lambda: Deadline(MAX_SECONDS), wait=False)
        except ProgramGone:
            return 0.0

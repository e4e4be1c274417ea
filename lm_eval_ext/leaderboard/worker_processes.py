"""Do the same for several runs at once, with one thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from threadpoolctl import threadpool_limits

from lm_eval_ext.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], processes: int
) -> Iterator[Result]:
    """Yield the results of a function, in the order of its jobs.

    Parameters
    ----------
    function, jobs
        Both go to other processes: the function must be importable there.
    processes
        How many at most; with one, or one job, the work is done in this process.

    Raises
    ------
    UserError
        When a process dies.
    """
    processes = min(processes, len(jobs))
    one_at_a_time = partial(_in_one_thread, function)
    if processes <= 1:
        yield from map(one_at_a_time, jobs)
        return
    # An executor, unlike a pool, says so when a process of its dies.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as executor:
            yield from executor.map(one_at_a_time, jobs)
    except BrokenProcessPool as error:
        raise UserError(
            f"processes={processes}: one was killed (out of memory?); give fewer"
        ) from error


def _in_one_thread(function: Callable[[Job], Result], job: Job) -> Result:
    # Arrays are small: threads of linear algebra would mostly wait for each other.
    with threadpool_limits(limits=1):
        return function(job)

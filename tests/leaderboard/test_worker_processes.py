"""Work on several runs at once."""

import signal

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.worker_processes import in_processes

JOBS = [3, 1, 2]


def threads(_: int) -> list[int]:
    np.ones((8, 8)) @ np.ones((8, 8))
    return [library["num_threads"] for library in threadpool_info()]


def test_one_process_works_in_order():
    assert list(in_processes(str, JOBS, 1)) == ["3", "1", "2"]


def test_several_processes_work_in_order():
    assert list(in_processes(str, JOBS, 2)) == ["3", "1", "2"]


def test_linear_algebra_has_one_thread():
    (found,) = in_processes(threads, [0], 1)
    assert found
    assert set(found) == {1}


def test_a_dead_process_is_told():
    with pytest.raises(UserError, match="processes=2: one was killed"):
        list(in_processes(signal.raise_signal, [signal.SIGTERM] * 2, 2))


def test_no_jobs():
    assert list(in_processes(str, [], 2)) == []

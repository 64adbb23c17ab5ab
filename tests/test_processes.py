"""A pool whose processes die must not be waited for in vain."""

import os
import signal
import time
from concurrent.futures import TimeoutError as LateError
from multiprocessing import active_children

import pytest
from pebble import ProcessExpired

from mmcoop.processes import finished, result_of, worker_processes


def test_a_result_is_that_of_the_task_and_so_is_its_error():
    with worker_processes(1, preload=(), threads=1) as pool:
        assert result_of(pool, pool.schedule(divmod, args=(7, 2))) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            result_of(pool, pool.schedule(divmod, args=(7, 0)))


def test_a_task_may_take_longer_than_the_pool_is_looked_at():
    with worker_processes(1, preload=(), threads=1) as pool:
        begun = time.monotonic()
        assert result_of(pool, pool.schedule(time.sleep, args=(1.2,))) is None
        assert time.monotonic() - begun > 1.2


def test_a_task_beyond_its_time_and_one_whose_process_died_are_told_apart():
    with worker_processes(2, preload=(), threads=1) as pool:
        with pytest.raises(LateError):
            result_of(pool, pool.schedule(time.sleep, args=(60,), timeout=0.3))
        with pytest.raises(ProcessExpired):
            result_of(pool, pool.schedule(os._exit, args=(3,)))


def test_a_task_given_while_the_pool_breaks_down_is_not_waited_for(monkeypatch):
    """All processes die idle, and a task comes just after the pool was asked whether it works."""
    with worker_processes(2, preload=(), threads=1) as pool:
        assert result_of(pool, pool.schedule(os.getpid)) != os.getpid()
        monkeypatch.setattr(pool, "_check_pool_status", lambda: None)
        for process in active_children():
            os.kill(process.pid, signal.SIGKILL)
        while pool.active:
            time.sleep(0.01)
        task = pool.schedule(os.getpid)
        with pytest.raises(RuntimeError, match="the pool of processes broke down"):
            result_of(pool, task)


def test_tasks_are_given_as_they_end():
    with worker_processes(2, preload=(), threads=1) as pool:
        slow, fast = pool.schedule(time.sleep, args=(3,)), pool.schedule(os.getpid)
        assert list(finished(pool, [slow, fast])) == [fast, slow]

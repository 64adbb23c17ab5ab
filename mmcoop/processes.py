"""A pool of worker processes that a user's Ctrl-C does not reach and that never outlive the parent.

Built on pebble, which ends a process that takes too long and tells of one that died.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from multiprocessing import current_process, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path
from signal import (
    SIG_BLOCK,
    SIG_SETMASK,
    SIGINT,
    SIGTERM,
    pthread_sigmask,
    raise_signal,
    signal,
)
from threading import Thread, current_thread, main_thread
from typing import Any

from pebble import ProcessPool


def processors() -> int:
    """How many processors there are for this process: those it may run on, and no more than the
    time that a container's quota allows.
    """
    there = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(there, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or no limit
        return there


@contextmanager
def worker_processes(
    workers: int, *, preload: Sequence[str], threads: int, tasks_each: int = 0
) -> Iterator[Any]:
    """A pebble `ProcessPool` of so many processes; all are ended with the block.

    They have the modules of `preload` loaded when they start and compute with so many `threads`
    of torch's. After `tasks_each` tasks a process is replaced by a new one; 0: never. A script
    that uses it needs the usual `if __name__ == "__main__":`. Raises `RuntimeError` where no
    process can be started.
    """
    pool: Any = ProcessPool(
        max_workers=workers,
        max_tasks=tasks_each,
        context=_Context(preload),
        initializer=_begin,
        initargs=(threads,),
    )
    try:
        with _stop_later():
            if not pool.active:  # asking starts it
                raise RuntimeError("the pool of processes does not start")
        yield pool
        pool.close()
    finally:
        pool.stop()  # does nothing after all is done
        pool.join()


def result_of(pool: Any, task: Any) -> Any:
    """The result of a task of a pool, or what it raised.

    Raises `RuntimeError` where the pool broke down: a task that it had not taken on yet would be
    waited for in vain.
    """
    return next(finished(pool, [task])).result()


def finished(pool: Any, tasks: Sequence[Any]) -> Iterator[Any]:
    """The tasks of a pool, each as soon as it has ended. Raises `RuntimeError` as `result_of`."""
    left = set(tasks)
    while left:
        done, left = wait(left, timeout=1, return_when=FIRST_COMPLETED)
        if not done and not pool.active:
            raise RuntimeError("the pool of processes broke down")
        yield from done


class _Context(ForkServerContext):
    """Processes of a server that has loaded what they need.

    Starting one, at first and after one was ended, takes no time, and it inherits nothing of this
    process. Locks are kept, for a process that is just being started when all are ended.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        super().__init__()
        self.set_forkserver_preload(list(preload))
        self._locks: list[Any] = []

    def RLock(self) -> Any:  # noqa: N802
        self._locks.append(super().RLock())
        return self._locks[-1]


@contextmanager
def _stop_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block. Processes that are started in it never see
    Ctrl-C; SIGTERM ends them.
    """
    resource_tracker.ensure_running()  # starting it, as others do, would unblock the signal
    seen: list[int] = []
    handlers = {}
    if current_thread() is main_thread():  # no other one may have a handler
        handlers = {n: signal(n, lambda n, _: seen.append(n)) for n in (SIGINT, SIGTERM)}
    mask = pthread_sigmask(SIG_BLOCK, [SIGINT])
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal(number, handler)
        if seen:
            raise_signal(seen[0])


def _begin(threads: int) -> None:
    """In a new process: it ends with the one that started it, and may start loaders of data."""
    import torch

    torch.set_num_threads(threads)
    # pebble makes its processes daemons, which may not have any; there is no public way to undo it
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

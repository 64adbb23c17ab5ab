"""A pool of worker processes that ignore Ctrl-C and never outlive their parent.

Built on pebble, which ends processes that take too long and reports those that died.
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
    """Number of processors available to this process, within a container's quota."""
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
    """Start a pool of processes, which end with the block.

    A script that uses it needs the usual `if __name__ == "__main__":` guard.

    Args:
        workers: Number of processes.
        preload: Modules that are already imported when a process starts.
        threads: Number of torch threads per process.
        tasks_each: A process is replaced by a new one after this many tasks; 0 for never.

    Yields:
        A pebble `ProcessPool`.

    Raises:
        RuntimeError: No process can be started.
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
        pool.stop()  # has no effect if all tasks are done
        pool.join()


def result_of(pool: Any, task: Any) -> Any:
    """Wait for a task of a pool; return its result, or raise its error.

    Raises:
        RuntimeError: The pool broke down, so that a task not yet started would never end.
    """
    return next(finished(pool, [task])).result()


def finished(pool: Any, tasks: Sequence[Any]) -> Iterator[Any]:
    """Yield the tasks of a pool as they end.

    Raises:
        RuntimeError: The pool broke down.
    """
    left = set(tasks)
    while left:
        done, left = wait(left, timeout=1, return_when=FIRST_COMPLETED)
        if not done and not pool.active:
            raise RuntimeError("the pool of processes broke down")
        yield from done


class _Context(ForkServerContext):
    """Starts processes from a server that has already imported what they need.

    Starting or replacing one is fast, and it inherits nothing from this process. References to
    locks are kept for a process that is still starting when the pool ends.
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
    """Defer Ctrl-C and SIGTERM to the end of the block.

    Processes started in the block never receive Ctrl-C, but SIGTERM ends them.
    """
    resource_tracker.ensure_running()  # now, because starting it later would unblock the signal
    seen: list[int] = []
    handlers = {}
    if current_thread() is main_thread():  # no other thread may set handlers
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
    """Initialise a new process: it ends with its parent, and may start data loaders."""
    import torch

    torch.set_num_threads(threads)
    # pebble's processes are daemons, which may not have children; there is no public way to undo it
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""Locks: only one process at a time writes a run, dataset folder, scores file or comparison.

The lock on `NAME` is the file `.NAME.lock` beside it, held with `flock`. The system releases it
however the process ends; a kill leaves at most a file that the next process takes over. The file
records which process holds the lock, for the message to others. Reading needs no lock.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from mmcoop.errors import UsageError
from mmcoop.files import hidden_beside, is_half_replaced, recover_swap

# Descriptors of the locks that this process holds. Forked processes, such as data loaders, inherit
# them, and must not keep a lock when this process is killed.
_held: set[int] = set()


def _release_in_fork() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release_in_fork)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file or folder.

    Does nothing on file systems without locks, such as some network drives.

    Args:
        path: The file or folder. It need not exist, but its parent folder must.

    Raises:
        UsageError: Another process, or another thread of this one, holds the lock.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            try:
                lock_file(path).unlink(missing_ok=True)  # while held, so it is not another's lock
            finally:
                os.close(descriptor)


def check_unlocked(path: Path) -> None:
    """Raise `UsageError` while a process writes `path`; clean up after a killed one."""
    if lock_file(path).exists() or is_half_replaced(path):
        with suppress(OSError), locked(path):
            recover_swap(path)


def recover(path: Path) -> None:
    """For readers: move back a folder that a killed process was replacing."""
    if not path.exists():
        with suppress(UsageError):
            check_unlocked(path)


def lock_file(path: Path) -> Path:
    """The lock file of `path`."""
    return hidden_beside(path, "lock")


def _acquire(path: Path) -> int:
    """Acquire the lock; returns its descriptor, or -1 if the file system has no locks."""
    lock = lock_file(path)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(lock, descriptor):  # the previous holder has just removed it
                os.close(descriptor)
                continue
        except BlockingIOError:
            message = f"{path} is in use by {_holder(descriptor)}: wait for it to end, or stop it"
            os.close(descriptor)
            raise UsageError(message) from None
        except OSError:
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            return -1
        _held.add(descriptor)
        _sign(descriptor)
        return descriptor


def _is_at(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Record which process holds the lock."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    record = {"process": os.getpid(), "host": platform.node(), "since": since}
    with suppress(OSError):  # the disk may be full, but the lock is held
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)


def _holder(descriptor: int) -> str:
    """The holder of the lock, such as "process 123 since 2026-01-31 12:00:00+01:00"."""
    try:
        record = json.loads(os.pread(descriptor, 1000, 0))
        since = datetime.fromisoformat(record["since"]).isoformat(" ", "seconds")
        elsewhere = record["host"] != platform.node()
        host = f" on {record['host']}" if elsewhere else ""
        return f"process {int(record['process'])}{host} since {since}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"

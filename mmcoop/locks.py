"""One process at a time writes a run, a dataset folder, a scores file or a comparison.

The lock on `NAME` is the file `.NAME.lock` beside it, held with `flock`: the system releases it
however its process ends, so a kill leaves at most a file that the next process takes over. The file
records which process holds it, for the message to others. Reading needs no lock.
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

# The descriptors of the locks of this process. A process forked from it, such as one that loads
# batches, shares them: it must not keep a lock when this process is killed.
_held: set[int] = set()


def _release_in_fork() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release_in_fork)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing the file or folder at `path`.

    `path` need not exist yet, but the folder it is in must. Raises `UsageError` where another
    process holds it, or another thread of this one. On a file system without locks, as some network
    drives are, it does nothing.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            try:
                lock_file(path).unlink(missing_ok=True)  # while it is held: nobody else's
            finally:
                os.close(descriptor)


def check_unlocked(path: Path) -> None:
    """Raise `UsageError` while a process writes `path`; tidy up what a killed one left."""
    if lock_file(path).exists() or is_half_replaced(path):
        with suppress(OSError), locked(path):
            recover_swap(path)


def recover(path: Path) -> None:
    """For readers: put a folder back that a killed process was about to replace."""
    if not path.exists():
        with suppress(UsageError):
            check_unlocked(path)


def lock_file(path: Path) -> Path:
    """Where the lock on `path` is."""
    return hidden_beside(path, "lock")


def _acquire(path: Path) -> int:
    """The descriptor of the lock, or -1 where the file system has none."""
    lock = lock_file(path)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(lock, descriptor):  # its holder has just removed it
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
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who holds the lock: "process 123 since 2026-01-31 12:00:00+01:00"."""
    try:
        record = json.loads(os.pread(descriptor, 1000, 0))
        since = datetime.fromisoformat(record["since"]).isoformat(" ", "seconds")
        elsewhere = record["host"] != platform.node()
        host = f" on {record['host']}" if elsewhere else ""
        return f"process {int(record['process'])}{host} since {since}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"

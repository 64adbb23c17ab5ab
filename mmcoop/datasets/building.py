"""A plan of clips → a dataset folder, read by several processes.

Clips are read out of order and written in order, so the bytes do not depend on the number of
processes. A clip that cannot be used is rejected and never stops the build. A build that is cut
off goes on where it was when the same one is started again.
"""

import errno
import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import TimeoutError as LateError
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask, raise_signal, signal
from threading import Thread, current_thread, main_thread
from typing import Any

from pebble import ProcessExpired, ProcessPool

from mmcoop.datasets.clips import Clip, Reading, read_clip
from mmcoop.datasets.rejects import Unusable
from mmcoop.datasets.writer import DatasetWriter, Header, Reject, continue_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.progress import SILENT, Progress

# So many clips a process are read ahead: enough to keep all busy while a slow one is waited for,
# few enough that what waits to be written stays small.
_AHEAD = 8

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Those whose version may decide what a clip is read as.
_PACKAGES = (
    "av",
    "mmcoop",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "torch",
    "torchaudio",
)


@dataclass(frozen=True)
class Plan:
    """What is to be built: `clips`, in the order of their rows, and how each is read.

    `rejects` are known beforehand. A clip that takes longer than `time_limit` seconds is rejected.
    """

    header: Header
    reading: Reading
    clips: Sequence[Clip]
    rejects: Sequence[Reject] = ()
    time_limit: float = 60.0

    def digest(self) -> str:
        """Differs where anything differs that decides the data set's bytes."""
        files = [
            (str(path), found.st_size, found.st_mtime_ns)
            for clip in self.clips
            for path in clip.paths.values()
            if (found := _stat(path))
        ]
        everything = [asdict(self), files, {name: _version(name) for name in _PACKAGES}]
        return hashlib.sha256(json.dumps(everything, default=str).encode()).hexdigest()


def default_workers() -> int:
    """As many processes as there are processors for this one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_clips(
    folder: Path,
    plan: Plan,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Build the dataset folder of a plan, with so many processes that read clips.

    Raises `UsageError` where `folder` may not be made, `DataError` where a split stays empty, the
    disk is full or no process can be started, `Interrupted` on Ctrl-C. What is done is kept then,
    and the same call goes on with it. A script that calls this needs the usual
    `if __name__ == "__main__":`.
    """
    if workers is None:
        workers = default_workers()
    if workers < 1:
        raise UsageError(f"{workers} processes cannot read clips: it must be at least 1")
    total = len(plan.clips)
    done = read = rejected = written = 0
    begun = time.monotonic()

    def status() -> str:
        return f"{read / (time.monotonic() - begun):.1f} clips/s, {rejected:,} rejected"

    try:
        with continue_dataset(
            folder, plan.header, plan.digest(), rejects=plan.rejects, overwrite=overwrite
        ) as writer:
            written = writer.bytes_written
            waiting = [clip for clip in plan.clips if clip.id not in writer.settled]
            done = total - len(waiting)
            if done:
                progress.note(f"going on with {folder}: {done:,} of {total:,} clips are done")
            with closing(_outcomes(waiting, plan, workers)) as outcomes:
                for clip, outcome in progress.track(
                    outcomes, "reading clips", len(waiting), status
                ):
                    unusable = (
                        outcome if isinstance(outcome, Unusable) else _add(writer, clip, outcome)
                    )
                    if unusable:
                        writer.reject(clip.id, unusable.reason, unusable.detail)
                        rejected += 1
                    read += 1
                    written = writer.bytes_written
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is done of {folder} is kept: the same command goes on with it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        known = ""
        if written:
            more = written / (done + read) * (total - done - read)
            known = (
                f": {written / 2**20:,.0f} MiB are written, about "
                f"{max(math.ceil(more / 2**20), 1):,} MiB more are needed"
            )
        raise DataError(
            f"no room left on the disk of {folder}{known}. What is done is kept: make room and "
            "give the same command again"
        ) from None


def _add(writer: DatasetWriter, clip: Clip, row: dict[str, Any]) -> Unusable | None:
    """Add the row of a clip; if it cannot be, why."""
    try:
        writer.add(clip.split, id=clip.id, label=clip.label, group=clip.group, **row)
    except Unusable as error:
        return error
    return None


def _outcomes(
    clips: Sequence[Clip], plan: Plan, workers: int
) -> Generator[tuple[Clip, dict[str, Any] | Unusable]]:
    """Every clip with its row or why it has none, in order."""
    done = 0
    while done < len(clips):
        before = done
        try:
            with closing(_pooled(clips[done:], plan, workers)) as outcomes:
                for each in outcomes:
                    done += 1
                    yield each
        except RuntimeError as error:
            # a process that died while it had nothing to do brings the pool down: take a new one
            if done == before:
                raise DataError(
                    "the processes that read clips end before they begin, or cannot be started: "
                    f"{error}"
                ) from error


def _pooled(
    clips: Sequence[Clip], plan: Plan, workers: int
) -> Generator[tuple[Clip, dict[str, Any] | Unusable]]:
    """As `_outcomes`; `RuntimeError` where the pool of processes breaks down."""
    workers = min(workers, len(clips))
    context = _Context()
    pool: Any = ProcessPool(max_workers=workers, context=context, initializer=_begin)
    ahead: deque[tuple[Clip, Any]] = deque()
    coming = iter(clips)
    try:
        with _ctrl_c_later():
            if not pool.active:  # asking starts it
                raise RuntimeError("the pool of processes does not start")
        while True:
            while len(ahead) < _AHEAD * workers and (clip := next(coming, None)) is not None:
                task = pool.schedule(_read, args=(clip, plan.reading), timeout=plan.time_limit)
                ahead.append((clip, task))
            if not ahead:
                break
            clip, task = ahead.popleft()
            yield clip, _outcome(task, plan.time_limit)
        pool.close()
    finally:
        pool.stop()  # does nothing after all is done
        pool.join()


class _Context(ForkServerContext):
    """Processes of a server that has loaded what they need.

    Starting one, at first and after one was ended, takes no time, and it inherits nothing of this
    process. Locks are kept, for a process that is just being started when all are ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(["mmcoop.datasets.clips", "torchaudio.compliance.kaldi"])
        self._locks: list[Any] = []

    def RLock(self) -> Any:  # noqa: N802
        self._locks.append(super().RLock())
        return self._locks[-1]


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Ctrl-C waits for the end of the block; processes that are started in it never see it."""
    resource_tracker.ensure_running()  # starting it, as others do, would unblock the signal
    seen = []
    mine = current_thread() is main_thread()  # no other one may have a handler
    handler = signal(SIGINT, lambda *_: seen.append(True)) if mine else None
    mask = pthread_sigmask(SIG_BLOCK, [SIGINT])
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, mask)
        if mine:
            signal(SIGINT, handler)
        if seen:
            raise_signal(SIGINT)


def _outcome(task: Any, time_limit: float) -> dict[str, Any] | Unusable:
    try:
        outcome: dict[str, Any] | Unusable = task.result()
    except LateError:
        return Unusable("timeout", f"reading it took longer than {time_limit:g} s")
    except ProcessExpired as error:
        return Unusable("crashed", f"the process that read it ended with code {error.exitcode}")
    return outcome


def _begin() -> None:
    """In a new process: it ends with the one that started it, and one clip is one thread."""
    import torch

    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(clip: Clip, reading: Reading) -> dict[str, Any] | Unusable:
    try:
        return read_clip(clip, reading)
    except Unusable as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever a strange file leads to, the others go on
        return Unusable("unreadable", f"{type(error).__name__}: {error}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None

"""A plan of clips → a dataset folder, using several processes.

Clips are read out of order and written in order, so the bytes do not depend on the number of
processes. Clips that cannot be used are rejected and never stop the build. An interrupted build
resumes when it is started again with the same plan.
"""

import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import TimeoutError as LateError
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pebble import ProcessExpired

from mmcoop.datasets.clip_reader import Clip, Reading, read_clip
from mmcoop.datasets.rejects import Reject, Unusable
from mmcoop.datasets.writer import DatasetWriter, Header, continue_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.files import NoRoom
from mmcoop.processes import processors, result_of, worker_processes
from mmcoop.progress import SILENT, Progress

# Clips read ahead per process: enough to keep all busy behind a slow clip, few enough that little
# is held in memory.
_AHEAD = 8

_PRELOAD = ("mmcoop.datasets.clip_reader", "torchaudio.compliance.kaldi")

# Packages whose version may change what is read from a clip.
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
class BuildPlan:
    """What to build.

    Attributes:
        header: Description of the dataset.
        reading: What to read from every clip.
        clips: The clips, in the order of their rows.
        rejects: Items already known to be unusable.
        time_limit: Seconds after which a clip is rejected.
    """

    header: Header
    reading: Reading
    clips: Sequence[Clip]
    rejects: Sequence[Reject] = ()
    time_limit: float = 60.0

    def digest(self) -> str:
        """A hash of everything that determines the dataset's bytes, except for the report.

        The report is written last and does not affect what is read.
        """
        files = [
            (str(path), found.st_size, found.st_mtime_ns)
            for clip in self.clips
            for path in clip.paths.values()
            if (found := _stat(path))
        ]
        plan = replace(self, header=replace(self.header, report={}))
        everything = [asdict(plan), files, {name: _version(name) for name in _PACKAGES}]
        return hashlib.sha256(json.dumps(everything, default=str).encode()).hexdigest()


def build_clips(
    folder: Path,
    plan: BuildPlan,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Build the dataset folder of a plan.

    After an interruption, or if the disk is full, finished work is kept, and the same call
    resumes. A script that calls this needs the usual `if __name__ == "__main__":` guard.

    Args:
        folder: The dataset folder to make.
        plan: What to build.
        workers: Processes that read clips; by default one per processor.
        overwrite: Replace an existing dataset.
        progress: Receives progress and notes.

    Raises:
        UsageError: `folder` exists and may not be replaced, or `workers` is below 1.
        DataError: A split is empty, the disk is full, or no process can be started.
        Interrupted: On Ctrl-C.
    """
    if workers is None:
        workers = processors()
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
    except NoRoom:
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
    """Add the row of a clip; return the reason if that is not possible."""
    try:
        writer.add(clip.split, id=clip.id, label=clip.label, group=clip.group, **row)
    except Unusable as error:
        return error
    return None


def _outcomes(
    clips: Sequence[Clip], plan: BuildPlan, workers: int
) -> Generator[tuple[Clip, dict[str, Any] | Unusable]]:
    """Yield every clip, in order, with its row or the reason why it has none."""
    done = 0
    while done < len(clips):
        before = done
        try:
            with closing(_pooled(clips[done:], plan, workers)) as outcomes:
                for each in outcomes:
                    done += 1
                    yield each
        except RuntimeError as error:
            # a process that dies while idle brings the pool down: start a new one
            if done == before:
                raise DataError(
                    "the processes that read clips end before they begin, or cannot be started: "
                    f"{error}"
                ) from error


def _pooled(
    clips: Sequence[Clip], plan: BuildPlan, workers: int
) -> Generator[tuple[Clip, dict[str, Any] | Unusable]]:
    """As `_outcomes`, but raises `RuntimeError` if the pool of processes breaks down."""
    workers = min(workers, len(clips))
    ahead: deque[tuple[Clip, Any]] = deque()
    coming = iter(clips)
    # one thread per clip, since there are as many processes as processors
    with worker_processes(workers, preload=_PRELOAD, threads=1) as pool:
        while True:
            while len(ahead) < _AHEAD * workers and (clip := next(coming, None)) is not None:
                task = pool.schedule(_read, args=(clip, plan.reading), timeout=plan.time_limit)
                ahead.append((clip, task))
            if not ahead:
                break
            clip, task = ahead.popleft()
            yield clip, _outcome(pool, task, plan.time_limit)


def _outcome(pool: Any, task: Any, time_limit: float) -> dict[str, Any] | Unusable:
    try:
        outcome: dict[str, Any] | Unusable = result_of(pool, task)
    except LateError:
        return Unusable("timeout", f"reading it took longer than {time_limit:g} s")
    except ProcessExpired as error:
        return Unusable("crashed", f"the process that read it ended with code {error.exitcode}")
    return outcome


def _read(clip: Clip, reading: Reading) -> dict[str, Any] | Unusable:
    try:
        return read_clip(clip, reading)
    except Unusable as error:
        return error
    except Exception as error:  # noqa: BLE001 - no file, however malformed, may stop the build
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

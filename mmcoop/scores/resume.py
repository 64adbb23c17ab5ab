"""Scores files written in parts, so that a killed valuation can be resumed."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import with_config
from typing_extensions import TypedDict

from mmcoop.errors import DataError, Interrupted, UsageError, setting
from mmcoop.files import (
    atomic_write,
    check_new_file,
    disk_room,
    hidden_beside,
    sha256,
    write_json,
)
from mmcoop.locks import locked
from mmcoop.reading.arrow_tables import read_parquet
from mmcoop.reading.json_files import AS_WRITTEN, Count, Sha256, read_json
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import ROW_GROUP

#: The entry of the details for EMAP's gap, known only after samples have been valued.
EMAP_GAP = "emap_gap"

STATE = "state.json"
_DETAILS = "details.json"

# A part is written after this time, or when a row group is full: this is what a kill may cost.
_SECONDS = 5.0

_FULL = f"make room and resume with {setting('resume', True)}, which keeps what was valued"


@with_config(AS_WRITTEN)
class _Part(TypedDict):
    """One part: samples `first` to `stop` (exclusive) of a slice, and the hash of its file."""

    slice_: str
    first: Count
    stop: Count
    sha256: Sha256


@with_config(AS_WRITTEN)
class _State(TypedDict):
    """The content of `state.json`: the valid parts."""

    parts: list[_Part]


class ScoresParts:
    """The parts of an unfinished scores file, in a hidden folder beside it.

    A part whose hash differs from the recorded one is valued again.

    Args:
        folder: The folder of the parts.
        state: The recorded parts; None for a new valuation.
        complete: Whether the scores file is already in place.

    Attributes:
        complete: Whether the scores file is already in place, so that nothing is left to value.
        found: Entries to add to the file's details that are known only after valuing samples.
    """

    def __init__(self, folder: Path, state: _State | None = None, complete: bool = False) -> None:
        self.folder = folder
        self.complete = complete
        self.found: dict[str, Any] = {}
        self._parts: list[_Part] = [] if state is None else list(state["parts"])
        self._damaged = {
            k
            for k, part in enumerate(self._parts)
            if not self._file(k).is_file() or sha256(self._file(k)) != part["sha256"]
        }
        self._begin("", 0, 0)
        self._waiting: list[pa.Table] = []
        self._written = time.monotonic()

    @property
    def done(self) -> dict[str, int]:
        """Number of samples in parts by slice (a split or a fold), damaged parts included."""
        return {part["slice_"]: part["stop"] for part in self._parts}

    @property
    def damaged(self) -> list[Path]:
        """Files of the damaged parts, which are valued again."""
        return [self._file(k) for k in sorted(self._damaged)]

    def left(self, slice_: str, samples: int) -> Iterator[slice]:
        """Yield the ranges of a slice that remain to be valued.

        These are the ranges of damaged parts, then the samples not in any part. Add all samples of
        a range before requesting the next.

        Args:
            slice_: The name of the slice.
            samples: How many samples it has.
        """
        if self.complete:
            return
        for k, part in enumerate(self._parts):
            if k in self._damaged and part["slice_"] == slice_:
                self._begin(slice_, part["first"], k)
                yield slice(part["first"], part["stop"])
                self._flush()
        done = self.done.get(slice_, 0)
        if done < samples:
            self._begin(slice_, done, len(self._parts))
            yield slice(done, samples)
            self._flush()

    def add(self, table: pa.Table, samples: int) -> None:
        """Append table rows of the current range.

        Args:
            table: The rows.
            samples: How many samples they are from.
        """
        self._waiting.append(table)
        self._stop += samples
        if self._number < len(self._parts):  # a damaged part is replaced by a single new one
            return
        late = time.monotonic() - self._written > _SECONDS
        if late or sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def _begin(self, slice_: str, first: int, number: int) -> None:
        """Direct what is added next into part `number`, which starts at sample `first`."""
        self._slice, self._first, self._stop, self._number = slice_, first, first, number

    def _flush(self) -> None:
        """Write pending rows as a part, then the state that records it."""
        if not self._waiting:
            return
        with atomic_write(self._file(self._number)) as path:
            pq.write_table(pa.concat_tables(self._waiting), path, write_page_checksum=True)
            digest = sha256(path)
        self._waiting, self._written = [], time.monotonic()
        part = _Part(slice_=self._slice, first=self._first, stop=self._stop, sha256=digest)
        self._parts[self._number : self._number + 1] = [part]
        self._begin(self._slice, self._stop, len(self._parts))
        write_json(self.folder / STATE, {"parts": self._parts})

    def publish(self, path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
        """Assemble the parts into the scores file at `path`, then remove the state.

        Without a state the finished file is authoritative, and leftover parts are ignored.
        """
        with Scores.create(path, modalities, {**details, **self.found}) as writer:
            for table in self.tables():
                writer.write(table)
        (self.folder / STATE).unlink(missing_ok=True)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all parts, one part at a time."""
        for k in range(len(self._parts)):
            yield read_parquet(self._file(k))

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"


@contextmanager
def resumable_scores(
    path: Path,
    modalities: tuple[str, ...],
    details: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool = False,
) -> Iterator[ScoresParts]:
    """Write a scores file in parts; it appears when the block ends without an error.

    Until then the parts are in `.NAME.parts` beside it, from which `resume` continues. If `resume`
    finds the complete file of this valuation, nothing is left to do.

    Args:
        path: The scores file.
        modalities: Names of the modalities, in column order.
        details: The file's details, which identify the valuation.
        resume: Continue an unfinished valuation, if there is one.
        overwrite: Replace an existing file or an unfinished valuation.

    Raises:
        UsageError: Another process is writing the file, an unfinished valuation exists that is
            neither resumed nor overwritten, or `resume` finds another valuation.
        DataError: The state to resume from is damaged.
        NoRoom: The disk is full.
    """
    folder = hidden_beside(path, "parts")
    with locked(path), disk_room(path, folder, then=_FULL):
        same = resume and path.exists() and _is_of(path, modalities, details)
        if path.exists() and not (overwrite or same):
            check_new_file(path, overwrite)
        state = _state_to_resume(folder) if resume or not overwrite else None
        if state is not None and not resume:
            raise UsageError(
                f"an unfinished valuation for {path} is there: resume it with "
                f"{setting('resume', True)}, or value "
                f"again with {setting('overwrite', True)}"
            )
        complete = same and state is None
        try:
            if state is not None:
                _check_same(folder, modalities, details, path)
            elif not complete:
                _begin(folder, modalities, details)
            parts = ScoresParts(folder, state, complete)
            yield parts
            if not complete:
                parts.publish(path, modalities, details)
        except KeyboardInterrupt:
            if not (folder / STATE).is_file():
                raise
            raise Interrupted(
                "stopped; what was valued is kept: resume with the same command and "
                f"{setting('resume', True)}"
            ) from None
        finally:
            if not (folder / STATE).is_file():
                shutil.rmtree(folder, ignore_errors=True)


def _state_to_resume(folder: Path) -> _State | None:
    """The state of the unfinished valuation in `folder`, or None."""
    if not (folder / STATE).is_file():
        return None
    with _damage(folder / STATE):
        return read_json(folder / STATE, _State)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Report any error in the block as damage to the file at `path`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise DataError(
            f"{path} is damaged ({type(error).__name__}): value again with "
            f"{setting('overwrite', True)}"
        ) from None


def _is_of(path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> bool:
    """Whether the file at `path` holds the scores of this valuation."""
    try:
        scores = Scores.open(path)
    except DataError:
        return False
    own = _as_json(scores.modalities, scores.details)
    own.pop(EMAP_GAP, None)
    return own == _as_json(modalities, details)


def _as_json(modalities: tuple[str, ...], details: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps({"modalities": modalities, **details}))
    return content


def _begin(folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
    """Remove what an earlier valuation left behind, and record the details of this one."""
    folder.mkdir(exist_ok=True)
    (folder / STATE).unlink(missing_ok=True)  # first: parts without a state are ignored
    for old in folder.iterdir():
        old.unlink()
    write_json(folder / _DETAILS, _as_json(modalities, details))


def _check_same(
    folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any], path: Path
) -> None:
    """Raise `UsageError` if the existing parts are of another valuation."""
    try:
        before = read_json(folder / _DETAILS, dict[str, Any])
    except DataError as error:
        raise DataError(
            f"{folder / _DETAILS} is damaged ({error}): value again with "
            f"{setting('overwrite', True)}"
        ) from None
    now = _as_json(modalities, details)
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{path} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}: "
                f"resume it as it began, or value again with {setting('overwrite', True)}"
            )

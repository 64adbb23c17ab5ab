"""A scores file that is written in parts, so that a killed valuation can go on."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import with_config
from typing_extensions import TypedDict

from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.core.valuation.summary import Summary
from mmcoop.errors import DataError, Interrupted, UsageError
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
from mmcoop.reading.json_files import AS_WRITTEN, Count, Sha256, checked, read_json
from mmcoop.reading.scores import read_scores_details
from mmcoop.reading.torch_state import read_torch
from mmcoop.scores.table import ROW_GROUP, scores_file, scores_table

STATE = "state.pt"
_DETAILS = "details.json"

# A part is written when so much time has passed, or when a row group is full: what a kill may cost.
_SECONDS = 5.0

_FULL = "make room and give the same command with --resume, which keeps what was valued"


@with_config(AS_WRITTEN)
class _Part(TypedDict):
    """What was written as a part: the samples `first` to `stop` of a slice_, and its hash."""

    slice_: str
    first: Count
    stop: Count
    sha256: Sha256


class ScoresParts:
    """The parts of a scores file so far, in a folder beside the place of the file.

    `summaries`: one a split, and one of all of them if there is one called "all". `published`:
    whether the scores file made of them is in its place, so that only the summaries are still
    needed. A part whose bytes are not those that were written is valued again.
    """

    def __init__(
        self,
        folder: Path,
        modalities: tuple[str, ...],
        summaries: Mapping[str, Summary],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.modalities = modalities
        self.summaries = summaries
        self.published = False
        self._parts: list[_Part] = []
        self._damaged: set[int] = set()
        self._begin("", 0, 0)
        self._waiting: list[pa.Table] = []
        self._written = time.monotonic()
        if state is not None:
            self._load(state)

    @property
    def done(self) -> dict[str, int]:
        """How many samples of each slice_ (a split, a fold) are in parts, damaged or not."""
        return {part["slice_"]: part["stop"] for part in self._parts}

    @property
    def damaged(self) -> list[Path]:
        """The parts that are valued again."""
        return [self._file(k) for k in sorted(self._damaged)]

    def left(self, slice_: str, samples: int) -> Iterator[slice]:
        """Which samples of a slice_ of so many are to be valued, range by range: those of each
        damaged part, and those that are in none. A range is added before the next is asked for.
        """
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

    def add(
        self, split: str, batch: ValuedBatch, samples: int, further: Mapping[str, torch.Tensor]
    ) -> None:
        """Append one batch of so many samples, and count it into the summary of its split."""
        self._waiting.append(scores_table(self.modalities, split, batch, further))
        self._stop += samples
        if self._number < len(self._parts):  # a damaged part, whose samples are counted already
            return
        for name in {split, "all"} & self.summaries.keys():
            self.summaries[name].add(batch, further)
        late = time.monotonic() - self._written > _SECONDS
        if late or sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def _begin(self, slice_: str, first: int, number: int) -> None:
        """What is added next: the samples from `first` on, into the part of this number."""
        self._stretch, self._first, self._stop, self._number = slice_, first, first, number

    def _flush(self) -> None:
        """Write what is waiting as a part, and then the state that counts it."""
        if not self._waiting:
            return
        with atomic_write(self._file(self._number)) as path:
            pq.write_table(pa.concat_tables(self._waiting), path, write_page_checksum=True)
            digest = sha256(path)
        self._waiting, self._written = [], time.monotonic()
        part = _Part(slice_=self._stretch, first=self._first, stop=self._stop, sha256=digest)
        self._parts[self._number : self._number + 1] = [part]
        self._begin(self._stretch, self._stop, len(self._parts))
        self._save()

    def publish(self, path: Path, details: Mapping[str, Any]) -> None:
        """Make the scores file at `path` of the parts, and remove them.

        The state goes last: cut off before, the file is made again, or the rest removed.
        """
        if not self.published:
            with scores_file(path, self.modalities, details) as writer:
                for table in self.tables():
                    writer.write(table)
            self.published = True
            self._save()
        _remove(self.folder)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all parts, a part at a time."""
        for k in range(len(self._parts)):
            yield read_parquet(self._file(k))

    def _save(self) -> None:
        summaries = {split: summary.state() for split, summary in self.summaries.items()}
        state = {
            "parts": self._parts,
            "summaries": summaries,
            "published": self.published,
        }
        with atomic_write(self.folder / STATE) as path:
            torch.save(state, path)

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _load(self, state: Mapping[str, Any]) -> None:
        with _damage(self.folder / STATE):
            self._parts = list(checked(state["parts"], list[_Part], self.folder / STATE))
            self.published = state.get("published", False)
            for split, content in state["summaries"].items():
                self.summaries[split].load(content)
        if not self.published:
            self._damaged = {
                k
                for k, part in enumerate(self._parts)
                if not self._file(k).is_file() or sha256(self._file(k)) != part["sha256"]
            }


@contextmanager
def resumable_scores(
    path: Path,
    modalities: tuple[str, ...],
    details: Mapping[str, Any],
    summaries: Mapping[str, Summary],
    *,
    resume: bool,
    overwrite: bool = False,
) -> Iterator[ScoresParts]:
    """A scores file to write into, with one summary a split; it appears, whole, when the block ends
    well. Until then its parts stand in `.NAME.parts` beside it, from which `resume` goes on.

    Raises `UsageError` where another process writes it, where an unfinished valuation is there and
    it is neither to be resumed nor overwritten, and where `resume` finds the parts or the file of
    another one; `DataError` where their state is damaged, and `NoRoom` where the disk is full.
    """
    folder = hidden_beside(path, "parts")
    with locked(path), disk_room(path, folder, then=_FULL):
        if path.exists() and not (overwrite or (resume and _is_of(path, modalities, details))):
            check_new_file(path, overwrite)
        state = _state_to_resume(folder, path) if resume or not overwrite else None
        if state is not None and not resume:
            raise UsageError(
                f"an unfinished valuation for {path} is there: go on with it by --resume, or value "
                "again with --overwrite"
            )
        try:
            if state is None:
                _begin(folder, modalities, details)
            elif not state.get("published"):
                _check_same(folder, modalities, details, path)
            parts = ScoresParts(folder, modalities, summaries, state)
            yield parts
            parts.publish(path, details)
        except KeyboardInterrupt:
            if not (folder / STATE).is_file():
                raise
            raise Interrupted(
                "stopped; what was valued is kept: go on with the same command and --resume"
            ) from None
        finally:
            if not (folder / STATE).is_file():
                shutil.rmtree(folder, ignore_errors=True)


def _state_to_resume(folder: Path, path: Path) -> dict[str, Any] | None:
    """The state of the unfinished valuation in `folder`; None where there is none."""
    if not (folder / STATE).is_file():
        return None
    with _damage(folder / STATE):
        state = dict(read_torch(folder / STATE))
    # the file that was made of the parts has been removed since: nothing is left to resume
    return None if state.get("published") and not path.is_file() else state


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever fails in the block is the fault of the file at `path`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise DataError(
            f"{path} is damaged ({type(error).__name__}): value again with --overwrite"
        ) from None


def _is_of(path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> bool:
    """Whether the file at `path` holds the scores of this valuation."""
    try:
        found = read_scores_details(path)
    except DataError:
        return False
    return {**found, "format": None} == {**_as_json(modalities, details), "format": None}


def _as_json(modalities: tuple[str, ...], details: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps({"modalities": modalities, **details}))
    return content


def _begin(folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
    """Throw away what an earlier valuation has left, and write down which one this is."""
    folder.mkdir(exist_ok=True)
    (folder / STATE).unlink(missing_ok=True)  # first: without it the rest counts for nothing
    for old in folder.iterdir():
        old.unlink()
    write_json(folder / _DETAILS, _as_json(modalities, details))


def _remove(folder: Path) -> None:
    """Remove parts that are no longer needed, the state last."""
    for path in folder.iterdir():
        if path.name != STATE:
            path.unlink()
    (folder / STATE).unlink()
    folder.rmdir()


def _check_same(
    folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any], path: Path
) -> None:
    """Raise `UsageError` where the parts that are there are of another valuation."""
    try:
        before = read_json(folder / _DETAILS, dict[str, Any])
    except DataError as error:
        raise DataError(
            f"{folder / _DETAILS} is damaged ({error}): value again with --overwrite"
        ) from None
    now = _as_json(modalities, details)
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{path} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}: go on "
                "as it began, or value again with --overwrite"
            )

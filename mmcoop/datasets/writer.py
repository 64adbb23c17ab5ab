"""Writing a dataset folder, which `reader.py` opens.

`docs/reference/dataset-folder.md` describes the files.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, with_config
from typing_extensions import TypedDict

from mmcoop.core.modalities import check_modalities
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.precision import Spread
from mmcoop.datasets.reader import (
    FORMAT,
    FORMAT_VERSION,
    REJECTS,
    REJECTS_FILE,
    SPLITS,
    shard_schema,
)
from mmcoop.datasets.rejects import FIRST, Reject, Unusable, count_reasons, why_not
from mmcoop.errors import DataError, UsageError
from mmcoop.files import (
    atomic_folder,
    atomic_write,
    check_new_folder,
    has_format,
    resumable_folder,
    write_json,
)
from mmcoop.locks import check_unlocked, locked
from mmcoop.names import is_utf8, normalised
from mmcoop.reading.arrow_tables import read_batches
from mmcoop.reading.json_files import AS_WRITTEN, Sha256, checked, parse_json

# Record batches are written at this many rows or bytes, and shards are closed at about this size:
# small enough to need little memory and to lose little on a kill, large enough to stay few.
_BATCH_ROWS = 256
_BATCH_BYTES = 2**20
_SHARD_BYTES = 512 * 2**20

#: The column of notes on a sample (`rejects.NOTES`).
NOTES_COLUMN = "notes"

# Files that `continue_dataset` keeps beside the shards until the dataset is complete.
_PLAN = "plan.txt"
_JOURNAL = "rejects.jsonl"

_LEDGER = "written.jsonl"
_START_AGAIN = "remove this folder and build again"

# The content of a line of the journal.
_RejectLine = Annotated[list[str], Field(min_length=3, max_length=3)]

# An Arrow file is a stream between a magic number, padded to this many bytes, and a footer.
_STREAM = 8


@dataclass(frozen=True)
class Header:
    """A recipe's description of the dataset it builds.

    Attributes:
        name: Name of the dataset.
        recipe: Name of the recipe.
        options: The recipe's options.
        classes: Names of the classes.
        modalities: The modalities by name.
        source: Where the samples are from.
        columns: Arrow types ("float32", "string", …) of additional columns, by name. The words of a
            text column `notes` are counted in the report.
        defaults: Recommended training settings, fields of `TrainConfig` under "train" and
            "enhance".
        report: Additional facts for people, as JSON.
        shared_groups: Whether a group may be in more than one split, as in some published splits.
            Shared groups are reported as leakage in any case.
    """

    name: str
    recipe: str
    options: Mapping[str, Any]
    classes: Sequence[str]
    modalities: Mapping[str, Modality]
    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    shared_groups: bool = False


class DatasetWriter:
    """Receives samples one by one and writes them; made by `write_dataset`.

    Attributes:
        settled: Ids that an interrupted build has already added or rejected (`continue_dataset`).
        bytes_written: Bytes of all samples added so far.
    """

    def __init__(self, folder: Path, header: Header, rejects: Sequence[Reject] = ()) -> None:
        check_modalities(sorted(header.modalities))
        check_classes(header.classes)
        taken = {"id", "label", "group", *header.columns} & set(header.modalities)
        if taken:
            raise UsageError(f"a modality cannot be named like the column {sorted(taken)[0]!r}")
        self._folder = folder
        self._header = header
        self._schema = shard_schema(header.columns, header.modalities)
        self._shards: dict[str, list[_Shard]] = {split: [] for split in SPLITS}
        self._pending: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._splits_of_group: dict[str, set[str]] = defaultdict(set)
        self._pending_bytes = dict.fromkeys(SPLITS, 0)
        self._ids: set[str] = set()
        self._trained: set[int] = set()
        self._spreads: dict[str, Spread] = defaultdict(Spread)
        self._noted: dict[str, list[str]] = defaultdict(list)
        self._rejects = list(rejects)
        self._journal: TextIO | None = None
        self._ledger: TextIO | None = None
        self.settled: set[str] = set()

    @property
    def bytes_written(self) -> int:
        shards = sum(shard.bytes for shards in self._shards.values() for shard in shards)
        return shards + sum(self._pending_bytes.values())

    def add(self, split: str, *, id: str, label: int, group: str, **columns: Any) -> None:
        """Add one sample.

        Args:
            split: `train`, `validation` or `test`.
            id: Unique id of the sample.
            label: Class number.
            group: Group of samples that must stay in one split.
            **columns: Every modality, an array of its shape or a list of JPEG bytes for frames, and
                every additional column.

        Raises:
            Unusable: Only this sample is at fault: an array has the wrong shape or numbers that its
                dtype cannot hold, or a name cannot be stored.
            DataError: The id is repeated, the group is in another split, the label has no class, or
                columns are missing or undeclared.
        """
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r} of sample {id!r}: one of {', '.join(SPLITS)}")
        if normalised(id) in self._ids:
            raise DataError(f"sample id {id!r} occurs twice")
        elsewhere = self._splits_of_group[normalised(group)] - {split}
        if elsewhere and not self._header.shared_groups:
            raise DataError(
                f"group {group!r} of sample {id!r} is in {min(elsewhere)} already: "
                f"it cannot be in {split} too"
            )
        if not 0 <= label < len(self._header.classes):
            raise DataError(f"label {label} of sample {id!r} has no class")
        declared = {*self._header.columns, *self._header.modalities}
        if missing := declared - set(columns):
            raise DataError(f"sample {id!r} has no {sorted(missing)[0]!r}")
        if odd := set(columns) - declared:
            raise DataError(f"sample {id!r} has columns nobody declared: {', '.join(sorted(odd))}")
        if not (is_utf8(id) and is_utf8(group)):
            raise Unusable("name", f"sample id {id!r} or group {group!r} is not UTF-8")
        row: dict[str, Any] = {"id": id, "label": label, "group": group}
        for name in self._header.columns:
            row[name] = columns[name]
        for name, modality in self._header.modalities.items():
            row[name] = _stored(id, name, modality, columns[name])
        for name, modality in self._header.modalities.items():
            if modality.dtype == "float32":
                given = np.asarray(columns[name])
                if not np.can_cast(given.dtype, np.float32):
                    self._spreads[name].add(modality.by_channel(given))
        self._splits_of_group[normalised(group)].add(split)
        self._ids.add(normalised(id))
        self._note(id, row.get(NOTES_COLUMN))
        if split == "train":
            self._trained.add(label)
        self._pending[split].append(row)
        self._pending_bytes[split] += sum(
            cell.nbytes if isinstance(cell, np.ndarray) else sum(map(len, cell))
            for cell in (row[name] for name in self._header.modalities)
        )
        if len(self._pending[split]) == _BATCH_ROWS or self._pending_bytes[split] >= _BATCH_BYTES:
            self._flush(split)

    def reject(self, id: str, reason: str, detail: str = "") -> None:
        """Record an item that cannot be added.

        Args:
            id: Id of the item.
            reason: One of `REASONS`.
            detail: What exactly is wrong.
        """
        self._rejects.append(Reject(id, reason, detail))
        if self._journal:
            self._journal.write(json.dumps(self._rejects[-1]) + "\n")
            self._journal.flush()

    def recover(self) -> None:
        """Resume from what an interrupted writer left in the folder.

        Record batches are kept if their bytes have the hash recorded when they were written. All
        other rows must be added again.
        """
        written = _ledger_of(self._folder)
        for split in SPLITS:
            left = sorted(self._folder.glob(f"{split}-*.arrow"))
            for k, path in enumerate(left):
                ends = written.get(_first_name(path, split), {})
                batches, end = self._written_batches(path, ends)
                if batches:
                    # undo the renaming by `finish`
                    path = path.rename(self._folder / f"{split}-{k:05d}.arrow")
                    self._take(split, path, batches, end, ends[end])
                    if k < len(left) - 1:  # it was full, since there is a next one
                        self._shards[split][-1].close()
                else:
                    path.unlink()
                if not ends or end < max(ends):  # incomplete or damaged: discard what follows
                    for later in left[k + 1 :]:
                        later.unlink()
                    break
        journal, ledger = self._folder / _JOURNAL, self._folder / _LEDGER
        whole = _whole_lines(journal) if journal.is_file() else []
        with atomic_write(journal) as temporary:
            temporary.write_text("".join(json.dumps(r) + "\n" for r in whole), encoding="utf-8")
        self._rejects += whole
        self._journal = journal.open("a", encoding="utf-8")
        with atomic_write(ledger) as temporary:
            states = [shard.state for shards in self._shards.values() for shard in shards]
            temporary.write_text("".join(json.dumps(state) + "\n" for state in states))
        self._ledger = ledger.open("a", encoding="utf-8")
        self.settled.update(reject.id for reject in whole)

    def _written_batches(
        self, path: Path, ends: Mapping[int, str]
    ) -> tuple[list[pa.RecordBatch], int]:
        """The intact record batches of a shard, in mapped memory, and where the last one ends.

        There are none if the shard belongs to another dataset.
        """
        end = _written_to(path, ends)
        if end <= _STREAM:
            return [], 0
        with pa.memory_map(str(path)) as source:
            content = source.read_buffer(end)
        try:
            batches = read_batches(path, content[_STREAM:], self._schema)
        except DataError:
            return [], 0
        classes = len(self._header.classes)
        known = (0 <= label < classes for batch in batches for label in batch["label"].to_pylist())
        return (batches, end) if all(known) else ([], 0)

    def _take(
        self, split: str, path: Path, batches: Sequence[pa.RecordBatch], end: int, digest: str
    ) -> None:
        """Continue a shard that already has these batches."""
        shard = _Shard(path, self._schema, there=end)
        self._shards[split].append(shard)
        for batch in batches:
            shard.write(batch)
            ids = batch["id"].to_pylist()
            self.settled.update(ids)
            self._ids.update(map(normalised, ids))
            if NOTES_COLUMN in self._header.columns:
                for id, notes in zip(ids, batch[NOTES_COLUMN].to_pylist(), strict=True):
                    self._note(id, notes)
            if split == "train":
                self._trained.update(batch["label"].to_pylist())
            for group in batch["group"].to_pylist():
                self._splits_of_group[normalised(group)].add(split)
        if shard.bytes != end or shard.state["sha256"] != digest:
            raise DataError(f"{path} was not written by this mmcoop: {_START_AGAIN}")

    def _note(self, id: str, notes: str | None) -> None:
        for note in (notes or "").split():
            self._noted[note].append(id)

    def finish(self) -> None:
        """Write `rejects.parquet`, close the shards and, last, write `dataset.json`.

        Raises:
            DataError: A split is empty, or float32 cannot resolve the differences between numbers
                of a modality.
        """
        # sorted, so that their order does not depend on when each was found
        columns = zip(*sorted(self._rejects), strict=True)
        texts = [list(map(_text, column)) for column in columns] or [[], [], []]
        pq.write_table(pa.table(texts, schema=REJECTS), self._folder / REJECTS_FILE)
        empty = [s for s in SPLITS if not self._shards[s] and not self._pending[s]]
        if empty:
            raise DataError(
                f"no sample for the split {empty[0]}: a data set needs all three"
                + why_not(self._rejects)
                # a resumable build keeps its folder, and so its rejects
                + ". Assign samples to it, or add samples"
                + f". For all rejects: mmcoop info {self._folder / REJECTS_FILE}"
                * bool(self._rejects and self._journal)
            )
        for name, spread in self._spreads.items():
            if lost := spread.too_close([f"channel {i}" for i in range(len(spread.mean))]):
                raise DataError(f"modality {name!r}, {lost}: give it the dtype float64")
        for split in SPLITS:
            self._flush(split)
        header = self._header
        untrained = [c for i, c in enumerate(header.classes) if i not in self._trained]
        warning: dict[str, Any] = {}
        if untrained:
            warning["classes_without_a_training_sample"] = untrained
        if self._noted:
            noted = sorted(self._noted.items())
            warning["notes"] = {note: len(ids) for note, ids in noted}
            warning["first_with_note"] = {note: ids[:FIRST] for note, ids in noted}
        write_json(
            self._folder / "dataset.json",
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "name": header.name,
                "recipe": header.recipe,
                "options": dict(header.options),
                "source": header.source,
                "classes": list(header.classes),
                "modalities": {
                    name: header.modalities[name].to_json() for name in sorted(header.modalities)
                },
                "columns": dict(header.columns),
                "defaults": {name: dict(part) for name, part in header.defaults.items()},
                "rejects": count_reasons(self._rejects),
                "leakage": leakage(self._splits_of_group),
                "report": {**header.report, **warning},
                "splits": {
                    split: {
                        "rows": sum(shard.rows for shard in shards),
                        "shards": [
                            shard.finish(f"{split}-{k:05d}-of-{len(shards):05d}.arrow")
                            for k, shard in enumerate(shards)
                        ],
                    }
                    for split, shards in self._shards.items()
                },
            },
        )

    def close(self) -> None:
        """Close all files, finished or not."""
        for shards in self._shards.values():
            for shard in shards:
                shard.abandon()
        for file in (self._journal, self._ledger):
            if file:
                file.close()

    def _flush(self, split: str) -> None:
        rows, self._pending[split] = self._pending[split], []
        self._pending_bytes[split] = 0
        if not rows:
            return
        shards = self._shards[split]
        if not shards or shards[-1].full:
            if shards:
                shards[-1].close()
            shards.append(_Shard(self._folder / f"{split}-{len(shards):05d}.arrow", self._schema))
        columns = [
            _arrow_column([row[field.name] for row in rows], field.type) for field in self._schema
        ]
        shards[-1].write(pa.record_batch(columns, schema=self._schema))
        if self._ledger:
            self._ledger.write(json.dumps(shards[-1].state) + "\n")
            self._ledger.flush()


class _Shard:
    """An Arrow file being written.

    If its first `there` bytes already exist, their batches must still be passed to `write`.
    """

    def __init__(self, path: Path, schema: pa.Schema, there: int = 0) -> None:
        self.path = path
        self.rows = 0
        self.bytes = 0
        self._file = _Hashed(path, there)
        self._writer = pa.ipc.new_file(self._file, schema)
        self.state: dict[str, Any] = {}

    @property
    def full(self) -> bool:
        return self._file.closed or self.bytes >= _SHARD_BYTES

    def write(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self._writer.write_batch(batch)
        self.bytes = self._file.tell()
        self.state = {"file": self.path.name, "end": self.bytes, "sha256": self._file.sha256}

    def close(self) -> None:
        """Complete the file."""
        if not self._file.closed:
            self._writer.close()
            self.bytes = self._file.tell()  # with the footer
            self._file.close()

    def abandon(self) -> None:
        """Close the file without a footer, which could be mistaken for the rest of a batch."""
        self._file.close()

    def finish(self, name: str) -> dict[str, Any]:
        self.close()
        path = self.path.rename(self.path.with_name(name))
        return {
            "file": name,
            "rows": self.rows,
            "bytes": path.stat().st_size,
            "sha256": self._file.sha256,
        }


class _Hashed:
    """A file with a running sha256, written from its start but for its first `there` bytes.

    Those exist already and are only hashed. This lets Arrow's writer, which cannot append, continue
    a file without room for a copy.
    """

    def __init__(self, path: Path, there: int) -> None:
        if there:
            os.truncate(path, there)
        self._file = pa.OSFile(str(path), "ab" if there else "wb")
        self._hash = hashlib.sha256()
        self._there = there
        self._at = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def write(self, content: Any) -> None:
        content = memoryview(content)
        self._hash.update(content)
        known = max(self._there - self._at, 0)
        self._at += len(content)
        self._file.write(content[known:])

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def close(self) -> None:
        self._file.close()


def leakage(splits_of_group: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Count groups in more than one split.

    Args:
        splits_of_group: The splits of each group.

    Returns:
        Numbers of groups by combination of splits, such as `{"train+test": 7}`.
    """
    shared = Counter(
        "+".join(split for split in SPLITS if split in splits)
        for splits in splits_of_group.values()
        if len(splits) > 1
    )
    return dict(sorted(shared.items()))


@contextmanager
def write_dataset(
    folder: Path, header: Header, *, overwrite: bool = False
) -> Iterator[DatasetWriter]:
    """Write a dataset folder; it appears, complete, if the block ends without an error.

    Args:
        folder: The dataset folder to make.
        header: Description of the dataset.
        overwrite: Replace an existing dataset.

    Yields:
        The writer to which samples are added.

    Raises:
        UsageError: `folder` exists and may not be replaced.
        DataError: The dataset is incomplete (`DatasetWriter.finish`).
    """
    check_new_dataset(folder, overwrite)
    with _new_dataset(folder, overwrite), atomic_folder(folder) as temporary:
        writer = DatasetWriter(temporary, header)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


@contextmanager
def continue_dataset(
    folder: Path,
    header: Header,
    plan: str,
    *,
    rejects: Sequence[Reject] = (),
    overwrite: bool = False,
) -> Iterator[DatasetWriter]:
    """As `write_dataset`, but resumes an interrupted build with the same `plan`.

    Unfinished work stays beside `folder`. A resumed build ends with the same bytes as an
    uninterrupted one. Work of another plan is discarded.

    Args:
        folder: The dataset folder to make.
        header: Description of the dataset.
        plan: A hash that identifies the build.
        rejects: Items already known to be unusable.
        overwrite: Replace an existing dataset.

    Yields:
        The writer to which samples are added, except those in `settled`.

    Raises:
        UsageError: `folder` exists and may not be replaced, or another process is writing it.
        DataError: The dataset is incomplete (`DatasetWriter.finish`).
    """
    check_new_dataset(folder, overwrite)
    with _new_dataset(folder, overwrite), resumable_folder(folder) as working:
        mark = working / _PLAN
        if not (mark.is_file() and mark.read_bytes() == plan.encode()):
            for path in working.iterdir():
                path.unlink()
            mark.write_text(plan, encoding="utf-8")
        writer = DatasetWriter(working, header, rejects)
        try:
            writer.recover()
            yield writer
            writer.finish()
        finally:
            writer.close()
        for name in (_PLAN, _JOURNAL, _LEDGER):
            (working / name).unlink()


def check_classes(classes: Sequence[str]) -> None:
    """Raise `DataError` if there are fewer than two classes, or two have the same name."""
    if len(classes) < 2:
        there = f"there is one class, {classes[0]!r}" if classes else "there is no class"
        raise DataError(f"{there}: a data set needs two at least to tell apart")
    by_name = Counter(map(normalised, classes))
    for name, count in by_name.items():
        if count > 1:
            raise DataError(f"{count} classes are called {name!r}: make them one, or rename them")


def check_new_dataset(folder: Path, overwrite: bool) -> None:
    """Raise `UsageError` if no dataset folder may be made; call this before long work."""
    check_unlocked(folder)
    _check_place(folder, overwrite)


@contextmanager
def _new_dataset(folder: Path, overwrite: bool) -> Iterator[None]:
    """Lock the folder of a new dataset for this process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_place(folder, overwrite)  # again: another process may have made one since
        yield


def _check_place(folder: Path, overwrite: bool) -> None:
    check_new_folder(folder, overwrite, lambda f: has_format(f / "dataset.json", FORMAT))


@with_config(AS_WRITTEN)
class _WrittenContent(TypedDict):
    """A line of the ledger: the hash of a shard's first `end` bytes."""

    file: str
    end: Annotated[int, Field(ge=1, le=2**53)]
    sha256: Sha256


def _ledger_of(folder: Path) -> dict[str, dict[int, str]]:
    """The ledger: by name of the shard, where each record batch ends and the hash up to there."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    path = folder / _LEDGER
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(DataError):  # a truncated line
            entry = checked(parse_json(line, path), _WrittenContent, path)
            found[entry["file"]][entry["end"]] = entry["sha256"]
    return found


def _first_name(path: Path, split: str) -> str:
    """The name of a shard before `finish` renamed it."""
    return "-".join(path.stem.split("-")[:2]) + path.suffix


def _written_to(path: Path, ends: Mapping[int, str]) -> int:
    """The last of `ends` up to which a file has the recorded hash, or 0."""
    end, at, digest = 0, 0, hashlib.sha256()
    with path.open("rb") as file:
        for place in sorted(ends):
            while at < place and (part := file.read(min(place - at, 2**20))):
                digest.update(part)
                at += len(part)
            if at < place or digest.hexdigest() != ends[place]:
                break
            end = place
    return end


def _whole_lines(journal: Path) -> list[Reject]:
    """The rejects in a journal, without truncated lines."""
    found = []
    for line in journal.read_bytes().splitlines(keepends=True):
        with suppress(DataError):
            if line.endswith(b"\n"):
                found.append(Reject(*checked(parse_json(line, journal), _RejectLine, journal)))
    return found


def _text(name: str) -> str:
    """Escape what UTF-8 cannot encode: a file's name may have invalid bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _stored(id: str, name: str, spec: Modality, content: Any) -> Any:
    if spec.kind == "frames":
        if len(content) != spec.shape[0]:
            raise Unusable(
                "wrong-shape",
                f"sample {id!r} has {len(content)} frames: expected {spec.shape[0]}",
            )
        return list(content)
    array = np.asarray(content)
    if array.shape != spec.shape:
        raise Unusable(
            "wrong-shape",
            f"{name} of sample {id!r} has shape {array.shape}: expected {tuple(spec.shape)}",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        stored = array.astype(spec.dtype)
    limits = np.iinfo(spec.dtype) if spec.dtype == "uint8" else np.finfo(spec.dtype)
    if not (np.isfinite(stored).all() and limits.min <= array.min() <= array.max() <= limits.max):
        raise Unusable(
            "not-a-number", f"{name} of sample {id!r} has numbers {spec.dtype} cannot hold, or NaN"
        )
    return stored.ravel()


def _arrow_column(cells: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(cells)), kind.list_size)
    return pa.array(cells, type=kind)

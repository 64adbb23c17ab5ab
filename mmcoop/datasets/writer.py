"""Writing a dataset folder. `store.py` opens it; `docs/formats.md` describes the files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcoop.core.coalitions import check_modalities
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.store import FORMAT, FORMAT_VERSION, SPLITS, shard_schema
from mmcoop.errors import DataError, UsageError
from mmcoop.files import check_new_folder, has_format, sha256, whole_folder, write_json

# Rows are written in record batches of this many and shards are closed at about this size:
# small enough to write with little memory and to copy one by one, large enough to stay few.
_BATCH_ROWS = 256
_SHARD_BYTES = 512 * 2**20

_REJECTS = pa.schema([("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Header:
    """What a recipe says of the data set it builds.

    `columns`: further columns that describe a sample, by name, with their Arrow type ("float32",
    "string", …). `defaults`: how the recipe advises to train on it, as `TrainConfig` fields under
    "train" and "enhance".
    """

    name: str
    recipe: str
    options: Mapping[str, Any]
    classes: Sequence[str]
    modalities: Mapping[str, Modality]
    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class DatasetWriter:
    """Receives samples one by one and writes them; made by `write_dataset`."""

    def __init__(self, folder: Path, header: Header) -> None:
        check_modalities(sorted(header.modalities))
        taken = {"id", "label", "group", *header.columns} & set(header.modalities)
        if taken:
            raise UsageError(f"a modality cannot be named like the column {sorted(taken)[0]!r}")
        self._folder = folder
        self._header = header
        self._schema = shard_schema(header.columns, header.modalities)
        self._shards: dict[str, list[_Shard]] = {split: [] for split in SPLITS}
        self._pending: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._split_of_group: dict[str, str] = {}
        self._ids: set[str] = set()
        self._rejects: list[dict[str, str]] = []

    def add(self, split: str, *, id: str, label: int, group: str, **columns: Any) -> None:
        """Add one sample; `columns` holds every modality and every further column.

        A dense modality is an array of its shape; frames are a list of JPEG bytes. Raises
        `DataError` for a repeated id, a group that is in another split already, a label without
        a class, a column too many or too few, and an array of the wrong shape or with numbers
        that its dtype cannot hold.
        """
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r} of sample {id!r}: one of {', '.join(SPLITS)}")
        if id in self._ids:
            raise DataError(f"sample id {id!r} occurs twice")
        if self._split_of_group.get(group, split) != split:
            raise DataError(
                f"group {group!r} of sample {id!r} is in {self._split_of_group[group]} already: "
                f"it cannot be in {split} too"
            )
        if not 0 <= label < len(self._header.classes):
            raise DataError(f"label {label} of sample {id!r} has no class")
        declared = {*self._header.columns, *self._header.modalities}
        if missing := declared - set(columns):
            raise DataError(f"sample {id!r} has no {sorted(missing)[0]!r}")
        if odd := set(columns) - declared:
            raise DataError(f"sample {id!r} has columns nobody declared: {', '.join(sorted(odd))}")
        row: dict[str, Any] = {"id": id, "label": label, "group": group}
        for name in self._header.columns:
            row[name] = columns[name]
        for name, modality in self._header.modalities.items():
            row[name] = _stored(id, name, modality, columns[name])
        self._split_of_group[group] = split
        self._ids.add(id)
        self._pending[split].append(row)
        if len(self._pending[split]) == _BATCH_ROWS:
            self._flush(split)

    def reject(self, id: str, reason: str, detail: str = "") -> None:
        """Record something asked for that cannot get in."""
        self._rejects.append({"id": id, "reason": reason, "detail": detail})

    def finish(self) -> None:
        """Close the shards and write `rejects.parquet` and, last, `dataset.json`."""
        empty = [s for s in SPLITS if not self._shards[s] and not self._pending[s]]
        if empty:
            raise DataError(f"no sample for the split {empty[0]}: a data set needs all three")
        for split in SPLITS:
            self._flush(split)
        pq.write_table(
            pa.Table.from_pylist(self._rejects, schema=_REJECTS), self._folder / "rejects.parquet"
        )
        header = self._header
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
                "rejects": len(self._rejects),
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
        """Let go of the files, finished or not."""
        for shards in self._shards.values():
            for shard in shards:
                shard.close()

    def _flush(self, split: str) -> None:
        rows, self._pending[split] = self._pending[split], []
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


class _Shard:
    """One Arrow file being written."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes >= _SHARD_BYTES

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.rows += batch.num_rows
        self._bytes += batch.nbytes

    def close(self) -> None:
        if not self._file.closed:
            self._writer.close()
            self._file.close()

    def finish(self, name: str) -> dict[str, Any]:
        self.close()
        path = self.path.rename(self.path.with_name(name))
        return {
            "file": name,
            "rows": self.rows,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }


@contextmanager
def write_dataset(
    folder: Path, header: Header, *, overwrite: bool = False
) -> Iterator[DatasetWriter]:
    """Write a dataset folder through the `DatasetWriter` given.

    The folder appears, whole, when the block ends well, and not at all otherwise. Raises
    `UsageError` where `folder` exists and may not be replaced.
    """
    check_new_dataset(folder, overwrite)
    with whole_folder(folder) as temporary:
        writer = DatasetWriter(temporary, header)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


def check_new_dataset(folder: Path, overwrite: bool) -> None:
    """Raise `UsageError` where no dataset folder may be made; worth asking before long work."""
    check_new_folder(folder, overwrite, lambda f: has_format(f / "dataset.json", FORMAT))


def _stored(id: str, name: str, spec: Modality, content: Any) -> Any:
    if spec.kind == "frames":
        if len(content) != spec.shape[0]:
            raise DataError(f"sample {id!r} has {len(content)} frames: expected {spec.shape[0]}")
        return list(content)
    array = np.asarray(content)
    if array.shape != spec.shape:
        raise DataError(
            f"{name} of sample {id!r} has shape {array.shape}: expected {tuple(spec.shape)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        stored = array.astype(spec.dtype)
    limits = np.iinfo(spec.dtype) if spec.dtype == "uint8" else np.finfo(spec.dtype)
    if not (np.isfinite(stored).all() and limits.min <= array.min() <= array.max() <= limits.max):
        raise DataError(f"{name} of sample {id!r} has numbers {spec.dtype} cannot hold, or NaN")
    return stored.ravel()


def _arrow_column(cells: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(cells)), kind.list_size)
    return pa.array(cells, type=kind)

"""The dataset folder: memory-mapped Arrow shards, `dataset.json` and `rejects.parquet`.

`docs/formats.md` describes the files. `DatasetWriter` makes a folder, `open_dataset` opens one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcoop.core.coalitions import check_modalities
from mmcoop.datasets.modality import Modality
from mmcoop.errors import DataError, UsageError
from mmcoop.files import (
    check_new_folder,
    has_format,
    read_json,
    settle_folder,
    sha256,
    whole_folder,
    write_json,
)

FORMAT_VERSION = 1
_FORMAT = "mmcoop dataset"
SPLITS = ("train", "validation", "test")

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
        self._schema = _schema(header.columns, header.modalities)
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
                "format": _FORMAT,
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
    check_new_folder(folder, overwrite, lambda f: has_format(f / "dataset.json", _FORMAT))


class Split:
    """One split of a dataset folder. Reading a sample touches only that sample's bytes."""

    def __init__(self, folder: Path, name: str, info: Mapping[str, Any], dataset: "Dataset"):
        self.name = name
        self.dataset = dataset
        self._paths = [folder / shard["file"] for shard in info["shards"]]
        self._rows = [shard["rows"] for shard in info["shards"]]

    def __len__(self) -> int:
        return sum(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # memory maps stay where they are: another process opens its own
        return {k: v for k, v in self.__dict__.items() if k not in ("table", "_dense", "labels")}

    @cached_property
    def table(self) -> pa.Table:
        """All columns, memory-mapped."""
        expected = _schema(self.dataset.columns, self.dataset.modalities)
        tables = []
        for path, rows in zip(self._paths, self._rows, strict=True):
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except pa.ArrowInvalid as error:
                raise DataError(f"{path} cannot be read as an Arrow file: {error}") from None
            if not table.schema.equals(expected) or len(table) != rows:
                raise DataError(f"{path} does not hold what dataset.json says")
            tables.append(table)
        return pa.concat_tables(tables)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 `(rows,)`."""
        labels: np.ndarray = self.table["label"].to_numpy()
        return labels

    def ids(self, index: np.ndarray) -> list[str]:
        """Ids of the samples at the positions `index`."""
        ids: list[str] = self.table["id"].take(pa.array(index)).to_pylist()
        return ids

    def read(self, modality: str, index: np.ndarray) -> np.ndarray | list[list[bytes]]:
        """The stored samples of one modality at the positions `index`, in that order.

        An array `(len(index), *shape)`; for frames, a list of lists of JPEG bytes.
        """
        spec = self.dataset.modalities[modality]
        if spec.kind == "frames":
            frames: list[list[bytes]] = self.table[modality].take(pa.array(index)).to_pylist()
            return frames
        chunks, starts = self._dense[modality]
        which = np.searchsorted(starts, index, side="right") - 1
        out = np.empty((len(index), *spec.shape), dtype=spec.dtype)
        for chunk in np.unique(which):
            here = which == chunk
            out[here] = chunks[chunk][index[here] - starts[chunk]]
        return out

    @cached_property
    def _dense(self) -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
        """Dense modalities as views of the mapped memory, one array a record batch."""
        found = {}
        for name, spec in self.dataset.modalities.items():
            if spec.kind == "frames":
                continue
            column = self.table[name]
            chunks = [
                chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, *spec.shape)
                for chunk in column.chunks
            ]
            found[name] = (chunks, np.cumsum([0, *(len(chunk) for chunk in chunks[:-1])]))
        return found


class Dataset:
    """An opened dataset folder: what `dataset.json` says, and the splits.

    `modalities` are in the order of their sorted names, which is the order of every table's
    columns. `fingerprint` is the sha256 of everything samples and labels depend on.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder = folder
        self.name: str = content["name"]
        self.recipe: str = content["recipe"]
        self.options: dict[str, Any] = content["options"]
        self.source: str = content["source"]
        self.classes: list[str] = content["classes"]
        self.columns: dict[str, str] = content["columns"]
        self.defaults: dict[str, dict[str, Any]] = content["defaults"]
        self.rejects: int = content["rejects"]
        self.modalities = {
            name: Modality.from_json(content["modalities"][name])
            for name in sorted(content["modalities"])
        }
        self.rows = {split: content["splits"][split]["rows"] for split in SPLITS}
        self._splits: Mapping[str, Any] = content["splits"]
        self._verified: set[str] = set()
        identity = {key: content[key] for key in ("classes", "modalities", "splits")}
        self.fingerprint = sha256_of(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def split(self, name: str) -> Split:
        """The split called `name`, its shards checked against their sha256 on first use.

        Raises `UsageError` for another name than train, validation or test, and `DataError` for
        a shard that is missing or is not the one that was written.
        """
        if name not in SPLITS:
            raise UsageError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")
        if name not in self._verified:
            self._verify(name)
            self._verified.add(name)
        return Split(self.folder, name, self._splits[name], self)

    def verify(self) -> None:
        """Check every shard of every split; `DataError` names the first that is wrong."""
        for name in SPLITS:
            self._verify(name)

    def _verify(self, name: str) -> None:
        remedy = "build the data set again (mmcoop build-dataset --overwrite) or restore the file"
        for shard in self._splits[name]["shards"]:
            path = self.folder / shard["file"]
            if not path.is_file():
                raise DataError(f"the shard {path} is missing: {remedy}")
            if path.stat().st_size != shard["bytes"] or sha256(path) != shard["sha256"]:
                raise DataError(
                    f"the shard {path} is damaged (its sha256 is not the one in dataset.json): "
                    f"{remedy}"
                )


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is a dataset folder."""
    return (folder / "dataset.json").is_file()


def open_dataset(folder: Path | str) -> Dataset:
    """Open a dataset folder. Nothing of its samples is read yet.

    Raises `DataError` where there is none, or one that this version cannot read.
    """
    folder = Path(folder)
    settle_folder(folder)
    if not is_dataset(folder):
        raise DataError(
            f"{folder} is not a dataset folder (no dataset.json): build one with "
            "mmcoop build-dataset"
        )
    path = folder / "dataset.json"
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}: this mmcoop reads {FORMAT_VERSION}")
    try:
        dataset = Dataset(folder, content)
        for split in SPLITS:
            info = content["splits"][split]
            for shard in info["shards"]:
                if not shard["file"] or Path(shard["file"]).name != shard["file"]:
                    raise DataError(
                        f"{path} names the shard {shard['file']!r}, which is not in its folder"
                    )
                shard["bytes"], shard["sha256"]  # a KeyError where one is missing
            if not info["shards"] or sum(s["rows"] for s in info["shards"]) != info["rows"]:
                raise DataError(f"{path} is not what mmcoop writes: rows of {split} do not add up")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what mmcoop writes: {error!r}") from None
    return dataset


def _schema(columns: Mapping[str, str], modalities: Mapping[str, Modality]) -> pa.Schema:
    fields = [("id", pa.string()), ("label", pa.int64()), ("group", pa.string())]
    fields += [(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    for name in sorted(modalities):
        spec = modalities[name]
        if spec.kind == "frames":
            fields.append((name, pa.list_(pa.binary())))
        else:
            item = pa.from_numpy_dtype(np.dtype(spec.dtype))
            fields.append((name, pa.list_(item, int(np.prod(spec.shape)))))
    return pa.schema(fields)


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

"""Reading a dataset folder: memory-mapped Arrow shards, described by `dataset.json`.

`docs/reference/dataset-folder.md` describes the files; `writer.py` writes them.
"""

import json
import mmap
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from mmcoop.core.modalities import check_modalities
from mmcoop.datasets.modality import Modality, ModalityContent
from mmcoop.datasets.rejects import Reject
from mmcoop.errors import DataError, MmcoopError, UsageError, check_path_given
from mmcoop.files import check_path, sha256
from mmcoop.locks import recover
from mmcoop.reading.arrow_tables import (
    check_no_nulls,
    parquet_schema,
    read_parquet,
    read_shard,
)
from mmcoop.reading.json_files import AS_WRITTEN, Count, PathText, Sha256, Text, read_versioned

FORMAT, FORMAT_VERSION = "mmcoop dataset", 2
SPLITS = ("train", "validation", "test")

#: The file of rejected items, and its columns.
REJECTS_FILE = "rejects.parquet"
REJECTS = pa.schema([("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])

# About this much of the mapped shards stays resident in the process.
_KEEP_BYTES = 32 * 2**20


def _check_column(kind: str) -> str:
    if not (pa.types.is_primitive(found := pa.type_for_alias(kind)) or found == pa.string()):
        raise ValueError(f"a column cannot be of type {kind!r}")
    return kind


@with_config(AS_WRITTEN)
class _ShardContent(TypedDict):
    file: PathText
    rows: Annotated[int, Field(ge=1, le=2**53)]
    bytes: Count
    sha256: Sha256


@with_config(AS_WRITTEN)
class _SplitContent(TypedDict):
    rows: Count
    shards: Annotated[list[_ShardContent], Field(min_length=1)]


@with_config(AS_WRITTEN)
class DatasetContent(TypedDict):
    """The content of `dataset.json`."""

    name: str
    recipe: str
    options: dict[str, Any]
    source: str
    classes: Annotated[list[Text], Field(min_length=1)]
    modalities: Annotated[dict[str, ModalityContent], Field(min_length=1)]
    columns: dict[Text, Annotated[str, AfterValidator(_check_column)]]
    defaults: dict[str, dict[str, Any]]
    rejects: dict[str, Count]
    leakage: dict[str, Count]
    report: dict[str, Any]
    splits: dict[str, _SplitContent]


class Split:
    """One split of a dataset folder. Reading a sample touches only the bytes of that sample.

    Args:
        folder: The dataset folder.
        name: `train`, `validation` or `test`.
        info: The entry of the split in `dataset.json`.
        dataset: The dataset.
        kept: The stored rows of the samples of a restricted split (`DatasetFolder.restricted`), in
            ascending order; None for all. Positions count the samples that are kept.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        info: Mapping[str, Any],
        dataset: "DatasetFolder",
        kept: np.ndarray | None = None,
    ):
        self.name = name
        self.dataset = dataset
        self._paths = [folder / shard["file"] for shard in info["shards"]]
        self._rows = [shard["rows"] for shard in info["shards"]]
        self._kept = kept
        self._bytes_read = 0

    def __len__(self) -> int:
        return sum(self._rows) if self._kept is None else len(self._kept)

    def __getstate__(self) -> dict[str, Any]:
        # memory maps cannot be pickled: another process opens its own
        mapped = ("_maps", "_stored", "_dense", "_starts", "labels")
        return {k: v for k, v in self.__dict__.items() if k not in mapped}

    @cached_property
    def _maps(self) -> list[mmap.mmap]:
        """The mapped shards."""
        maps = []
        for path in self._paths:
            with path.open("rb") as file:
                if not path.stat().st_size:
                    raise DataError(f"{path} is not an Arrow file: it is empty")
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return maps

    @property
    def table(self) -> pa.Table:
        """All columns, memory-mapped; for a restricted split, a new copy."""
        if self._kept is None:
            return self._stored
        here = np.zeros(sum(self._rows), dtype=bool)
        here[self._kept] = True
        return self._stored.filter(pa.array(here))

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the samples."""
        stored = self._stored[name]
        return stored if self._kept is None else stored.take(pa.array(self._kept))

    @cached_property
    def _stored(self) -> pa.Table:
        """All rows of the shards, memory-mapped and checked against `dataset.json`."""
        expected = shard_schema(self.dataset.columns, self.dataset.modalities)
        tables = []
        for path, rows, content in zip(self._paths, self._rows, self._maps, strict=True):
            table = read_shard(path, content, expected, rows)
            check_no_nulls(table, ["id", "label", "group", *self.dataset.modalities], path)
            labels = table["label"].to_numpy()
            if labels.min() < 0 or labels.max() >= len(self.dataset.classes):
                raise DataError(f"{path} is damaged: it has labels without a class")
            for name, spec in self.dataset.modalities.items():
                frames = spec.kind == "frames" and pc.unique(pc.list_value_length(table[name]))
                if frames and frames.to_pylist() != [spec.shape[0]]:
                    raise DataError(f"{path} is damaged: {name} has not {spec.shape[0]} frames")
            tables.append(table)
        return pa.concat_tables(tables)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class numbers, int64 `(samples,)`."""
        labels: np.ndarray = self.column("label").to_numpy()
        return labels

    def ids(self, index: np.ndarray) -> list[str]:
        """Ids of the samples at the positions `index`."""
        return self._words("id", index)

    def groups(self, index: np.ndarray) -> list[str]:
        """Groups of the samples at the positions `index`."""
        return self._words("group", index)

    def _words(self, name: str, index: np.ndarray) -> list[str]:
        words: list[str] = self._stored[name].take(pa.array(self._place(index))).to_pylist()
        return words

    def read(self, modality: str, index: np.ndarray) -> np.ndarray | list[list[bytes]]:
        """Read the stored samples of one modality.

        Args:
            modality: The modality.
            index: Positions of the samples, in any order.

        Returns:
            An array `(len(index), *shape)`; for frames, a list of lists of JPEG bytes.
        """
        spec = self.dataset.modalities[modality]
        index = self._place(index)
        which = np.searchsorted(self._starts, index, side="right") - 1
        if spec.kind == "frames":
            stored = self._stored[modality].chunks  # `take` on the column would concatenate them
            frames: list[list[bytes]] = [
                stored[chunk][row].as_py()
                for chunk, row in zip(which, index - self._starts[which], strict=True)
            ]
            self._count(sum(len(frame) for clip in frames for frame in clip))
            return frames
        chunks, starts = self._dense[modality], self._starts
        out = np.empty((len(index), *spec.shape), dtype=spec.dtype)
        for chunk in np.unique(which):
            here = which == chunk
            out[here] = chunks[chunk][index[here] - starts[chunk]]
        self._count(out.nbytes)
        return out

    def _place(self, index: np.ndarray) -> np.ndarray:
        """Convert positions among the kept samples to stored rows."""
        return index if self._kept is None else self._kept[index]

    def _count(self, read: int) -> None:
        """Count bytes read, and release mapped pages from time to time.

        Otherwise one pass over the data would keep all of it resident. Released pages stay in the
        system's page cache.
        """
        self._bytes_read += read
        if self._bytes_read > _KEEP_BYTES and hasattr(mmap.mmap, "madvise"):
            for content in self._maps:
                content.madvise(mmap.MADV_DONTNEED)
            self._bytes_read = 0

    @cached_property
    def _starts(self) -> np.ndarray:
        """The position of the first sample of each record batch."""
        lengths = [len(chunk) for chunk in self._stored["id"].chunks]
        return np.cumsum([0, *lengths[:-1]])

    @cached_property
    def _dense(self) -> dict[str, list[np.ndarray]]:
        """Dense modalities as views of the mapped memory, one array per record batch."""
        found = {}
        for name, spec in self.dataset.modalities.items():
            if spec.kind == "frames":
                continue
            found[name] = [
                chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, *spec.shape)
                for chunk in self._stored[name].chunks
            ]
        return found


class DatasetFolder:
    """An open dataset folder.

    Attributes:
        modalities: Kind, shape and normalisation by modality, sorted by name, which is the order
            of columns in every table.
        classes: Names of the classes.
        rows: Number of samples by split.
        defaults: Recommended training settings.
        rejects: Number of rejected items by reason.
        leakage: Number of groups shared between splits, such as `{"train+test": 7}`.
        report: Additional facts recorded by the recipe.
        fingerprint: The sha256 of everything that determines samples and labels.
        whole: The complete dataset if this is a restricted view, else the dataset itself.
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
        self.rejects: dict[str, int] = content["rejects"]
        self.leakage: dict[str, int] = content["leakage"]
        self.report: dict[str, Any] = content["report"]
        self.modalities = {
            name: Modality.from_json(content["modalities"][name])
            for name in sorted(content["modalities"])
        }
        self.rows = {split: content["splits"][split]["rows"] for split in SPLITS}
        self._splits: Mapping[str, Any] = content["splits"]
        self._verified: set[str] = set()
        identity = {key: content[key] for key in ("classes", "modalities", "splits")}
        self.fingerprint = sha256_of(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.whole = self
        self._kept: np.ndarray | None = None

    def split(self, name: str) -> Split:
        """Open a split. Its shards are checked against their sha256 on first use.

        Args:
            name: `train`, `validation` or `test`.

        Raises:
            UsageError: The name is not a split's.
            DataError: A shard is missing or damaged.
        """
        if name not in SPLITS:
            raise UsageError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")
        if name not in self._verified:
            self._verify(name)
            self._verified.add(name)
        kept = self._kept if name == "train" else None
        return Split(self.folder, name, self._splits[name], self, kept)

    def restricted(self, train: np.ndarray) -> "DatasetFolder":
        """Return a view with only some of the training samples, in their original order.

        Args:
            train: Positions in the training split, in any order. Other splits are unaffected.

        Returns:
            A view with its own name and fingerprint, which depend only on the chosen samples.

        Raises:
            DataError: There are no positions, or some are repeated or outside the split.
        """
        positions = np.sort(np.asarray(train))
        rows = self.rows["train"]
        if not len(positions):
            raise DataError(f"{self.folder}: no training sample is left to train on")
        distinct = np.issubdtype(positions.dtype, np.integer) and np.diff(positions).all()
        if not (distinct and positions[0] >= 0 and positions[-1] < rows):
            raise DataError(
                f"the positions of training samples must be different whole numbers from 0 to "
                f"{rows - 1}: {self.folder} has {rows:,} of them"
            )
        view = copy(self)
        view._kept = positions.astype(np.int64) if self._kept is None else self._kept[positions]
        view.rows = {**self.rows, "train": len(positions)}
        of_all = f"{len(positions):,} of {self.whole.rows['train']:,} training samples"
        view.name = f"{self.whole.name}, {of_all}"
        identity = self.whole.fingerprint.encode() + view._kept.astype("<i8").tobytes()
        view.fingerprint = sha256_of(identity).hexdigest()
        return view

    def verify(self) -> None:
        """Check every shard of every split against its sha256.

        Raises:
            DataError: A shard is missing or damaged.
        """
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


def open_dataset(folder: Path | str) -> DatasetFolder:
    """Open a dataset folder, without reading any samples.

    Args:
        folder: A folder written by `mmcoop build-dataset`.

    Returns:
        The dataset.

    Raises:
        DataError: The folder is not a dataset, or this version cannot read it.

    Example:
        >>> dataset = mmcoop.open_dataset("data/keypad")
        >>> len(dataset.split("train"))
    """
    check_path_given(folder, "the dataset folder")
    folder = Path(folder)
    check_path(folder)
    recover(folder)
    if not is_dataset(folder):
        raise DataError(
            f"{folder} is not a dataset folder (no dataset.json): build one with "
            "mmcoop build-dataset"
        )
    path = folder / "dataset.json"
    content = read_versioned(path, DatasetContent, FORMAT_VERSION)
    for split in SPLITS:
        info = content["splits"].get(split)
        if info is None or sum(shard["rows"] for shard in info["shards"]) != info["rows"]:
            raise DataError(f"{path} is not what mmcoop writes: rows of {split} do not add up")
        for shard in info["shards"]:
            if not shard["file"] or Path(shard["file"]).name != shard["file"]:
                raise DataError(
                    f"{path} names the shard {shard['file']!r}, which is not in its folder"
                )
    try:
        check_modalities(sorted(content["modalities"]))
        return DatasetFolder(folder, content)
    except (TypeError, MmcoopError) as error:  # TypeError: a field of another version
        raise DataError(f"{path} is not what mmcoop writes: {error}") from None


def is_rejects(path: Path) -> bool:
    """Whether `path` is a file of rejects, like the `rejects.parquet` of a dataset folder."""
    try:
        return bool(parquet_schema(path).equals(REJECTS))
    except DataError:
        return False


def read_rejects(path: Path) -> list[Reject]:
    """Read a file of rejects, in stored order.

    Raises:
        DataError: The file cannot be read.
    """
    table = read_parquet(path, schema=REJECTS, what="a file of rejects")
    check_no_nulls(table, REJECTS.names, path)
    return [Reject(**row) for row in table.to_pylist()]


def shard_schema(columns: Mapping[str, str], modalities: Mapping[str, Modality]) -> pa.Schema:
    """The schema of a shard: the standard columns, additional ones, then modalities by name.

    Args:
        columns: Arrow types of the additional columns, by name.
        modalities: The modalities by name.
    """
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

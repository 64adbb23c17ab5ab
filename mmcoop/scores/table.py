"""Writing the scores file: what every modality contributed to every sample, as Parquet.

`docs/formats.md` describes the file, `reading/scores.py` reads it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mmcoop.core.games.coalitions import coalition_names
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import DataError, UsageError
from mmcoop.files import atomic_write
from mmcoop.reading.scores import METADATA_KEY
from mmcoop.versions import versions

#: Rows of a row group, but for the last one.
ROW_GROUP = 8192

# What no compression takes away of a float64 that was a float32.
_NUMBER = 4


def scores_table(
    modalities: tuple[str, ...],
    split: str | None,
    batch: ValuedBatch,
    further: Mapping[str, Tensor] | None = None,
) -> pa.Table:
    """The rows of one batch, which must have ids. `further`: more columns, float64 `(batch,)`."""
    rows = len(batch)
    nothing = pa.nulls(rows, pa.int64())
    labels, said = batch.labels, batch.predictions
    columns: dict[str, Any] = {
        "id": pa.array(batch.ids, pa.string()),
        "split": pa.array([split] * rows, pa.string()),
        **({} if batch.groups is None else {"group": pa.array(batch.groups, pa.string())}),
        "label": nothing if labels is None else _column(labels),
        "prediction": _column(said),
        "correct": _correct(batch),
    }
    for kind, table in (("contribution", batch.contributions), ("stderr", batch.stderr)):
        if table is not None:
            columns |= {f"{kind}_{m}": _column(table[:, k]) for k, m in enumerate(modalities)}
    if batch.draws is not None:
        columns["draws"] = _column(batch.draws)
    for k, name in enumerate(coalition_names(modalities, batch.coalitions)):
        columns[f"value_{name}" if name else "base_value"] = _column(batch.values[:, k])
    columns |= {name: _column(column) for name, column in (further or {}).items()}
    return pa.table(columns)


def _correct(batch: ValuedBatch) -> pa.Array:
    """Right or wrong; null where a tie is undecided, and for several labels or numbers."""
    labels, right = batch.labels, batch.correct
    if right is None and labels is not None and labels.dtype == torch.int64 and labels.dim() == 1:
        right = (labels == batch.predictions).double()
    if right is None:
        return pa.nulls(len(batch), pa.bool_())
    undecided = ((right > 0) & (right < 1)).numpy()
    return pa.array((right == 1).numpy(), mask=undecided if undecided.any() else None)


def _column(numbers: Tensor) -> pa.Array:
    """A column of numbers; of several numbers a row, one of lists."""
    if numbers.dim() > 1:
        return pa.array(numbers.flatten(1).tolist(), pa.list_(_column(numbers[:0, ..., 0]).type))
    return pa.array(np.ascontiguousarray(numbers.numpy()))


def least_bytes(names: pa.Table, numbers: int) -> int:
    """Bytes that so many rows take in a scores file at least: their `names` (ids, groups) and, of
    each, so many numbers that differ between samples.
    """
    if not len(names):
        return 0
    beginning = names.slice(0, ROW_GROUP)
    written = pa.BufferOutputStream()
    pq.write_table(beginning, written)
    row = int(written.tell()) / len(beginning) + _NUMBER * numbers
    return round(len(names) * row)


def valuation_details(
    how: ValuationConfig, n_modalities: int, absent: str = "zero"
) -> dict[str, Any]:
    """How scores were worked out, for their file: names and versions."""
    return {**how.details(n_modalities), "absent": absent, "versions": versions()}


class ScoresWriter:
    """Receives valued batches and writes them in row groups as they come."""

    def __init__(self, path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
        self._path = path
        self._modalities = modalities
        content = {"format": "mmcoop scores", "modalities": list(modalities), **details}
        self._metadata = {METADATA_KEY: json.dumps(content, sort_keys=True)}
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def add(self, split: str, batch: ValuedBatch) -> None:
        """Append the samples of one batch, which must have ids."""
        self.write(scores_table(self._modalities, split, batch))

    def write(self, table: pa.Table) -> None:
        """Append rows, of the same columns each time."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def close(self) -> None:
        """Write what is waiting and the end of the file."""
        self._flush(1)
        if self._writer is not None:
            self._writer.close()

    def _flush(self, least: int) -> None:
        """Write row groups while there are so many rows; how they came makes no difference."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            schema = table.schema.with_metadata(self._metadata)
            self._writer = pq.ParquetWriter(self._path, schema)
        while len(table) >= least:
            self._writer.write_table(table.slice(0, ROW_GROUP), row_group_size=ROW_GROUP)
            table = table.slice(ROW_GROUP)
        self._waiting = [table]


def check_scores_name(path: Path) -> None:
    """Raise `UsageError` where a file is named as one of another kind than scores are."""
    if path.suffix.lower() not in (".parquet", ""):
        raise UsageError(
            f"{path}: scores are a Parquet file, name it {path.with_suffix('.parquet').name} "
            "(pandas.read_parquet reads it, and its to_csv writes it as CSV)"
        )


@contextmanager
def scores_file(
    path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]
) -> Iterator[ScoresWriter]:
    """A scores file to write into; it appears, whole, when the block ends well.

    Raises `DataError` where nothing was written into it.
    """
    with atomic_write(path) as temporary:
        writer = ScoresWriter(temporary, modalities, details)
        try:
            yield writer
        finally:
            writer.close()
        if not temporary.exists():
            raise DataError(f"there is no sample to write into {path}")

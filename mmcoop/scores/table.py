"""The scores file: its columns, and how they are written as Parquet.

`docs/reference/scores.md` describes the file; `reading/scores.py` reads its details.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow.types import (
    is_dictionary,
    is_floating,
    is_integer,
    is_large_list,
    is_large_string,
    is_list,
    is_null,
    is_string,
    is_struct,
)
from torch import Tensor

from mmcoop.core.games.coalitions import coalition_names
from mmcoop.core.games.shapley import contributions_of
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import DataError, UsageError
from mmcoop.files import atomic_write
from mmcoop.reading.scores import METADATA_KEY
from mmcoop.versions import versions

#: The columns of the empty coalition's value and of tied classes.
BASE, TIES = "base_value", "ties"

#: Rows per row group; the last one may be smaller.
ROW_GROUP = 8192

# Bytes of a float64 converted from float32 that compression cannot remove.
_NUMBER = 4


def scores_table(
    modalities: tuple[str, ...],
    split: str | None,
    batch: ValuedBatch,
    extra: Mapping[str, Tensor] | None = None,
) -> pa.Table:
    """Convert a valued batch to table rows.

    Args:
        modalities: Names of the modalities, in the order of the batch's columns.
        split: The split of the samples, or None.
        batch: The batch, which must have ids.
        extra: Additional columns by name, float64 `(batch,)`.

    Returns:
        One row per sample.
    """
    names = coalition_names(modalities, batch.coalitions)
    columns = {
        **_about(batch.ids, split, batch.groups),
        **_answers(len(batch), batch.labels, batch.predictions, batch.correct),
    }
    for kind, numbers in (("contribution", batch.contributions), ("stderr", batch.stderr)):
        if numbers is not None:
            columns |= _by_name(kind, modalities, numbers)
    if batch.draws is not None:
        columns["draws"] = _column(batch.draws)
    columns |= _values(names, batch.values)
    if batch.choices is not None:
        columns |= _correctness(names, batch, batch.choices)
    columns |= {name: _column(column) for name, column in (extra or {}).items()}
    return pa.table(columns)


def values_table(
    modalities: tuple[str, ...],
    ids: Sequence[str],
    values: Tensor,
    labels: Tensor | None = None,
    predictions: Tensor | None = None,
) -> pa.Table:
    """Convert the values of all coalitions to table rows.

    Args:
        modalities: Names of the n modalities.
        ids: Sample ids.
        values: float64 `(samples, 2**n)`, in table order.
        labels: Labels, `(samples, …)`.
        predictions: Predictions from all modalities, like `labels`.

    Returns:
        One row per sample.
    """
    columns = {
        **_about(ids, None, None),
        **_answers(len(ids), labels, predictions, None),
        **_by_name("contribution", modalities, contributions_of(values, len(modalities))),
        **_values(coalition_names(modalities), values),
    }
    return pa.table(columns)


def _about(ids: Sequence[str], split: str | None, groups: Sequence[str] | None) -> dict[str, Any]:
    return {
        "id": pa.array(ids, pa.string()),
        "split": pa.array([split] * len(ids), pa.string()),
        **({} if groups is None else {"group": pa.array(groups, pa.string())}),
    }


def _answers(
    rows: int, labels: Tensor | None, predictions: Tensor | None, right: Tensor | None
) -> dict[str, Any]:
    """The columns `label`, `prediction` and `correct`. The last is null for ties that include the
    label, and for multi-label tasks and regression.
    """
    if right is None and labels is not None and predictions is not None:
        classes = labels.dtype == torch.int64 and labels.dim() == 1
        right = labels.eq(predictions).double() if classes else None
    if right is None:
        correct = pa.nulls(rows, pa.bool_())
    else:
        undecided = ((right > 0) & (right < 1)).numpy()
        correct = pa.array((right == 1).numpy(), mask=undecided if undecided.any() else None)
    nothing = pa.nulls(rows, pa.int64())
    return {
        "label": nothing if labels is None else _column(labels),
        "prediction": nothing if predictions is None else _column(predictions),
        "correct": correct,
    }


def _values(names: Sequence[str], values: Tensor) -> dict[str, Any]:
    columns = (f"value_{name}" if name else BASE for name in names)
    return {name: _column(values[:, k]) for k, name in enumerate(columns)}


def _correctness(names: Sequence[str], batch: ValuedBatch, choices: Tensor) -> dict[str, Any]:
    """Correctness and prediction of each coalition, and tied classes.

    The prediction of the grand coalition, the last one, is in the column `prediction` instead.
    """
    hits, nothing = batch.hits, pa.nulls(len(batch), pa.float64())
    columns = {
        f"correct_{name}": nothing if hits is None else _column(hits[:, k])
        for k, name in enumerate(names)
        if name
    }
    for k, name in enumerate(names[:-1]):
        if name:
            columns[f"prediction_{name}"] = _column(choices[:, k])
    return {**columns, TIES: _ties(names, batch)}


_TIE = pa.struct([("coalition", pa.string()), ("class", pa.int64())])
# `element` is what Parquet calls list items, so the column has the same type when read back
_TIE_LIST = pa.list_(pa.field("element", _TIE))


def _ties(names: Sequence[str], batch: ValuedBatch) -> pa.Array:
    """A list of `{coalition, class}` per sample; null without ties."""
    if batch.ties is None:
        return pa.nulls(len(batch), _TIE_LIST)
    sample, coalition, tied = batch.ties[batch.ties[:, 0].argsort(stable=True)].unbind(1)
    items = pa.StructArray.from_arrays(
        [pa.array([names[k] for k in coalition.tolist()], pa.string()), pa.array(tied.numpy())],
        fields=list(_TIE),
    )
    counts = torch.bincount(sample, minlength=len(batch)).numpy()
    ends = np.concatenate([[0], counts.cumsum()])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), items, type=_TIE_LIST, mask=pa.array(counts == 0)
    )


def _by_name(kind: str, modalities: Sequence[str], numbers: Tensor) -> dict[str, Any]:
    return {f"{kind}_{m}": _column(numbers[:, k]) for k, m in enumerate(modalities)}


def _column(numbers: Tensor) -> pa.Array:
    """A column of numbers, or of lists if there are several numbers per row."""
    if numbers.dim() > 1:
        return pa.array(numbers.flatten(1).tolist(), pa.list_(_column(numbers[:0, ..., 0]).type))
    return pa.array(np.ascontiguousarray(numbers.numpy()))


@dataclass(frozen=True)
class TableLayout:
    """Which columns a scores table has.

    Attributes:
        modalities: Names of the modalities, in order.
        coalitions: Names of the coalitions with a value column: the empty one, "", first, the
            grand one last.
        drawn: Whether coalitions were sampled, so that contributions have standard errors.
        classes: Whether there are columns for the correctness and prediction of every coalition.
        grouped: Whether samples have groups.
        extra: Names of the additional columns.
    """

    modalities: tuple[str, ...]
    coalitions: tuple[str, ...]
    drawn: bool
    classes: bool
    grouped: bool
    extra: tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema, modalities: tuple[str, ...]) -> "TableLayout":
        """Derive the layout from a table's columns.

        Args:
            schema: The columns.
            modalities: Names of the modalities, in order.

        Raises:
            DataError: A required column is missing.
        """
        present = dict.fromkeys(schema.names)
        coalitions = ("", *(n.removeprefix("value_") for n in present if n.startswith("value_")))
        usual = ["id", "split", "group", "label", "prediction", "correct", "draws", BASE, TIES]
        usual += [f"{kind}_{m}" for kind in ("contribution", "stderr") for m in modalities]
        usual += [
            f"{kind}_{name}" for kind in ("value", "correct", "prediction") for name in coalitions
        ]
        for name in ("id", *(f"contribution_{m}" for m in modalities)):
            if name not in present:
                raise DataError(f"it has no column {name!r}")
        _check_kinds(schema)
        return cls(
            modalities=modalities,
            coalitions=coalitions,
            drawn=all(f"stderr_{m}" in present for m in modalities),
            classes=TIES in present,
            grouped="group" in present,
            extra=tuple(name for name in present if name not in {*usual}),
        )

    @property
    def members(self) -> Tensor:
        """Which modalities are in each of the `coalitions`, bool `(k, n)`.

        Raises:
            DataError: A coalition contains an unknown modality.
        """
        for name in self.coalitions:
            if name and not {*name.split("+")} <= {*self.modalities}:
                raise DataError(f"it has values of {name!r}, which are no modalities of it")
        return torch.tensor(
            [[m in name.split("+") for m in self.modalities] for name in self.coalitions]
        )

    @property
    def value_columns(self) -> list[str]:
        """Names of the columns that hold the values of the `coalitions`."""
        return [f"value_{name}" if name else BASE for name in self.coalitions]


def _check_kinds(schema: pa.Schema) -> None:
    """Raise `DataError` for a column of names or of ties that holds something else."""
    for name in ("split", "group"):
        if name in schema.names and not _is_text(schema.field(name).type):
            raise DataError(f"{name} has no text")
    if TIES in schema.names:
        kind = schema.field(TIES).type
        items = kind.value_type if is_list(kind) or is_large_list(kind) else None
        fields = {f.name: f.type for f in items} if items is not None and is_struct(items) else {}
        of_ties = _is_text(fields.get("coalition")) and is_integer(fields.get("class", pa.null()))
        if not (is_null(kind) or of_ties):
            raise DataError(f"{TIES} does not hold coalitions and classes")


def _is_text(kind: pa.DataType | None) -> bool:
    """Whether a column of this type can hold names; one that is all null has a type of its own."""
    if kind is None:
        return False
    plain = kind.value_type if is_dictionary(kind) else kind
    return bool(is_string(plain) or is_large_string(plain) or is_null(plain))


def numbers(table: pa.Table, columns: Sequence[str]) -> Tensor:
    """Columns of a table as a tensor.

    Args:
        table: The table.
        columns: Names of columns of numbers.

    Returns:
        float64 `(rows, len(columns))`; NaN for nulls.

    Raises:
        DataError: A column is missing or does not hold numbers.
    """
    found = torch.empty(len(columns), len(table), dtype=torch.float64)
    for k, name in enumerate(columns):
        if name not in table.column_names:
            raise DataError(f"it has no column {name!r}")
        column = table[name]
        if not (is_floating(column.type) or is_integer(column.type)):
            raise DataError(f"{name} has no numbers")
        found[k] = torch.from_numpy(column.to_numpy().astype(np.float64))
    return found.T


def least_bytes(names: pa.Table, numbers: int) -> int:
    """Lower bound of the size of a scores file.

    Args:
        names: The text columns (ids, groups) of all rows.
        numbers: Numbers per row that differ between samples.

    Returns:
        The size in bytes, extrapolated from the first row group.
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
    """How scores were computed, for the details of their file.

    Args:
        how: How samples are valued.
        n_modalities: Number of modalities.
        absent: Name of the imputer.

    Returns:
        Entries for JSON, with the versions of the libraries.
    """
    return {**how.details(n_modalities), "absent": absent, "versions": versions()}


class ScoresWriter:
    """Writes valued batches as row groups while they arrive."""

    def __init__(self, path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
        self._path = path
        self._modalities = modalities
        content = {"format": "mmcoop scores", "modalities": list(modalities), **details}
        self._metadata = {METADATA_KEY: json.dumps(content, sort_keys=True)}
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def append(self, split: str, batch: ValuedBatch) -> None:
        """Append the samples of one batch, which must have ids."""
        self.write(scores_table(self._modalities, split, batch))

    def write(self, table: pa.Table) -> None:
        """Append rows, which must have the same columns in every call."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def close(self) -> None:
        """Write pending rows and the file's footer."""
        self._flush(1)
        if self._writer is not None:
            self._writer.close()

    def _flush(self, least: int) -> None:
        """Write row groups while at least `least` rows are pending.

        The bytes written do not depend on how the rows were batched.
        """
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
    """Raise `UsageError` if the file name has the extension of another format."""
    if path.suffix.lower() not in (".parquet", ""):
        raise UsageError(
            f"{path}: scores are a Parquet file, name it {path.with_suffix('.parquet').name} "
            "(pandas.read_parquet reads it, and its to_csv writes it as CSV)"
        )


@contextmanager
def scores_file(
    path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]
) -> Iterator[ScoresWriter]:
    """Write a scores file; it appears, complete, when the block ends without an error.

    Args:
        path: The scores file.
        modalities: Names of the modalities, in column order.
        details: How the scores were computed.

    Raises:
        DataError: Nothing was written.
    """
    with atomic_write(path) as temporary:
        writer = ScoresWriter(temporary, modalities, details)
        try:
            yield writer
        finally:
            writer.close()
        if not temporary.exists():
            raise DataError(f"there is no sample to write into {path}")

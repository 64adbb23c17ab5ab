"""Parquet files: columns of text and numbers, and the index that pandas stores with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from mmcoop.datasets.csv_files import NAMELESS
from mmcoop.datasets.precision import check_float64
from mmcoop.errors import DataError
from mmcoop.names import normalised
from mmcoop.reading.arrow_tables import read_parquet
from mmcoop.reading.json_files import AS_WRITTEN, checked, parse_json


def _not_zero(step: int) -> int:
    if not step:
        raise ValueError("an index cannot have steps of 0")
    return step


_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]


@with_config(AS_WRITTEN)
class _CountedIndex(TypedDict):
    """A range index, as pandas describes it."""

    name: str | None
    start: _Whole
    stop: _Whole
    step: Annotated[_Whole, AfterValidator(_not_zero)]


@with_config(AS_WRITTEN)
class PandasMetadata(TypedDict):
    """The part of pandas' metadata in a Parquet file that is used here."""

    index_columns: NotRequired[list[str | _CountedIndex]]


@dataclass(frozen=True)
class ParquetFile:
    """The content of a Parquet file.

    Attributes:
        path: The file.
        names: Normalised names of the columns, in order.
        columns: The columns.
        levels: The cells of the index that pandas stored, by level name; "" for a nameless level.
        rows: Number of rows.
        index_columns: The first column, if it is nameless: an index that went through a CSV file.
    """

    path: Path
    names: Sequence[str]
    columns: Sequence[pa.ChunkedArray]
    levels: Mapping[str, pd.Series]
    rows: int
    index_columns: tuple[int, ...]

    def cells(self, columns: Sequence[int]) -> list[pd.Series]:
        """The cells of some columns as Python objects; missing ones are null."""
        return [_cells(self.columns[i]) for i in columns]

    def typed(self, i: int) -> pd.Series:
        """The cells of a column."""
        return _cells(self.columns[i])

    def numbers(self, i: int) -> np.ndarray | None:
        """Read a column of numbers, or of equally long lists of numbers.

        Args:
            i: Position of the column.

        Returns:
            float32 or float64, `(rows, 1)`, or `(rows, k)` for lists of k numbers; NaN for missing
            cells. None if the column is neither.

        Raises:
            DataError: Lists differ in length, or float64 cannot resolve the differences between
                the numbers.
        """
        column = self.columns[i]
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if isinstance(column.type, pa.FixedShapeTensorType) and len(column.type.shape) == 1:
            column = column.cast(column.type.storage_type)
        lists = _is_list(column.type)
        item = column.type.value_type if lists else column.type
        if not (
            _is_real(item)
            or types.is_boolean(item)
            or types.is_decimal(item)
            or types.is_null(item)
        ):
            return None
        where = f"the column {self.names[i]!r} of {self.path}"
        array = column.combine_chunks()
        length = 1
        if lists:
            lengths = pc.unique(pc.list_value_length(array).drop_null()).to_pylist()
            if len(lengths) != 1 or not lengths[0]:
                raise DataError(
                    f"{where} has lists of {' and '.join(map(str, sorted(lengths)[:2]))} numbers: "
                    "every row must have as many, and at least one"
                )
            length = lengths[0]
        present = array.is_valid().to_numpy(zero_copy_only=False)
        found = np.full((self.rows, length), np.nan, _float_type(item))
        values = array.drop_null().flatten() if lists else array.drop_null()
        numbers = _floats(values, where)
        found[present] = numbers.reshape(-1, length)
        return found


def open_parquet(path: Path) -> ParquetFile:
    """Read a Parquet file.

    Raises:
        DataError: The file cannot be read, or its index is not one that pandas writes.
    """
    table = read_parquet(path)
    metadata = (table.schema.metadata or {}).get(b"pandas", b"{}")
    try:
        about = checked(parse_json(metadata, "its text"), PandasMetadata, "its text")
    except DataError as error:
        raise DataError(f"{path} has an index that pandas does not write: {error}") from None
    described = about.get("index_columns", [])
    levels = _levels(table, described)
    kept = [k for k, name in enumerate(table.column_names) if name not in described]
    names = [normalised(table.column_names[k]) for k in kept]
    index = (0,) if names and names[0] in NAMELESS else ()
    if index:
        # in addition to the range index, which every table has
        levels["" if "__index_level_0__" not in described else names[0]] = _cells(
            table.column(kept[0])
        )
    return ParquetFile(path, names, [table.column(k) for k in kept], levels, len(table), index)


def _levels(table: pa.Table, described: Sequence[Any]) -> dict[str, pd.Series]:
    """The index of a table by level name, as pandas' metadata describe it."""
    levels: dict[str, pd.Series] = {}
    for level in described:
        if isinstance(level, dict):
            counted = range(level["start"], level["stop"], level["step"])
            # stale if another program added or removed rows: ignored then
            if len(counted) == len(table):
                levels[normalised(level["name"] or "")] = pd.Series(counted)
        elif level in table.column_names:
            # pandas' name for a nameless level
            name = "" if level == "__index_level_0__" else normalised(level)
            levels[name] = _cells(table[level])
    return levels


def _cells(column: pa.ChunkedArray) -> pd.Series:
    # integers stay integers even if some are missing
    return pd.Series(column.to_pandas(integer_object_nulls=True), dtype=object)


def _floats(array: pa.Array, where: str) -> np.ndarray:
    """Numbers as float64; `DataError` if it cannot resolve the differences between them."""
    floats: np.ndarray = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if types.is_integer(array.type) or types.is_decimal(array.type):
        check_float64(floats, lambda: array.drop_null().to_pylist(), where)
    return floats


def _is_real(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _float_type(kind: pa.DataType) -> type[np.floating]:
    """float32 if it represents all numbers of a type exactly, else float64."""
    narrow = types.is_boolean(kind) or (_is_real(kind) and kind.bit_width <= 16)
    return np.float32 if narrow or types.is_float32(kind) else np.float64

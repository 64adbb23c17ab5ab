"""Arrow and Parquet files, validated before any value is used."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmcoop.errors import DataError, said

# A table may have this many cells, or this many per byte of its file: compression lets a few bytes
# state any number of equal cells.
_CELLS = 2**24
_CELLS_A_BYTE = 64

# Limits for the metadata of a Parquet file; Arrow's own are about a hundred times these.
_LONGEST_TEXT = 64 * 2**20
_MOST_ITEMS = 2**20


def read_parquet(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    schema: pa.Schema | None = None,
    what: str = "",
) -> pa.Table:
    """Read a Parquet file.

    Args:
        path: The file.
        columns: Names of the columns to read; None for all.
        schema: The exact columns and types that the file must have; None for any.
        what: What the file should be, for messages.

    Returns:
        The table, validated: offsets are within their buffers, and text is UTF-8.

    Raises:
        DataError: The file is missing, damaged, states more cells than its size allows, or has
            other columns.
    """
    with opened_parquet(path, what) as file:
        found = file.schema_arrow
        if schema is not None and not found.remove_metadata().equals(schema):
            raise DataError(f"{path} is not {what}: its columns are not {', '.join(schema.names)}")
        _check_columns(found, columns or (), path)
        table = file.read(columns=None if columns is None else list(columns))
        if len(table) != file.metadata.num_rows:
            raise DataError(f"{path} is damaged: it states {file.metadata.num_rows} rows")
    _validate(table, path)
    return table


def stream_parquet(
    path: Path, rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, `rows` at a time, validated as by `read_parquet`.

    Args:
        path: The file.
        rows: The most rows per table.
        columns: Names of the columns to read; None for all.

    Raises:
        DataError: As `read_parquet`.
    """
    with opened_parquet(path) as file:
        _check_columns(file.schema_arrow, columns or (), path)
        chosen = None if columns is None else list(columns)
        found = 0
        for batch in file.iter_batches(rows, columns=chosen):
            table = pa.Table.from_batches([batch])
            _validate(table, path)
            found += len(table)
            yield table
        if found != file.metadata.num_rows:
            raise DataError(f"{path} is damaged: {found} of its {file.metadata.num_rows} rows")


def to_frame(table: pa.Table, path: Path) -> pd.DataFrame:
    """Convert a table to pandas, ignoring an index described in its metadata.

    Args:
        table: The table.
        path: Its file, for messages.

    Raises:
        DataError: Two columns have the same name, or pandas cannot represent a value.
    """
    if len({*table.column_names}) != table.num_columns:
        raise DataError(f"{path} is damaged: two columns have the same name")
    with _damage_named(path, ""):
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    return frame


@contextmanager
def opened_parquet(path: Path, what: str = "") -> Iterator[pq.ParquetFile]:
    """Open a Parquet file after checking the sizes it states.

    Errors in the block become a `DataError` that names the file.

    Args:
        path: The file.
        what: What the file should be, for messages.
    """
    with _damage_named(path, what):
        size = path.stat().st_size
        with pq.ParquetFile(
            path,
            page_checksum_verification=True,
            thrift_string_size_limit=_LONGEST_TEXT,
            thrift_container_size_limit=_MOST_ITEMS,
        ) as file:
            about = file.metadata
            check_cells(path, about.num_rows, about.num_columns, size)
            for k in range(about.num_row_groups):
                group = about.row_group(k)
                check_cells(path, group.num_rows, group.num_columns, size)
            yield file


def parquet_schema(path: Path, what: str = "") -> pa.Schema:
    """Read the schema of a Parquet file, with its metadata.

    Raises:
        DataError: It is not a Parquet file.
    """
    with opened_parquet(path, what) as file:
        return file.schema_arrow


def check_cells(path: Path, rows: int, columns: int, size: int) -> None:
    """Raise `DataError` for a table with far more cells than the `size` of its file allows."""
    if rows < 0 or rows * max(columns, 1) > max(_CELLS, _CELLS_A_BYTE * size):
        raise DataError(
            f"{path} states {rows:,} rows of {columns:,} columns, too many for its {size:,} bytes"
        )


def read_shard(path: Path, content: mmap.mmap, schema: pa.Schema, rows: int) -> pa.Table:
    """Read a memory-mapped Arrow file without copying it.

    Args:
        path: The file, for messages.
        content: Its bytes.
        schema: The columns that it must have.
        rows: The number of rows that it must have.

    Raises:
        DataError: The file is damaged, or has other columns or another number of rows.
    """
    with _damage_named(path, "an Arrow file"):
        reader = pa.ipc.open_file(pa.py_buffer(content))
        if not reader.schema.equals(schema):
            raise DataError(f"{path} does not hold the columns that dataset.json states")
        table = reader.read_all()
        _validate(table, path)
    if len(table) != rows:
        raise DataError(f"{path} has {len(table):,} rows: dataset.json states {rows:,}")
    return table


def read_batches(path: Path, content: pa.Buffer, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Read the record batches of an Arrow stream in memory, without copying it.

    Args:
        path: The file, for messages.
        content: Its bytes.
        schema: The columns that it must have.

    Raises:
        DataError: The stream is damaged or has other columns.
    """
    with _damage_named(path, "an Arrow stream"):
        reader = pa.ipc.open_stream(pa.BufferReader(content))
        if not reader.schema.equals(schema):
            raise DataError(f"{path} has other columns than what is being built")
        batches = list(reader)
        if batches:
            table = pa.Table.from_batches(batches)
            _validate(table, path)
            check_no_nulls(table, ("id", "label", "group"), path)
    return batches


def check_no_nulls(table: pa.Table, columns: Iterable[str], path: Path) -> None:
    """Raise `DataError` if any of the columns has missing values."""
    for name in columns:
        column = table[name]
        items = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        if column.null_count or (items and any(c.values.null_count for c in column.chunks)):
            raise DataError(f"{path} is damaged: values are missing in the column {name!r}")


def check_names(table: pa.Table, columns: Iterable[str], path: Path) -> None:
    """Raise `DataError` if any of the columns does not hold a name in every row."""
    for name in columns:
        kind = table[name].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{path} is damaged: the column {name!r} has no text")
    check_no_nulls(table, columns, path)


def _check_columns(found: pa.Schema, columns: Iterable[str], path: Path) -> None:
    for name in columns:
        if found.names.count(name) != 1:
            raise DataError(f"{path} has {found.names.count(name)} columns {name!r}")


def _validate(table: pa.Table, path: Path) -> None:
    with _damage_named(path, ""):
        table.validate(full=True)


@contextmanager
def _damage_named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        kind = f" as {what}" if what else ""
        raise DataError(f"{path} cannot be read{kind}: {said(error)}") from None

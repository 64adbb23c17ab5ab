"""Arrow and Parquet files, validated before a value of them is used."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmcoop.errors import DataError, said

# A table may have this many cells, and more where its file is large: a few bytes can state any
# number of equal ones.
_CELLS = 2**24
_CELLS_A_BYTE = 64

# Of the description of a Parquet file; Arrow's own limits are a hundred times these.
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
        columns: Those to read, which must be there; all for None.
        schema: The columns that the file must have, with these types and no others.
        what: What the file should be, for messages.

    Returns:
        The table: every offset is inside its buffer and text is UTF-8.

    Raises:
        DataError: It is missing, damaged, states more cells than fit its size, or has other
            columns.
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
    """The rows of a Parquet file, `rows` at a time, validated as by `read_parquet`."""
    with opened_parquet(path) as file:
        _check_columns(file.schema_arrow, columns or (), path)
        chosen = None if columns is None else list(columns)
        for batch in file.iter_batches(rows, columns=chosen):
            table = pa.Table.from_batches([batch])
            _validate(table, path)
            yield table


def to_frame(table: pa.Table, path: Path) -> pd.DataFrame:
    """A table as pandas has it, without an index that its metadata may describe.

    Raises `DataError` where two columns have one name, or pandas cannot hold a value.
    """
    if len({*table.column_names}) != table.num_columns:
        raise DataError(f"{path} is damaged: two columns have the same name")
    with _damage_named(path, ""):
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    return frame


@contextmanager
def opened_parquet(path: Path, what: str = "") -> Iterator[pq.ParquetFile]:
    """A Parquet file, opened, the sizes that it states checked; what goes wrong in the block is a
    `DataError` that names the file.
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
    """The columns of a Parquet file and its metadata; `DataError` where it is none."""
    with opened_parquet(path, what) as file:
        return file.schema_arrow


def check_cells(path: Path, rows: int, columns: int, size: int) -> None:
    """Raise `DataError` for a table that would need far more memory than its file's `size`."""
    if rows < 0 or rows * max(columns, 1) > max(_CELLS, _CELLS_A_BYTE * size):
        raise DataError(
            f"{path} states {rows:,} rows of {columns:,} columns, too many for its {size:,} bytes"
        )


def read_shard(path: Path, content: mmap.mmap, schema: pa.Schema, rows: int) -> pa.Table:
    """An Arrow file in mapped memory, without a copy.

    Args:
        path: The file, for messages.
        content: Its bytes.
        schema: The columns that it must have.
        rows: How many rows it must have.

    Raises:
        DataError: It is damaged, or has other columns or another number of rows.
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
    """The record batches of an Arrow stream in memory, without a copy.

    Args:
        path: The file, for messages.
        content: Its bytes.
        schema: The columns that it must have.

    Raises:
        DataError: It is damaged or has other columns.
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
    """Raise `DataError` for a column in which a value is missing."""
    for name in columns:
        column = table[name]
        items = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        if column.null_count or (items and any(c.values.null_count for c in column.chunks)):
            raise DataError(f"{path} is damaged: values are missing in the column {name!r}")


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

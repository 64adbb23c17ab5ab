"""Arrow and Parquet files: read as pyarrow and pandas read them, damage refused in one line."""

import mmap

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.errors import DataError
from mmcoop.reading.arrow_tables import (
    check_cells,
    check_no_nulls,
    parquet_schema,
    read_batches,
    read_parquet,
    read_shard,
    to_frame,
)

TABLE = pa.table(
    {
        "id": ["a", "ä", ""],
        "n": pa.array([1, None, 3], pa.int64()),
        "x": [0.5, float("inf"), -1.0],
        "v": pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.float32()), 2),
    }
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(TABLE, path, write_page_checksum=True, **plain)
    return path


def refused(message: str):
    return pytest.raises(DataError, match=message)


@pytest.mark.parametrize("columns", [None, ["x"], ["n", "id"]])
def test_a_parquet_file_is_read_as_pyarrow_reads_it(file, columns):
    found = read_parquet(file, columns)
    assert found.equals(pq.read_table(file, columns=columns))
    assert parquet_schema(file).names == TABLE.column_names
    frame, expected = to_frame(found, file), pd.read_parquet(file, columns=columns)
    for name in columns or ["id", "n", "x"]:
        pd.testing.assert_series_equal(frame[name], expected[name])
    if columns is None:
        assert np.array_equal(np.stack(frame["v"]), np.stack(expected["v"]))


def test_an_index_in_the_metadata_of_pandas_is_a_column(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="id")).to_parquet(path)
    assert list(to_frame(read_parquet(path), path).columns) == ["x", "id"]


def test_columns_that_are_not_there_or_there_twice_are_refused(file, tmp_path):
    with refused(rf"^{file} has 0 columns 'y'$"):
        read_parquet(file, ["x", "y"])
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), twice)
    with refused(rf"^{twice} has 2 columns 'x'$"):
        read_parquet(twice, ["x"])
    with refused(rf"^{twice} is damaged: two columns have the same name$"):
        to_frame(read_parquet(twice), twice)


def test_a_file_of_other_columns_than_the_schema_is_refused(file):
    assert read_parquet(file, schema=TABLE.schema).equals(TABLE)
    schema = pa.schema([("id", pa.string()), ("reason", pa.string())])
    with refused(rf"^{file} is not a list of rejects: its columns are not id, reason$"):
        read_parquet(file, schema=schema, what="a list of rejects")


def test_a_file_that_is_missing_cut_off_or_changed_is_refused(file, tmp_path):
    with refused(rf"^{tmp_path / 'nothing'} is missing$"):
        read_parquet(tmp_path / "nothing")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with refused(rf"^{file} cannot be read as scores: "):
        read_parquet(file, what="scores")
    at = content.index(np.array([0.5, np.inf, -1.0]).tobytes())
    file.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with refused(rf"^{file} cannot be read: .*(CRC|checksum)"):
        read_parquet(file)


def test_a_table_of_far_more_cells_than_its_file_has_bytes_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    rows = 2**25
    pq.write_table(pa.table({"x": pa.nulls(rows, pa.null())}), path)
    with refused(rf"^{path} states 33,554,432 rows of 1 columns, too many for its [\d,]+ bytes$"):
        read_parquet(path)
    check_cells(path, 2**24, 1, 10)
    check_cells(path, 2**24 + 64, 1, 2**18 + 1)
    for stated in ((2**24 + 1, 1), (2**23 + 1, 2), (-1, 1)):
        with refused("states"):
            check_cells(path, *stated, 10)


@pytest.mark.parametrize(
    ("column", "missing"),
    [
        (pa.array([1, 2]), False),
        (pa.array([1, None]), True),
        (pa.array([[1], [2, 3]]), False),
        (pa.array([[1], [2, None]]), True),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.int64(), 2)), True),
        (pa.array([], pa.string()), False),
    ],
)
def test_missing_values_and_missing_items_of_lists_are_found(column, missing):
    table = pa.table({"c": column, "d": pa.nulls(len(column))})
    if missing:
        with refused("^a is damaged: values are missing in the column 'c'$"):
            check_no_nulls(table, ["c"], "a")
    else:
        check_no_nulls(table, ["c"], "a")


# --- shards, in mapped memory


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return path


def mapped(path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def test_a_shard_is_read_as_pyarrow_reads_it(shard):
    assert read_shard(shard, mapped(shard), TABLE.schema, 3).equals(
        pa.ipc.open_file(shard.read_bytes()).read_all()
    )


def test_a_shard_of_other_columns_or_rows_or_that_is_cut_off_is_refused(shard):
    with refused(rf"^{shard} does not hold the columns that dataset.json states$"):
        read_shard(shard, mapped(shard), TABLE.select(["id"]).schema, 3)
    with refused(rf"^{shard} has 3 rows: dataset.json states 4$"):
        read_shard(shard, mapped(shard), TABLE.schema, 4)
    shard.write_bytes(shard.read_bytes()[:-10])
    with refused(rf"^{shard} cannot be read as an Arrow file: "):
        read_shard(shard, mapped(shard), TABLE.schema, 3)


def test_text_that_is_not_utf8_is_refused(shard):
    content = shard.read_bytes()
    assert content.count("aä".encode()) == 1
    shard.write_bytes(content.replace("aä".encode(), b"a\xff\xff"))
    with refused(rf"^{shard} cannot be read: .*UTF8"):
        read_shard(shard, mapped(shard), TABLE.schema, 3)


SAMPLES = pa.record_batch({"id": ["a"], "label": [0], "group": ["g"]})


def stream(*batches: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SAMPLES.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def test_batches_of_a_stream_are_read_one_by_one():
    batches = [SAMPLES, SAMPLES.slice(0, 0), SAMPLES]
    assert read_batches("a", stream(*batches), SAMPLES.schema) == batches
    assert read_batches("a", stream(), SAMPLES.schema) == []


def test_a_stream_of_other_columns_with_missing_values_or_cut_off_is_refused():
    with refused("^a has other columns than what is being built$"):
        read_batches("a", stream(), TABLE.schema)
    empty = pa.record_batch([pa.nulls(1, f.type) for f in SAMPLES.schema], schema=SAMPLES.schema)
    with refused("^a is damaged: values are missing in the column 'id'$"):
        read_batches("a", stream(empty), SAMPLES.schema)
    whole = stream(SAMPLES)
    with refused("^a cannot be read as an Arrow stream: "):
        read_batches("a", whole.slice(0, whole.size - 60), SAMPLES.schema)

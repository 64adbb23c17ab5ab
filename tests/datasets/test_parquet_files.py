"""Columns of a Parquet file as numbers and text, and the index of pandas, against pandas."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.datasets.parquet_files import open_parquet
from mmcoop.errors import DataError

X = np.random.default_rng(0).normal(size=(6, 3))


def numbers(tmp_path, array):
    pq.write_table(pa.table({"x": array}), tmp_path / "a.parquet")
    return open_parquet(tmp_path / "a.parquet").numbers(0)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float64(), 3), pa.large_list(pa.float64())]
)
def test_a_column_of_lists_is_as_many_columns_of_numbers(tmp_path, kind):
    rows = X.tolist()
    rows[2], rows[4][1] = None, None
    expected = X.copy()
    expected[2], expected[4, 1] = np.nan, np.nan
    np.testing.assert_array_equal(numbers(tmp_path, pa.array(rows, kind)), expected)


def test_a_column_of_tensors_of_one_dimension_is_one_of_lists(tmp_path):
    found = numbers(tmp_path, pa.FixedShapeTensorArray.from_numpy_ndarray(X))
    np.testing.assert_array_equal(found, X)
    matrices = np.zeros((6, 2, 3))
    assert numbers(tmp_path, pa.FixedShapeTensorArray.from_numpy_ndarray(matrices)) is None


@pytest.mark.parametrize(
    ("array", "expected", "dtype"),
    [
        (pa.array([Decimal("1.25"), None]), [1.25, np.nan], np.float64),
        (pa.array([True, None, False]), [1, np.nan, 0], np.float32),
        (pa.array([1.5, 2], pa.float16()), [1.5, 2], np.float32),
        (pa.array([1.5, 2], pa.float32()), [1.5, 2], np.float32),
        (pa.array([1, None], pa.int16()), [1, np.nan], np.float32),
        (pa.array([2**53, None], pa.int64()), [2.0**53, np.nan], np.float64),
        (pa.nulls(2), [np.nan, np.nan], np.float64),
        (pa.array([2, 1, 2]).dictionary_encode(), [2, 1, 2], np.float64),
        (pa.chunked_array([[1.5], [2.5]]), [1.5, 2.5], np.float64),
    ],
)
def test_numbers_of_every_type_are_floats_that_hold_them(tmp_path, array, expected, dtype):
    found = numbers(tmp_path, array)
    np.testing.assert_array_equal(found[:, 0], expected)
    assert found.dtype == dtype


@pytest.mark.parametrize(
    "array",
    [
        ["a"],
        pa.array(["a"]).dictionary_encode(),
        [pd.Timestamp("2020-01-01")],
        [[[1.0]]],
        [["a"]],
        [{"a": 1}],
    ],
)
def test_what_is_no_number_is_none(tmp_path, array):
    assert numbers(tmp_path, array) is None


@pytest.mark.parametrize("rows", [[[1.0], [1.0, 2.0]], [[], []], [None]])
def test_lists_of_no_common_length_are_refused(tmp_path, rows):
    with pytest.raises(DataError, match=r"the column 'x' of .*a\.parquet has lists of"):
        numbers(tmp_path, pa.array(rows, pa.list_(pa.float64())))


def test_counts_beyond_float64_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'x' of .*a\.parquet has numbers so large"):
        numbers(tmp_path, pa.array([1_700_000_000_000_000_000 + k for k in range(9)]))


@pytest.mark.parametrize(
    ("index", "levels"),
    [
        (pd.RangeIndex(3), {"": [0, 1, 2]}),
        (pd.RangeIndex(6, 0, -2, name="k"), {"k": [6, 4, 2]}),
        (pd.Index([5, 2**62 + 1, 7]), {"": [5, 2**62 + 1, 7]}),
        (pd.Index(["a", "b", None], name=" id"), {"id": ["a", "b", None]}),
        (
            pd.MultiIndex.from_product([["a"], [3, 4, 5]]),
            {"": ["a"] * 3, "__index_level_1__": [3, 4, 5]},
        ),
    ],
)
def test_the_index_of_pandas_is_told_level_by_level(tmp_path, index, levels):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=index).to_parquet(path)
    file = open_parquet(path)
    assert {
        name: [None if pd.isna(x) else x for x in cells] for name, cells in file.levels.items()
    } == levels
    assert list(file.names) == ["x"]


def test_ids_that_are_large_numbers_keep_their_digits(tmp_path):
    ids = [2**62 + 1, None, 2**62 + 3]
    pq.write_table(pa.table({"id": ids}), tmp_path / "a.parquet")
    (cells,) = open_parquet(tmp_path / "a.parquet").cells([0])
    assert [None if pd.isna(x) else x for x in cells] == ids


@pytest.mark.parametrize(
    "level",
    [
        {"kind": "range", "name": None, "start": 0, "stop": 10**30, "step": 1},
        {"kind": "range", "name": None, "start": 0, "stop": 3, "step": 0},
        {"kind": "range", "name": 3, "start": 0, "stop": 1, "step": 1},
        {"kind": "range"},
    ],
)
def test_an_index_that_pandas_does_not_write_is_refused(tmp_path, level):
    about = {"pandas": json.dumps({"index_columns": [level]})}
    table = pa.table({"x": [1.0]}).replace_schema_metadata(about)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has an index that pandas does not write"):
        open_parquet(tmp_path / "a.parquet")

"""One file of features: its numbers and what it says of its rows, or why it cannot be read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.datasets.feature_files import Table, read_table
from mmcoop.errors import DataError

N = 60
LABELS = [("run", "sit", "walk")[i % 3] for i in range(N)]


def read(path: Path, label: str | None = None, id_column: str = "id") -> Table:
    """The file; one called labels has no features."""
    return read_table(path, label, id_column, only_labels=path.stem == "labels")


def refused(path: Path, message: str, label: str | None = None) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(path, label)
    assert "\n" not in str(error.value)


# Read


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_has_numbers_and_what_it_says_of_its_rows(tmp_path, kind):
    frame = pd.DataFrame(
        {
            "x": [1.5, np.nan],
            "label": [1.0, 2.0],
            "id": ["007", "NA"],
            "y": [3, 4],
            "split": ["Train", None],
            "group": ["ada", None],
        }
    )
    path = tmp_path / f"mag.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    found = read(path)
    assert found.path == path
    np.testing.assert_array_equal(found.values, [[1.5, 3], [np.nan, 4]])
    assert found.features == ["column x", "column y"]
    assert found.about.to_dict("list") == {
        "id": ["007", "NA"],
        "split": ["train", ""],
        "group": ["ada", ""],
        "label": ["1", "2"],
    }
    assert found.label == "column 'label', 2 of 6"


@pytest.mark.parametrize(
    ("label", "features", "labels", "where"),
    [
        (None, ["column a", "column b", "column c"], None, ""),
        ("a", ["column b", "column c"], ["1", "4"], "column 'a', 1 of 4"),
        ("last", ["column a", "column b"], ["3", "6"], "column 'c', 3 of 4"),
        ("id", ["column a", "column b", "column c"], ["s", "t"], "column 'id', 4 of 4"),
    ],
)
def test_the_label_is_in_the_column_that_is_named(tmp_path, label, features, labels, where):
    (tmp_path / "mag.csv").write_text("a,b,c,id\n1,2,3,s\n4,5,6,t\n")
    found = read(tmp_path / "mag.csv", label)
    assert found.features == features
    assert found.about.get("label", pd.Series(dtype=object)).tolist() == (labels or [])
    assert found.label == where


@pytest.mark.parametrize(("shape", "last"), [((6,), "feature 0"), ((6, 3), "feature 2")])
def test_an_array_is_mapped_with_its_features(tmp_path, shape, last):
    array = np.arange(np.prod(shape)).reshape(shape)
    np.save(tmp_path / "mag.npy", array)
    found = read(tmp_path / "mag.npy")
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.values, array.reshape(6, -1))
    assert (found.features[-1], found.label) == (last, "")
    assert found.about.shape == (6, 0)


def test_an_array_of_series_has_channels(tmp_path):
    np.save(tmp_path / "mag.npy", np.zeros((6, 5, 2)))
    assert read(tmp_path / "mag.npy").features == ["channel 0", "channel 1"]


def test_an_array_of_labels_has_nothing_else(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([3.0, 1.0]))
    found = read(tmp_path / "labels.npy")
    assert found.values.shape == (2, 0)
    assert found.about.to_dict("list") == {"label": ["3", "1"]}
    assert found.label == "the array"


@pytest.mark.parametrize("first", [0, 1])
def test_columns_may_be_numbered(tmp_path, first):
    numbers = pd.DataFrame(np.random.default_rng(1).normal(size=(N, 4)))
    path = tmp_path / "mag.csv"
    numbers.set_axis(range(first, first + 4), axis=1).to_csv(path, index=False)
    np.testing.assert_array_equal(read(path).values, numbers)


# Refused


@pytest.mark.parametrize("label", [None, "label"])
def test_a_column_of_words_is_refused_with_its_file_and_a_remedy(tmp_path, label):
    frame = pd.DataFrame({"x": range(N), "state": [None, *["1.5"] * 2, "on", *["1"] * 56]})
    frame.to_csv(tmp_path / "mag.csv", index=False)
    message = (
        r"the column 'state' of .*mag\.csv is not numeric, row 4 has 'on': take it out, or write "
        "it as numbers; if it is the label, give label state$"
    )
    refused(tmp_path / "mag.csv", message, label)


def test_a_column_of_times_is_refused(tmp_path):
    path, frame = tmp_path / "mag.parquet", pd.DataFrame({"x": range(N)})
    frame.assign(when=pd.Timestamp("2020-01-01")).to_parquet(path)
    refused(path, r"the column 'when' of .*mag\.parquet is not numeric, row 1 has '2020-01-01")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mag.csv", b"", r"mag\.csv cannot be read: No columns"),
        ("mag.csv", b"a,b\n1,2\n1,2,3\n", r"mag\.csv cannot be read: .*line 3, saw 3$"),
        ("mag.csv", b"a,b\n1,2,3\n", r"mag\.csv has rows of more cells than its first row has"),
        ("mag.csv", b"a,b\n", r"mag\.csv has no rows, or no column of numbers"),
        ("mag.csv", b"id\ns1\n", r"mag\.csv has no rows, or no column of numbers"),
        (
            "mag.csv",
            b",a,\n0,1,2\n",
            r"column 3 of .*mag\.csv has no name: name it, or take it out",
        ),
        ("mag.csv", b",\n0,1\n", r"column 2 of .*mag\.csv has no name"),
        ("mag.csv", b'""\n0\n', r"mag\.csv has no rows, or no column of numbers"),
        ("mag.csv", b"a, ,b\n0,1,2\n", r"column 2 of .*mag\.csv has no name"),
        ("mag.csv", b"id,a,id\n0,1,2\n", r"mag\.csv has 2 columns 'id': keep one$"),
        (
            "mag.csv",
            b"label,a,label\n0,1,2\n",
            r"mag\.csv has 2 columns 'label': keep one, or give label='last' if it is",
        ),
        ("mag.parquet", b"PAR1 and more", r"mag\.parquet cannot be read: "),
        ("mag.npy", b"", r"mag\.npy cannot be read: "),
        ("mag.npy", b"these are words", r"mag\.npy cannot be read: the magic string"),
        ("labels.npy", b"these are words", r"labels\.npy cannot be read: "),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("mag", np.zeros((N, 2, 3, 4)), r"mag\.npy has shape \(60, 2, 3, 4\) and dtype float64"),
        ("mag", np.float64(3), r"mag\.npy has shape \(\) and dtype float64: expected numbers"),
        ("mag", np.array(LABELS), r"mag\.npy has shape \(60,\) and dtype <U4: expected numbers"),
        ("mag", np.zeros((N, 3), complex), r"mag\.npy has shape \(60, 3\) and dtype complex128"),
        ("mag", np.array([None] * N), r"mag\.npy cannot be read: .*Python objects"),
        ("mag", np.zeros((N, 0)), r"mag\.npy has shape \(60, 0\): there is nothing in it"),
        ("labels", np.zeros((N, 2)), r"labels\.npy has shape \(60, 2\) and dtype .*a label a"),
        ("labels", np.zeros(N, complex), r"labels\.npy has shape \(60,\) and dtype complex128"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_its_name(tmp_path, name, array, message):
    np.save(tmp_path / f"{name}.npy", array)
    refused(tmp_path / f"{name}.npy", message)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "mag.csv").mkdir()
    refused(tmp_path / "mag.csv", r"mag\.csv cannot be read: ")


def test_a_parquet_file_of_a_kind_that_arrow_cannot_read_is_refused(tmp_path, monkeypatch):
    def opened(path: Path, **_: object) -> pq.ParquetFile:
        raise pa.ArrowNotImplementedError("no such codec")

    monkeypatch.setattr(pq, "ParquetFile", opened)
    (tmp_path / "mag.parquet").touch()
    refused(tmp_path / "mag.parquet", r"mag\.parquet cannot be read: no such codec$")


def test_an_array_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "mag.npy", np.zeros((N, 50)))
    (tmp_path / "mag.npy").write_bytes((tmp_path / "mag.npy").read_bytes()[:1000])
    refused(tmp_path / "mag.npy", r"mag\.npy cannot be read: ")


@pytest.mark.parametrize(
    "row", ["0.5,1.5,3", "0,0,5", "0,1,2,2.5", "5,6,7", "nan,1", "0.0", "1.0,2", "0,1,-1"]
)
def test_a_table_without_names_of_columns_is_refused(tmp_path, row):
    (tmp_path / "mag.csv").write_text(f"{row}\n{row}\n")
    refused(
        tmp_path / "mag.csv",
        r"mag\.csv begins with a row of numbers: put a row with the columns' names",
    )


# The index


def with_index(tmp_path: Path, kind: str, index: pd.Index, **columns: list) -> Path:
    frame = pd.DataFrame({"x": np.arange(float(len(index))), **columns}, index=index)
    path = tmp_path / f"mag.{kind}"
    frame.to_csv(path) if kind == "csv" else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("index", "ids", "indexed"),
    [
        (pd.RangeIndex(3), None, False),
        (pd.Index([0, 1, 2]), None, False),
        (pd.RangeIndex(1, 4), ["1", "2", "3"], True),
        (pd.Index([2, 0, 1]), ["2", "0", "1"], True),
        (pd.Index([5.0, 7.0, 9.0]), ["5", "7", "9"], True),
        (pd.Index(["cafe\u0301 ", "b", "c"]), ["caf\u00e9", "b", "c"], True),
    ],
)
def test_an_unnamed_index_is_the_ids_unless_it_only_counts(tmp_path, kind, index, ids, indexed):
    found = read(with_index(tmp_path, kind, index))
    assert found.features == ["column x"]
    assert (found.about["id"].tolist() if "id" in found.about else None) == ids
    assert (found.by_index, found.indexed) == (ids is not None, indexed)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_unnamed_index_beside_ids_is_passed_over(tmp_path, kind):
    found = read(with_index(tmp_path, kind, pd.Index([4, 9, 2]), id=["a", "b", "c"]))
    assert (found.about["id"].tolist(), found.features) == (["a", "b", "c"], ["column x"])
    assert not (found.by_index or found.indexed)


def test_levels_with_the_names_of_columns_are_used_as_these(tmp_path):
    index = pd.MultiIndex.from_arrays(
        [["a", "b"], ["x", "y"], ["k", "m"]], names=["id", "label", "group"]
    )
    found = read(with_index(tmp_path, "parquet", index))
    assert found.about.to_dict("list") == {
        "id": ["a", "b"],
        "label": ["x", "y"],
        "group": ["k", "m"],
    }
    assert (found.features, found.label, found.indexed) == (["column x"], "index 'label'", False)


def test_an_index_of_another_name_is_the_ids(tmp_path):
    found = read(with_index(tmp_path, "parquet", pd.Index(["a", "b"], name="trial")))
    assert (found.about["id"].tolist(), found.features) == (["a", "b"], ["column x"])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (pd.MultiIndex.from_product([["a"], [1, 2]]), "has an index of 2 levels .*: make one col"),
        (
            pd.Index([1.5, 2.5], name="time"),
            "has the index 'time' beside its ids: make it a column",
        ),
    ],
)
def test_an_index_that_may_mean_several_things_is_refused(tmp_path, index, message):
    ids = {"id": ["a", "b"]} if index.nlevels == 1 else {}
    refused(with_index(tmp_path, "parquet", index, **ids), message)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_pandas_calls_a_column_without_a_name_is_one(tmp_path, kind):
    path = tmp_path / f"mag.{kind}"
    for numbers, ids in (([7, 3], ["7", "3"]), ([0, 1], None)):
        frame = pd.DataFrame({"Unnamed: 0": numbers, "x": [1.0, 2.0]})
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        found = read(path)
        assert found.features == ["column x"]
        assert (found.about["id"].tolist() if "id" in found.about else None) == ids
    found = read(path, label="Unnamed: 0")
    assert (found.label, list(found.about)) == ("column 'Unnamed: 0', 1 of 2", ["label"])


def test_a_parquet_column_may_be_called_like_a_label(tmp_path):
    pd.DataFrame({"run": ["run", "sit"]}).to_parquet(tmp_path / "labels.parquet")
    assert read(tmp_path / "labels.parquet").about["label"].tolist() == ["run", "sit"]


# Names


def test_columns_are_found_however_their_names_are_spelt(tmp_path):
    (tmp_path / "mag.csv").write_text("\u00a0id\u200b,cafe\u0301,x\n a\u0301 ,1,2\n")
    found = read(tmp_path / "mag.csv", label="caf\u00e9 ")
    assert found.about.to_dict("list") == {"id": ["\u00e1"], "label": ["1"]}


def test_two_spellings_of_one_column_are_refused(tmp_path):
    (tmp_path / "mag.csv").write_text("caf\u00e9,cafe\u0301,x\n1,2,3\n")
    refused(tmp_path / "mag.csv", "has 2 columns 'caf\u00e9': keep one", label="cafe\u0301")


# Headers


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("labels", "run\nsit\nrun\n", None),
        ("labels", "s1,run\ns2,sit\ns3,run\n", "last"),
        ("mag", "0.5,1.5,run\n0.25,3,sit\n1,2,run\n", "last"),
    ],
)
def test_a_first_row_that_has_a_label_is_no_header(tmp_path, name, content, label):
    (tmp_path / f"{name}.csv").write_text(content)
    refused(tmp_path / f"{name}.csv", "has the label 'run' in its first row too", label)


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("labels", "1\n0\n1\n", None),
        ("labels", "0\n1\n0\n", "last"),
        ("labels", "1\n0.0\n1.0\n", None),
        ("labels", "1\n0\n1\nx\n", None),
        ("labels", "s1,1\ns2,0\ns3,1\n", "last"),
        ("labels", "7,1\n8,0\n7,1\n", "last"),
        ("mag", "0,1\n1,0\n0,1\n", None),
        ("mag", "0,1\n1,0\n0,1\n", "last"),
        ("mag", "1\n1\n2\n", None),
    ],
)
def test_a_first_row_that_may_be_names_or_data_is_refused(tmp_path, name, content, label):
    (tmp_path / f"{name}.csv").write_text(content)
    refused(
        tmp_path / f"{name}.csv",
        "(is the first row of .* one of names or of data|begins with a row of numbers).* put a row",
        label,
    )


@pytest.mark.parametrize(
    ("content", "label", "expected"),
    [
        ("0\n5\n6\n5\n", "last", ["5", "6", "5"]),  # the name is no label
        ("1\na\nb\n", None, ["a", "b"]),
        (",0\n0,1\n1,0\n2,0\n", "0", ["1", "0", "0"]),  # named
        ("0\n1\n0\n", "0", ["1", "0"]),
        ("label\n1\n0\n", None, ["1", "0"]),
        ("id,1\ns1,1\ns2,0\n", "last", ["1", "0"]),  # ids are found by name
    ],
)
def test_a_first_row_that_is_certainly_one_of_names_is_taken_for_it(
    tmp_path, content, label, expected
):
    (tmp_path / "labels.csv").write_text(content)
    assert read(tmp_path / "labels.csv", label).about["label"].tolist() == expected


def test_numbered_columns_of_whole_numbers_are_told_from_data(tmp_path):
    """The 3rd number is nowhere in its column."""
    (tmp_path / "mag.csv").write_text("0,1,2\n0,1,1\n1,0,0\n")
    assert read(tmp_path / "mag.csv").values.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_a_label_may_be_called_like_its_column_where_that_is_named(tmp_path):
    (tmp_path / "labels.csv").write_text("label\nlabel\nother\n")
    assert read(tmp_path / "labels.csv").about["label"].tolist() == ["label", "other"]


# Lists and counts


def test_a_column_of_lists_is_features(tmp_path):
    path, lists = tmp_path / "mag.parquet", np.arange(6.0).reshape(2, 3)
    pd.DataFrame({"x": [7.0, 8.0], "v": list(lists)}).to_parquet(path)
    found = read(path)
    np.testing.assert_array_equal(found.values, np.c_[[7, 8], lists])
    assert found.features == ["column x", "column v[0]", "column v[1]", "column v[2]"]


def test_what_is_no_number_is_refused_with_what_would_do(tmp_path):
    path = tmp_path / "mag.parquet"
    pd.DataFrame({"x": [1.0], "v": [[[1.0], [2.0]]]}).to_parquet(path)
    refused(path, "'v' .* is not numeric, .*: give arrays of more than one dimension a .npy file")
    pd.DataFrame({"x": [1.0], "v": pd.Series([None], dtype=str)}).to_parquet(path)
    refused(path, "'v' .* is not numeric, row 1 has ''")
    (tmp_path / "mag.csv").write_text("x y\n1 2\n")
    refused(tmp_path / "mag.csv", "the only column; cells are separated by commas, semicolons")


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_counts_beyond_float64_are_refused_with_their_place(tmp_path, kind):
    counts = 1_700_000_000_000_000_000 + np.arange(9)
    table = pd.DataFrame({"a": np.zeros(9), "t": counts})
    table.to_csv(tmp_path / "mag.csv", index=False)
    np.save(tmp_path / "mag.npy", table.to_numpy(np.int64))
    refused(tmp_path / f"mag.{kind}", r"('t' of .*mag\.csv|mag\.npy, feature 1,) has numbers so")

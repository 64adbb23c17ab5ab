"""One file of features: its numbers and what it says of its rows, or why it cannot be read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmcoop.datasets.tables import Table, read_table
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
    np.testing.assert_array_equal(found.values, np.array([[1.5, 3], [np.nan, 4]], np.float32))
    assert found.values.dtype == np.float32
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
    np.testing.assert_array_equal(read(path).values, numbers.astype(np.float32))


# Refused


@pytest.mark.parametrize("label", [None, "label"])
def test_a_column_of_words_is_refused_with_its_file_and_a_remedy(tmp_path, label):
    frame = pd.DataFrame({"x": range(N), "state": [None, *["1.5"] * 2, "on", *["1"] * 56]})
    frame.to_csv(tmp_path / "mag.csv", index=False)
    message = (
        r"the column 'state' of .*mag\.csv is not numeric, row 4 has 'on': take it out, or write "
        "it as numbers; if it is the label, give --label state$"
    )
    refused(tmp_path / "mag.csv", message, label)


def test_a_column_of_lists_or_times_is_refused(tmp_path):
    path, frame = tmp_path / "mag.parquet", pd.DataFrame({"x": range(N)})
    frame.assign(v=[[1.0, 2.0]] * N).to_parquet(path)
    refused(path, r"the column 'v' of .*mag\.parquet is not numeric, row 1 has '\[1. 2.\]'")
    frame.assign(when=pd.Timestamp("2020-01-01")).to_parquet(path)
    refused(path, r"the column 'when' of .*mag\.parquet is not numeric, row 1 has '2020-01-01")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mag.csv", b"", r"mag\.csv cannot be read: No columns"),
        ("mag.csv", b"a,b\n1,2\n1,2,3\n", r"mag\.csv cannot be read: .*line 3, saw 3$"),
        ("mag.csv", b"a,b\n\xff\xfe,2\n", r"mag\.csv cannot be read: "),
        ("mag.csv", b"a,b\n1,2,3\n", r"mag\.csv has rows of more cells than its first row has"),
        ("mag.csv", b"a,b\n", r"mag\.csv has no rows, or no column of numbers"),
        ("mag.csv", b"id\ns1\n", r"mag\.csv has no rows, or no column of numbers"),
        ("mag.csv", b",a\n0,1\n", r"column 1 of .*mag\.csv has no name: name it, or take it out"),
        ("mag.csv", b"a, ,b\n0,1,2\n", r"column 2 of .*mag\.csv has no name"),
        ("mag.csv", b"id,a,id\n0,1,2\n", r"mag\.csv has 2 columns 'id': keep one$"),
        (
            "mag.csv",
            b"label,a,label\n0,1,2\n",
            r"mag\.csv has 2 columns 'label': keep one, or give --label last if it is",
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
    def read_parquet(path: Path) -> pd.DataFrame:
        raise pa.ArrowNotImplementedError("no such codec")

    monkeypatch.setattr(pd, "read_parquet", read_parquet)
    (tmp_path / "mag.parquet").touch()
    refused(tmp_path / "mag.parquet", r"mag\.parquet cannot be read: no such codec$")


def test_an_array_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "mag.npy", np.zeros((N, 50)))
    (tmp_path / "mag.npy").write_bytes((tmp_path / "mag.npy").read_bytes()[:1000])
    refused(tmp_path / "mag.npy", r"mag\.npy cannot be read: ")


@pytest.mark.parametrize("row", ["0.5,1.5,3", "0,0,5", "0,1,2,2.5", "5,6,7", "nan,1"])
def test_a_table_without_names_of_columns_is_refused(tmp_path, row):
    (tmp_path / "mag.csv").write_text(f"{row}\n{row}\n")
    refused(
        tmp_path / "mag.csv",
        r"mag\.csv begins with a row of numbers: put a row with the columns' names",
    )

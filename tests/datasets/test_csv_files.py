"""A CSV file in any dialect is the table that was written, or is refused with what is unclear."""

import numpy as np
import pandas as pd
import pytest

from mmcoop.datasets.csv_files import open_csv
from mmcoop.errors import DataError

FRAME = pd.DataFrame(
    {
        "id": ["001", "NA", "c"],
        "naïve": [1.25, -0.5, 1234.0],
        "count": [1, 2, 3],
        "words": ["a, b", "c; d", 'e\t"f"|'],
    }
)


def columns(path):
    file = open_csv(path)
    return {name: file.numbers(i) for i, name in enumerate(file.names)}


@pytest.mark.parametrize(
    ("encoding", "line_end"),
    [
        ("utf-8", "\n"),
        ("utf-8-sig", "\r\n"),
        ("utf-16", "\n"),
        ("utf-16-le", "\r\n"),
        ("utf-16-be", "\n"),
    ],
)
@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (",", ","), (";", ","), ("\t", "."), ("|", ",")]
)
def test_every_dialect_gives_the_same_table(tmp_path, separator, encoding, decimal, line_end):
    path = tmp_path / "a.csv"
    how = {"sep": separator, "encoding": encoding, "decimal": decimal, "lineterminator": line_end}
    FRAME.to_csv(path, index=False, **how)
    file = open_csv(path)
    assert list(file.names) == list(FRAME)
    np.testing.assert_array_equal(file.numbers(1)[:, 0], FRAME["naïve"])
    np.testing.assert_array_equal(file.numbers(2)[:, 0], FRAME["count"])
    assert file.numbers(3) is None
    id, words = file.cells([0, 3])
    assert (id.tolist(), words.tolist()) == (FRAME["id"].tolist(), FRAME["words"].tolist())


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=^", "sep=,"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_first_line_may_name_the_separator(tmp_path, line, encoding):
    path, separator = tmp_path / "a.csv", line.strip('"')[-1]
    path.write_bytes(f"{line}\r\n{FRAME.to_csv(index=False, sep=separator)}".encode(encoding))
    file = open_csv(path)
    assert (list(file.names), file.header, file.rows) == (list(FRAME), 2, 3)


@pytest.mark.parametrize(
    ("content", "names", "rows"),
    [
        ("a\n1\n2\n", ["a"], 2),
        ("a;b\n", ["a", "b"], 0),
        ("a;b\n1,5;2,25\n", ["a", "b"], 1),
        ("a,b\n1;2,3\n4;5,6\n", ["a", "b"], 2),
        ('a,"b;c"\n1,2\n', ["a", "b;c"], 1),
        ("a,b,c\n1,2\n3,4,5\n", ["a", "b", "c"], 2),
        ("a;b\n\n1;2\n\n", ["a", "b"], 1),
        ('a;b\n"x\ny, z";2\n', ["a", "b"], 1),
        (" cafe\u0301 ,b\n1,2\n", ["caf\u00e9", "b"], 1),
    ],
)
def test_the_separator_is_the_one_that_makes_rows_even(tmp_path, content, names, rows):
    (tmp_path / "a.csv").write_text(content)
    file = open_csv(tmp_path / "a.csv")
    assert (list(file.names), file.rows) == (names, rows)


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["0,5", "1"], [0.5, 1]),
        (["0,132", "1,234"], [0.132, 1.234]),
        (["1234,567"], [1234.567]),
        (["-1,5e-3", "+,25", "NA"], [-1.5e-3, 0.25, np.nan]),
        (["1,2345", ""], [1.2345, np.nan]),
    ],
)
def test_decimal_commas_are_read_where_nothing_else_can_be_meant(tmp_path, cells, numbers):
    (tmp_path / "a.csv").write_text("id;x\n" + "".join(f"s;{cell}\n" for cell in cells))
    np.testing.assert_array_equal(columns(tmp_path / "a.csv")["x"][:, 0], numbers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x;y\n1,234;1\n12,500;2\n", "'x' of .*a.csv has '1,234': is the comma a decimal one, or"),
        ("x;y\n1,5;1.5\n2,5;2\n", "has '1,5' in the column 'x' and '1.5' in 'y': write decimal"),
        ("a,b;c\n1,2;3\n", "separated by commas or by semicolons"),
        ("a,b\n0,2,1\n1,4,1\n", "rows of more cells than its first row has names"),
        ("a\n1,5\n2,5\n", "rows of more cells than its first row has names"),
    ],
)
def test_what_may_be_meant_in_two_ways_is_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        columns(tmp_path / "a.csv")


def test_thousands_and_words_are_no_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("x;y;z\n1.234,5;1,234,567;0,5 m\n1,5;2;3\n")
    assert columns(tmp_path / "a.csv") == {"x": None, "y": None, "z": None}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_another_encoding_is_refused_with_the_one_to_use(tmp_path, encoding):
    FRAME.to_csv(tmp_path / "a.csv", encoding=encoding)
    with pytest.raises(DataError, match=r"a\.csv is neither UTF-8 text nor .*: save it as UTF-8"):
        open_csv(tmp_path / "a.csv")


def test_numbers_keep_all_their_digits(tmp_path):
    numbers = [1_700_000_000.123456, 0.1, 1e-300, 123456789012345678.0]
    (tmp_path / "a.csv").write_text("x\n" + "".join(f"{x!r}\n" for x in numbers))
    np.testing.assert_allclose(columns(tmp_path / "a.csv")["x"][:, 0], numbers, rtol=4e-16)

"""CSV files: detecting encoding, separator, header and decimal commas."""

import codecs
import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmcoop.datasets.precision import check_float64
from mmcoop.errors import DataError, said
from mmcoop.names import normalised
from mmcoop.reading.arrow_tables import check_cells

#: Supported separators, and what messages call them.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

#: Names of a nameless column: as written, and as written by pandas.
NAMELESS = ("", "Unnamed: 0")

# The separator is detected from this many records.
_RECORDS = 100

# Byte order marks. UTF-32 comes before UTF-16, because its little-endian mark starts with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# The first line by which Excel recognises the separator.
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE | re.DOTALL)

_WHOLE_NUMBER = re.compile(r"[+-]?\d+(?:[eE][+-]?\d+)?")
_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
# Ambiguous: 1,234 may be 1.234 or 1234.
_PERHAPS_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with known encoding and separator.

    Attributes:
        path: The file.
        encoding: Its encoding.
        separator: Its separator.
        names: Normalised names of the columns, in order; "" for a nameless one.
        header: The line number of the header, counted from 1.
    """

    path: Path
    encoding: str
    separator: str
    names: Sequence[str]
    header: int

    @property
    def index_columns(self) -> tuple[int, ...]:
        """The first column if it is nameless: pandas and R write a table's index there."""
        return (0,) if self.names[0] in NAMELESS else ()

    @property
    def levels(self) -> dict[str, pd.Series]:
        """The cells of the index, under the name ""; empty without an index."""
        return dict(zip([""], self.cells(self.index_columns), strict=False))

    @property
    def rows(self) -> int:
        """Number of rows below the header."""
        return len(self._table)

    def cells(self, columns: Sequence[int]) -> list[pd.Series]:
        """The cells of some columns as written, without parsing: a class may be called "None"."""
        order = sorted(set(columns))
        texts = self.texts(usecols=order) if order else pd.DataFrame()
        return [texts.iloc[:, order.index(i)] for i in columns]

    def typed(self, i: int) -> pd.Series:
        """The cells of a column: numbers if all cells are numbers, else text; NaN if missing."""
        return self._table.iloc[:, i]

    def numbers(self, i: int) -> np.ndarray | None:
        """Read a column of numbers.

        Args:
            i: Position of the column.

        Returns:
            float32 or float64 `(rows, 1)`, NaN for missing cells; None if it is not numeric.

        Raises:
            DataError: It is unclear whether commas are decimal commas, or float64 cannot resolve
                the differences between the numbers.
        """
        column = self._table.iloc[:, i]
        if i in self._decimal_commas:
            column = _texts(column).str.replace(",", ".", regex=False).astype(float)
            column = column.reindex(self._table.index)
        if not pd.api.types.is_numeric_dtype(column):
            return None
        if column.dtype.kind == "b":
            return column.to_numpy(np.float32)[:, None]
        floats = column.to_numpy(np.float64)[:, None]
        if column.dtype.kind in "iu":
            check_float64(floats, column.tolist, f"the column {self.names[i]!r} of {self.path}")
        return floats

    def texts(self, **how: Any) -> pd.DataFrame:
        """All cells as written; `how` is passed on to `pandas.read_csv`."""
        return self._read(dtype=str, na_filter=False, **how)

    @cached_property
    def _table(self) -> pd.DataFrame:
        """The parsed table: columns of numbers as numbers, others as text, missing cells NaN."""
        return self._read(low_memory=False)

    @cached_property
    def _decimal_commas(self) -> set[int]:
        """Positions of columns of numbers with decimal commas.

        Raises `DataError` if all commas may separate thousands, or if other columns have decimal
        points.
        """
        texts = {
            i: _texts(column)
            for i, (_, column) in enumerate(self._table.items())
            if not pd.api.types.is_numeric_dtype(column)
        }
        commas = {i: cells for i, cells in texts.items() if _has_decimal_commas(cells)}
        if not commas:
            return set()
        first = next(iter(commas))
        written = [cell for cells in commas.values() for cell in cells if "," in cell]
        if all(_PERHAPS_THOUSANDS.fullmatch(cell) for cell in written):
            raise DataError(
                f"the column {self.names[first]!r} of {self.path} has {written[0]!r}: is the comma "
                "a decimal one, or does it separate thousands? Write decimal points, and nothing "
                "between thousands"
            )
        floats = [i for i, kind in enumerate(self._table.dtypes) if kind.kind == "f"]
        for i, cells in zip(floats, self.cells(floats), strict=True):
            points = cells[cells.str.contains(".", regex=False)]
            if len(points):
                raise DataError(
                    f"{self.path} has {written[0]!r} in the column {self.names[first]!r} and "
                    f"{points.iloc[0]!r} in {self.names[i]!r}: write decimal points in both"
                )
        return set(commas)

    def _read(self, **how: Any) -> pd.DataFrame:
        with reading(self.path), warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                table: pd.DataFrame = pd.read_csv(
                    self.path,
                    sep=self.separator,
                    encoding=self.encoding,
                    skiprows=self.header - 1,
                    skipinitialspace=True,
                    index_col=False,  # else rows that are too long turn column 1 into an index
                    **how,
                )
            except pd.errors.ParserWarning:
                cells = SEPARATORS.get(self.separator, repr(self.separator))
                raise DataError(
                    f"{self.path} has rows of more cells than its first row has names: quote cells "
                    f"with {cells} in them, or name every column"
                ) from None
        return table


def open_csv(path: Path) -> CsvFile:
    """Detect the encoding, separator and header of a CSV file.

    The encoding follows from the byte order mark or, for UTF-16, from zero bytes, and is UTF-8
    otherwise. The separator is the one named by a first line such as `sep=;`, else the one that
    splits all rows into equally many cells.

    Args:
        path: The file.

    Returns:
        The file, not yet read.

    Raises:
        DataError: The file cannot be read, is in another encoding, or its separator is ambiguous.
    """
    with reading(path):
        encoding = _encoding(path)
        told, header = None, 1
        with path.open(encoding=encoding, newline="") as file:
            for header, line in enumerate(file, start=1):
                told = told or (_SEP_LINE.fullmatch(line) if header == 1 else None)
                if line.strip() and not (told and header == 1):
                    break
        separator = told[1] if told else _separator(path, encoding)
        first = pd.read_csv(
            path,
            sep=separator,
            encoding=encoding,
            skiprows=header - 1,
            header=None,
            nrows=1,
            dtype=str,
            na_filter=False,
            skipinitialspace=True,
        )
        # pandas fills every row up to the width of the first
        check_cells(path, _lines(path), first.shape[1], path.stat().st_size)
    return CsvFile(path, encoding, separator, [normalised(name) for name in first.iloc[0]], header)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(
            part.count(b"\n") + part.count(b"\r") for part in iter(lambda: file.read(2**20), b"")
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors in the block into `DataError`s that name the file."""
    try:
        yield
    except DataError:
        raise
    except UnicodeError:
        raise DataError(
            f"{path} is neither UTF-8 text nor UTF-16 with a byte order mark: save it as UTF-8 "
            '(spreadsheets call it "CSV UTF-8")'
        ) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {said(error).strip()}") from None


def is_number(text: str) -> bool:
    """Whether text is a number, with a decimal point or comma."""
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def decimal(text: str) -> float:
    """Parse a number with a decimal point or an unambiguous decimal comma.

    Raises:
        ValueError: The text is anything else.
    """
    comma = _COMMA_NUMBER.fullmatch(text) and not _PERHAPS_THOUSANDS.fullmatch(text)
    return float(text.replace(",", ".") if comma else text)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2**12)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    # in UTF-16 without a mark, one of the two bytes of most characters is zero
    for encoding, zeros, others in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if head[zeros::2].count(0) > len(head) / 4 and not head[others::2].count(0):
            return encoding
    return "utf-8"


def _separator(path: Path, encoding: str) -> str:
    """Detect the separator; `DataError` if it is ambiguous."""
    cells = {separator: _cells(path, encoding, separator) for separator in SEPARATORS}
    several = [s for s, counts in cells.items() if counts and counts[0] > 1]
    even = [s for s in several if len(set(cells[s])) == 1]
    if len(even) > 1:
        names = " or by ".join(SEPARATORS[s] for s in even)
        raise DataError(
            f"is {path} separated by {names}? Either gives every row as many cells: put a first "
            f"line `sep={even[0]}` in it, or quote the cells"
        )
    return (even or several or [","])[0]


def _cells(path: Path, encoding: str, separator: str) -> list[int]:
    """Number of cells in each of the first records, for a separator."""
    with path.open(encoding=encoding, newline="") as file:
        records = csv.reader(file, delimiter=separator, skipinitialspace=True)
        try:
            return [len(record) for record in islice(records, _RECORDS) if record]
        except csv.Error:  # a cell above the parser's size limit
            return []


def _texts(column: pd.Series) -> pd.Series:
    """The cells that are present, as stripped text."""
    return column.dropna().astype(str).str.strip()


def _has_decimal_commas(cells: pd.Series) -> bool:
    """Whether all cells are numbers, and some have a decimal comma."""
    commas = cells.str.fullmatch(_COMMA_NUMBER)
    return bool(commas.any() and (commas | cells.str.fullmatch(_WHOLE_NUMBER)).all())

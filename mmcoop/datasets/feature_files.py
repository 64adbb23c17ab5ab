"""Reading a file of features, a table or an array: its numbers, ids, labels, splits and groups."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmcoop.datasets.csv_files import SEPARATORS, CsvFile, is_number, open_csv
from mmcoop.datasets.parquet_files import ParquetFile, open_parquet
from mmcoop.datasets.precision import check_float64
from mmcoop.datasets.splitting import split_names
from mmcoop.errors import DataError, setting
from mmcoop.names import normalised
from mmcoop.reading.arrays import open_array

SUFFIXES = (".csv", ".parquet", ".npy")
#: Columns that describe a row, as opposed to features.
ABOUT = ("id", "label", "split", "group")

_WHOLE = re.compile(r"\A(-?\d+)\.0+\Z")


@dataclass(frozen=True)
class Table:
    """The content of one file.

    Attributes:
        path: The file.
        values: Numbers, `(rows, features)` or `(rows, time, channels)`.
        features: Names along the last axis of `values`.
        about: Those of the columns `ABOUT` that the file has, as text; empty cells for missing
            values.
        label: Which column holds the labels, in words; empty if none does.
        by_index: Whether the ids are from an index.
        indexed: Whether that index is more than a count of the rows.
    """

    path: Path
    values: np.ndarray
    features: Sequence[str]
    about: pd.DataFrame
    label: str = ""
    by_index: bool = False
    indexed: bool = False


def read_table(path: Path, label: str | None, id_column: str, only_labels: bool) -> Table:
    """Read a file of features or labels.

    Args:
        path: A file with one of `SUFFIXES`.
        label: The column of labels, "last" for the last column, or None for one named "label".
        id_column: The column of ids.
        only_labels: Whether the file has labels but no features.

    Raises:
        DataError: The file cannot be read, or does not have the expected columns.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path, only_labels)
    file = _open(path)
    levels = dict(file.levels)
    places = _places(file, levels, label, id_column, only_labels)
    if set(file.index_columns) & set(places.values()):
        del levels[""]  # the user named it as a column
    features = [] if only_labels else _left(file, places)
    if not file.rows or not (features or only_labels):
        raise DataError(f"{path} has no rows, or no column of numbers: a modality needs both")
    values, names = _numbers(file, features)
    columns = {what: place for what, place in places.items() if isinstance(place, int)}
    cells = dict(zip(columns, file.cells(list(columns.values())), strict=True))
    cells |= {what: levels.pop(name) for what, name in places.items() if isinstance(name, str)}
    ids, indexed = _index_ids(path, levels, file.rows, "id" in cells)
    cells |= {} if ids is None else {"id": ids}
    about = pd.DataFrame(
        {what: _texts(column) for what, column in cells.items()},
        index=range(file.rows),
        dtype=object,
    )
    if "split" in about:
        words = [word or None for word in about["split"]]
        about["split"] = [name or "" for name in split_names(words, f"the column split of {path}")]
    where, at = "", places.get("label")
    if isinstance(at, int):
        where = f"column {file.names[at]!r}, {at + 1} of {len(file.names)}"
    elif at is not None:
        where = f"index {at!r}"
    if isinstance(file, CsvFile):
        _check_is_header(file, places, about, named=label not in (None, "last"))
    return Table(path, values, names, about, where, ids is not None, indexed)


def read_texts(path: Path) -> tuple[pd.DataFrame, int]:
    """Read a table as text.

    An index that identifies rows becomes the column `id`, unless there is one.

    Args:
        path: A CSV or Parquet file.

    Returns:
        The table, with normalised column names, cells as written and missing ones empty; and the
        line number of its first row, which is 2 below a header in the first line.

    Raises:
        DataError: The table cannot be read, or two columns have the same name.
    """
    if path.suffix.lower() == ".parquet":
        parquet = open_parquet(path)
        names, first, index = parquet.names, 2, dict(parquet.levels)
        columns = parquet.cells(range(len(names)))
    else:
        file = open_csv(path)
        # keeps empty lines, so that line numbers below them are right
        columns = [column for _, column in file.texts(skip_blank_lines=False).items()]
        names, first, index = file.names, file.header + 1, {}
        if file.index_columns:
            names, index, columns = names[1:], {"": columns[0]}, columns[1:]
    found: dict[str, pd.Series] = {}
    for name, column in [*zip(names, columns, strict=True), *index.items()]:
        if name and name in found:
            raise DataError(f"{path} has 2 columns {name!r}: keep one")
        if name:
            found[name] = column
    rows = len(next(iter([*found.values(), *index.values()]), ()))
    ids, _ = _index_ids(path, {} if "id" in found else index, rows, has_ids=False)
    found |= {} if ids is None else {"id": ids}
    return pd.DataFrame({name: _words(column) for name, column in found.items()}), first


def _open(path: Path) -> CsvFile | ParquetFile:
    if path.suffix.lower() == ".parquet":
        return open_parquet(path)
    file = open_csv(path)
    _check_header(path, file.names, file.index_columns)
    return file


def _left(file: CsvFile | ParquetFile, places: Mapping[str, int | str]) -> list[int]:
    """The remaining columns: neither in `ABOUT` nor an index."""
    taken = {*places.values(), *file.index_columns}
    return [i for i in range(len(file.names)) if i not in taken]


def _numbers(file: CsvFile | ParquetFile, columns: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Columns as numbers, `(rows, features)`, in float32 if that is exact, and their names."""
    parts, names = [], []
    for i in columns:
        part = file.numbers(i)
        if part is None:
            raise _not_numeric(file, i)
        parts.append(part)
        name = f"column {file.names[i]}"
        width = part.shape[1]
        names += [name] if width == 1 else [f"{name}[{k}]" for k in range(width)]
    if not parts:
        return np.empty((file.rows, 0), np.float32), names
    return np.concatenate(parts, axis=1), names


def _not_numeric(file: CsvFile | ParquetFile, i: int) -> DataError:
    name, cells = file.names[i], file.typed(i)
    there = [pair for pair, told in zip(enumerate(cells), cells.notna(), strict=True) if told]
    words = [(k, cell) for k, cell in there if not is_number(str(cell))]
    row, cell = (words or there or [(0, "")])[0]
    if not isinstance(cell, str) and pd.api.types.is_list_like(cell):
        remedy = "give arrays of more than one dimension a .npy file of their own"
    elif len(file.names) == 1:
        remedy = f"it is the only column; cells are separated by {', '.join(SEPARATORS.values())}"
    else:
        label = f"if it is the label, give {setting('label')} {name}"
        remedy = f"take it out, or write it as numbers; {label}"
    return DataError(
        f"the column {name!r} of {file.path} is not numeric, row {row + 1} has {str(cell)[:40]!r}: "
        + remedy
    )


def _index_ids(
    path: Path, levels: Mapping[str, pd.Series], rows: int, has_ids: bool
) -> tuple[pd.Series | None, bool]:
    """The ids in an index, and whether it is more than a count of the rows.

    None if the file has other ids or the index is unnamed and only counts rows. Raises `DataError`
    if the index is ambiguous.
    """
    if has_ids:
        for name in filter(None, levels):
            raise DataError(
                f"{path} has the index {name!r} beside its ids: make it a column "
                "(reset_index()), or take it out (reset_index(drop=True))"
            )
        return None, False
    if len(levels) > 1:
        raise DataError(
            f"{path} has an index of {len(levels)} levels ({', '.join(map(repr, levels))}): make "
            "one column of ids of them"
        )
    for name, cells in levels.items():
        counts = _texts(cells) == [str(k) for k in range(rows)]
        return (None, False) if counts and not name else (cells, not counts)
    return None, False


def _read_array(path: Path, only_labels: bool) -> Table:
    """Open an array of features, memory-mapped, or read an array of labels."""
    array = open_array(path)
    if 0 in array.shape:
        raise DataError(f"{path} has shape {array.shape}: there is nothing in it")
    if only_labels:
        if array.ndim != 1 or array.dtype.kind not in "biufUS":
            raise DataError(
                f"{path} has shape {array.shape} and dtype {array.dtype}: expected a label a "
                "sample (samples,), whole numbers or text"
            )
        labels = _array_text(path, array) if array.dtype.kind in "US" else pd.Series(array)
        about = pd.DataFrame({"label": _texts(labels)}, dtype=object)
        return Table(path, np.empty((len(array), 0)), [], about, "the array")
    if array.ndim not in (1, 2, 3) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has shape {array.shape} and dtype {array.dtype}: expected numbers, (samples, "
            "features) or (samples, time, channels)"
        )
    values = array[:, None] if array.ndim == 1 else array
    what = "channel" if array.ndim == 3 else "feature"
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        for i in range(values.shape[-1]):
            channel = values[..., i].ravel()
            check_float64(channel.astype(np.float64), channel.tolist, f"{path}, {what} {i},")
    features = [f"{what} {i}" for i in range(values.shape[-1])]
    return Table(path, values, features, pd.DataFrame(index=range(len(array))))


def _array_text(path: Path, array: np.ndarray) -> pd.Series:
    """The text in an array; `DataError` for code points that are not characters."""
    try:
        texts = array.astype(str).tolist()
        "".join(texts).encode()
    except ValueError:
        raise DataError(f"{path} holds text with characters that do not exist") from None
    return pd.Series(texts, dtype=object)


def _check_header(path: Path, names: Sequence[str], index: Sequence[int]) -> None:
    """Raise `DataError` if the first row cannot be a header, or lacks a name."""
    nameless = [i for i, name in enumerate(names) if not name and i not in index]
    if nameless:
        raise DataError(f"column {nameless[0] + 1} of {path} has no name: name it, or take it out")
    numbered = [name for i, name in enumerate(names) if i not in index]
    if not numbered or not all(is_number(name) for name in numbered):
        return
    # columns may be numbered 0, 1, 2, …; the last, a label, may have any number
    numbers = [float(name.replace(",", ".")) for name in numbered]
    counted = [numbers[0] + i for i in range(len(numbers) - 1)]
    digits = all(name.isdigit() for name in numbered)
    if not (digits and numbers[0] in (0, 1) and numbers[:-1] == counted):
        raise DataError(
            f"{path} begins with a row of numbers: put a row with the columns' names above it"
        )


def _check_is_header(
    file: CsvFile, places: Mapping[str, int | str], about: pd.DataFrame, named: bool
) -> None:
    """Raise `DataError` if the first row may be data instead of a header.

    That is so if the name of the label's column is also a label, or if every name could be a cell
    of its column. `named` is whether the user named the label's column.
    """
    at = places.get("label")
    if at is not None and (named or file.names[int(at)] == "label"):
        return
    if at is not None:
        name = file.names[int(at)]
        if name in set(about["label"]) and not is_number(name):
            raise DataError(
                f"{file.path} has the label {name!r} in its first row too, where the columns' "
                "names should be: put a row with the names above it"
            )
    found = {*places, *file.index_columns} - {"label"}  # only a header has these names
    if not found and all(
        _could_be_data(name, file.typed(i), is_label=i == at) for i, name in enumerate(file.names)
    ):
        row = ", ".join(map(repr, file.names[:3])) + ", …" * (len(file.names) > 3)
        raise DataError(
            f"is the first row of {file.path} ({row}) one of names or of data? It has what is in "
            "the rows below it: put a row with the columns' names above it or in its place"
        )


def _could_be_data(name: str, column: pd.Series, is_label: bool) -> bool:
    """Whether a column's name could be one of its cells.

    A number could be a cell among numbers, but digits, which may be the column's number, only if
    they occur there. A word could be a cell among words, but a label only if it occurs again.
    """
    if pd.api.types.is_numeric_dtype(column):
        counts = name.isdigit()
        return is_number(name) and (not counts or bool((column == int(name)).any()))
    occurs = name in set(_texts(column))
    return occurs if is_label or is_number(name) else True


def _places(
    file: CsvFile | ParquetFile,
    levels: Mapping[str, pd.Series],
    label: str | None,
    id_column: str,
    only_labels: bool,
) -> dict[str, int | str]:
    """Where the columns `ABOUT` are in a table: positions of columns, or names of index levels."""
    label = label and normalised(label)
    wanted = {"id": normalised(id_column), "split": "split", "group": "group"}
    wanted = {what: column for what, column in wanted.items() if column != label}
    if label != "last":
        wanted["label"] = label or "label"
    places: dict[str, int | str] = {}
    for what, column in wanted.items():
        found: list[int | str] = [i for i, name in enumerate(file.names) if name == column]
        found += [name for name in levels if name == column]
        if len(found) > 1:
            last = (
                f", or give {setting('label', 'last')} if it is the last one"
                if what == "label"
                else ""
            )
            raise DataError(f"{file.path} has {len(found)} columns {column!r}: keep one{last}")
        if found:
            places[what] = found[0]
    others = _left(file, places)
    if others and (label == "last" or (label is None and only_labels and len(others) == 1)):
        places.setdefault("label", others[-1])
    return places


def _words(cells: pd.Series) -> list[str]:
    """Cells as text: empty for missing ones, whole numbers without a decimal point."""
    return [
        "" if missing else _word(cell) for cell, missing in zip(cells, cells.isna(), strict=True)
    ]


def _word(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return cell if isinstance(cell, str) else _WHOLE.sub(r"\1", str(cell))


def _texts(cells: pd.Series) -> list[str]:
    """Cells as normalised text; also "1.0" as text becomes "1"."""
    return [_WHOLE.sub(r"\1", normalised(word)) for word in _words(cells)]

"""One file of features, a table or an array, read: its numbers, and what it says of its rows."""

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
#: What a column may say of a row, other than its features.
ABOUT = ("id", "label", "split", "group")

_WHOLE = re.compile(r"\A(-?\d+)\.0+\Z")


@dataclass(frozen=True)
class Table:
    """One file. `values` `(rows, features)` or `(rows, time, channels)` has the numbers, `features`
    the names along its last axis. `about` has the columns of `ABOUT` that the file has, as text,
    empty where nothing is said. `label`: which column of the file holds the labels, in words;
    empty if none does. `by_index`: whether the ids are those of an index; `indexed`: whether such
    an index says that rows are not simply in order.
    """

    path: Path
    values: np.ndarray
    features: Sequence[str]
    about: pd.DataFrame
    label: str = ""
    by_index: bool = False
    indexed: bool = False


def read_table(path: Path, label: str | None, id_column: str, only_labels: bool) -> Table:
    """Read a file; `DataError` where it is not what it should be.

    `label`: the column of the labels, "last" for the last one, or None for one that is called so.
    `id_column`: that of the ids. `only_labels`: whether there are no features in the file.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path, only_labels)
    file = _open(path)
    levels = dict(file.levels)
    places = _places(file, levels, label, id_column, only_labels)
    if set(file.index_columns) & set(places.values()):
        del levels[""]  # it was asked for as a column
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
    """A table of text, and the number of its first row: 2 below a header in the first line.

    Columns are under their normalised names, cells as they are written, missing ones empty. An
    index that says which rows are which is the column `id`, if there is no other. Raises
    `DataError` where the table cannot be read, or two columns have one name.
    """
    if path.suffix.lower() == ".parquet":
        parquet = open_parquet(path)
        names, first, index = parquet.names, 2, dict(parquet.levels)
        columns = parquet.cells(range(len(names)))
    else:
        file = open_csv(path)
        # with its empty lines, so that those below them are counted right
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
    """The columns that say nothing of `ABOUT` and are no index."""
    taken = {*places.values(), *file.index_columns}
    return [i for i in range(len(file.names)) if i not in taken]


def _numbers(file: CsvFile | ParquetFile, columns: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Columns as numbers `(rows, features)`, float32 if that holds all of them, and their names."""
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
    """The ids that an index holds, and whether it says that rows are not simply in order.

    None where there are others, or it only counts the rows. Raises `DataError` where it is not
    clear what it says.
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
    """Open an array, memory-mapped; one of labels is read."""
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
    """The text in an array; `DataError` where a cell holds numbers that are no characters."""
    try:
        texts = array.astype(str).tolist()
        "".join(texts).encode()
    except ValueError:
        raise DataError(f"{path} holds text with characters that do not exist") from None
    return pd.Series(texts, dtype=object)


def _check_header(path: Path, names: Sequence[str], index: Sequence[int]) -> None:
    """Raise `DataError` where the first row cannot be the columns' names, or leaves one out."""
    nameless = [i for i, name in enumerate(names) if not name and i not in index]
    if nameless:
        raise DataError(f"column {nameless[0] + 1} of {path} has no name: name it, or take it out")
    numbered = [name for i, name in enumerate(names) if i not in index]
    if not numbered or not all(is_number(name) for name in numbered):
        return
    # columns may be numbered; the last may be the label, under any number
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
    """Raise `DataError` where the first row may be a row of data: where a label has the name of its
    column, or every name could be a cell of its column. `named`: whether the label's was given.
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
    found = {*places, *file.index_columns} - {"label"}  # what only a row of names has
    if not found and all(
        _could_be_data(name, file.typed(i), is_label=i == at) for i, name in enumerate(file.names)
    ):
        row = ", ".join(map(repr, file.names[:3])) + ", …" * (len(file.names) > 3)
        raise DataError(
            f"is the first row of {file.path} ({row}) one of names or of data? It has what is in "
            "the rows below it: put a row with the columns' names above it or in its place"
        )


def _could_be_data(name: str, column: pd.Series, is_label: bool) -> bool:
    """Whether the name of a column could be one of its cells: a number among numbers, which occurs
    there if it could number the column; words among words. A label occurs again.
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
    """Where what `ABOUT` lists is in a table: the position of a column, or a level of the index."""
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
    """Cells as text: empty for missing ones, numbers that are whole without a point."""
    return [
        "" if missing else _word(cell) for cell, missing in zip(cells, cells.isna(), strict=True)
    ]


def _word(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return cell if isinstance(cell, str) else _WHOLE.sub(r"\1", str(cell))


def _texts(cells: pd.Series) -> list[str]:
    """The same, normalised, text that is a whole number included."""
    return [_WHOLE.sub(r"\1", normalised(word)) for word in _words(cells)]

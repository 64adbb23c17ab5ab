"""One file of features, a table or an array, read: its numbers, and what it says of its rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmcoop.datasets.splitting import split_names
from mmcoop.errors import DataError

SUFFIXES = (".csv", ".parquet", ".npy")
#: What a column may say of a row, other than its features.
ABOUT = ("id", "label", "split", "group")

_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True)
class Table:
    """One file. `values` `(rows, features)` or `(rows, time, channels)` has the numbers, `features`
    the names along its last axis. `about` has the columns of `ABOUT` that the file has, as text,
    empty where nothing is said. `label`: which column of the file holds the labels, in words;
    empty if none does.
    """

    path: Path
    values: np.ndarray
    features: Sequence[str]
    about: pd.DataFrame
    label: str = ""


def read_table(path: Path, label: str | None, id_column: str, only_labels: bool) -> Table:
    """Read a file; `DataError` where it is not what it should be.

    `label`: the column of the labels, "last" for the last one, or None for one that is called so.
    `id_column`: that of the ids. `only_labels`: whether there are no features in the file.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path, only_labels)
    names, table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    places = _about(path, names, label, id_column, only_labels)
    features = [i for i in range(len(names)) if i not in places.values() and not only_labels]
    if table.empty or not (features or only_labels):
        raise DataError(f"{path} has no rows, or no column of numbers: a modality needs both")
    for i in features:
        _check_numeric(path, names[i], table.iloc[:, i])
    with np.errstate(over="ignore"):
        values = table.iloc[:, features].to_numpy(dtype=np.float32, na_value=np.nan)
    about = _said(path, table, places)
    at = places.get("label")
    where = "" if at is None else f"column {names[at]!r}, {at + 1} of {len(names)}"
    return Table(path, values, [f"column {names[i]}" for i in features], about, where)


def _read_csv(path: Path) -> tuple[list[str], pd.DataFrame]:
    """The names of the columns, as they are written, and a table with these columns."""
    with _reading(path):
        names = [name.strip() for name in _csv_texts(path, header=None, nrows=1).iloc[0]]
    _check_header(path, names)
    with _reading(path):
        table = pd.read_csv(path, skipinitialspace=True, low_memory=False)
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{path} has rows of more cells than its first row has names: mend it")
    return names, table


def _csv_texts(path: Path, **which: Any) -> pd.DataFrame:
    """The same with cells as they are written."""
    texts: pd.DataFrame = pd.read_csv(
        path, dtype=str, na_filter=False, skipinitialspace=True, **which
    )
    return texts


def _read_parquet(path: Path) -> tuple[list[str], pd.DataFrame]:
    with _reading(path):
        table = pd.read_parquet(path)
    if table.index.name is not None:
        table = table.reset_index()
    return [str(name) for name in table.columns], table


def _said(path: Path, table: pd.DataFrame, places: Mapping[str, int]) -> pd.DataFrame:
    """The columns of `ABOUT`, which are at `places` of a table, as text; splits by their names."""
    columns = {what: table.iloc[:, i] for what, i in places.items()}
    if path.suffix.lower() == ".csv" and places:
        # a class may be called "None", a sample "007"
        order = sorted(set(places.values()))
        texts = _csv_texts(path, usecols=order)
        columns = {what: texts.iloc[:, order.index(i)] for what, i in places.items()}
    about = pd.DataFrame(
        {what: _texts(cells) for what, cells in columns.items()},
        index=range(len(table)),
        dtype=object,
    )
    if "split" in about:
        words = [word or None for word in about["split"]]
        about["split"] = [name or "" for name in split_names(words, f"the column split of {path}")]
    return about


def _read_array(path: Path, only_labels: bool) -> Table:
    """Open an array, memory-mapped; one of labels is read."""
    with _reading(path):
        array = np.lib.format.open_memmap(path, mode="r")  # which never unpickles
    if 0 in array.shape:
        raise DataError(f"{path} has shape {array.shape}: there is nothing in it")
    if only_labels:
        if array.ndim != 1 or array.dtype.kind not in "biufUS":
            raise DataError(
                f"{path} has shape {array.shape} and dtype {array.dtype}: expected a label a "
                "sample (samples,), whole numbers or text"
            )
        texts = array.astype(str) if array.dtype.kind == "S" else array
        about = pd.DataFrame({"label": _texts(pd.Series(texts))}, dtype=object)
        return Table(path, np.empty((len(array), 0)), [], about, "the array")
    if array.ndim not in (1, 2, 3) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has shape {array.shape} and dtype {array.dtype}: expected numbers, (samples, "
            "features) or (samples, time, channels)"
        )
    values = array[:, None] if array.ndim == 1 else array
    what = "channel" if array.ndim == 3 else "feature"
    features = [f"{what} {i}" for i in range(values.shape[-1])]
    return Table(path, values, features, pd.DataFrame(index=range(len(array))))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading a file is a `DataError` that names it."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {str(error).strip()}") from None


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raise `DataError` where the first row cannot be the columns' names, or leaves one out."""
    if "" in names:
        raise DataError(
            f"column {names.index('') + 1} of {path} has no name: name it, or take it out if it "
            "only counts the rows (pandas writes it unless told index=False)"
        )
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    # columns may be numbered; the last may be the label, under any number
    counted = [numbers[0] + i for i in range(len(numbers) - 1)]
    if not (numbers[0] in (0, 1) and numbers[:-1] == counted and numbers[-1].is_integer()):
        raise DataError(
            f"{path} begins with a row of numbers: put a row with the columns' names above it"
        )


def _about(
    path: Path, names: Sequence[str], label: str | None, id_column: str, only_labels: bool
) -> dict[str, int]:
    """Where the columns of `ABOUT` are among the columns of a table."""
    wanted = {"id": id_column, "split": "split", "group": "group"}
    wanted = {what: column for what, column in wanted.items() if column != label}
    if label != "last":
        wanted["label"] = label or "label"
    for what, column in wanted.items():
        if names.count(column) > 1:
            last = ", or give --label last if it is the last one" if what == "label" else ""
            raise DataError(f"{path} has {names.count(column)} columns {column!r}: keep one{last}")
    places = {what: names.index(column) for what, column in wanted.items() if column in names}
    others = [i for i in range(len(names)) if i not in places.values()]
    if others and (label == "last" or (label is None and only_labels and len(others) == 1)):
        places.setdefault("label", others[-1])
    return places


def _check_numeric(path: Path, name: str, cells: pd.Series) -> None:
    if pd.api.types.is_numeric_dtype(cells):
        return
    odd = cells[pd.to_numeric(cells, errors="coerce").isna() & cells.notna()]
    row, cell = (odd if len(odd) else cells).head(1).reset_index().iloc[0]
    raise DataError(
        f"the column {name!r} of {path} is not numeric, row {row + 1} has {str(cell)[:40]!r}: take "
        f"it out, or write it as numbers; if it is the label, give --label {name}"
    )


def _texts(cells: pd.Series) -> list[str]:
    """Cells as text: empty for missing ones, whole numbers without a point."""
    texts = ["" if na else str(cell).strip() for cell, na in zip(cells, cells.isna(), strict=True)]
    return [whole[1] if (whole := _WHOLE.fullmatch(text)) else text for text in texts]

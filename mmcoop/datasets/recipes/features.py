"""features: a table or an array a modality, such as sensors, EEG or embeddings made elsewhere.

Files are read by `_read`, their rows joined by `_joined`; nothing is computed from the numbers but
the normalisation, which a model applies: what is stored is what the files hold.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmcoop.core.coalitions import check_modalities
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.recipes import option, required
from mmcoop.datasets.rejects import Reject, Unusable
from mmcoop.datasets.source_files import inside
from mmcoop.datasets.splitting import check_shares, fill_splits, split_names
from mmcoop.datasets.store import SPLITS
from mmcoop.datasets.writer import Header, check_new_dataset, write_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.progress import SILENT, Progress

SUFFIXES = (".csv", ".parquet", ".npy")
#: The name, before its suffix, of a file that holds no modality but the labels of the others.
LABELS = "labels"
#: What a column may say of a row, other than its features.
ABOUT = ("id", "label", "split", "group")

# Arrays may be larger than the memory: they are gone through by so many numbers at a time.
_CHUNK = 2**22

_WHOLE = re.compile(r"(-?\d+)\.0+")

DEFAULTS = {
    "train": {"epochs": 40, "lr": 1e-3, "weight_decay": 0.0, "warmup": 5},
    "enhance": {"epochs": 20, "lr": 1e-3, "weight_decay": 0.0},
}


@dataclass(frozen=True)
class Features:
    """Tables or arrays, one a modality: sensors, EEG, embeddings.

    Every .csv, .parquet and .npy file in --source is a modality, named after the file. A table has
    a row a sample and a column a feature; an array is (samples, features) or (samples, time,
    channels). Tables that all have an id are joined by it, others row by row. Columns `split`
    (train, validation, test) and `group` (what must not be in two splits) are used where there are
    any; else the splits are cut at random, class by class.
    """

    source: Path = required("folder of the .csv, .parquet or .npy files")
    modality: list[str] | None = option(
        None, "NAME=FILE, may be repeated: take these files of the folder, under these names"
    )
    label: str | None = option(
        None,
        "column that holds the label, or `last`; default: a column named label, or a file "
        "labels.csv, labels.parquet or labels.npy",
    )
    id_column: str = option("id", "column that says which rows are the same sample")
    validation: float = option(0.1, "share of the samples to validate on, if `split` does not say")
    test: float = option(0.2, "share of the samples to test on, if `split` does not say")
    seed: int = option(0, "decides the splits")
    standardize: bool = option(
        True, "normalise every feature or channel by its training mean and standard deviation"
    )

    def build(self, folder: Path, *, overwrite: bool = False, progress: Progress = SILENT) -> None:
        check_new_dataset(folder, overwrite)
        check_shares(self.validation, self.test)
        files, label_files = self._files()
        tables = self._tables(files, label_files, progress)
        content = {name: tables[name] for name in files}
        rejects: list[Reject] = []
        by_id = all("id" in table.about for table in tables.values())
        rows = _joined(tables if by_id else _numbered(tables, self.id_column), rejects)
        about = pd.DataFrame({what: _agreed(what, tables, rows) for what in ABOUT[1:]})
        usable = _usable(content, rows, about.label, rejects)
        rows, about = rows[usable], about[usable]
        if rows.empty:
            first = rejects[0]
            raise DataError(
                f"none of the {len(rejects)} samples of {self.source} can be used: {first.id!r}, "
                f"for one, is rejected as {first.reason} ({first.detail})"
            )

        classes = _classes(about.label)
        labels = about.label.map({name: i for i, name in enumerate(classes)}).tolist()
        ids: list[str] = rows.index.tolist()
        groups = [group or id for id, group in zip(ids, about.group, strict=True)]
        given = [split or None for split in about.split]
        splits = fill_splits(given, groups, labels, self.validation, self.test, self.seed)
        self._check_classes(about.label, splits, cut=set(SPLITS) - set(given))
        training = rows[[split == "train" for split in splits]]
        header = Header(
            name=self.source.resolve().name,
            recipe="features",
            options={**asdict(self), "source": str(self.source)},
            source=f"files of {self.source}",
            classes=classes,
            modalities={
                name: self._modality(table, training[name].to_numpy())
                for name, table in content.items()
            },
            defaults=DEFAULTS,
            report={
                "files": {n: path.relative_to(self.source).as_posix() for n, path in files.items()},
                "joined": f"by {self.id_column}" if by_id else "row by row",
            },
            shared_groups=any(given),
        )
        at = {name: rows[name].to_numpy() for name in content}
        with write_dataset(folder, header, overwrite=overwrite) as writer:
            for i, id in enumerate(progress.track(ids, "writing samples")):
                inputs = {name: table.values[at[name][i]] for name, table in content.items()}
                writer.add(splits[i], id=id, label=labels[i], group=groups[i], **inputs)
            for reject in rejects:
                writer.reject(*reject)

    def _files(self) -> tuple[dict[str, Path], list[Path]]:
        """The files of the modalities, by name, and those of the labels."""
        if not self.source.is_dir():
            raise DataError(
                f"--source {self.source} is not a folder: give the folder of the "
                ".csv, .parquet or .npy files"
            )
        names = sorted(path.name for path in self.source.iterdir())
        has = f"it has: {', '.join(names[:3]) or 'nothing'}"
        beside = [
            self.source / name
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        if self.modality:
            pairs = [_pair(self.source, text) for text in self.modality]
            chosen, files = _checked([name for name, _ in pairs]), [path for _, path in pairs]
            for path in files:
                if not path.is_file():
                    raise DataError(f"--modality: there is no file {path}: {has}")
        else:
            files = [path for path in beside if path.stem != LABELS]
            if not files:
                raise DataError(f"{self.source} has no .csv, .parquet or .npy file; {has}")
            chosen = _names([path.stem for path in files])
        if len(files) < 2:
            raise DataError(
                f"{files[0]} is the only modality: contributions are shared among two or more. "
                "Give every modality a file of its own"
            )
        labels = [path for path in beside if path.stem == LABELS and path not in files]
        return dict(zip(chosen, files, strict=True)), labels

    def _tables(
        self, files: Mapping[str, Path], label_files: Sequence[Path], progress: Progress
    ) -> dict[str, "_Table"]:
        """All files, read: those of the modalities by name, those of the labels by file name."""
        named = [*files.items(), *((path.name, path) for path in label_files)]
        tables = {
            name: _read(path, self.label, self.id_column, only_labels=path in label_files)
            for name, path in progress.track(named, "reading files")
        }
        if not any("label" in table.about for table in tables.values()):
            raise DataError(
                f"there are no labels in {self.source}: no table has a column "
                f"{self.label or 'label'!r}. Name it with --label (`--label last` is the last one "
                "of each table), or put them beside in labels.csv, labels.parquet or labels.npy"
            )
        return tables

    def _check_classes(self, labels: pd.Series, splits: Sequence[str], cut: set[str]) -> None:
        """Raise `DataError` for a single class, and for one that is not in train or in a split
        that was cut.
        """
        counts = pd.crosstab(labels.to_numpy(), np.array(splits))
        counts = counts.reindex(columns=list(SPLITS), fill_value=0)
        if len(counts) < 2:
            raise DataError(
                f"every sample of {self.source} has the label {counts.index[0]!r}: there must be "
                "two classes or more. Is another column the label? Name it with --label"
            )
        for split in SPLITS:
            without = counts.index[counts[split] == 0].tolist()
            if without and (split == "train" or split in cut):
                label, samples = without[0], counts.loc[without[0]].sum()
                raise DataError(
                    f"class {label!r} has {samples} samples, too few to be in every split: none "
                    f"is in {split}. Add samples or groups of the class, or leave it out"
                )

    def _modality(self, table: "_Table", training: np.ndarray) -> Modality:
        """What is recorded of a modality, its normalisation from the rows `training`."""
        from sklearn.preprocessing import StandardScaler

        shape = table.values.shape[1:]
        kind, encoder = ("vector", "mlp") if len(shape) == 1 else ("series", "conv1d")
        if not self.standardize:
            return Modality(kind, shape, "float32", encoder)
        scaler = StandardScaler()
        for chunk in _chunks(table.values, training):
            scaler.partial_fit(chunk.reshape(-1, shape[-1]))
        mean, std = (tuple(x.tolist()) for x in (scaler.mean_, scaler.scale_))
        return Modality(kind, shape, "float32", encoder, mean=mean, std=std)


def _pair(source: Path, text: str) -> tuple[str, Path]:
    """`NAME=FILE` → the name and the path of the file, which must be inside `source`."""
    name, _, file = text.partition("=")
    if not name or Path(file).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--modality {text!r}: write it as NAME=FILE, a file in {', '.join(SUFFIXES)}"
        )
    try:
        return name, inside(source, file)
    except Unusable as error:
        raise UsageError(f"--modality {text!r}: {error}") from None


def _names(stems: Sequence[str]) -> tuple[str, ...]:
    """Modalities named after their files, without the beginning that all share, if it can go."""
    shared = stems[0]
    while not all(stem.startswith(shared) for stem in stems):
        shared = shared[:-1]
    start = max(shared.rfind("-"), shared.rfind("_")) + 1
    try:
        return _checked([stem[start:] for stem in stems])
    except UsageError:
        return _checked(stems)


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    try:
        for name in names:
            if name in ABOUT:
                raise UsageError(f"{name!r} cannot name a modality: it is that of a column")
        return check_modalities(names)
    except UsageError as error:
        raise UsageError(f"{error}. Rename the file, or give --modality NAME=FILE") from None


@dataclass(frozen=True)
class _Table:
    """One file. `values` `(rows, features)` or `(rows, time, channels)` has the numbers, `features`
    the names along its last axis. `about` has the columns of `ABOUT` that the file has, as text,
    empty where nothing is said.
    """

    path: Path
    values: np.ndarray
    features: Sequence[str]
    about: pd.DataFrame


def _read(path: Path, label: str | None, id_column: str, only_labels: bool) -> _Table:
    """Read a file; `DataError` where it is not what it should be."""
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
    return _Table(path, values, [f"column {names[i]}" for i in features], about)


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


def _read_array(path: Path, only_labels: bool) -> _Table:
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
        return _Table(path, np.empty((len(array), 0)), [], about)
    if array.ndim not in (1, 2, 3) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has shape {array.shape} and dtype {array.dtype}: expected numbers, (samples, "
            "features) or (samples, time, channels)"
        )
    values = array[:, None] if array.ndim == 1 else array
    what = "channel" if array.ndim == 3 else "feature"
    features = [f"{what} {i}" for i in range(values.shape[-1])]
    return _Table(path, values, features, pd.DataFrame(index=range(len(array))))


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
    for column in wanted.values():
        if names.count(column) > 1:
            raise DataError(f"{path} has {names.count(column)} columns {column!r}: keep one")
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


def _numbered(tables: Mapping[str, _Table], id_column: str) -> dict[str, _Table]:
    """The tables, whose rows belong together in their order, with ids for it.

    An id is that of the tables that have one, on which these must agree, else the row's number.
    Raises `DataError` where the tables have different numbers of rows.
    """
    if id_column != "id" and not any("id" in table.about for table in tables.values()):
        raise DataError(f"no table has the column {id_column!r} of --id-column")
    first, *others = tables.values()
    for other in others:
        if len(other.about) != len(first.about):
            raise DataError(
                f"{first.path} has {len(first.about)} rows and {other.path} {len(other.about)}: "
                f"give every table a column {id_column!r}, or all the same rows in the same order"
            )
    order = pd.DataFrame({name: range(len(first.about)) for name in tables})
    ids = [id or f"row-{i:05d}" for i, id in enumerate(_agreed("id", tables, order))]
    return {
        name: _Table(table.path, table.values, table.features, table.about.assign(id=ids))
        for name, table in tables.items()
    }


def _joined(tables: Mapping[str, _Table], rejects: list[Reject]) -> pd.DataFrame:
    """In which row of each table a sample is: int64, a row a sample, by id, a column a table.

    Samples that are not in every table, or more than once in one, are added to `rejects`.
    """
    found: dict[str, pd.Series] = {}
    repeated: dict[str, str] = {}
    for name, table in tables.items():
        ids = table.about["id"]
        if (ids == "").any():
            row = ids.tolist().index("") + 1
            raise DataError(f"row {row} of {table.path} has no id: fill it in")
        for id in ids[ids.duplicated()]:
            repeated.setdefault(id, f"in several rows of {name}")
        once = ~ids.duplicated()
        found[name] = pd.Series(np.flatnonzero(once), index=ids[once])
    rows = pd.DataFrame(found)
    rows = rows[~rows.index.isin(list(repeated))]
    rejects += [Reject(id, "duplicate", detail) for id, detail in repeated.items()]
    absent = rows.isna()
    for id in rows.index[absent.any(axis=1)]:
        rejects.append(Reject(id, "missing", ", ".join(absent.columns[absent.loc[id]])))
    return rows.dropna().astype(np.int64)


def _agreed(what: str, tables: Mapping[str, _Table], rows: pd.DataFrame) -> pd.Series:
    """What the tables say of every sample: text, empty where no table says anything.

    Raises `DataError` where two tables say different things.
    """
    telling = [name for name, table in tables.items() if what in table.about]
    said = {name: tables[name].about[what].to_numpy()[rows[name]] for name in telling}
    agreed = np.full(len(rows), "", dtype=object)
    for name in telling:
        odd = np.flatnonzero((agreed != "") & (said[name] != "") & (said[name] != agreed))
        if len(odd):
            i = odd[0]
            first = next(other for other in telling if said[other][i])
            raise DataError(
                f"{tables[first].path} has the {what} {agreed[i]!r} in row "
                f"{rows[first].iloc[i] + 1}, but {tables[name].path} has {said[name][i]!r} in row "
                f"{rows[name].iloc[i] + 1}, which is the same sample: make them agree"
            )
        agreed = np.where(agreed == "", said[name], agreed)
    return pd.Series(agreed, index=rows.index, dtype=object)


def _usable(
    tables: Mapping[str, _Table],
    rows: pd.DataFrame,
    labels: pd.Series,
    rejects: list[Reject],
) -> np.ndarray:
    """Which samples have a label and numbers alone, bool `(N,)`; the others go to `rejects`."""
    why = dict.fromkeys(rows.index[labels == ""], ("unknown-class", "it has no label"))
    for name, table in tables.items():
        for id, feature in _not_numbers(table, rows[name]):
            why.setdefault(id, ("not-a-number", f"{name}, {feature}"))
    rejects += [Reject(id, *reason) for id, reason in why.items()]
    return ~rows.index.isin(list(why))


def _not_numbers(table: _Table, rows: pd.Series) -> Iterator[tuple[str, str]]:
    """The samples with a number float32 cannot hold, or NaN, and the first feature that has it."""
    done = 0
    for chunk in _chunks(table.values, rows.to_numpy()):
        finite = np.isfinite(chunk).reshape(len(chunk), -1, chunk.shape[-1]).all(axis=1)
        for i in np.flatnonzero(~finite.all(axis=1)).tolist():
            yield rows.index[done + i], table.features[finite[i].argmin()]
        done += len(chunk)


def _chunks(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array as float32, some megabytes at a time."""
    step = max(1, _CHUNK // int(np.prod(values.shape[1:])))
    for start in range(0, len(rows), step):
        with np.errstate(over="ignore"):
            yield values[rows[start : start + step]].astype(np.float32)


def _classes(labels: Iterable[str]) -> list[str]:
    """The distinct labels, sorted; as numbers if all are."""
    distinct = sorted(set(labels))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct

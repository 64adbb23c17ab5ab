"""features: one table or array per modality, such as sensors, EEG or precomputed embeddings.

`feature_files.py` reads the files and `_joined` joins their rows. Numbers are stored as they are in
the files; the normalisation computed from them is applied by the model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmcoop.core.modalities import check_modalities
from mmcoop.datasets.advice import training_advice
from mmcoop.datasets.feature_files import ABOUT, SUFFIXES, Table, read_table
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.rejects import Reject, Unusable
from mmcoop.datasets.source_files import inside
from mmcoop.datasets.splitting import check_shares, fill_splits
from mmcoop.datasets.standardizing import STANDARDIZE, array_modality, constant_features
from mmcoop.datasets.writer import Header, check_new_dataset, write_dataset
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import normalised
from mmcoop.progress import SILENT, Progress
from mmcoop.settings import option, required

# Options of this recipe, as messages name them.
_SOURCE, _MODALITY = map(setting, ("source", "modality"))

#: The name, before its suffix, of a file that holds no modality but the labels of the others.
LABELS = "labels"

# Arrays may be larger than the memory: they are gone through by this many numbers at a time.
_CHUNK = 2**22


@dataclass(frozen=True)
class Features:
    """Tables or arrays, one per modality: sensors, EEG, embeddings.

    Every .csv, .parquet and .npy file in --source is a modality, named after the file. A table has
    one row per sample and one column per feature; an array is (samples, features) or (samples,
    time, channels). If all tables have ids, in a column or in the index that pandas writes, their
    rows are joined by id, otherwise in order. Columns `split` (train, validation, test) and `group`
    (what must not be in two splits) are used if present; otherwise splits are cut at random, class
    by class.
    """

    source: Path = required("Folder of the .csv, .parquet or .npy files", metavar="FOLDER")
    modality: list[str] | None = option(
        None, "Modality and its file. \\[repeatable; default: all files]", metavar="NAME=FILE"
    )
    label: str | None = option(
        None, "Label column, or `last`. \\[default: label, or a file labels.*]"
    )
    id_column: str = option("id", "Column of sample ids, which joins the tables")
    validation: float = option(0.1, "Share for validation, without a column split")
    test: float = option(0.2, "Share for testing, without a column split")
    seed: int = option(0, "Random seed of the splits")
    standardize: bool = option(True, STANDARDIZE)

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
        described = {
            name: self._modality(table, training[name].to_numpy())
            for name, table in content.items()
        }
        modalities = {name: modality for name, (modality, _) in described.items()}
        header = Header(
            name=self.source.resolve().name,
            recipe="features",
            options={**asdict(self), "source": str(self.source)},
            source=f"files of {self.source}",
            classes=classes,
            modalities=modalities,
            defaults=training_advice(modalities),
            report={
                "files": {n: path.relative_to(self.source).as_posix() for n, path in files.items()},
                "joined": _how_joined(tables, self.id_column) if by_id else "row by row",
                "labels_from": [
                    f"{table.path.relative_to(self.source).as_posix()}: {table.label}"
                    for table in tables.values()
                    if table.label
                ],
                **constant_features({name: same for name, (_, same) in described.items()}),
            },
            shared_groups=any(given),
        )
        at = {name: rows[name].to_numpy() for name in content}
        with write_dataset(folder, header, overwrite=overwrite) as writer:
            for i, id in enumerate(progress.track(ids, "writing samples")):
                inputs = {
                    name: table.values[at[name][i]].astype(header.modalities[name].dtype)
                    for name, table in content.items()
                }
                writer.add(splits[i], id=id, label=labels[i], group=groups[i], **inputs)
            for reject in rejects:
                writer.reject(*reject)

    def _files(self) -> tuple[dict[str, Path], list[Path]]:
        """The files of the modalities, by name, and those of the labels."""
        if not self.source.is_dir():
            raise DataError(
                f"{_SOURCE} {self.source} is not a folder: give the folder of the "
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
                    raise DataError(f"{_MODALITY}: there is no file {path}: {has}")
        else:
            files = [path for path in beside if normalised(path.stem) != LABELS]
            if not files:
                raise DataError(f"{self.source} has no .csv, .parquet or .npy file; {has}")
            chosen = _names([path.stem for path in files])
        if len(files) < 2:
            raise DataError(
                f"{files[0]} is the only modality: contributions are shared among two or more. "
                "Give every modality a file of its own"
            )
        labels = [path for path in beside if normalised(path.stem) == LABELS and path not in files]
        return dict(zip(chosen, files, strict=True)), labels

    def _tables(
        self, files: Mapping[str, Path], label_files: Sequence[Path], progress: Progress
    ) -> dict[str, Table]:
        """All files, read: those of the modalities by name, those of the labels by file name."""
        named = [*files.items(), *((path.name, path) for path in label_files)]
        tables = {
            name: read_table(path, self.label, self.id_column, only_labels=path in label_files)
            for name, path in progress.track(named, "reading files")
        }
        if not any("label" in table.about for table in tables.values()):
            nor = "".join(
                f", nor has {path.name} (does it begin with a row of names?)"
                for path in label_files
            )
            raise DataError(
                f"there are no labels in {self.source}: no table has a column "
                f"{self.label or 'label'!r}{nor}. Name it with {setting('label')} "
                f"(`{setting('label', 'last')}` is the last "
                "one of each table), or put them beside in labels.csv, labels.parquet or labels.npy"
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
                f"two classes or more. Is another column the label? Name it with {setting('label')}"
            )
        for split in SPLITS:
            without = counts.index[counts[split] == 0].tolist()
            if without and (split == "train" or split in cut):
                label, samples = without[0], counts.loc[without[0]].sum()
                raise DataError(
                    f"class {label!r} has {samples} samples, too few to be in every split: none "
                    f"is in {split}. Add samples or groups of the class, or leave it out"
                )

    def _modality(self, table: Table, training: np.ndarray) -> tuple[Modality, list[str]]:
        """The modality of a table, by its training samples, and its constant features."""
        return array_modality(
            table.values.shape[1:],
            _chunks(table.values, training),
            standardize=self.standardize,
            what=str(table.path),
            features=table.features,
        )


def _pair(source: Path, text: str) -> tuple[str, Path]:
    """`NAME=FILE` → the name and the path of the file, which must be inside `source`."""
    name, _, file = text.partition("=")
    if not name or Path(file).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{_MODALITY} {text!r}: write it as NAME=FILE, a file in {', '.join(SUFFIXES)}"
        )
    try:
        return name, inside(source, file)
    except Unusable as error:
        raise UsageError(f"{_MODALITY} {text!r}: {error}") from None


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
        names = [normalised(name) for name in names]
        for name in names:
            if name in ABOUT:
                raise UsageError(f"{name!r} cannot name a modality: it is that of a column")
        return check_modalities(names)
    except UsageError as error:
        raise UsageError(f"{error}. Rename the file, or give {_MODALITY} NAME=FILE") from None


def _numbered(tables: Mapping[str, Table], id_column: str) -> dict[str, Table]:
    """The tables, whose rows belong together in their order, with ids for it.

    An id is that of the tables that have one, on which these must agree, else the row's number.
    Raises `DataError` where the tables have different numbers of rows.
    """
    if id_column != "id" and not any("id" in table.about for table in tables.values()):
        raise DataError(f"no table has the column {id_column!r} of {setting('id_column')}")
    first, *others = tables.values()
    indexed = next((table for table in tables.values() if table.indexed), None)
    if indexed:
        without = next(table for table in tables.values() if "id" not in table.about)
        raise DataError(
            f"{indexed.path} says in its index which sample each row is, and {without.path} does "
            f"not: give every table a column {id_column!r} or an index of ids, or take the index "
            "out (reset_index(drop=True)) if rows are in the same order"
        )
    for other in others:
        if len(other.about) != len(first.about):
            raise DataError(
                f"{first.path} has {len(first.about)} rows and {other.path} {len(other.about)}: "
                f"give every table a column {id_column!r}, or all the same rows in the same order"
                + ", below a row with the columns' names"
                * (abs(len(first.about) - len(other.about)) == 1)
            )
    order = pd.DataFrame({name: range(len(first.about)) for name in tables})
    ids = [id or f"row-{i:05d}" for i, id in enumerate(_agreed("id", tables, order))]
    return {
        name: replace(table, about=table.about.assign(id=ids)) for name, table in tables.items()
    }


def _how_joined(tables: Mapping[str, Table], id_column: str) -> str:
    """What the rows were joined by, in words."""
    by_index = [table.path.name for table in tables.values() if table.by_index]
    if not by_index:
        return f"by {id_column}"
    whole = len(by_index) == len(tables)
    return "by index" if whole else f"by {id_column}, and the index of {', '.join(by_index)}"


def _joined(tables: Mapping[str, Table], rejects: list[Reject]) -> pd.DataFrame:
    """The row of each sample in each table: int64, one row per sample, by id, one column per table.

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


def _agreed(what: str, tables: Mapping[str, Table], rows: pd.DataFrame) -> pd.Series:
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
    tables: Mapping[str, Table],
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


def _not_numbers(table: Table, rows: pd.Series) -> Iterator[tuple[str, str]]:
    """The samples with a number float32 cannot hold, or NaN, and the first feature that has it."""
    done = 0
    for chunk in _chunks(table.values, rows.to_numpy()):
        with np.errstate(over="ignore"):
            narrow = chunk.astype(np.float32)
        finite: Any = np.isfinite(narrow.reshape(len(chunk), -1, chunk.shape[-1])).all(axis=1)
        for i in np.flatnonzero(~finite.all(axis=1)).tolist():
            yield rows.index[done + i], table.features[finite[i].argmin()]
        done += len(chunk)


def _chunks(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array as float64, some megabytes at a time."""
    step = max(1, _CHUNK // int(np.prod(values.shape[1:])))
    for start in range(0, len(rows), step):
        yield values[rows[start : start + step]].astype(np.float64)


def _classes(labels: Iterable[str]) -> list[str]:
    """The distinct labels, sorted; as numbers if all are."""
    distinct = sorted(set(labels))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct

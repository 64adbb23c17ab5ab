"""The comparison folder: which methods, fusions and seeds, the runs, and what came of them."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
from pyarrow.types import is_boolean, is_floating, is_integer, is_large_string, is_null, is_string
from pydantic import Field, with_config
from typing_extensions import TypedDict

from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.files import (
    check_path,
    disk_room,
    has_format,
    write_json,
)
from mmcoop.locks import recover
from mmcoop.reading.arrow_tables import (
    check_names,
    check_no_nulls,
    parquet_schema,
    read_parquet,
    to_frame,
)
from mmcoop.reading.json_files import AS_WRITTEN, Count, PathText, Sha256, read_versioned
from mmcoop.reading.scores import read_scores, read_scores_details
from mmcoop.training.config import fitting_defaults

FORMAT, FORMAT_VERSION = "mmcoop comparison", 1

# What is read of every run, and the types that it may have.
_RUNS = {
    **dict.fromkeys(
        ("run", "method", "fusion"), lambda kind: is_string(kind) or is_large_string(kind)
    ),
    "seed": is_integer,
    "accuracy": is_floating,
}


def _is_number(kind: pa.DataType) -> bool:
    return bool(is_integer(kind) or is_floating(kind) or is_boolean(kind) or is_null(kind))


#: What every other method is set beside.
BASELINE = "joint"

#: What is equal for every run: its epochs, or the rows or seconds of the most expensive method.
MATCHES = ("epochs", "rows", "seconds")

#: The label of the joint runs that may use as many rows as the most expensive method does.
MATCHED_BASELINE = f"{BASELINE} matched"


@dataclass(frozen=True)
class ComparisonSpec:
    """What is compared.

    `methods`: names, or None for all there are. `match`: one of `MATCHES`. `tune`: trials a
    case, 0 for the defaults. `options`: of methods, by name. `settings`: those of `TrainConfig`
    that go over the dataset's recommended settings. Raises `UsageError` for what cannot be meant.
    """

    methods: Sequence[str] | None = None
    fusions: Sequence[str] = ("concat",)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    match: str = "epochs"
    tune: int = 0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise UsageError(f"cannot match {self.match!r}: choose one of {', '.join(MATCHES)}")
        if self.tune < 0:
            raise UsageError(f"{self.tune} trials: it cannot be negative")
        if not self.seeds or not self.fusions:
            raise UsageError("a comparison needs a seed and a fusion at least")

    def with_more(
        self,
        methods: Sequence[str] | None = (),
        fusions: Sequence[str] = (),
        seeds: Sequence[int] = (),
    ) -> "ComparisonSpec":
        """The plan with further methods (all for None), fusions and seeds."""
        every = methods is None or self.methods is None
        return replace(
            self,
            methods=None if every else _union(self.methods or (), methods or ()),
            fusions=_union(self.fusions, fusions),
            seeds=_union(self.seeds, seeds),
        )


@with_config(AS_WRITTEN)
class _ComparedOn(TypedDict):
    path: PathText
    name: str
    fingerprint: Sha256


@with_config(AS_WRITTEN)
class ComparisonContent(TypedDict):
    """What `comparison.json` holds."""

    dataset: _ComparedOn
    methods: list[str] | None
    fusions: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)]
    match: str
    tune: Count
    options: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    left_out: dict[str, str]
    failed: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """A comparison folder. `left_out`: why cases are not among the runs, by name; `failed`: why
    runs are not.
    """

    folder: Path
    plan: ComparisonSpec
    dataset: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_runs(self) -> bool:
        """Whether it came to its end once, so that there is something to show."""
        return (self.folder / "runs.parquet").is_file()

    @property
    def runs_tested(self) -> int:
        """How many of the runs that are reported are done."""
        return len(list((self.folder / "results").glob("*.json")))

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run that is reported, see `docs/reference/run-folder.md`."""
        path = self.folder / "runs.parquet"
        table = read_parquet(path, what="the runs of a comparison")
        for name, kind in _RUNS.items():
            if name not in table.column_names or not kind(table.schema.field(name).type):
                raise DataError(f"{path} is damaged: it lacks {name}, or it is of another type")
        check_no_nulls(table, _RUNS, path)
        for field_ in table.schema:
            if field_.name not in (*_RUNS, "options") and not _is_number(field_.type):
                raise DataError(f"{path} is damaged: {field_.name} has no numbers")
        if not any(name.startswith("accuracy_") for name in table.column_names):
            raise DataError(f"{path} is damaged: it lacks the accuracy of every coalition")
        runs = to_frame(table, path)
        if not runs["accuracy"].between(0, 1).all():
            raise DataError(f"{path} is damaged: an accuracy is not between 0 and 1")
        if runs.duplicated(["method", "fusion", "seed"]).any():
            raise DataError(f"{path} is damaged: a method, fusion and seed has two runs")
        for name in runs["run"]:
            if Path(name).name != name:
                raise DataError(f"{path} names the run {name!r}, which is not in its folder")
        return runs

    def hits(self, run: str) -> pd.Series:
        """How right a run is on each test sample, by sample id: 1, 0, or 1/k where its class is one
        of k tied ones (½ in files of earlier versions).
        """
        path = self._scores_file(run)
        # not through `Scores`, which needs torch: `mmcoop info` shows comparisons without it
        grand = f"correct_{'+'.join(read_scores_details(path)['modalities'])}"
        name = grand if grand in parquet_schema(path).names else "correct"
        table = read_scores(path, ["id", name])
        kind, hits = table.schema.field(name).type, _by_id(table, path)
        if not (is_boolean(kind) or (is_floating(kind) and hits.notna().all())):
            raise DataError(f"{path} does not say which predictions are right")
        return hits.astype("float64").fillna(0.5).rename("correct")

    def groups(self, run: str) -> pd.Series | None:
        """The group of each test sample, by sample id; None where its scores do not have it, or
        where every sample is a group of its own.
        """
        path = self._scores_file(run)
        if "group" not in parquet_schema(path).names:
            return None
        table = read_scores(path, ["id", "group"])
        if not is_string(table.schema.field("group").type):
            raise DataError(f"{path} is damaged: its groups are not text")
        groups = _by_id(table, path)
        return groups if groups.duplicated().any() else None

    def _scores_file(self, run: str) -> Path:
        return self.folder / "scores" / f"{run}.parquet"

    def chance(self, run: str) -> float:
        """The accuracy of predicting the most frequent class of the test samples; NaN where the
        scores of the run do not have the labels.
        """
        path = self._scores_file(run)
        schema = parquet_schema(path)
        if "label" not in schema.names or not is_integer(schema.field("label").type):
            return math.nan
        labels = _by_id(read_scores(path, ["id", "label"]), path)
        return float(labels.value_counts(normalize=True).max())

    @property
    def validation_samples(self) -> int | None:
        """How many chose the best epochs; None where the data set is not there any more."""
        try:
            dataset = open_dataset(self.dataset["path"])
        except (DataError, KeyError):
            return None
        same = dataset.fingerprint == self.dataset["fingerprint"]
        return dataset.rows["validation"] if same else None

    def with_more(self, **more: Any) -> "Comparison":
        """The comparison with more methods, fusions and seeds: `ComparisonSpec.with_more`."""
        return replace(self, plan=self.plan.with_more(**more))

    def disk_room(self) -> AbstractContextManager[None]:
        """Where the disk is full in the block, say so, and how to resume."""
        then = f"make room and go on with mmcoop compare --resume --out {self.folder}"
        return disk_room(self.folder, self.folder, then=f"what is done is kept: {then}")

    def save(self) -> None:
        """Write `comparison.json`."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dataset": dict(self.dataset),
            **asdict(self.plan),
            "left_out": dict(self.left_out),
            "failed": dict(self.failed),
        }
        write_json(self.folder / "comparison.json", content)


def _by_id(table: pa.Table, path: Path) -> pd.Series:
    """The second column of a table of scores by the first one."""
    check_names(table, sorted({"id", "group"} & {*table.column_names}), path)
    scores = to_frame(table, path).set_index("id")
    if not len(scores):
        raise DataError(f"{path} is damaged: it has no samples")
    if scores.index.has_duplicates:
        raise DataError(f"{path} is damaged: it has two scores of one sample")
    return scores.iloc[:, 0]


def is_comparison(folder: Path) -> bool:
    """Whether `folder` is a comparison folder."""
    return has_format(folder / "comparison.json", FORMAT)


def load_comparison(folder: Path | str) -> Comparison:
    """Open a comparison folder; `DataError` where there is none that this version can read."""
    folder = Path(folder)
    check_path(folder)
    recover(folder)
    path = folder / "comparison.json"
    if not path.is_file():
        raise DataError(
            f"{folder} is not a comparison folder (no comparison.json): `mmcoop compare --out "
            f"{folder}` starts one"
        )
    content: dict[str, Any] = {**read_versioned(path, ComparisonContent, FORMAT_VERSION)}
    own = {name: content.pop(name) for name in ("dataset", "left_out", "failed")}
    for name in ("format", "format_version"):
        content.pop(name, None)
    try:
        return Comparison(folder, ComparisonSpec(**content), **own)
    except (TypeError, UsageError) as error:  # TypeError: a field of another version
        raise DataError(f"{path} is not what mmcoop writes: {error}") from None


def layers(dataset: DatasetFolder, plan: ComparisonSpec) -> list[Mapping[str, Any]]:
    """The settings of all runs, later ones going over earlier ones."""
    return [fitting_defaults(dataset.defaults.get("train", {}), plan.settings), plan.settings]


def _union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*first, *second]))

"""The comparison folder: which methods, fusions and seeds, the runs, and what came of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from mmcoop.comparison.cases import BASELINE, make_cases
from mmcoop.datasets.store import Dataset, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.files import (
    check_new_folder,
    check_path,
    has_format,
    read_json,
    whole_folder,
    write_json,
)
from mmcoop.locks import check_unlocked, locked, recover
from mmcoop.training.config import fitting_defaults, make_config

FORMAT, FORMAT_VERSION = "mmcoop comparison", 1

#: What every run may use up: so many epochs, or as much as the dearest method takes for them.
MATCHES = ("epochs", "rows", "seconds")

#: The label of the joint runs that may use as many rows as the dearest method does.
MATCHED_BASELINE = f"{BASELINE} matched"


@dataclass(frozen=True)
class Plan:
    """What is compared.

    `methods`: names, or None for all there are. `match`: one of `MATCHES`. `tune`: trials a
    case, 0 for the defaults. `options`: of methods, by name. `settings`: those of `TrainConfig`
    that go over what the data set advises. Raises `UsageError` for what cannot be meant.
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
    ) -> "Plan":
        """The plan with further methods (all for None), fusions and seeds."""
        every = methods is None or self.methods is None
        return replace(
            self,
            methods=None if every else _union(self.methods or (), methods or ()),
            fusions=_union(self.fusions, fusions),
            seeds=_union(self.seeds, seeds),
        )


@dataclass(frozen=True)
class Comparison:
    """A comparison folder. `left_out`: why cases are not among the runs, by name; `failed`: why
    runs are not.
    """

    folder: Path
    plan: Plan
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
        """One row a run that is reported, see `docs/formats.md`."""
        return pd.read_parquet(self.folder / "runs.parquet")

    def hits(self, run: str) -> pd.Series:
        """How right a run is on each test sample, by sample id: 1, 0, or ½ where a tie of classes
        leaves it undecided.
        """
        return self._scores(run, "correct").astype("float64").fillna(0.5)

    def groups(self, run: str) -> pd.Series | None:
        """The group of each test sample, by sample id; None where its scores do not have it, or
        where every sample is a group of its own.
        """
        path = self.folder / "scores" / f"{run}.parquet"
        if "group" not in pq.read_schema(path).names:
            return None
        groups = self._scores(run, "group")
        return groups if groups.duplicated().any() else None

    def _scores(self, run: str, column: str) -> pd.Series:
        path = self.folder / "scores" / f"{run}.parquet"
        return pd.read_parquet(path, columns=["id", column]).set_index("id")[column]

    def chance(self, run: str) -> float:
        """The accuracy of predicting the most frequent class of the test samples; NaN where the
        scores of the run do not have the labels.
        """
        path = self.folder / "scores" / f"{run}.parquet"
        if "label" not in pq.read_schema(path).names:
            return math.nan
        return float(self._scores(run, "label").value_counts(normalize=True).max())

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
        """The comparison with further methods, fusions and seeds, see `Plan.with_more`."""
        return replace(self, plan=self.plan.with_more(**more))

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
    content = read_json(path)
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}: this mmcoop reads {FORMAT_VERSION}")
    try:
        content.pop("format")
        own = {name: content.pop(name) for name in ("dataset", "left_out", "failed")}
        return Comparison(folder, Plan(**content), **own)
    except (KeyError, TypeError, UsageError) as error:
        raise DataError(f"{path} is not what mmcoop writes: {error}") from None


def new_comparison(
    folder: Path | str, dataset: Dataset, plan: Plan, *, overwrite: bool = False
) -> Comparison:
    """Make the folder of a comparison that is about to start.

    Raises `UsageError` where it may not be made, while another process works on it, and for cases
    that cannot be trained.
    """
    folder = Path(folder)
    if plan.match == "seconds" and make_config(*layers(dataset, plan)).schedule == "cosine":
        raise UsageError(
            "--match seconds: how long a run trains is not known before, and --schedule cosine "
            "needs to know; choose step or constant"
        )
    make_cases(dataset, plan.methods, plan.fusions, plan.options, *layers(dataset, plan))
    check_unlocked(folder)
    _check_place(folder, overwrite)
    about = {"path": str(dataset.folder), "name": dataset.name, "fingerprint": dataset.fingerprint}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_place(folder, overwrite)  # another process may have made one since
        with whole_folder(folder) as temporary:
            Comparison(temporary, plan, about).save()
    return Comparison(folder, plan, about)


def _check_place(folder: Path, overwrite: bool) -> None:
    if not overwrite and is_comparison(folder):
        raise UsageError(
            f"{folder} exists: resume or extend it with --resume, choose another --out, or replace "
            "it with --overwrite"
        )
    check_new_folder(folder, overwrite, is_comparison)


def layers(dataset: Dataset, plan: Plan) -> list[Mapping[str, Any]]:
    """The settings of all runs, later ones going over earlier ones."""
    return [fitting_defaults(dataset.defaults.get("train", {}), plan.settings), plan.settings]


def _union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*first, *second]))

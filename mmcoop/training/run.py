"""The run folder: everything one training leaves behind (`docs/reference/run-folder.md`).

Opening one loads no torch; its model does.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired

import numpy as np
import pandas as pd
from pyarrow.types import is_floating, is_integer
from pydantic import FiniteFloat, with_config
from typing_extensions import TypedDict

from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, MmcoopError, check_given, check_path_given, setting
from mmcoop.files import atomic_folder, atomic_write, check_path, write_json
from mmcoop.locks import recover
from mmcoop.reading.arrow_tables import check_no_nulls, read_parquet, to_frame
from mmcoop.reading.json_files import AS_WRITTEN, Count, PathText, Sha256, read_versioned
from mmcoop.training.build import Architecture, ArchitectureContent, architecture_of
from mmcoop.training.checkpoint_info import load_epoch, weights_hash
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.versions import versions

if TYPE_CHECKING:
    from mmcoop.core.models.model import MultimodalModel

FORMAT, FORMAT_VERSION = "mmcoop run", 1
RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"


#: What a setting may be, before `make_config` checks it against its type.
_Scalar = bool | Count | FiniteFloat | str


@with_config(AS_WRITTEN)
class _TrainedOn(TypedDict):
    path: PathText
    name: str
    fingerprint: Sha256


@with_config(AS_WRITTEN)
class _Parent(TypedDict):
    path: PathText
    weights: Sha256
    cost: NotRequired[dict[str, FiniteFloat]]


@with_config(AS_WRITTEN)
class _ScoresFile(TypedDict):
    path: PathText
    sha256: Sha256


@with_config(AS_WRITTEN)
class RunContent(TypedDict):
    """What `run.json` holds."""

    status: Literal["running", "finished", "stopped"]
    finished: str | None
    config: dict[str, _Scalar | dict[str, _Scalar]]
    model: ArchitectureContent
    dataset: _TrainedOn
    parent: _Parent | None
    scores: NotRequired[_ScoresFile | None]
    threads: NotRequired[Count | None]


class Run:
    """A run folder, opened by `load_run`.

    Attributes:
        config: Every setting of the training.
        status: `"running"` (or killed), `"stopped"` (interrupted or failed) or `"finished"`.
        architecture: The encoders, the fusion and their shapes.
        dataset: Path, name and fingerprint of the dataset it was trained on.
        parent: Path, weights hash and total cost of the run it was fine-tuned from, or None.
        scores: Path and sha256 of the scores file used for enhancement, or None.
        threads: The number of torch threads at the start; None for runs by earlier versions.
        finished: When the training ended, or None.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder = folder
        self.status: str = content["status"]
        self.config: TrainConfig = make_config(content["config"])
        self.architecture = Architecture.from_json(content["model"])
        self.dataset: dict[str, str] = content["dataset"]
        self.parent: dict[str, Any] | None = content["parent"]
        self.scores: dict[str, str] | None = content.get("scores")
        self.threads: int | None = content.get("threads")
        self.finished: str | None = content["finished"]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def resume_command(self) -> str:
        """What to type to resume the run."""
        return f"mmcoop {'enhance' if self.parent else 'train'} --resume --out {self.folder}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's modalities, in the order of all tables."""
        return tuple(sorted(self.architecture.encoders))

    @property
    def best(self) -> Path:
        """The checkpoint that was best on the validation split."""
        return self.folder / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch, with the state to resume from."""
        return self.folder / "checkpoints" / "last"

    @cached_property
    def model(self) -> "MultimodalModel":
        """The model with the weights that were best on validation, in evaluation mode.

        Raises `DataError` where the checkpoint is missing, damaged or of another architecture.
        """
        from mmcoop.training.checkpoint import check_weights, load_weights

        check_weights(self.architecture.described(), self.best)
        model = self.architecture.build()
        load_weights(model, self.best)
        return model.eval()

    @property
    def best_epoch(self) -> dict[str, Any]:
        """Epoch, validation accuracy and validation loss of the best checkpoint."""
        return load_epoch(self.best)

    @property
    def weights_hash(self) -> str:
        """sha256 of the best weights."""
        return weights_hash(self.best)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per epoch; no row before the first is done. `DataError` for a damaged file."""
        path = self.folder / "metrics.parquet"
        if not path.is_file():
            return pd.DataFrame()
        table = read_parquet(path, what="the metrics of a run")
        odd = [f.name for f in table.schema if not (is_integer(f.type) or is_floating(f.type))]
        if odd or "epoch" not in table.column_names or not len(table):
            wrong = f"{odd[0]} has no numbers" if odd else "it has no epoch"
            raise DataError(f"{path} is damaged: {wrong}")
        check_no_nulls(table, ["epoch"], path)
        metrics = to_frame(table, path)
        if not (np.diff(metrics["epoch"], prepend=0) > 0).all():
            raise DataError(f"{path} is damaged: its epochs do not rise")
        return metrics

    @property
    def cost(self) -> dict[str, float]:
        """What the training took: rows encoded to learn from, rows encoded to be valued, seconds,
        and the most memory at once, in MiB.

        A row here is one modality of one sample.
        """
        metrics = self.metrics
        if metrics.empty:
            return {"rows_encoded": 0, "rows_valued": 0, "seconds": 0.0, "peak_memory": 0.0}
        for name in ("rows_encoded", "rows_valued", "seconds"):
            if name not in metrics or not np.isfinite(metrics[name]).all():
                raise DataError(f"{self.folder / 'metrics.parquet'} is damaged: it lacks {name}")
        return {
            "rows_encoded": int(metrics["rows_encoded"].sum()),
            "rows_valued": int(metrics["rows_valued"].sum()),
            "seconds": round(float(metrics["seconds"].sum()), 1),
            "peak_memory": round(float(metrics.get("peak_memory", pd.Series([0.0])).max()), 1),
        }

    @property
    def whole_cost(self) -> dict[str, float]:
        """`cost`, with that of the run it was fine-tuned from: what it takes to get this model."""
        before = (self.parent or {}).get("cost", {})
        cost = self.cost
        whole = {name: cost[name] + before.get(name, 0) for name in cost}
        return whole | {"peak_memory": max(cost["peak_memory"], before.get("peak_memory", 0.0))}

    def contributions_file(self, epoch: int) -> Path:
        """Where the scores of an epoch are."""
        return self.folder / "contributions" / f"epoch-{epoch:04d}.parquet"

    def check_dataset(self, dataset: DatasetFolder) -> None:
        """Raise `DataError` unless `dataset` is the one the run was trained on."""
        check_given(dataset, DatasetFolder, "dataset", "mmcoop.open_dataset")
        if dataset.fingerprint != self.dataset["fingerprint"]:
            raise DataError(
                f"the run {self.folder} was trained on another data set: on {self.dataset['name']} "
                f"({self.dataset['fingerprint'][:12]}), while {dataset.folder} is {dataset.name} "
                f"({dataset.fingerprint[:12]}); give the right one with {setting('data')}"
            )

    def check_architecture(self, dataset: DatasetFolder) -> None:
        """Raise `DataError` unless the model is the one that the settings ask for on `dataset`."""
        if architecture_of(dataset, self.config) != self.architecture:
            raise DataError(
                f"{self.folder / 'run.json'} states another model than its settings give for "
                f"{dataset.folder}: train again with {setting('overwrite', True)}"
            )

    def record_epoch(self, row: Mapping[str, Any]) -> None:
        """Write one more row of the metrics, in place of rows of the same or later epochs."""
        before = self.metrics
        if not before.empty:
            before = before[before["epoch"] < row["epoch"]]
        after = pd.DataFrame([*before.to_dict("records"), row])
        with atomic_write(self.folder / "metrics.parquet") as path:
            after.to_parquet(path, index=False)

    def set_status(self, status: str) -> None:
        """Write a new status; a finished run is dated."""
        self.status = status
        self.finished = datetime.now(UTC).isoformat() if status == FINISHED else None
        self.save()

    def save(self) -> None:
        """Write `run.json`."""
        write_json(self.folder / "run.json", self._to_json())

    def create(self) -> None:
        """Make the folder of a run that is about to start, in place of a run that stands there."""
        with atomic_folder(self.folder) as temporary:
            (temporary / "contributions").mkdir()
            write_json(temporary / "run.json", self._to_json())

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "status": self.status,
            "finished": self.finished,
            "config": self.config.to_json(),
            "model": self.architecture.to_json(),
            "dataset": self.dataset,
            "parent": self.parent,
            "scores": self.scores,
            "threads": self.threads,
            "versions": versions(),
        }


def load_parent(run: Run) -> Run | None:
    """The run that `run` was fine-tuned from, None where it was trained from scratch.

    Raises `DataError` where it is not there any more as it was.
    """
    if run.parent is None:
        return None
    parent = load_run(run.parent["path"])
    if not is_parent(parent, run):
        raise DataError(
            f"{parent.folder} has been trained again since {run.folder} was fine-tuned from it"
        )
    return parent


def is_parent(run: Run, child: Run) -> bool:
    """Whether `run` is, with the weights it has now, what `child` was fine-tuned from."""
    return child.parent is not None and child.parent["weights"] == run.weights_hash


def replaced_parent(child: Run, runs: Iterable[Run]) -> str | None:
    """That `child` must not be compared with one of the `runs`, which is in the place of the run it
    was fine-tuned from but is another one; None where that is not so.
    """
    if child.parent is None:
        return None
    place = Path(child.parent["path"]).resolve()
    for run in runs:
        if run.folder.resolve() == place and not is_parent(run, child):
            return (
                f"{run.folder} has been trained again since {child.folder} was fine-tuned from it: "
                "what differs between them is not what the fine-tuning changed"
            )
    return None


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run folder."""
    return (folder / "run.json").is_file()


def load_run(folder: Path | str) -> Run:
    """Open a run folder. The weights are read when `.model` is first used.

    Args:
        folder: The run folder.

    Returns:
        The run.

    Raises:
        DataError: There is no run, or this version cannot read it.
    """
    check_path_given(folder, "the run folder")
    folder = Path(folder)
    check_path(folder)
    recover(folder)
    if not is_run(folder):
        raise DataError(f"{folder} is not a run folder (no run.json): train one with mmcoop train")
    path = folder / "run.json"
    content = read_versioned(path, RunContent, FORMAT_VERSION)
    try:
        return Run(folder, content)
    except MmcoopError as error:
        raise DataError(f"{path} is not what mmcoop writes: {error}") from None

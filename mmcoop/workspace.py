"""Default locations: `data/` and `runs/` in the current folder."""

from collections.abc import Callable
from pathlib import Path

from mmcoop.datasets.reader import DatasetFolder, is_dataset, open_dataset
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.training.config import TrainConfig
from mmcoop.training.run import FINISHED, Run, is_run, load_run

DATA = Path("data")
RUNS = Path("runs")


def find_dataset(path: Path | None) -> DatasetFolder:
    """Open the dataset at `path`, by default the only one in `data/`.

    Raises:
        DataError: There is none, or it cannot be read.
        UsageError: There are several in `data/`.
    """
    if path is not None:
        return open_dataset(path)
    found = _folders(DATA, is_dataset)
    if not found:
        raise DataError(
            f"there is no data set in {DATA}/ yet: build one with mmcoop build-dataset, or name "
            f"one with {setting('data')}"
        )
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise UsageError(
            f"there are several data sets, choose one with {setting('data')}: {listed}"
        )
    return open_dataset(found[0])


def dataset_of(run: Run, path: Path | None) -> DatasetFolder:
    """Open the dataset at `path`, by default the one that `run` was trained on.

    If that no longer exists, the only one in `data/` is opened, as by `find_dataset`.
    """
    if path is None and is_dataset(Path(run.dataset["path"])):
        path = Path(run.dataset["path"])
    return find_dataset(path)


def find_run(path: Path | None, *, enhanced: bool = True) -> Run:
    """Open the run at `path`, by default the one in `runs/` that finished last.

    Args:
        path: The run, or None.
        enhanced: Whether to consider runs that were fine-tuned from another run.

    Raises:
        DataError: There is no run, or it has not finished.
    """
    if path is not None:
        run = load_run(path)
        if run.status != FINISHED:
            raise DataError(f"the run {path} has not finished: go on with {run.resume_command}")
        return run
    runs = [load_run(folder) for folder in _folders(RUNS, is_run)]
    done = [r for r in runs if r.status == FINISHED and (enhanced or r.parent is None)]
    if not done:
        unfinished = ", ".join(str(r.folder) for r in runs if r.status != FINISHED)
        remedy = f"go on with {unfinished} (--resume)" if unfinished else "run mmcoop train"
        raise DataError(
            f"no run in {RUNS}/ has finished yet: {remedy}, or name one with {setting('run')}"
        )
    return max(done, key=lambda run: run.finished or "")


def run_folder(config: TrainConfig) -> Path:
    """Default folder of a new run, named after its method and its non-default settings."""
    parts = [config.method]
    if "modality" in config.options:
        parts.append(config.options["modality"])
    if config.fusion != TrainConfig.fusion:
        parts.append(config.fusion)
    if config.seed != TrainConfig.seed:
        parts.append(f"seed{config.seed}")
    return RUNS / "-".join(parts)


def enhanced_folder(parent: Run, level: str, seed: int) -> Path:
    """Default folder of an enhanced run, beside the run it starts from."""
    seed_part = [f"seed{seed}"] if seed != parent.config.seed else []
    return parent.folder.with_name("-".join([parent.name, level, *seed_part]))


def _folders(parent: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    if not parent.is_dir():
        return []
    return [f for f in sorted(parent.iterdir()) if wanted(f) and not f.name.startswith(".")]

"""Starting a run, resuming one, and making one longer."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, Interrupted, UsageError, check_given, check_path_given, setting
from mmcoop.files import (
    atomic_folder,
    check_new_folder,
    has_format,
    recover_swap,
    sha256,
)
from mmcoop.locks import check_unlocked, locked
from mmcoop.methods import METHODS
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.scores.precomputed import read_precomputed, reread_precomputed
from mmcoop.training.build import Architecture, architecture_of
from mmcoop.training.checkpoint import has_checkpoint, load_weights
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.training.loggers import TensorBoardLogger, check_tensorboard
from mmcoop.training.run import (
    FINISHED,
    FORMAT,
    RUNNING,
    STOPPED,
    Run,
    is_run,
    load_parent,
    load_run,
)
from mmcoop.training.trainer import Trainer


def train(
    folder: Path | str,
    dataset: DatasetFolder,
    config: TrainConfig,
    *,
    parent: Run | None = None,
    scores: Path | str | None = None,
    overwrite: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
    tensorboard: bool = False,
) -> Run:
    """Train a model and write a run folder. The test split is not read.

    Args:
        folder: The run folder to create.
        dataset: The dataset to train on.
        config: Every setting of the training.
        parent: A run from whose best weights training starts; its architecture must be the same.
        scores: A scores file by which to enhance. Its contributions are used before every epoch,
            and no sample is valued.
        overwrite: Whether an existing folder is replaced.
        runtime: Device, loader processes, and where progress is shown.
        tensorboard: Whether TensorBoard's event files are written too, in the run folder.

    Returns:
        The finished run.

    Raises:
        UsageError: The folder exists, or another process trains in it.
        DataError: The loss is no longer a number.
        Interrupted: Ctrl-C or SIGTERM; `resume` continues the run.
    """
    check_given(dataset, DatasetFolder, "dataset", "mmcoop.open_dataset")
    check_given(config, TrainConfig, "config", "mmcoop.make_config")
    if tensorboard:
        check_tensorboard()
    folder = Path(folder)
    check_unlocked(folder)
    architecture = architecture_of(dataset, config)
    if parent is not None:
        parent.check_dataset(dataset)
        if parent.architecture != architecture:
            raise UsageError(
                f"{parent.folder} has another architecture (modalities, encoders or fusion) than "
                "the one asked for: leave these to the run that is enhanced"
            )
        if parent.folder.resolve() == folder.resolve():
            raise UsageError(f"{folder} is the run to start from: choose another {setting('out')}")
    _check_new_run(folder, overwrite)
    given = recorded = None
    if scores is not None:
        if not METHODS.load(config.method).adds_rows:
            raise UsageError(
                f"method {config.method!r} needs no contributions: leave {setting('scores')} out"
            )
        if Path(scores).resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{scores} is in {folder}, which is replaced: choose another {setting('out')}"
            )
        if config.value != TrainConfig().value:
            raise UsageError(
                f"contributions are read from {scores}: leave {setting('value')} out, which is for "
                "valuations"
            )
        given = read_precomputed(scores, dataset, sorted(architecture.encoders))
        recorded = given.record
    run = new_run(folder, config, architecture, dataset, parent, recorded)
    training = Trainer(run, dataset, runtime, given)
    if parent is not None:
        load_weights(training.model, parent.best)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_new_run(folder, overwrite)  # another process may have made one since
        run.create()  # all that can be refused has been: from here on there is a run folder
        return _finished(training, tensorboard)


def new_run(
    folder: Path,
    config: TrainConfig,
    architecture: Architecture,
    dataset: DatasetFolder,
    parent: Run | None,
    scores: Mapping[str, str] | None = None,
) -> Run:
    """A run that is about to start. Nothing is written before `create`."""
    content = {
        "status": RUNNING,
        "finished": None,
        "config": config.to_json(),
        "model": architecture.to_json(),
        "dataset": {
            "path": str(dataset.folder),
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
        },
        "parent": parent
        and {
            "path": str(parent.folder),
            "weights": parent.weights_hash,
            "cost": parent.whole_cost,
        },
        "scores": scores and dict(scores),
        "threads": torch.get_num_threads(),
    }
    return Run(folder, content)


def _finished(training: Trainer, tensorboard: bool = False) -> Run:
    """Train all epochs that are left; what fails before there is a checkpoint leaves no folder."""
    try:
        if tensorboard:
            training.loggers.append(TensorBoardLogger(training.run.folder, training.epoch))
        return training.finish()
    except Exception as error:
        if not isinstance(error, Interrupted) and not has_checkpoint(training.run.last):
            shutil.rmtree(training.run.folder)
        raise


def _check_new_run(folder: Path, overwrite: bool) -> None:
    """Raise `UsageError` where no run may be made in `folder`; if an unfinished one is there, with
    the command that resumes it.
    """
    if not overwrite and is_run(folder) and (run := load_run(folder)).status != FINISHED:
        raise UsageError(
            f"{folder} holds an unfinished run: resume it with {run.resume_command}, choose "
            f"another {setting('out')}, or replace it with {setting('overwrite', True)}"
        )
    check_new_folder(folder, overwrite, lambda f: has_format(f / "run.json", FORMAT))


def resume(
    folder: Path | str,
    dataset: DatasetFolder,
    *,
    expected: Mapping[str, Any] | None = None,
    scores: Path | str | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    tensorboard: bool = False,
) -> Run:
    """Resume an interrupted run from its last complete epoch; a finished run is left as it is.

    On the same machine, on CPU, the weights are the same bit for bit as without the interruption.

    Args:
        folder: The run folder.
        dataset: The dataset that the run was trained on.
        expected: Settings that the run must have.
        scores: Where the run's scores file is now, if it was moved.
        runtime: Device, loader processes, and where progress is shown.
        tensorboard: Whether TensorBoard's event files are written too, in the run folder.

    Returns:
        The finished run.

    Raises:
        DataError: The folder is not a run or was trained on another dataset, or its scores file has
            changed.
        UsageError: The run has other settings or other scores, or another process trains it.
        Interrupted: Ctrl-C or SIGTERM.
    """
    check_path_given(folder, "the run folder")
    if tensorboard:
        check_tensorboard()
    folder = Path(folder)
    check_unlocked(folder)
    run = _run_to_resume(folder, dataset, expected or {}, scores)
    if run.status == FINISHED:
        return run
    with locked(folder):
        return _resumed(folder, dataset, scores, runtime, tensorboard)


def _resumed(
    folder: Path,
    dataset: DatasetFolder,
    scores: Path | str | None,
    runtime: Runtime,
    tensorboard: bool = False,
) -> Run:
    """The run in a locked `folder`, trained to its end."""
    recover_swap(folder)
    run = load_run(folder)
    if run.status == FINISHED:  # by another process, before the lock was taken
        return run
    recover_swap(run.best)
    recover_swap(run.last)
    given = None
    if run.scores is not None:
        given = reread_precomputed(run.scores, dataset, run.modalities, scores)
    training = Trainer(run, dataset, runtime, given)
    if has_checkpoint(run.last):
        training.load(run.last)
    elif (parent := load_parent(run)) is not None:
        load_weights(training.model, parent.best)
    return _finished(training, tensorboard)


def _run_to_resume(
    folder: Path, dataset: DatasetFolder, expected: Mapping[str, Any], scores: Path | str | None
) -> Run:
    """The run in `folder`, checked as `resume` promises; nothing is changed."""
    run = load_run(folder)
    run.check_dataset(dataset)
    run.check_architecture(dataset)
    begun = run.config.to_json()
    if expected.get("method", run.config.method) != run.config.method:
        begun["options"] = {}  # they are those of the other method
    wanted = make_config(begun, expected)
    if wanted != run.config:
        now, then = wanted.to_json(), run.config.to_json()
        odd = next(name for name in now if now[name] != then[name])
        raise UsageError(
            f"{folder} was started with {odd} {then[odd]!r}, not {now[odd]!r}: a run goes on as it "
            f"began; leave the option out, or start anew with {setting('overwrite', True)}"
        )
    if scores is not None:
        _check_same_scores(run, Path(scores))
    return run


def _check_same_scores(run: Run, path: Path) -> None:
    """Raise `UsageError` unless the run was started with the scores file at `path`."""
    if not path.is_file():
        raise DataError(f"there is no scores file {path}")
    if run.scores is None or sha256(path) != run.scores["sha256"]:
        begun = f"the scores {run.scores['path']}" if run.scores else "no scores"
        raise UsageError(
            f"{run.folder} was started with {begun}, not {path}: a run goes on as it began; leave "
            f"{setting('scores')} out, or start anew with {setting('overwrite', True)}"
        )


def check_training(dataset: DatasetFolder, config: TrainConfig) -> None:
    """Raise the `UsageError` that `train` would raise of what `config` asks for on `dataset`."""
    run = new_run(Path(), config, architecture_of(dataset, config), dataset, None)
    Trainer(run, dataset, Runtime(device="cpu"))


def extend(
    folder: Path | str,
    shorter: Run,
    dataset: DatasetFolder,
    config: TrainConfig,
    *,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Run:
    """Train as `config` says, from where `shorter` ended: the same run as one from scratch, for
    less. `shorter` stays as it is, unless `folder` is its own.

    Raises `UsageError` where `shorter` is not the beginning of a run by `config`.
    """
    folder = Path(folder)
    from_scratch = shorter.parent is None and shorter.scores is None
    if not (from_scratch and shorter.config.begins(config)):
        raise UsageError(f"{shorter.folder} is not the beginning of the run that is asked for")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if folder == shorter.folder:
            new_run(folder, config, shorter.architecture, dataset, None).set_status(STOPPED)
        else:
            with atomic_folder(folder) as temporary:
                shutil.copytree(shorter.folder, temporary, dirs_exist_ok=True)
                new_run(temporary, config, shorter.architecture, dataset, None).set_status(STOPPED)
        return _resumed(folder, dataset, None, runtime)

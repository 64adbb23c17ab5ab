"""Runs, each trained and tested in a process of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pebble import ProcessExpired
from pydantic import Field, FiniteFloat, with_config
from typing_extensions import TypedDict

from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.errors import DataError, MmcoopError
from mmcoop.files import NoRoom, disk_room, write_json
from mmcoop.processes import finished, processors, worker_processes
from mmcoop.progress import SILENT
from mmcoop.reading.json_files import AS_WRITTEN, Count, read_json
from mmcoop.runtime import Runtime
from mmcoop.stopping import stop_on_sigterm
from mmcoop.training.build import architecture_of
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.training.evaluation import evaluate_run
from mmcoop.training.run import Run, is_run, load_run
from mmcoop.training.threads import suitable_threads
from mmcoop.training.train import extend, resume, train

_PRELOAD = ("mmcoop.training.evaluation", "mmcoop.training.train")


_Share = Annotated[float, Field(ge=0, le=1)]


@with_config(AS_WRITTEN)
class _Cost(TypedDict):
    rows_encoded: Count
    rows_valued: Count
    seconds: FiniteFloat
    peak_memory: NotRequired[FiniteFloat]


@with_config(AS_WRITTEN)
class _Validation(TypedDict):
    accuracy: _Share
    loss: FiniteFloat


@with_config(AS_WRITTEN)
class _Tested(TypedDict):
    accuracy: _Share
    macro_f1: _Share
    mean_average_precision: float
    coalitions: dict[str, _Share]
    contributions: dict[str, FiniteFloat]


@with_config(AS_WRITTEN)
class OutcomeContent(TypedDict):
    """What a file in `results/` holds."""

    run: str
    config: dict[str, Any]
    epochs: Annotated[int, Field(ge=1, le=2**53)]
    best_epoch: Count
    cost: _Cost
    last_epoch_rows: Annotated[int, Field(ge=1, le=2**53)]
    validation: _Validation
    test: _Tested | None


@dataclass(frozen=True)
class Job:
    """A run to be trained in `folder` as `config` says; what came of it is written to `result`.

    `shorter`: a run that may be its beginning. `scores`: where the scores of the test samples go;
    None: the run is not tested.
    """

    folder: Path
    config: TrainConfig
    result: Path
    shorter: Path | None = None
    scores: Path | None = None

    @property
    def done(self) -> bool:
        """Whether the result is there, of a run that was trained in this way."""
        return self.result.is_file() and make_config(self.outcome["config"]) == self.config

    @property
    def outcome(self) -> dict[str, Any]:
        """What was written to `result`: `config`, `epochs` (those trained), `best_epoch`, `cost`,
        `last_epoch_rows` (encoded or valued in that one), `validation` (accuracy, loss) and `test`
        (see `evaluate_run`), None where it was not tested.
        """
        return dict(read_json(self.result, OutcomeContent))

    @property
    def epochs_trained(self) -> int:
        """How far the run is."""
        return len(list((self.folder / "contributions").glob("epoch-*.parquet")))


def run_jobs(
    jobs: Sequence[Job],
    dataset: DatasetFolder,
    *,
    at_once: int,
    runtime: Runtime,
    threads: int | None,
    label: str,
) -> dict[Path, str]:
    """Do the jobs that are not done, this many at once, and return why some failed, by folder.

    Each is in a process of its own with `threads` threads; None: what suits its model, and together
    no more than there are processors, whether or not some are done already. Interrupted or
    killed, the same call resumes from the last whole epoch of each run.

    Raises `NoRoom` as soon as one finds the disk full, which the others would find full as well.
    """
    waiting = [job for job in jobs if not job.done]
    failed: dict[Path, str] = {}
    if not waiting:
        return failed
    share = max(1, processors() // at_once)
    at_once = min(at_once, len(waiting))
    begun: dict[int, Any] = {}
    quiet = replace(runtime, progress=SILENT)  # a run's own progress has no place to be shown

    def status() -> str:
        running = [job for k, job in enumerate(waiting) if not begun[k].done()][:at_once]
        return ", ".join(
            f"{job.folder.name} {job.epochs_trained}"
            + ("" if job.config.max_seconds else f"/{job.config.epochs}")
            for job in running
        )

    def outcomes(pool: Any) -> Iterator[None]:
        for k, job in enumerate(waiting):
            begun[k] = pool.schedule(_do, args=(job, dataset.folder, quiet, threads))
        jobs_of = {task: waiting[k] for k, task in begun.items()}
        for task in finished(pool, list(jobs_of)):
            if problem := _problem(task):
                job = jobs_of[task]
                failed[job.folder] = problem
                runtime.progress.note(f"{job.folder.name} failed: {problem}")
            yield

    try:
        with worker_processes(at_once, preload=_PRELOAD, threads=share, tasks_each=1) as pool:
            for _ in runtime.progress.track(outcomes(pool), label, len(waiting), status):
                pass
    except RuntimeError as error:
        raise DataError(f"the processes that train end, or cannot be started: {error}") from error
    return {job.folder: failed[job.folder] for job in waiting if job.folder in failed}


def _problem(task: Any) -> str | None:
    try:
        problem: str | None = task.result()
    except ProcessExpired as error:
        return f"its process ended with code {error.exitcode} (is there enough memory?)"
    return problem


def _do(job: Job, dataset_folder: Path, runtime: Runtime, threads: int | None) -> str | None:
    """In a process of its own; returns what went wrong, but raises `NoRoom` for a full disk.

    SIGTERM, with which the pool ends its processes, stops the run as Ctrl-C would.
    """
    try:
        with stop_on_sigterm(), disk_room(job.folder, job.folder):
            _train_and_test(job, dataset_folder, runtime, threads)
    except KeyboardInterrupt:
        return "stopped"
    except NoRoom:
        raise
    except MmcoopError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return None


def _train_and_test(job: Job, dataset_folder: Path, runtime: Runtime, threads: int | None) -> None:
    dataset = open_dataset(dataset_folder)
    architecture = architecture_of(dataset, job.config)
    torch.set_num_threads(threads or suitable_threads(architecture, job.config.batch_size))
    run = _trained(job, dataset, runtime)
    test = None
    if job.scores is not None:
        job.scores.parent.mkdir(exist_ok=True)
        test = evaluate_run(run, dataset, out=job.scores, runtime=runtime)
    last = run.metrics.iloc[-1]
    outcome = {
        "run": run.name,
        "config": run.config.to_json(),
        "epochs": int(last["epoch"]),
        "best_epoch": run.best_epoch["epoch"],
        "validation": {
            "accuracy": run.best_epoch["validation_accuracy"],
            "loss": run.best_epoch["validation_loss"],
        },
        "cost": run.cost,
        "last_epoch_rows": int(last["rows_encoded"] + last["rows_valued"]),
        "test": test,
    }
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.result, outcome)


def _trained(job: Job, dataset: DatasetFolder, runtime: Runtime) -> Run:
    def longer(run: Run) -> Run:
        return extend(job.folder, run, dataset, job.config, runtime=runtime)

    if is_run(job.folder):
        run = load_run(job.folder)
        if run.config == job.config:
            return resume(job.folder, dataset, runtime=runtime)
        if run.config.begins(job.config):
            return longer(run)
    elif job.shorter and is_run(job.shorter) and load_run(job.shorter).config.begins(job.config):
        return longer(load_run(job.shorter))
    return train(job.folder, dataset, job.config, overwrite=True, runtime=runtime)

"""The training loop: one for every method, and it knows none by name."""

import math
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from mmcoop.core.batch import Batch
from mmcoop.core.coalitions import telling_coalitions
from mmcoop.core.resampling import Rows, shuffled
from mmcoop.core.seeds import derive_seed, generator, seeded
from mmcoop.core.summary import Summary
from mmcoop.core.valuation import value_batches
from mmcoop.core.valuing import Valuing
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.store import Dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.files import check_new_folder, has_format, settle_folder, sha256, whole_folder
from mmcoop.methods import METHODS
from mmcoop.methods.base import Method, Task
from mmcoop.progress import SILENT, Progress
from mmcoop.scores import ScoresWriter, scores_file, valuation_details
from mmcoop.training.build import architecture_of
from mmcoop.training.checkpoint import (
    has_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
)
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.training.given_scores import GivenScores, read_given_scores, reread_given_scores
from mmcoop.training.memory import peak_memory
from mmcoop.training.run import (
    FINISHED,
    FORMAT,
    RUNNING,
    STOPPED,
    Run,
    load_parent,
    load_run,
    new_run,
)

# The loss is looked at for NaN every so many steps: each look makes a GPU wait.
_CHECK_EVERY = 64


def train(
    folder: Path | str,
    dataset: Dataset,
    config: TrainConfig,
    *,
    parent: Run | None = None,
    scores: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = SILENT,
) -> Run:
    """Train a model as `config` says and leave a run folder.

    With a `parent`, training starts from its best weights; the architecture must be the same. With
    a scores file `scores`, enhancement goes by the contributions in it, the same ones before every
    epoch, and values no sample. The test split is not read. Interrupted or killed, `resume` goes
    on.

    Raises `UsageError` where the folder exists and may not be replaced, `DataError` where the
    loss is no longer a number, `Interrupted` on Ctrl-C.
    """
    folder = Path(folder)
    architecture = architecture_of(dataset, config)
    if parent is not None:
        parent.check_dataset(dataset)
        if parent.architecture != architecture:
            raise UsageError(
                f"{parent.folder} has another architecture (modalities, encoders or fusion) than "
                "the one asked for: leave these to the run that is enhanced"
            )
        if parent.folder.resolve() == folder.resolve():
            raise UsageError(f"{folder} is the run to start from: choose another --out")
    check_new_folder(folder, overwrite, lambda f: has_format(f / "run.json", FORMAT))
    given = recorded = None
    if scores is not None:
        if not METHODS.load(config.method).adds_rows:
            raise UsageError(f"method {config.method!r} needs no contributions: leave --scores out")
        if Path(scores).resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{scores} is in {folder}, which is replaced: choose another --out")
        given = read_given_scores(scores, dataset, sorted(architecture.encoders))
        recorded = given.record
    run = new_run(folder, config, architecture, dataset, parent, recorded)
    training = _Training(run, dataset, pick_device(device), workers, progress, given)
    if parent is not None:
        load_weights(training.model, parent.best)
    run.create()  # all that can be refused has been: from here on there is a run folder
    return training.finish()


def resume(
    folder: Path | str,
    dataset: Dataset,
    *,
    expected: Mapping[str, Any] | None = None,
    scores: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = SILENT,
) -> Run:
    """Go on with a run that was cut off, from its last whole epoch; a finished one is left alone.

    On the same machine on CPU the weights end bit for bit as if nothing had happened. Scores that
    the run was given are read again from where they were, or from `scores` if they were moved.
    Raises `DataError` where the folder is not a run or was trained on another data set, or its
    scores are not the same any more, `UsageError` where its settings are not the `expected` ones
    (of those named there), or its scores not `scores`.
    """
    settle_folder(Path(folder))
    run = load_run(folder)
    run.check_dataset(dataset)
    begun, expected = run.config.to_json(), expected or {}
    if expected.get("method", run.config.method) != run.config.method:
        begun["options"] = {}  # they are those of the other method
    wanted = make_config(begun, expected)
    if wanted != run.config:
        now, then = wanted.to_json(), run.config.to_json()
        odd = next(name for name in now if now[name] != then[name])
        raise UsageError(
            f"{folder} was started with {odd} {then[odd]!r}, not {now[odd]!r}: a run goes on as it "
            "began; leave the option out, or start anew with --overwrite"
        )
    if scores is not None:
        _check_same_scores(run, Path(scores))
    if run.status == FINISHED:
        return run
    settle_folder(run.best)
    settle_folder(run.last)
    given = None
    if run.scores is not None:
        given = reread_given_scores(run.scores, dataset, run.modalities, scores)
    training = _Training(run, dataset, pick_device(device), workers, progress, given)
    if has_checkpoint(run.last):
        training.load(run.last)
    elif (parent := load_parent(run)) is not None:
        load_weights(training.model, parent.best)
    return training.finish()


def _check_same_scores(run: Run, path: Path) -> None:
    """Raise `UsageError` unless the run was started with the scores file at `path`."""
    if not path.is_file():
        raise DataError(f"there is no scores file {path}")
    if run.scores is None or sha256(path) != run.scores["sha256"]:
        begun = f"the scores {run.scores['path']}" if run.scores else "no scores"
        raise UsageError(
            f"{run.folder} was started with {begun}, not {path}: a run goes on as it began; leave "
            "--scores out, or start anew with --overwrite"
        )


def check_training(dataset: Dataset, config: TrainConfig) -> None:
    """Raise the `UsageError` that `train` would raise of what `config` asks for on `dataset`."""
    run = new_run(Path(), config, architecture_of(dataset, config), dataset, None)
    _Training(run, dataset, torch.device("cpu"), 0, SILENT, None)


def extend(
    folder: Path | str,
    shorter: Run,
    dataset: Dataset,
    config: TrainConfig,
    *,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = SILENT,
) -> Run:
    """Train as `config` says, from where `shorter` ended: the same run as one from scratch, for
    less. `shorter` stays as it is, unless `folder` is its own.

    Raises `UsageError` where `shorter` is not the beginning of a run by `config`.
    """
    folder = Path(folder)
    from_scratch = shorter.parent is None and shorter.scores is None
    if not (from_scratch and shorter.config.begins(config)):
        raise UsageError(f"{shorter.folder} is not the beginning of the run that is asked for")
    if folder == shorter.folder:
        new_run(folder, config, shorter.architecture, dataset, None).set_status(STOPPED)
    else:
        with whole_folder(folder) as temporary:
            shutil.copytree(shorter.folder, temporary, dirs_exist_ok=True)
            new_run(temporary, config, shorter.architecture, dataset, None).set_status(STOPPED)
    return resume(folder, dataset, device=device, workers=workers, progress=progress)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    Raises `UsageError` for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from None
    return device


class _Training:
    """One run being trained."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        device: torch.device,
        workers: int,
        progress: Progress,
        given: GivenScores | None,
    ) -> None:
        self.run = run
        self.config = config = run.config
        self.train_split = dataset.split("train")
        self.validation_split = dataset.split("validation")
        self.device = device
        self.workers = workers
        self.progress = progress
        self.given = given
        self.model = run.architecture.build(config.seed).to(device)
        task = Task(
            model=self.model,
            n_samples=len(self.train_split),
            n_classes=len(run.architecture.classes),
            seed=config.seed,
            warmup=config.warmup,
            max_extra=config.max_extra or None,
            value=self._value,
            batches=self._batches,
            optimizer=lambda parameters: _optimizer(config, list(parameters)),
        )
        with seeded(derive_seed(config.seed, "method")):
            self.method: Method = METHODS.load(config.method)(task, **config.options)
        self.method.to(device)
        self.optimizer = _optimizer(config, [*self.model.parameters(), *self.method.parameters()])
        self.epoch = 0
        self.best: dict[str, Any] | None = None
        self.stale_epochs = 0
        # of the epoch at hand
        self._scores: ScoresWriter | None = None
        self._valued: list[Tensor] = []
        self._cost = {"encoded": 0, "valued": 0}

    def finish(self) -> Run:
        """Train all epochs that are left."""
        self.run.set_status(RUNNING)
        try:
            # torch's generator is seeded anew for every epoch and given back at the end
            with torch.random.fork_rng():
                while self.epoch < self.config.epochs and not (self._stale() or self._late()):
                    self._train_epoch(self.epoch + 1)
        except KeyboardInterrupt:
            self.run.set_status(STOPPED)
            raise Interrupted(
                f"stopped in epoch {self.epoch + 1} of {self.config.epochs}; go on from the last "
                f"whole epoch with {self.run.resume_command}"
            ) from None
        except Exception:
            self.run.set_status(STOPPED)
            raise
        self.run.set_status(FINISHED)
        return self.run

    def _stale(self) -> bool:
        return 0 < self.config.patience <= self.stale_epochs

    def _late(self) -> bool:
        limit, metrics = self.config.max_seconds, self.run.metrics
        return limit > 0 and not metrics.empty and float(metrics["seconds"].sum()) >= limit

    def _train_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        details = {
            **valuation_details(Valuing(), len(self.run.modalities)),
            "run": self.run.name,
            "epoch": epoch,
        }
        path = self.run.contributions_file(epoch)
        with scores_file(path, self.run.modalities, details) as self._scores:
            self._valued = []
            self._cost = {"encoded": 0, "valued": 0}
            torch.manual_seed(derive_seed(self.config.seed, "epoch", epoch))
            rows = self.method.rows(epoch)
            rows = shuffled(rows, generator(self.config.seed, "order", epoch))
            loss = self._train_on(rows, epoch)
            validation = self._validate()
            self._check_number(validation.loss, epoch, "validation loss")
        self.epoch = epoch
        accuracy = validation.accuracy
        grand = "+".join(self.run.modalities)
        # of many modalities a line has room for all of them together alone
        telling = telling_coalitions(list(accuracy)) if len(self.run.modalities) < 4 else [grand]
        train_means = torch.cat(self._valued).mean(0).tolist() if self._valued else None
        row = {
            "epoch": epoch,
            "lr": self.config.learning_rate(epoch),
            "loss": loss,
            "rows": len(rows),
            "rows_encoded": int(rows.present.sum()) + self._cost["encoded"],
            "rows_valued": sum(part.numel() for part in self._valued) + self._cost["valued"],
            **{
                f"contribution_{m}": train_means[k] if train_means else math.nan
                for k, m in enumerate(self.run.modalities)
            },
            "validation_loss": validation.loss,
            "validation_accuracy": accuracy[grand],
            **{f"validation_accuracy_{name}": share for name, share in accuracy.items()},
            **{
                f"validation_contribution_{m}": mean
                for m, mean in validation.mean_contribution.items()
            },
            **{f"method_{name}": number for name, number in self.method.coefficients().items()},
            "seconds": time.perf_counter() - start,
            "peak_memory": peak_memory(self.device),
        }
        self._save(row)
        self.progress.note(
            f"epoch {epoch}/{self.config.epochs}: loss {loss:.3f}, {len(rows)} rows, validation "
            + ", ".join(f"{name} {100 * accuracy[name]:.1f} %" for name in telling)
        )

    def _train_on(self, rows: Rows, epoch: int) -> float:
        """Train on the rows, in order; returns the mean loss, in nats a row."""
        self.model.train()
        self.method.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate(epoch)
        batches = load_batches(
            self.train_split,
            rows,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            seed=derive_seed(self.config.seed, "transforms", epoch),
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        label = f"epoch {epoch}/{self.config.epochs}"
        for step, batch in enumerate(self.progress.track(batches, label), start=1):
            loss = self.method.update(batch.to(self.device), self.optimizer)
            total += loss * len(batch.labels)
            if step % _CHECK_EVERY == 0:
                self._check_number(float(total), epoch, f"loss at step {step}")
        self._check_number(float(total), epoch, "loss")
        return float(total) / len(rows)

    def _check_number(self, number: float, epoch: int, what: str) -> None:
        if math.isfinite(number):
            return
        kept = (
            f"epoch {self.epoch} is kept in {self.run.last}" if self.epoch else "nothing was saved"
        )
        raise DataError(
            f"the {what} of epoch {epoch} is {number}: training stopped, {kept}. Try a lower "
            "--lr, and look for NaN in the data"
        )

    def _batches(self, split: str, rows: Rows | None, seed: int | None) -> Iterable[Batch]:
        """Batches for a method's own purposes, counted as cost."""
        samples = self.train_split if split == "train" else self.validation_split
        n = len(self.run.modalities)
        passed = len(samples) * n if rows is None else int(rows.present.sum())
        self._cost["valued" if seed is None else "encoded"] += passed
        batches = load_batches(
            samples,
            rows,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            seed=seed,
            workers=self.workers,
        )
        return (batch.to(self.device) for batch in batches)

    def _value(self, samples: Tensor | None) -> Tensor:
        """Contributions of training samples: the given ones, or else by the model as it is, which
        are noted down in the epoch's scores.
        """
        if self.given is not None:
            phi = self.given.contributions
            return phi if samples is None else phi[samples]
        assert self._scores is not None
        rows = (
            samples
            if samples is None
            else Rows(samples, torch.ones(len(samples), len(self.run.modalities), dtype=torch.bool))
        )
        batches = load_batches(
            self.train_split,
            rows,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            workers=self.workers,
            with_ids=True,
        )
        contributions = []
        tracked = self.progress.track(batches, "valuing training samples")
        for batch in value_batches(self.model, tracked, modalities=self.run.modalities):
            self._scores.add("train", batch)
            contributions.append(batch.contributions)
        self._valued += contributions
        return torch.cat(contributions)

    def _validate(self) -> Summary:
        assert self._scores is not None
        summary = Summary(self.run.modalities, len(self.run.architecture.classes))
        batches = load_batches(
            self.validation_split,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            workers=self.workers,
            with_ids=True,
        )
        for batch in value_batches(self.model, batches, modalities=self.run.modalities):
            self._scores.add("validation", batch)
            summary.add(batch)
        return summary

    def _save(self, row: dict[str, Any]) -> None:
        """Write the epoch's metrics and checkpoints, `last` at the end: it is what resuming
        starts from, and whatever was written before it is then written again, the same.
        """
        info = {key: row[key] for key in ("epoch", "validation_accuracy", "validation_loss")}
        weights = self.model.state_dict()
        self.run.record_epoch(row)
        if self.best is None or _rank(info) > _rank(self.best):
            self.best = info
            self.stale_epochs = 0
            save_checkpoint(self.run.best, weights, info)
        else:
            self.stale_epochs += 1
        state = {
            "epoch": self.epoch,
            "best": self.best,
            "stale_epochs": self.stale_epochs,
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
        }
        save_checkpoint(self.run.last, weights, info, state)

    def load(self, checkpoint: Path) -> None:
        """Go back to a checkpoint. No random state is in it: every epoch seeds its own chance."""
        load_weights(self.model, checkpoint)
        state = load_state(checkpoint)
        try:
            self.epoch = state["epoch"]
            self.best = state["best"]
            self.stale_epochs = state["stale_epochs"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.method.load_state_dict(state["method"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{checkpoint}/state.pt does not fit this training: {error}; start anew with "
                "--overwrite"
            ) from None


def _rank(info: dict[str, Any]) -> tuple[float, float]:
    """Higher is better: accuracy on validation, and the lower loss among equals."""
    return info["validation_accuracy"], -info["validation_loss"]


def _optimizer(config: TrainConfig, parameters: list[torch.nn.Parameter]) -> Optimizer:
    if config.optimizer == "sgd":
        return SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)

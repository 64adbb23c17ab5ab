"""The training loop: one for every method, and it knows none by name."""

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from mmcoop.core.batch import Batch
from mmcoop.core.resampling import TrainingExamples, in_fair_shares, shuffled, slack_of
from mmcoop.core.seeds import derive_seed, generator, seeded
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import value_batches
from mmcoop.core.valuation.value_functions import value_function
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, Interrupted, setting
from mmcoop.methods import METHODS
from mmcoop.methods.base import Method, TrainContext
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.scores.precomputed import PrecomputedScores
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import ScoresWriter, valuation_details
from mmcoop.training.checkpoint import load_training_state, load_weights, save_checkpoint
from mmcoop.training.config import TrainConfig
from mmcoop.training.device import pick_device
from mmcoop.training.loggers import Logger, RunFolderLogger, TerminalLogger
from mmcoop.training.memory import peak_memory
from mmcoop.training.run import FINISHED, RUNNING, STOPPED, Run

# The loss is looked at for NaN every this many steps: each look makes a GPU wait.
_CHECK_EVERY = 64


class Trainer:
    """One run being trained."""

    def __init__(
        self,
        run: Run,
        dataset: DatasetFolder,
        runtime: Runtime = DEFAULT_RUNTIME,
        given: PrecomputedScores | None = None,
    ) -> None:
        #: What receives the metrics of every epoch, in this order.
        self.loggers: list[Logger] = [
            RunFolderLogger(run),
            TerminalLogger(runtime.progress, run.config.epochs),
        ]
        self.run = run
        self.config = config = run.config
        self.train_split = dataset.split("train")
        self.validation_split = dataset.split("validation")
        self.device = pick_device(runtime.device)
        self.workers = runtime.workers
        self.progress = runtime.progress
        self.given = given
        self.how = ValuationConfig(value=config.value)
        self.function = value_function(config.value)
        self.model = run.architecture.build(config.seed).to(self.device)
        task = TrainContext(
            model=self.model,
            n_samples=len(self.train_split),
            n_classes=len(run.architecture.classes),
            seed=config.seed,
            warmup=config.warmup,
            max_extra=config.max_extra or None,
            slack=given.slack if given else slack_of(self.function.fair_share),
            value=self._value,
            batches=self._batches,
            optimizer=lambda parameters: _optimizer(config, list(parameters)),
        )
        with seeded(derive_seed(config.seed, "method")):
            self.method: Method = METHODS.load(config.method)(task, **config.options)
        self.method.to(self.device)
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
            # torch's generator is seeded again for every epoch and given back at the end
            with torch.random.fork_rng():
                while self.epoch < self.config.epochs and not (self._stale() or self._late()):
                    self._train_epoch(self.epoch + 1)
        except KeyboardInterrupt:
            self.run.set_status(STOPPED)
            begin = "go on from the last whole epoch" if self.epoch else "begin it again"
            raise Interrupted(
                f"stopped in epoch {self.epoch + 1} of {self.config.epochs}; {begin} with "
                f"{self.run.resume_command}"
            ) from None
        except Exception:
            with suppress(DataError, OSError):  # the disk may be full: what was wrong is said below
                self.run.set_status(STOPPED)
            raise
        finally:
            for logger in self.loggers:
                logger.close()
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
            **valuation_details(self.how, len(self.run.modalities)),
            "run": self.run.name,
            "epoch": epoch,
            "classes": len(self.run.architecture.classes),
        }
        path = self.run.contributions_file(epoch)
        with Scores.create(path, self.run.modalities, details) as self._scores:
            self._valued = []
            self._cost = {"encoded": 0, "valued": 0}
            torch.manual_seed(derive_seed(self.config.seed, "epoch", epoch))
            self.method.on_epoch_start(epoch)
            rows = self.method.epoch_samples(epoch)
            rows = shuffled(rows, generator(self.config.seed, "order", epoch))
            loss = self._train_on(rows, epoch)
            validation_loss = self._validate()
            self._check_number(validation_loss, epoch, "validation loss")
        self.epoch = epoch
        validation = Scores.open(path).summary("validation", replicates=0)
        accuracy = validation.accuracy
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
            "validation_loss": validation_loss,
            "validation_accuracy": accuracy["+".join(self.run.modalities)],
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
        for logger in self.loggers:
            logger.epoch_saved(row)

    def _train_on(self, rows: TrainingExamples, epoch: int) -> float:
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
            with_ids=False,
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
            f"{setting('lr')}, and look for NaN in the data"
        )

    def _batches(
        self, split: str, rows: TrainingExamples | None, seed: int | None
    ) -> Iterable[Batch]:
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
            with_ids=False,
        )
        return (batch.to(self.device) for batch in batches)

    def _value(self, samples: Tensor | None) -> Tensor:
        """Contributions of training samples in fair shares: those of the scores file, or else by
        the current model, which are recorded in the epoch's scores.
        """
        if self.given is not None:
            phi = self.given.contributions
            return phi if samples is None else phi[samples]
        assert self._scores is not None
        rows = (
            samples
            if samples is None
            else TrainingExamples(
                samples, torch.ones(len(samples), len(self.run.modalities), dtype=torch.bool)
            )
        )
        batches = load_batches(
            self.train_split,
            rows,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            workers=self.workers,
        )
        contributions = []
        tracked = self.progress.track(batches, "valuing training samples")
        for batch in value_batches(
            self.model, tracked, modalities=self.run.modalities, how=self.how
        ):
            self._scores.append("train", batch)
            contributions.append(batch.contributions)
        self._valued += contributions
        phi = torch.cat(contributions)
        return in_fair_shares(phi, self.function.fair_share, self.function.best)

    def _validate(self) -> float:
        """Value the validation samples into the epoch's scores; returns the mean cross-entropy of
        the predictions from all modalities, in nats.
        """
        assert self._scores is not None
        loss = 0.0
        batches = load_batches(
            self.validation_split,
            modalities=self.run.modalities,
            batch_size=self.config.batch_size,
            workers=self.workers,
        )
        for batch in value_batches(
            self.model, batches, modalities=self.run.modalities, how=self.how
        ):
            self._scores.append("validation", batch)
            assert batch.labels is not None
            loss += float(F.cross_entropy(batch.outputs, batch.labels, reduction="sum"))
        return loss / len(self.validation_split)

    def _save(self, row: dict[str, Any]) -> None:
        """Write the epoch's metrics and checkpoints, `last` at the end: it is what resuming
        starts from, and whatever was written before it is then written again, the same.
        """
        info = {key: row[key] for key in ("epoch", "validation_accuracy", "validation_loss")}
        weights = self.model.state_dict()
        for logger in self.loggers:
            logger.log_epoch(row)
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
        state = load_training_state(checkpoint, self.optimizer, self.method)
        self.epoch = state["epoch"]
        self.best = state["best"]
        self.stale_epochs = state["stale_epochs"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])


def _rank(info: dict[str, Any]) -> tuple[float, float]:
    """Higher is better: accuracy on validation, and the lower loss among equals."""
    return info["validation_accuracy"], -info["validation_loss"]


def _optimizer(config: TrainConfig, parameters: list[torch.nn.Parameter]) -> Optimizer:
    if config.optimizer == "sgd":
        return SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)

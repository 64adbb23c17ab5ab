"""Where the metrics of a training run go: the run folder, the terminal, TensorBoard."""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmcoop.core.modalities import display_coalitions
from mmcoop.errors import UsageError
from mmcoop.progress import Progress
from mmcoop.training.run import Run

#: The folder of TensorBoard's event files in a run folder.
TENSORBOARD = "tensorboard"


class Logger:
    """Receives the metrics of a run, epoch by epoch. Both methods do nothing unless overridden."""

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Record an epoch, before its checkpoint is written.

        A run that is killed in between trains the epoch again, so that it is recorded twice: the
        second record must replace the first.

        Args:
            row: The epoch's row of `metrics.parquet`, by column.
        """

    def epoch_saved(self, row: Mapping[str, Any]) -> None:
        """Called once the epoch's checkpoint is written, so that the epoch cannot be lost."""

    def close(self) -> None:
        """Called when training ends, for whatever reason."""


class RunFolderLogger(Logger):
    """`metrics.parquet` of a run folder."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        self._run.record_epoch(dict(row))


class TerminalLogger(Logger):
    """One line per epoch, where progress is shown."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress, self._epochs = progress, epochs

    def epoch_saved(self, row: Mapping[str, Any]) -> None:
        prefix = "validation_accuracy_"
        accuracy = {name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)}
        modalities = [name for name in accuracy if "+" not in name]
        # with many modalities, a line has room only for all of them together
        all_of_them = ["+".join(modalities)]
        shown = display_coalitions(list(accuracy)) if len(modalities) < 4 else all_of_them
        shares = ", ".join(f"{name} {100 * accuracy[name]:.1f} %" for name in shown)
        self._progress.note(
            f"epoch {row['epoch']}/{self._epochs}: loss {row['loss']:.3f}, {row['rows']} examples, "
            f"validation {shares}"
        )


def check_tensorboard() -> None:
    """Raise `UsageError` if the package `tensorboard` is not installed."""
    if find_spec("tensorboard") is None:
        raise UsageError(
            "logging to TensorBoard needs its package: pip install 'mmcoop[tensorboard]'"
        )


class TensorBoardLogger(Logger):
    """TensorBoard's event files, in the folder `tensorboard` of the run; one scalar per metric.

    Args:
        folder: The run folder.
        epoch: The last complete epoch of the run. Records of later ones, which a kill may have
            left, are hidden.

    Raises:
        UsageError: The package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / TENSORBOARD, purge_step=epoch + 1)

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        for name, number in row.items():
            if name != "epoch" and not math.isnan(number):
                self._writer.add_scalar(name, number, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

"""What a training method is."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mmcoop.core.batch import Batch
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.resampling import ROUNDING, TrainingExamples, complete_examples
from mmcoop.errors import UsageError


def check_not_negative(**options: float) -> None:
    """Raise `UsageError`, naming it, for an option that is negative or no finite number."""
    for name, number in options.items():
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{name} is {number}: it must be a number that is not negative")


@dataclass(frozen=True)
class TrainContext:
    """What a method is asked to train on.

    `model` is the one that is trained. `value(samples)` gives the contributions `(k, n)` of the
    training samples at the positions `samples` (all of them for None), by the model as it is, in
    evaluation mode and with the evaluation transform, or those of a file that was given. `warmup`
    is the number of ordinary epochs before the method starts. `batches(split, rows, seed)` gives
    batches of "train" or "validation", of all samples, whole, unless `rows` says otherwise, with
    the evaluation transform unless a seed is given; what goes through it is counted as cost.
    `optimizer(parameters)` makes one as the run's own. `max_extra` is the most rows that a method
    may add to an epoch for one sample, None for as many as it likes. `slack`: as of `extra_rows`,
    for these contributions.
    """

    model: MultimodalModel
    n_samples: int
    n_classes: int
    seed: int
    warmup: int
    value: Callable[[Tensor | None], Tensor]
    batches: Callable[[str, TrainingExamples | None, int | None], Iterable[Batch]]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    max_extra: int | None = None
    slack: float = ROUNDING

    @property
    def n_modalities(self) -> int:
        return len(self.model.modalities)


class Method(nn.Module):
    """A training method: joint training, unless a subclass says otherwise.

    It is a module so that whatever it owns is handled by what is there: its parameters (heads of
    its own) are trained with the model's, its buffers (prototypes, running means) are in the
    checkpoints. Keyword arguments of a subclass are its options, as `options.py` declares them.
    """

    #: Whether the method begins with ordinary epochs, `task.warmup` of them.
    has_warmup = False
    #: Whether the method adds rows by contributions, no more than `task.max_extra` a sample.
    adds_rows = False
    #: The options that name the last epoch of something the method does.
    ends: ClassVar[tuple[str, ...]] = ()
    #: The only fusions that the method is defined on, the usual one first; empty: any that has what
    #: it looks for.
    fusions: ClassVar[tuple[str, ...]] = ()
    #: Between which bounds `mmcoop compare --tune` tries an option, on a logarithmic scale.
    search: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, task: TrainContext) -> None:
        super().__init__()
        # not a submodule: the model's own weights are not the method's
        self.__dict__["task"] = task

    task: TrainContext

    @classmethod
    def modalities(cls, available: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        """The modalities the model is built of: all there are."""
        return tuple(available)

    def on_epoch_start(self, epoch: int) -> None:
        """Prepare for an epoch, before its training examples are chosen; epochs count from 1."""

    def epoch_samples(self, epoch: int) -> TrainingExamples:
        """The training examples of an epoch, in any order; epochs count from 1."""
        return complete_examples(self.task.n_samples, self.task.n_modalities)

    def update(self, batch: Batch, optimizer: Optimizer) -> Tensor:
        """One step on one batch; returns the loss, detached.

        Methods with several losses, several steps a batch or gradients of their own making
        replace it.
        """
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        torch.autograd.backward(loss)
        self.after_backward(batch)
        optimizer.step()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the prediction from the modalities that are present, in nats."""
        return F.cross_entropy(self.task.model(batch.inputs, batch.present), batch.labels)

    def after_backward(self, batch: Batch) -> None:
        """Called when the gradients are there, before the step."""

    def coefficients(self) -> dict[str, float]:
        """What the method's own numbers came to in the epoch, for its metrics; asked once an
        epoch, at the end, and always with the same names.
        """
        return {}

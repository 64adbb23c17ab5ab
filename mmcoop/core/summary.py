"""What a valuation says of a whole data set, gathered batch by batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.coalitions import coalition_names
from mmcoop.core.resampling import ROUNDING
from mmcoop.core.valuation import ValuedBatch


class Summary:
    """Running totals over valued batches; its size does not grow with the samples.

    `samples`: how many were added. `accuracy`, `class_accuracy`, `mean_contribution`,
    `low_contributing` and `loss` are of all of them; NaN before the first.
    """

    def __init__(self, modalities: tuple[str, ...], n_classes: int) -> None:
        self.modalities = modalities
        n_coalitions = 2 ** len(modalities)
        self.samples = 0
        self._class_samples = torch.zeros(n_classes, dtype=torch.long)
        self._class_hits = torch.zeros(n_classes, n_coalitions, dtype=torch.long)
        self._contributions = torch.zeros(len(modalities), dtype=torch.float64)
        self._low = torch.zeros(len(modalities), dtype=torch.long)
        self._loss = 0.0

    def add(self, batch: ValuedBatch) -> None:
        """Count one batch in."""
        self.samples += len(batch.labels)
        self._class_samples += torch.bincount(batch.labels, minlength=len(self._class_samples))
        self._class_hits.index_add_(0, batch.labels, batch.hits.long())
        self._contributions += batch.contributions.sum(0)
        self._low += low_contributing(batch.contributions).sum(0)
        self._loss += float(F.cross_entropy(batch.logits, batch.labels, reduction="sum"))

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right predictions by coalition name, the empty coalition left out."""
        return self._by_coalition(self._class_hits.sum(0).double() / self.samples)

    def class_accuracy(self, label: int) -> dict[str, float]:
        """The same among the samples of one class; NaN where there is none."""
        return self._by_coalition(self._class_hits[label].double() / self._class_samples[label])

    @property
    def class_samples(self) -> list[int]:
        """Number of samples by class."""
        counts: list[int] = self._class_samples.tolist()
        return counts

    @property
    def mean_contribution(self) -> dict[str, float]:
        """Mean contribution φ by modality."""
        return self._by_modality(self._contributions / self.samples)

    @property
    def low_contributing(self) -> dict[str, float]:
        """Share of samples on which φ < 1, by modality."""
        return self._by_modality(self._low.double() / self.samples)

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the prediction from all modalities, in nats."""
        return self._loss / self.samples if self.samples else float("nan")

    def _by_coalition(self, numbers: Tensor) -> dict[str, float]:
        names = coalition_names(self.modalities)
        return dict(zip(names[1:], numbers[1:].tolist(), strict=True))

    def _by_modality(self, numbers: Tensor) -> dict[str, float]:
        return dict(zip(self.modalities, numbers.tolist(), strict=True))


def low_contributing(contributions: Tensor) -> Tensor:
    """Where a modality is low-contributing, φ < 1: bool, of the shape of `contributions`.

    1 is a modality's fair share of a sample that is classified right. A rounding error below 1
    does not count.
    """
    return contributions < 1 - ROUNDING

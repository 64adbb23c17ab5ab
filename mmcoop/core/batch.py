"""A batch: some rows, ready for a model."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Training examples of a dataset, ready for a model.

    Attributes:
        inputs: float32 `(batch, …)` by modality: zeros where it is absent, and no entry for a
            modality that is absent from the complete batch.
        present: Which modalities are present, bool `(batch, n)`.
        labels: int64 `(batch,)`.
        sample: Positions in the split, int64 `(batch,)`.
        ids: The ids of the samples, if loaded.
        groups: The groups of the samples, if loaded.
    """

    inputs: dict[str, Tensor]
    present: Tensor
    labels: Tensor
    sample: Tensor
    ids: list[str] | None = None
    groups: list[str] | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch with inputs and labels on `device`."""
        if device.type == "cpu":
            return self
        return Batch(
            {m: x.to(device, non_blocking=True) for m, x in self.inputs.items()},
            self.present,
            self.labels.to(device, non_blocking=True),
            self.sample,
            self.ids,
            self.groups,
        )

    def pin_memory(self) -> "Batch":
        """Called by the loader before a copy to a GPU."""
        self.inputs = {m: x.pin_memory() for m, x in self.inputs.items()}
        self.labels = self.labels.pin_memory()
        return self

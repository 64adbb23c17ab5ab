"""Unimodal models side by side, their logits averaged."""

from torch import Tensor

from mmcoop.core.batch import Batch
from mmcoop.core.models.fusions.late import Late
from mmcoop.errors import UsageError, setting
from mmcoop.methods.base import Method, TrainContext
from mmcoop.methods.unimodal_heads import unimodal_losses


class Ensemble(Method):
    """L = Σ_m CE(u_m): with late fusion no weight sees another modality, so these are unimodal
    models that share batches; they meet in the mean of their logits alone.
    """

    fusions = ("late",)

    def __init__(self, task: TrainContext) -> None:
        super().__init__(task)
        if not isinstance(task.model.fusion, Late):
            raise UsageError(
                f"method 'ensemble' averages unimodal models: give {setting('fusion', 'late')}"
            )

    def loss(self, batch: Batch) -> Tensor:
        present = batch.present.to(batch.labels.device)
        features = self.task.model.encode(batch.inputs, batch.present)
        logits = self.task.model.fusion.unimodal_logits(features, present)
        return unimodal_losses(logits, batch.labels, present).sum()

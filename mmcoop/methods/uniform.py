"""The plainest control: every modality's own loss beside the joint one."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.methods.base import Method, TrainContext, check_not_negative
from mmcoop.methods.options import UniformOptions
from mmcoop.methods.unimodal_heads import UnimodalHeads, unimodal_losses


class Uniform(Method):
    """L = CE(o) + weight · Σ_m CE(u_m): no valuation, every sample, equal weights."""

    search: ClassVar = {"weight": (0.1, 10.0)}

    def __init__(self, task: TrainContext, *, weight: float = UniformOptions.weight) -> None:
        super().__init__(task)
        check_not_negative(weight=weight)
        self.weight = weight
        self.heads = UnimodalHeads(task.model, task.n_classes, "uniform")

    def loss(self, batch: Batch) -> Tensor:
        present = batch.present.to(batch.labels.device)
        features = self.task.model.encode(batch.inputs, batch.present)
        joint = F.cross_entropy(self.task.model.fuse(features, batch.present), batch.labels)
        own = unimodal_losses(self.heads(features, present), batch.labels, present)
        return joint + self.weight * own.sum()

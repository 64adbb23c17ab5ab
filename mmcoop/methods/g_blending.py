"""G-Blending: losses weighted by how they generalise (Wang, Tran, Feiszli, CVPR 2020)."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.resampling import complete_examples, shuffled
from mmcoop.core.seeds import derive_seed, generator
from mmcoop.errors import UsageError
from mmcoop.methods.base import Method, TrainContext
from mmcoop.methods.options import GBlendingOptions
from mmcoop.methods.unimodal_heads import UnimodalHeads, unimodal_losses


def blend(before: Tensor, after: Tensor) -> Tensor:
    """Weights of the losses `(k,)`, which sum to 1, of losses `(2, k)` on training and validation,
    before and after.

    w ∝ G / O² with G = Lv₀ − Lv₁, what was learnt of the validation loss, at least 0, and
    O = (Lv₁ − Lt₁) − (Lv₀ − Lt₀), what was overfitted. Where nothing was learnt, equal ones.
    """
    (t0, v0), (t1, v1) = before, after
    learnt = (v0 - v1).clamp(min=0)
    overfitted = (v1 - t1) - (v0 - t0)
    weights: Tensor = learnt / (overfitted.square() + 1e-8)
    if not weights.sum() > 0:
        return torch.full_like(weights, 1 / len(weights))
    return weights / weights.sum()


class GBlending(Method):
    """L = Σ_k w_k CE_k over the modalities' own losses and the joint one.

    The weights are estimated before training, by training a copy of each branch alone for
    `estimate` epochs; and again, from the weights of the time, every `every` epochs, if that is not
    0. Validation samples are used for that, never test ones.
    """

    def __init__(
        self,
        task: TrainContext,
        *,
        estimate: int = GBlendingOptions.estimate,
        every: int = GBlendingOptions.every,
    ) -> None:
        super().__init__(task)
        if estimate < 1 or every < 0:
            raise UsageError(f"estimate {estimate}, every {every}: at least 1 and at least 0")
        self.estimate = estimate
        self.every = every
        self.heads = UnimodalHeads(task.model, task.n_classes, "g-blending")
        branches = task.n_modalities + 1
        self.register_buffer("weights", torch.full((branches,), 1 / branches))

    weights: Tensor

    def on_epoch_start(self, epoch: int) -> None:
        if epoch == 1 or (self.every and (epoch - 1) % self.every == 0):
            self.weights.copy_(self._estimated(epoch))

    def loss(self, batch: Batch) -> Tensor:
        losses = branch_losses(self.task.model, self.heads, batch)
        return (self.weights * losses).sum()

    def coefficients(self) -> dict[str, float]:
        """The weight of each loss."""
        names = (*self.task.model.modalities, "joint")
        return {f"weight_{m}": w for m, w in zip(names, self.weights.tolist(), strict=True)}

    def _estimated(self, epoch: int) -> Tensor:
        n = self.task.n_modalities
        before = self._losses(self.task.model, self.heads)
        after = torch.empty_like(before)
        for branch in range(n + 1):
            model = copy.deepcopy(self.task.model)
            heads = copy.deepcopy(self.heads)
            heads.__dict__["fusion"] = model.fusion
            optimizer = self.task.optimizer([*model.parameters(), *heads.parameters()])
            for k in range(1, self.estimate + 1):
                purpose = ("blending", epoch, branch, k)
                rows = complete_examples(self.task.n_samples, n)
                if branch < n:
                    rows.present[:] = torch.arange(n) == branch
                rows = shuffled(rows, generator(self.task.seed, *purpose))
                for batch in self.task.batches(
                    "train", rows, derive_seed(self.task.seed, *purpose)
                ):
                    optimizer.zero_grad(set_to_none=True)
                    losses = branch_losses(model, heads, batch)
                    torch.autograd.backward(losses[branch])
                    optimizer.step()
            after[:, branch] = self._losses(model, heads)[:, branch]
        return blend(before, after)

    @torch.no_grad()
    def _losses(self, model: nn.Module, heads: nn.Module) -> Tensor:
        """Mean losses of all branches, `(2, n + 1)`: on training and on validation samples."""
        means = []
        with evaluation_mode(model), evaluation_mode(heads):
            for split in ("train", "validation"):
                total, count = torch.zeros_like(self.weights), 0
                for batch in self.task.batches(split, None, None):
                    total += len(batch.labels) * branch_losses(model, heads, batch)
                    count += len(batch.labels)
                means.append(total / count)
        return torch.stack(means)


def branch_losses(model: nn.Module, heads: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each modality's own logits and, last, of the joint ones, `(n + 1,)`."""
    present = batch.present.to(batch.labels.device)
    features = model.encode(batch.inputs, batch.present)  # type: ignore[operator]
    own = unimodal_losses(heads(features, present), batch.labels, present)
    joint = F.cross_entropy(model.fuse(features, batch.present), batch.labels)  # type: ignore[operator]
    return torch.cat([own, joint.unsqueeze(0)])

"""AGM: adaptive gradient modulation (Li et al., ICCV 2023)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.shapley import shapley_matrix
from mmcoop.errors import UsageError
from mmcoop.methods.base import Method, TrainContext, check_not_negative
from mmcoop.methods.options import AGMOptions


def shares(coalition_logits: Tensor) -> Tensor:
    """The Shapley split of logits `(batch, 2ⁿ − 1, classes)`, of all coalitions but the empty one
    (whose logits count as 0): `(batch, n, classes)`, summing to those of the grand coalition.
    """
    n = (coalition_logits.shape[1] + 1).bit_length() - 1
    weights = shapley_matrix(n)[1:].to(coalition_logits)
    return torch.einsum("bkc,km->bmc", coalition_logits, weights)


def ratio(c: Tensor) -> Tensor:
    """r_m = exp(mean_{j≠m}(c_j − c_m)) of the shares' cross-entropies `(n,)`."""
    n = len(c)
    return torch.exp(n / (n - 1) * (c.mean() - c))


class AGM(Method):
    """Splits the joint logits among the modalities (Shapley values of the logits) and scales the
    gradient that reaches modality m's share by κ_m = exp(α min(τ_m − r_m, cap)).

    r_m says how far m is ahead in the batch, τ_m how far it usually is. Costs the fusion of all
    coalitions. The last epoch with κ is `until`; after it the loss is that of joint training.
    `clip` limits the norm of the gradient in every step where an entry of the gradient of the
    head's weight is above 1 in magnitude; 0 leaves it.
    """

    ends = ("until",)
    search: ClassVar = {"alpha": (0.1, 3.0)}

    def __init__(
        self,
        task: TrainContext,
        *,
        alpha: float = AGMOptions.alpha,
        cap: float = AGMOptions.cap,
        clip: float = AGMOptions.clip,
        until: int = AGMOptions.until,
    ) -> None:
        super().__init__(task)
        check_not_negative(alpha=alpha, clip=clip)
        if not cap >= 0:
            raise UsageError(f"cap is {cap}: it cannot be negative; inf is none")
        if task.n_modalities < 2:
            raise UsageError("method 'agm' needs two modalities or more")
        fusion = task.model.fusion
        if clip and not (hasattr(fusion, "head") or hasattr(fusion, "heads")):
            raise UsageError(
                f"method 'agm' clips by the gradient of the head, and fusion "
                f"{type(fusion).__name__} has neither `head` nor `heads`: set its option clip to 0"
            )
        self.alpha = alpha
        self.cap = cap
        self.clip = clip
        self.until = until
        self._epoch = 0
        self.register_buffer("usual", torch.zeros(task.n_modalities))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []

    usual: Tensor
    steps: Tensor

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch = epoch

    def loss(self, batch: Batch) -> Tensor:
        if self._epoch > self.until:
            return super().loss(batch)
        model = self.task.model
        features = model.encode(batch.inputs, batch.present)
        coalitions = coalition_matrix(self.task.n_modalities)[1:]
        q = shares(model.coalition_logits(features, coalitions))
        kappa = self.kappa(q.detach(), batch.labels).view(1, -1, 1)
        # the value of q, and κ times its gradient
        scaled = kappa * q + (1 - kappa) * q.detach()
        return F.cross_entropy(scaled.sum(1), batch.labels)

    def kappa(self, q: Tensor, labels: Tensor) -> Tensor:
        """κ `(n,)` of the shares of a batch, whose cross-entropies go into the usual ones."""
        p = q.softmax(-1)[torch.arange(len(labels), device=labels.device), :, labels]
        c = -p.clamp(min=1e-8).log().mean(0)
        kappa = torch.exp(self.alpha * (ratio(self.usual) - ratio(c)).clamp(max=self.cap))
        self.steps += 1
        self.usual += (c - self.usual) / self.steps
        self._seen.append(kappa)
        return kappa

    def after_backward(self, batch: Batch) -> None:
        if not self.clip:
            return
        heads = [
            w.grad.abs().max() for w in self.task.model.fusion.head_weights() if w.grad is not None
        ]
        if heads and float(torch.stack(heads).max()) > 1:
            torch.nn.utils.clip_grad_norm_(self.task.model.parameters(), self.clip)

    def coefficients(self) -> dict[str, float]:
        """The mean κ_m of the epoch."""
        names = self.task.model.modalities
        means = torch.stack(self._seen).mean(0).tolist() if self._seen else [1.0] * len(names)
        self._seen = []
        return {f"kappa_{m}": k for m, k in zip(names, means, strict=True)}

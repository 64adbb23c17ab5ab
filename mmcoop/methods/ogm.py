"""OGM and OGM-GE: on-the-fly gradient modulation (Peng et al., CVPR 2022)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.errors import UsageError, setting
from mmcoop.methods.base import Method, TrainContext, check_not_negative
from mmcoop.methods.options import OGMGEOptions, OGMOptions
from mmcoop.methods.unimodal_heads import scores


def discrepancy(s: Tensor) -> Tensor:
    """ρ_m = s_m / mean_{j≠m} s_j of scores `(n,)`; for two modalities s_m / s_other."""
    return s * (len(s) - 1) / (s.sum() - s).clamp(min=1e-8)


def modulation(s: Tensor, alpha: float) -> Tensor:
    """k_m = 1 − tanh(α ρ_m) where ρ_m > 1, else 1."""
    rho = discrepancy(s)
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), torch.ones_like(rho))


class OGM(Method):
    """Scales the gradients of encoder m by k_m = 1 − tanh(α ρ_m) where modality m is ahead.

    Of encoders' weights of two dimensions or more; biases, normalisation and the head are left
    alone. The last epoch in which it does so is `until`.
    """

    ends = ("until",)

    noise = 0.0
    name = "ogm"

    search: ClassVar = {"alpha": (0.05, 1.0)}

    def __init__(
        self, task: TrainContext, *, alpha: float = OGMOptions.alpha, until: int = OGMOptions.until
    ) -> None:
        super().__init__(task)
        check_not_negative(alpha=alpha)
        if not task.model.fusion.has_unimodal_logits:
            raise UsageError(
                f"method {self.name!r} needs a fusion with unimodal logits, as concat, sum, late "
                f"and mmtm have: choose another {setting('fusion')} than "
                f"{type(task.model.fusion).__name__}"
            )
        if task.n_modalities < 2:
            raise UsageError(f"method {self.name!r} needs two modalities or more")
        self.alpha = alpha
        self.until = until
        self._epoch = 0
        self._scores: Tensor | None = None
        self._seen: list[Tensor] = []

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch = epoch
        self._seen = []

    def loss(self, batch: Batch) -> Tensor:
        model = self.task.model
        features = model.encode(batch.inputs, batch.present)
        with torch.no_grad():
            logits = model.fusion.unimodal_logits(features, batch.present.to(batch.labels.device))
        self._scores = scores(logits, batch.labels)
        return F.cross_entropy(model.fuse(features, batch.present), batch.labels)

    def after_backward(self, batch: Batch) -> None:
        assert self._scores is not None
        if self._epoch > self.until:
            return
        k = modulation(self._scores, self.alpha)
        self._seen.append(k)
        for factor, m in zip(k, self.task.model.modalities, strict=True):
            for parameter in self.encoder_parameters(m):
                gradient = parameter.grad
                if gradient is None or gradient.dim() < 2:
                    continue
                scaled = gradient * factor
                if self.noise and gradient.numel() > 1:
                    # of the gradient before it is scaled; one number has no deviation
                    scale = gradient.std() + 1e-8
                    scaled = scaled + self.noise * scale * torch.randn_like(gradient)
                parameter.grad = scaled

    def encoder_parameters(self, modality: str) -> list[torch.nn.Parameter]:
        """Those of a modality's encoder, all of its stages."""
        model = self.task.model
        late = getattr(model.fusion, "late", {})
        parts = [model.encoders[modality], *([late[modality]] if modality in late else [])]
        return [p for part in parts for p in part.parameters()]

    def coefficients(self) -> dict[str, float]:
        """The mean k_m of the epoch."""
        names = self.task.model.modalities
        means = torch.stack(self._seen).mean(0).tolist() if self._seen else [1.0] * len(names)
        return {f"k_{m}": k for m, k in zip(names, means, strict=True)}


class OGMGE(OGM):
    """OGM, and Gaussian noise on every modulated gradient, of the gradient's own sample deviation.

    `noise` scales the noise: 1 is the paper's, 0 leaves OGM.
    """

    name = "ogm-ge"

    search: ClassVar = {"alpha": (0.05, 1.0), "noise": (0.1, 1.0)}

    def __init__(
        self,
        task: TrainContext,
        *,
        alpha: float = OGMGEOptions.alpha,
        until: int = OGMGEOptions.until,
        noise: float = OGMGEOptions.noise,
    ) -> None:
        super().__init__(task, alpha=alpha, until=until)
        check_not_negative(noise=noise)
        self.noise = noise

"""What each modality says by itself, for the methods that ask."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import Fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import UsageError, setting


class UnimodalHeads(nn.Module):
    """Unimodal logits `(batch, n, classes)` from a model's features.

    Where the fusion's own logits are made of them, those are used: what is trained is then what is
    evaluated when other modalities are missing. Other fusions get a linear head a modality, which
    belongs to the method. Raises `UsageError` for a fusion whose features are not vectors and that
    has no unimodal logits of its own.
    """

    def __init__(self, model: MultimodalModel, n_classes: int, method: str) -> None:
        super().__init__()
        # not a submodule: its weights are the model's
        self.__dict__["fusion"] = model.fusion
        self.own: nn.ModuleDict | None = None
        if not model.fusion.has_unimodal_logits:
            if not model.fusion.takes_vectors:
                raise UsageError(
                    f"method {method!r} needs feature vectors or unimodal logits, which fusion "
                    f"{type(model.fusion).__name__} does not have: choose another "
                    f"{setting('fusion')}"
                )
            self.own = nn.ModuleDict(
                {m: nn.Linear(e.width, n_classes) for m, e in model.encoders.items()}  # type: ignore[arg-type]
            )

    fusion: Fusion

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        if self.own is None:
            return self.fusion.unimodal_logits(features, present)
        return torch.stack([self.own[m](z) for m, z in features.items()], dim=1)


def unimodal_losses(logits: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of each modality's own logits, `(n,)`, in nats: the mean over the rows that
    have it, 0 where none has.
    """
    n = logits.shape[1]
    each = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.repeat_interleave(n), reduction="none"
    ).view(-1, n)
    return torch.where(present, each, 0).sum(0) / present.sum(0).clamp(min=1)


def scores(logits: Tensor, labels: Tensor) -> Tensor:
    """s_m = Σ_i p(u_m,i)[y_i], `(n,)`, of unimodal logits `(batch, n, classes)`; no gradient."""
    with torch.no_grad():
        p = logits.softmax(-1)
        return p[torch.arange(len(labels), device=labels.device), :, labels].sum(0)

"""Late fusion: every modality is classified on its own, and the logits are averaged."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import AdditiveFusion, Features, zeroed


class Late(AdditiveFusion):
    """logits = mean over the present modalities of (W_m zᵐ + b_m); zero if none is present.

    Modalities meet at the mean, so an absent one is left out of it, bias and all.
    """

    def __init__(self, widths: Mapping[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        self.heads = nn.ModuleDict({m: nn.Linear(width, n_classes) for m, width in widths.items()})

    def parts(self, features: Features) -> Tensor:
        return torch.stack([self.heads[m](z) for m, z in features.items()], dim=1)

    def unimodal_logits(self, features: Features, present: Tensor) -> Tensor:
        """u_m = W_m zᵐ + b_m, whose mean over the present modalities is the joint logits."""
        return self.parts(zeroed(features, present))

    def join(self, sums: Tensor, sizes: Tensor) -> Tensor:
        return sums / sizes.clamp(min=1).unsqueeze(-1)

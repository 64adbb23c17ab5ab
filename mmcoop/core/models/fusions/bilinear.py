"""Tensor fusion of low rank (Liu et al., ACL 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import Features, Fusion, zeroed

RANK = 32


class LowRankBilinear(Fusion):
    """logits = W (Π_m U_m [zᵐ; 1]) + b, the product taken in each of `rank` dimensions.

    With the constant 1, products of fewer modalities are in it too; of an absent modality the
    constant alone is left. The constants begin at 1 plus little, so that nothing is lost at first.
    """

    def __init__(self, widths: Mapping[str, int], n_classes: int, rank: int = RANK) -> None:
        super().__init__(widths, n_classes)
        self.factors = nn.ModuleDict({m: nn.Linear(d, rank) for m, d in widths.items()})
        for factor in self.factors.values():
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.head = nn.Linear(rank, n_classes)

    def forward(self, features: Features, present: Tensor) -> Tensor:
        parts = [self.factors[m](z) for m, z in zeroed(features, present).items()]
        logits: Tensor = self.head(torch.stack(parts).prod(0))
        return logits

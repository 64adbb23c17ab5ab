"""Concatenation: one linear layer over the features side by side."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import AdditiveFusion, Features


class Concat(AdditiveFusion):
    """logits = W [z¹; …; zⁿ] + b, that is Σ_m W_m zᵐ + b with W split by columns."""

    def __init__(self, widths: Mapping[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        self.widths = list(widths.values())
        self.head = nn.Linear(sum(self.widths), n_classes)

    def parts(self, features: Features) -> Tensor:
        columns = torch.split(self.head.weight, self.widths, dim=1)
        pairs = zip(features.values(), columns, strict=True)
        return torch.stack([z @ weight.T for z, weight in pairs], dim=1)

    def join(self, sums: Tensor, sizes: Tensor) -> Tensor:
        return sums + self.head.bias

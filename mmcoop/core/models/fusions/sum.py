"""Sum: every modality has a linear head of its own, and the logits are added."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import AdditiveFusion, Features


class Sum(AdditiveFusion):
    """logits = Σ_m (W_m zᵐ + b_m).

    An absent modality's features are zero while its bias b_m stays, as the one bias of
    concatenation does: it belongs to the classes, not to the sample.
    """

    def __init__(self, widths: Mapping[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        self.heads = nn.ModuleDict(
            {m: nn.Linear(width, n_classes, bias=False) for m, width in widths.items()}
        )
        # all b_m are added whatever is present, so they are one vector
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def parts(self, features: Features) -> Tensor:
        return torch.stack([self.heads[m](z) for m, z in features.items()], dim=1)

    def join(self, sums: Tensor, sizes: Tensor) -> Tensor:
        return sums + self.bias

"""Gated fusion (Kiela et al., AAAI 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import Features, Fusion, zeroed

WIDTH = 128


class Gated(Fusion):
    """logits = W_o (σ(W_1 z¹ + b_1) ∘ … ∘ σ(W_{n−1} zⁿ⁻¹ + b_{n−1}) ∘ (W_n zⁿ + b_n)) + b.

    The last modality, by name, is gated by all others.
    """

    def __init__(self, widths: Mapping[str, int], n_classes: int, width: int = WIDTH) -> None:
        super().__init__(widths, n_classes)
        self.layers = nn.ModuleDict({m: nn.Linear(d, width) for m, d in widths.items()})
        self.head = nn.Linear(width, n_classes)

    def forward(self, features: Features, present: Tensor) -> Tensor:
        *gates, joint = (self.layers[m](z) for m, z in zeroed(features, present).items())
        for gate in gates:
            joint = torch.sigmoid(gate) * joint
        logits: Tensor = self.head(joint)
        return logits

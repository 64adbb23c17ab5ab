"""FiLM: one modality scales and shifts the features of the others (Perez et al., AAAI 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import Features, Fusion, zeroed


class FiLM(Fusion):
    """(γ, β) = split(W_f z¹); logits = W_o [γ² ∘ z² + β²; …; γⁿ ∘ zⁿ + βⁿ] + b.

    The first modality, by name, conditions all others. The biases of γ and β begin at 1 and 0, so
    that the others pass unchanged where it is absent.
    """

    #: Position of the modality that conditions the others.
    conditioning = 0

    def __init__(self, widths: Mapping[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        names = list(widths)
        self.condition = names[self.conditioning]
        others = [name for name in names if name != self.condition] or [self.condition]
        self.film = nn.ModuleDict(
            {m: nn.Linear(widths[self.condition], 2 * widths[m]) for m in others}
        )
        for layer in self.film.values():
            gamma, beta = layer.bias.chunk(2)  # type: ignore[operator]
            nn.init.ones_(gamma)
            nn.init.zeros_(beta)
        self.head = nn.Linear(sum(widths[m] for m in others), n_classes)

    def forward(self, features: Features, present: Tensor) -> Tensor:
        z = zeroed(features, present)
        modulated = []
        for m, layer in self.film.items():
            gamma, beta = layer(z[self.condition]).chunk(2, dim=1)
            modulated.append(gamma * z[m] + beta)
        logits: Tensor = self.head(torch.cat(modulated, dim=1))
        return logits


class FiLMLast(FiLM):
    """FiLM the other way round: the last modality, by name, conditions all others."""

    conditioning = -1

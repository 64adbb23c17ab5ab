"""A transformer over one token per modality."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions.base import Features, Fusion, zeroed

WIDTH = 128
HEADS = 4
LAYERS = 2


class TransformerFusion(Fusion):
    """Tokens W_m zᵐ + e_m and a class token through pre-norm layers; a linear head on the latter.

    An absent modality's token is not attended to.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        n_classes: int,
        width: int = WIDTH,
        heads: int = HEADS,
        layers: int = LAYERS,
    ) -> None:
        super().__init__(widths, n_classes)
        # the bias of each projection tells the modalities apart
        self.tokens = nn.ModuleDict({m: nn.Linear(d, width) for m, d in widths.items()})
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.layers = nn.TransformerEncoder(
            attention_layer(width, heads), layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, n_classes)

    def forward(self, features: Features, present: Tensor) -> Tensor:
        tokens = [self.tokens[m](z) for m, z in zeroed(features, present).items()]
        batch = len(present)
        x = torch.stack([self.class_token.expand(batch, -1), *tokens], dim=1)
        if batch:  # torch's attention does not take a mask for no samples
            always = present.new_zeros(batch, 1)
            x = self.layers(x, src_key_padding_mask=torch.cat([always, ~present], dim=1))
        logits: Tensor = self.head(x[:, 0])
        return logits


def attention_layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    """A pre-norm transformer layer without dropout."""
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
    )

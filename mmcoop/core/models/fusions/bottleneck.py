"""Attention bottlenecks (MBT; Nagrani et al., NeurIPS 2021)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcoop.core.models.encoders.base import Encoder
from mmcoop.core.models.fusions.base import Features, Fusion, zeroed
from mmcoop.core.models.fusions.transformer import HEADS, LAYERS, WIDTH, attention_layer

TOKENS = 4


class Tokens(Encoder):
    """An encoder that gives its features by place, `(batch, tokens, width)`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.tokens(x)

    def absent(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, 1, self.width)


class Bottleneck(Fusion):
    """Modalities meet in a few shared tokens alone.

    In every layer a modality's own block takes [its tokens; bottleneck] and gives both back; the
    next bottleneck is the mean of those of the present modalities. At the end each modality's
    tokens are normalised and averaged and a shared linear head gives logits, which are averaged
    over the present modalities. Takes the encoders' features by place.
    """

    takes_vectors = False

    @classmethod
    def over(
        cls, encoders: Mapping[str, Encoder], n_classes: int
    ) -> tuple[Mapping[str, Encoder], Fusion]:
        tokens = {m: Tokens(encoder) for m, encoder in encoders.items()}
        return tokens, cls({m: e.width for m, e in encoders.items()}, n_classes)

    def __init__(
        self,
        widths: Mapping[str, int],
        n_classes: int,
        width: int = WIDTH,
        heads: int = HEADS,
        layers: int = LAYERS,
        tokens: int = TOKENS,
    ) -> None:
        super().__init__(widths, n_classes)
        self.project = nn.ModuleDict({m: nn.Linear(d, width) for m, d in widths.items()})
        self.blocks = nn.ModuleList(
            nn.ModuleDict({m: attention_layer(width, heads) for m in widths}) for _ in range(layers)
        )
        self.bottleneck = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, features: Features, present: Tensor) -> Tensor:
        here = present.T.to(self.bottleneck.dtype)  # (n, batch)
        members = here.sum(0).clamp(min=1)
        streams = {m: self.project[m](z) for m, z in zeroed(features, present).items()}
        shared = self.bottleneck.expand(len(present), -1, -1)
        for blocks in self.blocks:
            seen = torch.zeros_like(shared)
            for k, (m, tokens) in enumerate(streams.items()):
                both = blocks[m](torch.cat([tokens, shared], dim=1))  # type: ignore[index]
                streams[m] = both[:, : tokens.shape[1]]
                seen = seen + both[:, tokens.shape[1] :] * here[k].view(-1, 1, 1)
            shared = seen / members.view(-1, 1, 1)
        said = torch.stack([self.head(self.norm(x).mean(1)) for x in streams.values()])
        logits: Tensor = (said * here.unsqueeze(-1)).sum(0) / members.unsqueeze(-1)
        return logits

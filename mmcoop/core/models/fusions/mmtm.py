"""MMTM: encoders exchange what they see between their stages (Joze et al., CVPR 2020)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmcoop.core.models.encoders.base import Encoder, as_images, defined_statistics
from mmcoop.core.models.fusions.base import Features, Fusion

RATIO = 4


class FirstStage(Encoder):
    """An encoder up to the first exchange: `(batch, frames, C, H, W)`."""

    def __init__(self, blocks: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.width = channels

    def forward(self, x: Tensor) -> Tensor:
        images, frames = as_images(x)
        maps: Tensor = self.blocks(images)
        return maps.reshape(-1, frames, *maps.shape[1:])

    def absent(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, 1, self.width, 1, 1)


class Exchange(nn.Module):
    """Squeeze and excitation across modalities.

    s = the channels' means over places, modalities side by side; h = relu(W_s s) of
    ⌊2 · ΣC / ratio⌋ numbers; gate_m = scale · σ(W_m h), one number per channel.
    """

    def __init__(self, channels: Mapping[str, int], ratio: int = RATIO, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        total = sum(channels.values())
        width = int(2 * total / ratio)
        self.squeeze = nn.Linear(total, width)
        self.excite = nn.ModuleDict({m: nn.Linear(width, c) for m, c in channels.items()})

    def forward(self, squeezed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Channel means `(batch, C_m)` by modality → gates `(batch, C_m)` in 0…scale."""
        h = torch.relu(self.squeeze(torch.cat(list(squeezed.values()), dim=1)))
        return {m: self.scale * torch.sigmoid(excite(h)) for m, excite in self.excite.items()}


class MMTM(Fusion):
    """The later stages of convolutional encoders, an `Exchange` after each stage but the first,
    and a linear head a modality, whose logits are averaged over the present modalities.

    An absent modality is zero at every exchange and has no part in the mean; its stages are not
    run. All frames of a clip are squeezed and gated together. Coalitions share the stage before
    the first exchange. The encoders' stages are matched from the last one backwards.
    """

    takes_vectors = False
    has_unimodal_logits = True
    #: Upper bound of the gates: 1 as in the authors' code.
    gate_scale = 1.0

    @classmethod
    def over(
        cls, encoders: Mapping[str, Encoder], n_classes: int
    ) -> tuple[Mapping[str, Encoder], Fusion]:
        stages = {m: encoder.stages() for m, encoder in encoders.items()}
        exchanges = min(len(s.blocks) for s in stages.values()) - 1
        # the first exchange comes after the stage that `early` ends with
        early = {
            m: FirstStage(s.blocks[: len(s.blocks) - exchanges + 1], s.channels[-exchanges])
            for m, s in stages.items()
        }
        late = {m: list(s.blocks[len(s.blocks) - exchanges + 1 :]) for m, s in stages.items()}
        channels = {m: list(s.channels[-exchanges:]) for m, s in stages.items()}
        return early, cls(late, channels, n_classes)

    def __init__(
        self,
        late: Mapping[str, Sequence[nn.Module]],
        channels: Mapping[str, Sequence[int]],
        n_classes: int,
    ) -> None:
        super().__init__({m: c[-1] for m, c in channels.items()}, n_classes)
        self.late = nn.ModuleDict({m: nn.ModuleList(blocks) for m, blocks in late.items()})
        by_exchange = zip(*channels.values(), strict=True)
        self.exchanges = nn.ModuleList(
            Exchange(dict(zip(channels, each, strict=True)), scale=self.gate_scale)
            for each in by_exchange
        )
        self.heads = nn.ModuleDict({m: nn.Linear(c[-1], n_classes) for m, c in channels.items()})

    def forward(self, features: Features, present: Tensor) -> Tensor:
        said = self.unimodal_logits(features, present)
        members = present.sum(1, keepdim=True).clamp(min=1)
        return torch.where(present.unsqueeze(-1), said, 0).sum(1) / members

    def unimodal_logits(self, features: Features, present: Tensor) -> Tensor:
        """What each branch says after the exchanges, `(batch, n, classes)`; 0 where absent."""
        rows = {
            m: here.nonzero().squeeze(1)
            for m, here in zip(features, present.unbind(1), strict=True)
        }
        # of each modality only the samples that have it: (rows, frames, C, H, W)
        maps = {m: z[rows[m]] for m, z in features.items()}
        for k, exchange in enumerate(self.exchanges):
            if k:
                maps = {m: self._stage(m, k - 1, x) for m, x in maps.items()}
            squeezed = {
                m: x.new_zeros(len(present), x.shape[2]).index_copy(0, rows[m], x.mean((1, 3, 4)))
                for m, x in maps.items()
            }
            gates = exchange(squeezed)
            maps = {m: x * gates[m][rows[m]][:, None, :, None, None] for m, x in maps.items()}
        said = []
        for m, x in maps.items():
            logits = self.heads[m](x.mean((1, 3, 4)))
            said.append(
                logits.new_zeros(len(present), logits.shape[1]).index_copy(0, rows[m], logits)
            )
        return torch.stack(said, dim=1)

    def branch_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Those of a modality's later stages and head."""
        yield from self.late[modality].parameters()
        yield from self.heads[modality].parameters()

    def _stage(self, modality: str, k: int, maps: Tensor) -> Tensor:
        block = cast(nn.ModuleList, self.late[modality])[k]
        if len(maps) == 0:
            channels = self.exchanges[k + 1].excite[modality].out_features  # type: ignore[index, union-attr]
            return maps.new_zeros(0, 1, channels, 1, 1)
        with defined_statistics(block, len(maps)):
            after: Tensor = block(maps.flatten(0, 1))
        return after.reshape(*maps.shape[:2], *after.shape[1:])


class DoubledMMTM(MMTM):
    """MMTM with gates 2 · σ(W_m h), as the paper has them: a gate whose excitation is 0 leaves its
    channel as it is.
    """

    gate_scale = 2.0

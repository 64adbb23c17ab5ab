"""A multimodal classifier: one encoder per modality, and a fusion."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmcoop.core.modalities import check_modalities
from mmcoop.core.models.encoders.base import Encoder, defined_statistics
from mmcoop.core.models.fusions.base import Features, Fusion
from mmcoop.errors import DataError


class MultimodalModel(nn.Module):
    """Encoders and a fusion, handed in built. `modalities` are the encoders' names, sorted.

    Inputs are `{modality: (batch, …)}`; `present` is bool `(batch, n)`, columns in the order of
    `modalities`. What an absent modality's input holds does not matter: it is not encoded.
    """

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion) -> None:
        super().__init__()
        self.modalities = check_modalities(sorted(encoders))
        self.encoders = nn.ModuleDict({m: encoders[m] for m in self.modalities})
        self.fusion = fusion

    def forward(self, inputs: Mapping[str, Tensor], present: Tensor | None = None) -> Tensor:
        """Logits `(batch, classes)`; all modalities are present unless `present` says otherwise."""
        if present is None:
            batch = self._inputs_of(inputs, self.modalities[0]).shape[0]
            present = torch.ones(batch, len(self.modalities), dtype=torch.bool)
        return self.fuse(self.encode(inputs, present), present)

    def encode(self, inputs: Mapping[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Features by modality, as the fusion takes them: `(batch, width)` for most; zero where
        it is absent.

        Only the rows that have a modality go through its encoder. Raises `DataError` where a
        modality that is present has no input.
        """
        features = {}
        for position, modality in enumerate(self.modalities):
            encoder = self.encoders[modality]
            rows = present[:, position].nonzero().squeeze(1)
            if len(rows) == len(present):
                features[modality] = _encode(encoder, self._inputs_of(inputs, modality))
            elif len(rows) == 0:
                like = next(self.parameters())
                features[modality] = cast(Encoder, encoder).absent(len(present), like)
            else:
                x = self._inputs_of(inputs, modality)
                z = _encode(encoder, x[rows.to(x.device)])
                features[modality] = z.new_zeros(len(present), *z.shape[1:]).index_copy(
                    0, rows.to(z.device), z
                )
        return features

    def fuse(self, features: Features, present: Tensor) -> Tensor:
        """Logits `(batch, classes)` from the features of the modalities that are present."""
        logits: Tensor = self.fusion(features, present.to(self._device()))
        return logits

    def coalition_logits(self, features: Features, coalitions: Tensor) -> Tensor:
        """Logits of every coalition from one encoding, `(batch, coalitions, classes)`.

        `coalitions` is bool `(coalitions, n)`.
        """
        return self.fusion.coalition_logits(features, coalitions.to(self._device()))

    def _inputs_of(self, inputs: Mapping[str, Tensor], modality: str) -> Tensor:
        if modality not in inputs:
            raise DataError(
                f"the batch has no input for the modality {modality!r}; it has: "
                f"{', '.join(sorted(inputs)) or 'none'}"
            )
        return inputs[modality]

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _encode(encoder: nn.Module, x: Tensor) -> Tensor:
    with defined_statistics(encoder, len(x)):
        features: Tensor = encoder(x)
        return features

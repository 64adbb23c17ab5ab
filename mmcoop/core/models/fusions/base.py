"""What a fusion is, and the common form of those that add up one part per modality."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmcoop.core.models.encoders.base import Encoder

#: Features by modality, in the model's order of modalities; each `(batch, width)` unless the
#: fusion asks its encoders for something else (`Fusion.over`).
Features = Mapping[str, Tensor]


class Fusion(nn.Module):
    """Joins the features of the modalities that are present into class logits.

    An absent modality is zero wherever modalities meet, whatever its features contain.

    Args:
        widths: The number of features by modality.
        n_classes: The number of classes.
    """

    #: Whether the joint logits are made of logits of each modality (`unimodal_logits`).
    has_unimodal_logits = False
    #: Whether features are vectors `(batch, width)`.
    takes_vectors = True

    @classmethod
    def over(
        cls, encoders: Mapping[str, Encoder], n_classes: int
    ) -> tuple[Mapping[str, Encoder], "Fusion"]:
        """Make the fusion of these encoders.

        Args:
            encoders: The encoders by modality.
            n_classes: The number of classes.

        Returns:
            The encoders, wrapped if the fusion needs other features than vectors, and the fusion.
        """
        return encoders, cls({m: e.width for m, e in encoders.items()}, n_classes)

    def __init__(self, widths: Mapping[str, int], n_classes: int) -> None:
        super().__init__()

    def unimodal_logits(self, features: Features, present: Tensor) -> Tensor:
        """The logits of each modality alone, `(batch, n, classes)`, if `has_unimodal_logits`.

        For a linear head these are its parts: their sum or mean is the joint logits.
        """
        raise NotImplementedError

    @abstractmethod
    def forward(self, features: Features, present: Tensor) -> Tensor:
        """Logits `(batch, classes)`; `present` is bool `(batch, n)`."""

    def head_weights(self) -> list[Tensor]:
        """Weights of the linear layers that return the logits: of `head`, or of the `heads`."""
        heads = cast(nn.ModuleDict, self.heads).values() if hasattr(self, "heads") else [self.head]
        return [cast(nn.Linear, head).weight for head in heads]

    def coalition_logits(self, features: Features, coalitions: Tensor) -> Tensor:
        """Logits of every sample from every coalition.

        This general form repeats each sample once per coalition and calls the fusion once.

        Args:
            features: Features by modality.
            coalitions: bool `(coalitions, n)`.

        Returns:
            `(batch, coalitions, classes)`.
        """
        n_coalitions = coalitions.shape[0]
        batch = next(iter(features.values())).shape[0]
        repeated = {m: z.repeat_interleave(n_coalitions, dim=0) for m, z in features.items()}
        logits: Tensor = self(repeated, coalitions.repeat(batch, 1))
        return logits.reshape(batch, n_coalitions, logits.shape[-1])


def zeroed(features: Features, present: Tensor) -> dict[str, Tensor]:
    """The features, zero where a modality is absent.

    By where(), not by a product: what an absent modality's features hold must not matter, to the
    logits and to the gradients, even if it is NaN.
    """
    return {
        m: torch.where(here.view(-1, *(1,) * (z.dim() - 1)), z, 0)
        for (m, z), here in zip(features.items(), present.unbind(1), strict=True)
    }


class AdditiveFusion(Fusion):
    """A fusion whose logits are a sum of one part per modality.

    All coalitions cost no more than one: the parts are computed once and added for each coalition.
    """

    has_unimodal_logits = True

    def unimodal_logits(self, features: Features, present: Tensor) -> Tensor:
        """u_m = W_m zᵐ + b/n, so that Σ_m u_m is the joint logits."""
        parts = self.parts(zeroed(features, present))
        n = parts.shape[1]
        nothing = self.join(torch.zeros_like(parts[:, 0]), present.sum(1))
        return parts + nothing.unsqueeze(1) / n

    @abstractmethod
    def parts(self, features: Features) -> Tensor:
        """What each modality adds to the logits, `(batch, n, classes)`."""

    def join(self, sums: Tensor, sizes: Tensor) -> Tensor:
        """Sums of parts `(…, classes)` of coalitions of `sizes` `(…)` members → logits."""
        return sums

    def forward(self, features: Features, present: Tensor) -> Tensor:
        parts = self.parts(zeroed(features, present))
        sums = torch.where(present.unsqueeze(-1), parts, 0).sum(1)
        return self.join(sums, present.sum(1))

    def coalition_logits(self, features: Features, coalitions: Tensor) -> Tensor:
        parts = self.parts(features)
        if parts.isfinite().all():
            sums = torch.einsum("kn,bnc->bkc", coalitions.to(parts.dtype), parts)
        else:  # 0 · NaN: an absent modality must not matter
            sums = torch.where(coalitions.unsqueeze(-1), parts.unsqueeze(1), 0).sum(2)
        return self.join(sums, coalitions.sum(1).expand(sums.shape[:2]))

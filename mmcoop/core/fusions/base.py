"""What a fusion is, and the common form of those that add up one part a modality."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

#: Features by modality, each `(batch, width)`, in the model's order of modalities.
Features = Mapping[str, Tensor]


class Fusion(nn.Module):
    """Joins the features of the modalities that are present into class logits.

    An absent modality is zero at every place where modalities meet, whatever its features hold.
    """

    @abstractmethod
    def forward(self, features: Features, present: Tensor) -> Tensor:
        """Logits `(batch, classes)`; `present` is bool `(batch, n)`."""

    def coalition_logits(self, features: Features, coalitions: Tensor) -> Tensor:
        """Logits of every sample from every coalition, `(batch, coalitions, classes)`.

        `coalitions` is bool `(coalitions, n)`. This general form repeats each sample once a
        coalition and runs the fusion on all of them in one call.
        """
        n_coalitions = coalitions.shape[0]
        batch = next(iter(features.values())).shape[0]
        repeated = {m: z.repeat_interleave(n_coalitions, dim=0) for m, z in features.items()}
        logits: Tensor = self(repeated, coalitions.repeat(batch, 1))
        return logits.reshape(batch, n_coalitions, logits.shape[-1])


class AdditiveFusion(Fusion):
    """A fusion whose logits are a sum of one part a modality.

    Coalitions need no second run: the parts are worked out once and added up for each of them.
    """

    @abstractmethod
    def parts(self, features: Features) -> Tensor:
        """What each modality adds to the logits, `(batch, n, classes)`."""

    def join(self, sums: Tensor, sizes: Tensor) -> Tensor:
        """Sums of parts `(…, classes)` of coalitions of `sizes` `(…)` members → logits."""
        return sums

    def forward(self, features: Features, present: Tensor) -> Tensor:
        # where(), not a product: what an absent modality's features hold must not matter, to the
        # logits and to the gradients, even if it is NaN
        zeroed = {
            m: torch.where(here.unsqueeze(-1), z, 0)
            for (m, z), here in zip(features.items(), present.unbind(1), strict=True)
        }
        sums = torch.where(present.unsqueeze(-1), self.parts(zeroed), 0).sum(1)
        return self.join(sums, present.sum(1))

    def coalition_logits(self, features: Features, coalitions: Tensor) -> Tensor:
        parts = self.parts(features)
        sums = torch.einsum("kn,bnc->bkc", coalitions.to(parts.dtype), parts)
        if not sums.isfinite().all():  # 0 · NaN: an absent modality must not matter
            sums = torch.where(coalitions.unsqueeze(-1), parts.unsqueeze(1), 0).sum(2)
        return self.join(sums, coalitions.sum(1).expand(sums.shape[:2]))

"""Conditional utilisation rate: how much each branch of an MMTM model uses the other modalities
(Wu et al., ICML 2022).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcoop.core.batch import Batch
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.models.fusions.mmtm import MMTM
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.value_functions import class_shares
from mmcoop.errors import UsageError

#: Channel means `(C_m,)` by modality, one mapping per exchange.
SqueezeMeans = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class BranchAccuracy:
    """How often the prediction of one branch is right.

    Attributes:
        together: A_m, as the model is.
        alone: A′_m, where no gate of the branch depends on the sample's other modalities.
    """

    together: float
    alone: float

    @property
    def utilisation(self) -> float | None:
        """u = (A_m − A′_m) / A_m; None where the branch is never right."""
        return (self.together - self.alone) / self.together if self.together else None


def utilisation_difference(branches: Mapping[str, BranchAccuracy]) -> float | None:
    """d_util = u(second | first) − u(first | second): above 0 where the first branch of two uses
    the second modality more than the other way round. None where either rate is undefined.
    """
    first, second = (branch.utilisation for branch in branches.values())
    return None if first is None or second is None else first - second


def exchanging_fusion(model: MultimodalModel) -> MMTM:
    """The model's fusion.

    Raises:
        UsageError: its branches do not exchange by MMTM, or there is only one.
    """
    if not isinstance(model.fusion, MMTM):
        raise UsageError(
            "the conditional utilisation rate is defined for fusions mmtm and mmtm-2x, not for "
            f"{type(model.fusion).__name__}"
        )
    if len(model.modalities) < 2:
        raise UsageError("the conditional utilisation rate needs two modalities or more")
    return model.fusion


def branch_accuracies(
    model: MultimodalModel, training: Iterable[Batch], batches: Iterable[Batch]
) -> dict[str, BranchAccuracy]:
    """Accuracy of each branch with and without the other modalities.

    Args:
        model: An MMTM model of two modalities or more; it is asked in evaluation mode.
        training: The training samples, whole: at every exchange the others' squeezes are replaced
            by their means over these.
        batches: The samples to be predicted, whole.

    Returns:
        By modality. Of k tied classes each counts as 1/k of a prediction.

    Raises:
        UsageError: as of `exchanging_fusion`.
    """
    fusion = exchanging_fusion(model)
    means = squeeze_means(model, training)
    together = alone = torch.zeros(len(model.modalities), dtype=torch.float64)
    samples = 0
    for batch in batches:
        together = together + _hits(model, batch)
        with others_fixed(fusion, means):
            alone = alone + _hits(model, batch)
        samples += len(batch.labels)
    shares = zip((together / samples).tolist(), (alone / samples).tolist(), strict=True)
    return dict(zip(model.modalities, (BranchAccuracy(*pair) for pair in shares), strict=True))


def squeeze_means(model: MultimodalModel, batches: Iterable[Batch]) -> SqueezeMeans:
    """What enters each exchange of the model, on average over the samples; float64, on the CPU."""
    fusion = exchanging_fusion(model)
    sums: list[dict[str, Any]] = [dict.fromkeys(model.modalities, 0.0) for _ in fusion.exchanges]
    samples = 0
    with ExitStack() as hooks:
        for exchange, total in zip(fusion.exchanges, sums, strict=True):

            def add(_: nn.Module, inputs: Any, total: dict[str, Any] = total) -> None:
                for m, squeezed in inputs[0].items():
                    total[m] = total[m] + squeezed.cpu().double().sum(0)

            hooks.callback(exchange.register_forward_pre_hook(add).remove)
        for batch in batches:
            _unimodal_logits(model, batch)
            samples += len(batch.labels)
    return [{m: total / samples for m, total in each.items()} for each in sums]


@contextmanager
def others_fixed(fusion: MMTM, means: SqueezeMeans) -> Iterator[None]:
    """Within this context the gates of each branch follow from its own channels and from `means`
    in place of the others', at every exchange.
    """
    with ExitStack() as hooks:
        for exchange, mean in zip(fusion.exchanges, means, strict=True):

            def fix(
                exchange: nn.Module, inputs: Any, gates: Any, mean: Mapping[str, Tensor] = mean
            ) -> dict[str, Tensor]:
                (squeezed,) = inputs
                fixed = {m: mean[m].to(s).expand_as(s) for m, s in squeezed.items()}
                # forward(), which calls no hooks
                return {m: exchange.forward({**fixed, m: s})[m] for m, s in squeezed.items()}

            hooks.callback(exchange.register_forward_hook(fix).remove)
        yield


def _hits(model: MultimodalModel, batch: Batch) -> Tensor:
    """How many predictions of each branch are right, float64 `(n,)`."""
    shares = class_shares(_unimodal_logits(model, batch).cpu())
    place = batch.labels.cpu()[:, None, None].expand(-1, shares.shape[1], 1)
    return shares.gather(-1, place).squeeze(-1).sum(0)


def _unimodal_logits(model: MultimodalModel, batch: Batch) -> Tensor:
    with torch.inference_mode(), evaluation_mode(model):
        features = model.encode(batch.inputs, batch.present)
        return model.fusion.unimodal_logits(features, batch.present.to(batch.labels.device))

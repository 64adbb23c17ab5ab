"""Unimodal training: one encoder and its head, without the other modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcoop.errors import UsageError
from mmcoop.methods.base import Method, TrainContext


class Unimodal(Method):
    """One modality alone; the model has no other."""

    def __init__(self, task: TrainContext, *, modality: str) -> None:
        super().__init__(task)

    @classmethod
    def modalities(cls, available: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        modality = options["modality"]
        if modality not in available:
            raise UsageError(
                f"the data set has no modality {modality!r}: choose one of {', '.join(available)}"
            )
        return (modality,)

"""Fusions: the features of the present modalities → class logits, one file each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmcoop.registry import Entry, Registry

if TYPE_CHECKING:
    from mmcoop.core.fusions.base import Fusion

FUSIONS = Registry(
    "fusion",
    {
        "concat": Entry("mmcoop.core.fusions.concat", "Concat", "concatenation and a linear head"),
        "sum": Entry("mmcoop.core.fusions.sum", "Sum", "sum of one linear head a modality"),
        "late": Entry("mmcoop.core.fusions.late", "Late", "mean of the present modalities' logits"),
    },
)


def build_fusion(name: str, widths: Mapping[str, int], n_classes: int) -> "Fusion":
    """The fusion called `name` for features of these widths, by modality in order."""
    fusion: Fusion = FUSIONS.load(name)(widths, n_classes)
    return fusion

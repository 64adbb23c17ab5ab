"""Fusions: the features of the present modalities → class logits, one file each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmcoop.registry import Entry, Registry

if TYPE_CHECKING:
    from mmcoop.core.models.encoders.base import Encoder
    from mmcoop.core.models.fusions.base import Fusion

FUSIONS = Registry(
    "fusion",
    {
        "concat": Entry(
            "mmcoop.core.models.fusions.concat", "Concat", "concatenation and a linear head"
        ),
        "sum": Entry(
            "mmcoop.core.models.fusions.sum", "Sum", "sum of one linear head per modality"
        ),
        "late": Entry(
            "mmcoop.core.models.fusions.late", "Late", "mean of the present modalities' logits"
        ),
        "film": Entry(
            "mmcoop.core.models.fusions.film",
            "FiLM",
            "the first modality scales and shifts the others",
            "Perez et al., AAAI 2018",
        ),
        "film-last": Entry(
            "mmcoop.core.models.fusions.film",
            "FiLMLast",
            "the last modality scales and shifts the others",
            "Perez et al., AAAI 2018",
        ),
        "gated": Entry(
            "mmcoop.core.models.fusions.gated",
            "Gated",
            "the other modalities gate the last one",
            "Kiela et al., AAAI 2018",
        ),
        "bilinear": Entry(
            "mmcoop.core.models.fusions.bilinear",
            "LowRankBilinear",
            "products of all modalities' features",
            "Liu et al., ACL 2018",
        ),
        "transformer": Entry(
            "mmcoop.core.models.fusions.transformer",
            "TransformerFusion",
            "self-attention over one token per modality",
            "Vaswani et al., NeurIPS 2017",
        ),
        "bottleneck": Entry(
            "mmcoop.core.models.fusions.bottleneck",
            "Bottleneck",
            "attention through a few shared tokens",
            "Nagrani et al., NeurIPS 2021",
        ),
        "mmtm": Entry(
            "mmcoop.core.models.fusions.mmtm",
            "MMTM",
            "encoders gate each other between stages",
            "Joze et al., CVPR 2020",
        ),
        "mmtm-2x": Entry(
            "mmcoop.core.models.fusions.mmtm",
            "DoubledMMTM",
            "mmtm with gates from 0 to 2",
            "Joze et al., CVPR 2020",
        ),
    },
)


def build_fusion(
    name: str, encoders: "Mapping[str, Encoder]", n_classes: int
) -> "tuple[Mapping[str, Encoder], Fusion]":
    """The fusion called `name` over these encoders, by modality in order.

    Returns the encoders to use, too: those given, or views of them that give the fusion what it
    takes. Raises `UsageError` for encoders that it cannot be built over.
    """
    built: tuple[Mapping[str, Encoder], Fusion] = FUSIONS.load(name).over(encoders, n_classes)
    return built

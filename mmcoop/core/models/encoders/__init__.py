"""Encoders: one modality's input → one feature vector per sample, one file each."""

from typing import TYPE_CHECKING

from mmcoop.registry import Entry, Registry

if TYPE_CHECKING:
    from mmcoop.core.models.encoders.base import Encoder

ENCODERS = Registry(
    "encoder",
    {
        "conv": Entry(
            "mmcoop.core.models.encoders.conv", "ConvEncoder", "small, for images of 28-64 pixels"
        ),
        "resnet18": Entry(
            "mmcoop.core.models.encoders.resnet18",
            "ResNet18Encoder",
            "for images and frames",
            "He et al., CVPR 2016",
        ),
        "mlp": Entry("mmcoop.core.models.encoders.mlp", "MLPEncoder", "for vectors"),
        "conv1d": Entry("mmcoop.core.models.encoders.conv1d", "SeriesEncoder", "for series"),
    },
)


def build_encoder(name: str, shape: tuple[int, ...]) -> "Encoder":
    """The encoder called `name` for inputs of `shape`, that of one sample.

    Raises `UsageError` for an unknown name or a shape the encoder cannot take.
    """
    encoder: Encoder = ENCODERS.load(name)(shape)
    return encoder

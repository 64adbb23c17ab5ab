"""What an encoder is, and what the encoders of images share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcoop.errors import UsageError


class Stages(NamedTuple):
    """A convolutional encoder in parts.

    Attributes:
        blocks: The parts; each maps `(images, channels, height, width)` to more features.
        channels: The channels that each part returns.
    """

    blocks: Sequence[nn.Module]
    channels: Sequence[int]


class Encoder(nn.Module):
    """Maps the input of one modality to one feature vector per sample.

    `forward` takes `(batch, *shape)` and returns `(batch, width)`. An encoder is constructed from
    `shape`, that of one sample's input, and sets `width`, the number of features.
    """

    width: int

    def tokens(self, x: Tensor) -> Tensor:
        """Features by position, whose mean is the feature vector.

        Returns:
            `(batch, tokens, width)`; a single token for encoders without positions.
        """
        features: Tensor = self(x)
        return features.unsqueeze(1)

    def stages(self) -> Stages:
        """The parts between which modalities may exchange information.

        Raises:
            UsageError: The encoder is not convolutional.
        """
        raise UsageError(
            f"{type(self).__name__} has no stages: exchanging between encoders needs convolutional "
            "ones (conv, resnet18)"
        )

    def absent(self, batch: int, like: Tensor) -> Tensor:
        """Features of a batch in which no sample has the modality: zeros."""
        return like.new_zeros(batch, self.width)


@contextmanager
def defined_statistics(encoder: nn.Module, rows: int) -> Iterator[None]:
    """Let a lone row be normalised by the running statistics.

    The variance over one value per channel is undefined, and batch normalisation refuses it; it
    happens when only one row of a batch has a modality.
    """
    training = [m for m in encoder.modules() if m.training] if rows == 1 else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def image_channels(encoder: str, shape: tuple[int, ...]) -> int:
    """The number of channels of images or frames; `UsageError` for inputs of another shape."""
    if len(shape) not in (3, 4):
        raise UsageError(
            f"encoder {encoder!r} takes images (channels, height, width) or frames "
            f"(frames, channels, height, width), not inputs of shape {shape}"
        )
    return shape[-3]


def averaged_over_frames(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`(batch, C, H, W)` or `(batch, F, C, H, W)` → `(batch, width)`, the mean over frames."""
    images, frames = as_images(x)
    features = layers(images)
    return features.reshape(-1, frames, features.shape[1]).mean(1)


def places(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Images or frames through convolutional blocks → `(batch, frames · height · width, C)`."""
    images, frames = as_images(x)
    for block in blocks:
        images = block(images)
    by_place = images.flatten(2).transpose(1, 2)
    return by_place.reshape(-1, frames * by_place.shape[1], by_place.shape[2])


def as_images(x: Tensor) -> tuple[Tensor, int]:
    """Images `(batch, C, H, W)` or frames `(batch, F, C, H, W)` → channels-last images, and how
    many of them are one sample.
    """
    frames = x.shape[1] if x.dim() == 5 else 1
    images = x.flatten(0, 1) if x.dim() == 5 else x
    # not contiguous(…): an image of one channel is so in any layout, and would stay as it is
    return images.to(memory_format=torch.channels_last), frames

"""What an encoder is, and what the encoders of images share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmcoop.errors import UsageError


class Encoder(nn.Module):
    """One modality's input → one feature vector a sample: `(batch, *shape)` → `(batch, width)`.

    Made from the shape of one sample's input, without the batch; `width` is the number of features.
    """

    width: int


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
    frames = x.shape[1] if x.dim() == 5 else 1
    images = x.flatten(0, 1) if x.dim() == 5 else x
    features = layers(images.contiguous(memory_format=torch.channels_last))
    return features.reshape(-1, frames, features.shape[1]).mean(1)

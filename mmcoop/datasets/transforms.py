"""From stored samples to what an encoder sees.

Each modality has two transforms: the evaluation transform, which is fixed, and the training
transform, which adds the random changes that its data set asks for. Valuation always uses the
evaluation transform.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.datasets.modality import Modality
from mmcoop.errors import DataError

#: Stored samples of one modality, as `Split.read` gives them → float32 `(batch, *input_shape)`.
Transform = Callable[[Any], Tensor]


def build_transform(modality: Modality, *, training: bool) -> Transform:
    """The training or the evaluation transform of a modality.

    Random changes draw from torch's default generator: seed it to have them again. Raises
    `DataError` for a training transform nobody wrote.
    """
    unknown = set(modality.training) - set(RANDOM)
    if unknown:
        raise DataError(
            f"unknown training transform {sorted(unknown)[0]!r}: one of {', '.join(RANDOM)}"
        )
    changes = modality.training if training else {}

    def transform(stored: Any) -> Tensor:
        if modality.kind == "frames":
            x = torch.stack([_decoded(frames, modality, training) for frames in stored])
        else:
            x = torch.from_numpy(np.ascontiguousarray(stored)).float()
        x = (x - modality.mean) / modality.std
        for name, arguments in changes.items():
            x = RANDOM[name](x, **arguments)
        return x

    return transform


def shift(x: Tensor, height: int, width: int) -> Tensor:
    """Move each sample of `(batch, …, H, W)` by up to `height` rows and `width` columns.

    Zeros, the mean after normalisation, move in from the border.
    """
    batch, (rows, columns) = x.shape[0], x.shape[-2:]
    padded = F.pad(x, (width, width, height, height))
    top = torch.randint(0, 2 * height + 1, (batch, 1)) + torch.arange(rows)
    left = torch.randint(0, 2 * width + 1, (batch, 1)) + torch.arange(columns)
    flat = padded.flatten(1, -3)
    moved = flat[torch.arange(batch)[:, None, None], :, top[:, :, None], left[:, None, :]]
    # indexing puts the indexed axes first: (batch, H, W, channels)
    return moved.permute(0, 3, 1, 2).reshape(x.shape)


def flip(x: Tensor) -> Tensor:
    """Mirror half of the samples of `(batch, …, W)`, chosen at random, left to right."""
    mirrored = torch.rand(x.shape[0]) < 0.5
    return torch.where(mirrored.view(-1, *(1,) * (x.dim() - 1)), x.flip(-1), x)


def noise(x: Tensor, scale: float) -> Tensor:
    """Add Gaussian noise of standard deviation `scale`."""
    return x + scale * torch.randn_like(x)


#: Random changes that a data set may ask for in training, by name.
RANDOM: dict[str, Callable[..., Tensor]] = {"shift": shift, "flip": flip, "noise": noise}


def _decoded(frames: list[bytes], modality: Modality, training: bool) -> Tensor:
    """JPEG frames of one clip → float `(frames, 3, size, size)` in 0…1.

    Training takes one random crop of the clip (the same for all its frames, of 8-100 % of the
    area and an aspect of 3:4 to 4:3) and resizes it; evaluation resizes the whole picture.
    """
    from torchvision.io import ImageReadMode, decode_image  # seconds to import: only for frames
    from torchvision.transforms import v2

    pictures = [
        decode_image(torch.frombuffer(bytearray(f), dtype=torch.uint8), ImageReadMode.RGB)
        for f in frames
    ]
    clip = torch.stack(pictures)
    side = modality.size or modality.shape[-1]
    resize = (
        v2.RandomResizedCrop(side, antialias=True)
        if training
        else v2.Resize((side, side), antialias=True)
    )
    result: Tensor = resize(clip).float() / 255
    return result

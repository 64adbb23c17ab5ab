"""Stored samples → inputs of an encoder.

Each modality has two transforms: the deterministic evaluation transform, and the training
transform, which adds the random changes that its dataset specifies. Valuation always uses the
evaluation transform.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.datasets.modality import Modality
from mmcoop.errors import DataError
from mmcoop.reading.pictures import decode_jpeg

#: Stored samples of one modality, as `Split.read` gives them → float32 `(batch, *input_shape)`.
Transform = Callable[[Any], Tensor]


def build_transform(modality: Modality, *, training: bool) -> Transform:
    """Build the training or the evaluation transform of a modality.

    Random changes draw from torch's default generator; seed it to reproduce them.

    Args:
        modality: The modality.
        training: Whether to apply the random changes.

    Returns:
        A function from stored samples to a float32 tensor `(batch, *input_shape)`.

    Raises:
        DataError: A training transform is unknown, or does not take its arguments.
    """
    for name, arguments in modality.training.items():
        if name not in RANDOM:
            raise DataError(f"unknown training transform {name!r}: one of {', '.join(RANDOM)}")
        try:
            inspect.signature(RANDOM[name]).bind(torch.empty(0), **arguments)
        except TypeError as error:
            raise DataError(f"training transform {name!r}: {error}") from None
    return partial(_transformed, modality, training)


def _transformed(modality: Modality, training: bool, stored: Any) -> Tensor:
    if modality.segments:
        stored = _one_of_each_segment(modality, training, stored)
    if modality.kind == "frames":
        x = torch.stack([_decoded(frames, modality, training) for frames in stored])
    else:
        x = torch.from_numpy(np.ascontiguousarray(stored, modality.precision))
    mean, std = (
        torch.from_numpy(modality.along_channels(x)) for x in (modality.mean, modality.std)
    )
    x = ((x - mean) / std).float()
    shape = x.shape
    if modality.kind in ("frames", "flow"):
        x = x.flatten(0, 1)  # frames are transformed independently
    for name, arguments in (modality.training if training else {}).items():
        if name == "flip" and modality.kind == "flow":
            no_motion = float(((modality.no_motion - mean) / std).flatten()[0])
            arguments = {"flow_zero": no_motion, **arguments}
        x = RANDOM[name](x, **arguments)
    return x.view(shape)


def _one_of_each_segment(modality: Modality, training: bool, stored: Any) -> Any:
    """One frame or flow field per segment: a random one in training, else the middle one."""
    assert modality.segments is not None
    each = modality.shape[0] // modality.segments
    drawn = torch.full((len(stored), modality.segments), each // 2)
    if training:
        drawn = torch.randint(0, each, drawn.shape)
    chosen = (drawn + each * torch.arange(modality.segments)).numpy()
    if modality.kind == "frames":
        return [[frames[k] for k in row] for frames, row in zip(stored, chosen, strict=True)]
    return stored[np.arange(len(stored))[:, None], chosen]


def shift(x: Tensor, height: int, width: int) -> Tensor:
    """Shift each sample of `(batch, …, H, W)` by up to `height` rows and `width` columns.

    The border is filled with zeros, the mean after normalisation.
    """
    batch, (rows, columns) = x.shape[0], x.shape[-2:]
    padded = F.pad(x, (width, width, height, height))
    top = torch.randint(0, 2 * height + 1, (batch, 1)) + torch.arange(rows)
    left = torch.randint(0, 2 * width + 1, (batch, 1)) + torch.arange(columns)
    flat = padded.reshape(batch, -1, *padded.shape[-2:])
    moved = flat[torch.arange(batch)[:, None, None], :, top[:, :, None], left[:, None, :]]
    # indexing puts the indexed axes first: (batch, H, W, channels)
    return moved.permute(0, 3, 1, 2).reshape(x.shape)


def flip(x: Tensor, flow_zero: float | None = None) -> Tensor:
    """Mirror samples of `(batch, …, W)` left to right, each with probability ½.

    With `flow_zero`, the value of no motion, `x` is optical flow `(batch, 2, H, W)`, whose
    horizontal displacement is reversed as well.
    """
    mirrored = x.flip(-1)
    if flow_zero is not None:
        mirrored[:, 0] = 2 * flow_zero - mirrored[:, 0]
    chosen = torch.rand(x.shape[0]) < 0.5
    return torch.where(chosen.view(-1, *(1,) * (x.dim() - 1)), mirrored, x)


def crop(x: Tensor) -> Tensor:
    """Crop each sample of `(batch, …, H, W)` at random and resize it to `(H, W)`.

    Crops have 8-100 % of the area and an aspect ratio of 3:4 to 4:3.
    """
    from torchvision.transforms import v2

    resized = v2.RandomResizedCrop(x.shape[-2:], antialias=True)
    return torch.stack([resized(one) for one in x]) if len(x) else x


def noise(x: Tensor, scale: float) -> Tensor:
    """Add Gaussian noise of standard deviation `scale`."""
    return x + scale * torch.randn_like(x)


#: Random changes that a dataset may specify for training, by name.
RANDOM: dict[str, Callable[..., Tensor]] = {
    "shift": shift,
    "crop": crop,
    "flip": flip,
    "noise": noise,
}


def _decoded(frames: list[bytes], modality: Modality, training: bool) -> Tensor:
    """JPEG frames of one clip → float `(frames, 3, height, width)` in [0, 1].

    Training resizes a random crop of each frame (8-100 % of the area, aspect ratio 3:4 to 4:3),
    evaluation the complete frame. Raises `DataError` for a frame that is not a picture.
    """
    from torchvision.transforms import v2  # seconds to import: only for frames

    pictures = [decode_jpeg(frame) for frame in frames]
    if len({picture.shape for picture in pictures}) != 1:
        raise DataError("the frames of a clip differ in size")
    clip = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    size = modality.input_shape[-2:]
    if training:
        crop_one = v2.RandomResizedCrop(size, antialias=True)
        resized = torch.stack([crop_one(frame) for frame in clip])
    else:
        resized = v2.Resize(size)(clip)
    return resized.float() / 255

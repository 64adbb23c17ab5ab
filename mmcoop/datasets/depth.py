"""Pictures with one channel of more than eight bits, such as depth maps."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmcoop.datasets.media import has_levels, open_picture
from mmcoop.datasets.rejects import Unusable

# Mean and standard deviation are measured on this many pictures, evenly spaced.
_MEASURED = 100


def read_levels(path: Path, side: int) -> np.ndarray:
    """Read a picture, turned upright and scaled to `side × side`.

    Nearest-neighbour scaling, so that no value arises between two depths.

    Args:
        path: The picture.
        side: Side of the result, in pixels.

    Returns:
        The stored numbers, float32 `(side, side)`.

    Raises:
        Unusable: `unreadable`: the file is damaged, its pixels are bytes or colours, or float32
            cannot represent its numbers.
    """
    with open_picture(path) as picture:
        if not has_levels(picture):
            raise Unusable(
                "unreadable",
                "its pixels are bytes or colours, those of the first picture are larger numbers: "
                "store it like the others, or all as .npy arrays",
            )
        if any(tile.codec_name == "ppm" for tile in picture.tile):
            raise Unusable(
                "unreadable",
                "Pillow scales its numbers so that the largest one possible is 65535: store it as "
                ".png or .npy",
            )
        levels = np.asarray(ImageOps.exif_transpose(picture))
    numbers = levels.astype(np.float32)
    if (numbers.astype(np.float64) != levels)[~np.isnan(numbers)].any():
        raise Unusable("unreadable", f"{path}: float32 cannot hold its numbers: make them smaller")
    nearest = Image.fromarray(numbers).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(nearest)


def measured(paths: Sequence[Path], side: int) -> tuple[float, float] | None:
    """Measure mean and standard deviation of pictures with more than eight bits.

    Args:
        paths: The pictures. The first that can be opened decides of which kind all are.
        side: Side to which they are scaled, in pixels.

    Returns:
        Mean and standard deviation (1 instead of 0), or None for ordinary pictures.
    """
    if not _first_has_levels(paths):
        return None
    found = []
    for path in paths[:: -(-len(paths) // _MEASURED)]:
        with suppress(Unusable):
            found.append(read_levels(path, side))
    numbers = np.array(found, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return 0.0, 1.0
    return float(numbers.mean()), float(numbers.std()) or 1.0


def _first_has_levels(paths: Sequence[Path]) -> bool:
    for path in paths:
        with suppress(Unusable), open_picture(path) as picture:
            return has_levels(picture)
    return False

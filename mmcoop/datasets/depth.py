"""Pictures whose pixels are single numbers of more than a byte, such as depth maps."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmcoop.datasets.media import has_levels, open_picture
from mmcoop.datasets.rejects import Unusable

# So many pictures, evenly spaced, are read to learn the mean and deviation of their numbers.
_MEASURED = 100


def read_levels(path: Path, side: int) -> np.ndarray:
    """A picture of such numbers, turned upright and scaled to `side × side`.

    A pixel is the nearest one of the file: no number arises that is not in it, as between two
    depths.

    Returns:
        The numbers as the file has them, float32 `(side, side)`.

    Raises:
        Unusable: unreadable, where the file is damaged, its pixels are bytes or colours, or its
            numbers are not those of the file once they are float32.
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
    """Mean and standard deviation of the numbers of pictures; None where they are ordinary ones.

    The first picture that can be opened says which they are. A deviation of 0 is given as 1.
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

"""Optical flow between neighbouring frames, computed or read from pictures computed before.

A flow field is uint8 `(2, side, side)`: horizontal and vertical displacement in pixels of the
field itself, clipped to ±20 pixels and centred at 128. Precomputed `u` and `v` pictures are coded
in the same way, but in pixels of their own size: they are converted.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcoop.datasets.file_kinds import kinds_by_ending
from mmcoop.datasets.media import read_picture
from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError, setting

#: The largest displacement that is told apart, in pixels.
BOUND = 20.0
CENTRE = 128
_LEVELS = 127 / BOUND


def require_opencv() -> Any:
    """OpenCV; `DataError` saying how to install it where it is absent."""
    try:
        import cv2
    except ImportError:
        raise DataError(
            "computing optical flow needs OpenCV: pip install 'mmcoop[flow]', or give "
            f"{setting('flow')} a "
            "folder of precomputed flow"
        ) from None
    return cv2


def dense_flow(frame: np.ndarray, following: np.ndarray, side: int) -> np.ndarray:
    """The flow field from one picture, uint8 `(height, width, 3)`, to the next one.

    By the DIS method (Kroeger et al., ECCV 2016) on the pictures scaled to `side × side`.
    """
    cv2 = require_opencv()
    cv2.setNumThreads(1)
    grey = [
        cv2.cvtColor(
            cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        for picture in (frame, following)
    ]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return coded(estimator.calc(*grey, None).transpose(2, 0, 1))


def coded(displacement: np.ndarray) -> np.ndarray:
    """Displacement in pixels, float → uint8."""
    clipped = np.clip(displacement, -BOUND, BOUND)
    levels: np.ndarray = np.round(clipped * _LEVELS + CENTRE).astype(np.uint8)
    return levels


def stored_flow(folder: Path, clip: str, count: int, side: int) -> np.ndarray:
    """`count` flow fields of a clip, evenly spaced, from `folder`: `(count, 2, side, side)`.

    The folder has `u/CLIP/` and `v/CLIP/`, each with one grey picture per frame, in the order of
    their names. Their displacements, in pixels of the picture, become those in pixels of the field.
    Raises `Unusable` where they are missing, differ in number or cannot be read.
    """
    pictures = stored_pictures(folder, clip)
    length = len(pictures[0])
    picked = [int((k + 0.5) * length / count) for k in range(count)]
    return np.stack(
        [
            np.stack(
                [_stored_field(direction[k], axis, side) for axis, direction in enumerate(pictures)]
            )
            for k in picked
        ]
    )


def stored_pictures(folder: Path, clip: str) -> list[list[Path]]:
    """The pictures of a clip's horizontal and of its vertical flow; see `stored_flow`.

    Raises `Unusable` where they are missing or differ in number.
    """
    pictures = [_pictures(folder / direction / clip) for direction in ("u", "v")]
    lengths = [len(found) for found in pictures]
    if 0 in lengths:
        missing = folder / ("u" if lengths[0] == 0 else "v") / clip
        raise Unusable("missing", f"no flow pictures in {missing}")
    if lengths[0] != lengths[1]:
        raise Unusable("unreadable", f"{lengths[0]} u but {lengths[1]} v pictures of {clip}")
    return pictures


def _stored_field(path: Path, axis: int, side: int) -> np.ndarray:
    """Displacement along one axis (0 across, 1 down) as stored in a picture → `(side, side)`."""
    levels = Image.fromarray(read_picture(path, None, "L"))
    resized = np.asarray(levels.convert("F").resize((side, side), Image.Resampling.BILINEAR))
    return coded((resized - CENTRE) / _LEVELS * side / levels.size[axis])


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.glob("[!.]*")
        if "picture" in kinds_by_ending(path) and path.is_file()
    )

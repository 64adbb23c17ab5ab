"""Optical flow between consecutive frames, computed or read from precomputed pictures.

A flow field is uint8 `(2, side, side)`: horizontal and vertical displacement in pixels of the
field, clipped to ±20 pixels and centred at 128. Precomputed `u` and `v` pictures are encoded in
the same way, but in pixels of their own size, and are converted.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcoop.datasets.file_kinds import kinds_by_ending
from mmcoop.datasets.media import read_picture
from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError, setting

#: The largest displacement that can be stored, in pixels.
BOUND = 20.0
CENTRE = 128
_LEVELS = 127 / BOUND


def require_opencv() -> Any:
    """Import OpenCV.

    Raises:
        DataError: It is not installed.
    """
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
    """Compute the flow field from one picture to the next.

    Uses the DIS method (Kroeger et al., ECCV 2016) on the pictures scaled to `side × side`.

    Args:
        frame: A picture, uint8 `(height, width, 3)`.
        following: The next one.
        side: Side of the flow field, in pixels.

    Returns:
        uint8 `(2, side, side)`.
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
    """Encode displacements in pixels as uint8, as described above."""
    clipped = np.clip(displacement, -BOUND, BOUND)
    levels: np.ndarray = np.round(clipped * _LEVELS + CENTRE).astype(np.uint8)
    return levels


def stored_flow(folder: Path, clip: str, count: int, side: int) -> np.ndarray:
    """Read evenly spaced precomputed flow fields of a clip.

    Args:
        folder: A folder with `u/CLIP/` and `v/CLIP/`, each with one grey picture per frame, in
            the order of their names.
        clip: Name of the clip.
        count: Number of fields.
        side: Side of a field, in pixels, to which displacements are scaled.

    Returns:
        uint8 `(count, 2, side, side)`.

    Raises:
        Unusable: Pictures are missing, differ in number, or cannot be read.
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
    """Find the pictures of a clip's horizontal and vertical flow; see `stored_flow`.

    Raises:
        Unusable: Pictures are missing or differ in number.
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
    """A stored picture of displacements along one axis (0: x, 1: y) → uint8 `(side, side)`."""
    levels = Image.fromarray(read_picture(path, None, "L"))
    resized = np.asarray(levels.convert("F").resize((side, side), Image.Resampling.BILINEAR))
    return coded((resized - CENTRE) / _LEVELS * side / levels.size[axis])


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.glob("[!.]*")
        if "picture" in kinds_by_ending(path) and path.is_file()
    )

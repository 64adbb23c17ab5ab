"""Turning decoded pictures the way up that their file states, mirror images included."""

import math
import struct
from typing import Any

import av
import numpy as np

from mmcoop.datasets.rejects import Unusable

# How far an axis may lean, as the sine of its angle, and still count as a multiple of 90°: one
# degree, more than the rounding of any file.
_LEAN = math.sin(math.radians(1))

# a, b, c and d of a picture that is stored as it is shown.
_UPRIGHT = (1, 0, 0, 1)


def turn_upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror the pixels of a decoded frame as its display matrix states.

    Args:
        picture: The frame's pixels as they are stored, `(height, width, …)`.
        frame: The frame, which carries the matrix.

    Returns:
        The picture as it is to be shown, contiguous.

    Raises:
        Unusable: `orientation`, where the matrix turns by an angle that is no multiple of 90°,
            or skews or flattens the picture.

    Source: ISO/IEC 14496-12, 6.2.2: a stored pixel (x, y) is shown at (a·x + c·y, b·x + d·y).
    """
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) > abs(b) + abs(c):
        down, across = d, a
    else:
        picture = picture.swapaxes(0, 1)
        down, across = b, c
    return np.ascontiguousarray(picture[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c and d of a frame's display matrix, each axis of the shown picture of length 1."""
    stored: Any = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return _UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", stored)
    if not (a or b or c or d):
        return _UPRIGHT  # written by some recorders that leave the matrix out
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across and down:
        turned = a / across, b / down, c / across, d / down
        if min(max(abs(turned[0]), abs(turned[3])), max(abs(turned[1]), abs(turned[2]))) < _LEAN:
            return turned
    raise Unusable(
        "orientation", f"its display matrix ({a}, {b}, {c}, {d}) is no turn by a multiple of 90°"
    )

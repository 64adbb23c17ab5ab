"""Rotating and mirroring decoded frames as their file states."""

import math
import struct
from typing import Any

import av
import numpy as np

from mmcoop.datasets.rejects import Unusable

# Tolerance for multiples of 90°, as the sine of an angle: one degree, more than any rounding error.
_LEAN = math.sin(math.radians(1))

# a, b, c and d of a picture that is stored upright.
_UPRIGHT = (1, 0, 0, 1)


def turn_upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotate and mirror the pixels of a decoded frame according to its display matrix.

    By ISO/IEC 14496-12, 6.2.2, a stored pixel (x, y) is shown at (a·x + c·y, b·x + d·y).

    Args:
        picture: The frame's pixels as stored, `(height, width, …)`.
        frame: The frame, which carries the matrix.

    Returns:
        The upright picture, contiguous.

    Raises:
        Unusable: `orientation`: the matrix rotates by an angle that is not a multiple of 90°, or
            skews or flattens the picture.
    """
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) > abs(b) + abs(c):
        down, across = d, a
    else:
        picture = picture.swapaxes(0, 1)
        down, across = b, c
    return np.ascontiguousarray(picture[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c and d of a frame's display matrix, with both axes scaled to length 1."""
    stored: Any = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return _UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", stored)
    if not (a or b or c or d):
        return _UPRIGHT  # some recorders write zeros instead of omitting the matrix
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across and down:
        turned = a / across, b / down, c / across, d / down
        if min(max(abs(turned[0]), abs(turned[3])), max(abs(turned[1]), abs(turned[2]))) < _LEAN:
            return turned
    raise Unusable(
        "orientation", f"its display matrix ({a}, {b}, {c}, {d}) is no turn by a multiple of 90°"
    )

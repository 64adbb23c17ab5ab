"""Pictures are shown the way up that their file states: all eight ways, against geometry."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmcoop.datasets.media import read_footage, read_picture
from mmcoop.datasets.orientation import turn_upright
from mmcoop.datasets.rejects import Unusable

#: The entries a, b, c, d of a display matrix, and where a picture's pixels go.
EIGHT = {
    "upright": (1, 0, 0, 1),
    "turned right": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "turned left": (0, -1, 1, 0),
    "mirrored left to right": (-1, 0, 0, 1),
    "mirrored top to bottom": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}
#: The same for the orientations 1 to 8 of EXIF 2.32: which edge of the shown picture the stored
#: first row and first column are.
EXIF = {
    1: "upright",
    2: "mirrored left to right",
    3: "upside down",
    4: "mirrored top to bottom",
    5: "transposed",
    6: "turned right",
    7: "transposed the other way",
    8: "turned left",
}


def slopes(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue to the left: every place has its colour."""
    across = np.broadcast_to(np.linspace(16, 240, width), (height, width))
    down = np.broadcast_to(np.linspace(16, 240, height)[:, None], (height, width))
    return np.round(np.stack([across, down, 256 - across], axis=-1)).astype(np.uint8)


def placed(picture: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """The picture with pixel (x, y) at (a·x + c·y, b·x + d·y), moved to begin at (0, 0).

    As ISO/IEC 14496-12 defines the matrix of a track, one pixel after the other.
    """
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    target = {
        (a * x + c * y, b * x + d * y): picture[y, x] for y in range(height) for x in range(width)
    }
    left, top = (min(place[axis] for place in target) for axis in (0, 1))
    shape = (height, width) if a else (width, height)
    shown = np.zeros((*shape, 3), np.uint8)
    for (right_of, below), colour in target.items():
        shown[below - top, right_of - left] = colour
    return shown


@pytest.fixture(scope="module")
def content(film: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An mp4 film of 30 equal pictures, 96 × 64."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    film(path, [slopes(64, 96)] * 30, options={"crf": "5"}, pixels="yuv444p")
    return path.read_bytes()


def with_matrix(
    path: Path, content: bytes, matrix: Sequence[float], box: bytes = b"tkhd", at: int = 40
) -> Path:
    """Write a film whose header `box`, of the track or of the movie, has the matrix a, b, c, d."""
    changed = bytearray(content)
    assert changed.count(box) == 1
    at += changed.index(box) + 4
    a, b, c, d = (round(value * 65536) for value in matrix)
    changed[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(changed)
    return path


@pytest.mark.parametrize("matrix", EIGHT.values(), ids=EIGHT)
@pytest.mark.parametrize(("box", "at"), [(b"tkhd", 40), (b"mvhd", 36)])
def test_a_film_is_shown_as_its_matrix_places_the_pixels(tmp_path, content, matrix, box, at):
    """Whether the matrix is the track's or the movie's, from the start and after seeking."""
    path = with_matrix(tmp_path / "a.mp4", content, matrix, box, at)
    expected = placed(slopes(64, 96), matrix)
    for start, end in ((None, None), (1.05, 1.15)):
        (frame,) = read_footage(path, start=start, end=end, frames=1).frames
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 3
    (small,) = read_footage(path, frames=1, short_side=32).frames
    assert small.shape == tuple(np.array(expected.shape) // (2, 2, 1))
    assert small.flags.c_contiguous
    assert np.abs(small.astype(int) - expected[::2, ::2]).mean() < 6


@pytest.mark.parametrize("matrix", [EIGHT["turned right"], EIGHT["upside down"]])
def test_opencv_turns_a_film_the_same_way(tmp_path, content, matrix):
    """It knows the turns, not the mirror images."""
    cv2 = pytest.importorskip("cv2")
    path = with_matrix(tmp_path / "a.mp4", content, matrix)
    seen = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    (frame,) = read_footage(path, frames=1).frames
    assert np.abs(seen.astype(float) - frame).mean() < 2


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 0, 0, 0), "upright"),  # as some recorders leave it
        ((2, 0, 0, 2), "upright"),
        ((0, 0.5, -2, 0), "turned right"),  # pixels that are not square
        ((-0.99995, 0.01, 0.01, 0.99995), "mirrored left to right"),  # 0.6°
    ],
)
def test_a_matrix_counts_by_where_its_axes_point(tmp_path, content, matrix, shown):
    path = with_matrix(tmp_path / "a.mp4", content, matrix)
    expected = placed(slopes(64, 96), EIGHT[shown])
    (frame,) = read_footage(path, frames=1).frames
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    "matrix",
    [
        (0.866, 0.5, -0.5, 0.866),
        (0.7071, 0.7071, 0.7071, -0.7071),
        (0.999, 0.0349, -0.0349, 0.999),
        (1, 0, 0.5, 1),
        (1, 0, 1, 0),
        (1, 0, 0, 0),
    ],
    ids=["30 degrees", "45 degrees and mirrored", "2 degrees", "skewed", "flat", "a line"],
)
def test_any_other_matrix_is_a_reason_of_its_own_to_reject_the_clip(tmp_path, content, matrix):
    path = with_matrix(tmp_path / "a.mp4", content, matrix)
    with pytest.raises(Unusable, match=r"a.mp4: its display matrix") as caught:
        read_footage(path, frames=1)
    assert caught.value.reason == "orientation"


def test_a_frame_without_a_matrix_stays_as_it_is():
    picture = slopes(4, 6)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    np.testing.assert_array_equal(turn_upright(picture, frame), picture)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", EXIF)
def test_a_photograph_is_shown_as_its_exif_orientation_places_the_pixels(
    tmp_path, ending, orientation
):
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture = slopes(64, 64)
    quality = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(ending, {})
    Image.fromarray(picture).save(tmp_path / f"a.{ending}", exif=tags, **quality)
    shown = read_picture(tmp_path / f"a.{ending}", 64)
    expected = placed(picture, EIGHT[EXIF[orientation]])
    assert np.abs(shown.astype(int) - expected).mean() < 3

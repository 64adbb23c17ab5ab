"""Stored pictures: decoded as Pillow decodes them, all else refused."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcoop.errors import DataError
from mmcoop.reading import pictures
from mmcoop.reading.pictures import decode_jpeg

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_to_rgb_as_pillow_does(mode):
    content = encoded(Image.fromarray(NOISE).convert(mode))
    found = decode_jpeg(content)
    assert found.shape == (12, 20, 3)
    assert found.dtype == np.uint8
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(
    "content", [b"", b"no picture", encoded(Image.fromarray(NOISE), "PNG")], ids=["", "text", "png"]
)
def test_what_is_no_jpeg_is_refused(content):
    with pytest.raises(DataError, match="^a stored picture cannot be decoded: it is no JPEG file$"):
        decode_jpeg(content)


def test_one_that_is_cut_off_is_refused():
    content = encoded(Image.fromarray(NOISE))
    with pytest.raises(DataError, match="^a stored picture cannot be decoded: "):
        decode_jpeg(content[: len(content) * 2 // 3])


def test_one_of_too_many_pixels_is_refused_before_it_is_decoded():
    side = 2**13
    assert 2**12 * side == pictures._LARGEST
    content = bytearray(encoded(Image.new("L", (8, 8))))
    at = content.index(b"\xff\xc0") + 5  # the height and the width in the frame header
    content[at : at + 4] = side.to_bytes(2, "big") * 2
    with pytest.raises(
        DataError, match="^a stored picture cannot be decoded: it has 8192 × 8192 pixels$"
    ):
        decode_jpeg(bytes(content))

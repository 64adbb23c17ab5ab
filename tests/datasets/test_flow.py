"""Optical flow: the displacement that was made is the one found, and how it is stored."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from mmcoop.datasets.flow import BOUND, CENTRE, coded, dense_flow, stored_flow
from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError

SIDE = 112


def texture(height: int, width: int) -> np.ndarray:
    """A picture with detail of 6 and of 24 pixels everywhere, uint8 `(height, width, 3)`."""
    rng, layers = np.random.default_rng(0), []
    for size in (6, 24):
        coarse = rng.integers(0, 256, (height // size, width // size), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        layers.append(np.asarray(smooth.convert("RGB"), float))
    return np.mean(layers, axis=0).astype(np.uint8)


def displaced(right: int, down: int, height: int = SIDE, width: int = SIDE):
    """Two pictures, the second with everything moved by so many pixels."""
    large = texture(height + 80, width + 80)
    return (
        large[40 : 40 + height, 40 : 40 + width],
        large[40 - down : 40 - down + height, 40 - right : 40 - right + width],
    )


@pytest.mark.parametrize(
    ("right", "down"), [(0, 0), (4, 0), (-4, 0), (0, 3), (0, -6), (5, -2), (-3, 7), (12, 9)]
)
def test_the_displacement_of_a_moved_picture_is_found(right, down):
    """Inside, where what moved is in both pictures; by half a pixel on the average."""
    pytest.importorskip("cv2")
    field = dense_flow(*displaced(right, down), SIDE)
    assert field.shape == (2, SIDE, SIDE)
    assert field.dtype == np.uint8
    inner = (field[:, 24:-24, 24:-24].astype(float) - 128) / 127 * 20
    assert np.median(inner[0]) == pytest.approx(right, abs=0.2)
    assert np.median(inner[1]) == pytest.approx(down, abs=0.2)
    assert np.abs(inner[0] - right).mean() < 0.5
    assert np.abs(inner[1] - down).mean() < 0.5


def test_displacement_is_in_pixels_of_the_field():
    """Half as large a field has half the displacement, in each direction on its own."""
    pytest.importorskip("cv2")
    field = dense_flow(*displaced(8, 12, height=3 * 56, width=2 * 56), 56)
    inner = (field[:, 14:-14, 14:-14].astype(float) - 128) / 127 * 20
    assert np.median(inner[0]) == pytest.approx(8 / 2, abs=0.4)
    assert np.median(inner[1]) == pytest.approx(12 / 3, abs=0.4)


def test_a_picture_that_stays_has_no_flow():
    pytest.importorskip("cv2")
    picture = texture(90, 160)
    field = dense_flow(picture, picture, 64)
    assert (field == CENTRE).mean() > 0.99


def test_flow_follows_what_moves_and_leaves_what_stays():
    pytest.importorskip("cv2")
    still, moved = displaced(6, 0)
    after = still.copy()
    after[:, SIDE // 2 :] = moved[:, SIDE // 2 :]
    field = (dense_flow(still, after, SIDE).astype(float) - 128) / 127 * 20
    assert np.median(field[0, 20:-20, 20:36]) == pytest.approx(0, abs=0.2)
    assert np.median(field[0, 20:-20, -40:-20]) == pytest.approx(6, abs=0.3)


def test_flow_is_that_of_the_brightness_in_which_red_counts_more_than_blue():
    pytest.importorskip("cv2")
    still, moved = displaced(5, 0)
    colours = [
        np.stack([one[..., 0], 0 * one[..., 0], still[::-1, :, 0]], -1) for one in (still, moved)
    ]
    field = (dense_flow(*colours, SIDE).astype(float) - 128) / 127 * 20
    assert np.median(field[0, 24:-24, 24:-24]) == pytest.approx(5, abs=0.7)


def test_the_same_pictures_have_the_same_flow():
    pytest.importorskip("cv2")
    pictures = displaced(3, 1)
    np.testing.assert_array_equal(dense_flow(*pictures, SIDE), dense_flow(*pictures, SIDE))


@pytest.mark.parametrize(
    ("pixels", "level"),
    [
        (0.0, 128),
        (20.0, 255),
        (-20.0, 1),
        (25.0, 255),
        (-1000.0, 1),
        (10.0, 192),  # 128 + 63.5, and even
        (1.0, 134),  # 128 + 6.35
        (-1.0, 122),
        (0.07, 128),
        (0.08, 129),
    ],
)
def test_displacement_is_stored_in_127_levels_for_20_pixels_around_128(pixels, level):
    assert (BOUND, CENTRE) == (20.0, 128)
    assert coded(np.array([pixels], np.float32)).tolist() == [level]
    assert coded(np.zeros((2, 3))).dtype == np.uint8


def test_the_opposite_displacement_is_as_far_from_the_centre():
    pixels = np.linspace(-30, 30, 601)
    there, back = coded(pixels).astype(int), coded(-pixels).astype(int)
    np.testing.assert_array_equal(there - 128, 128 - back)
    assert (np.diff(there) >= 0).all()


def test_what_is_stored_is_off_by_half_a_level_at_the_most():
    pixels = np.random.default_rng(0).uniform(-20, 20, 1000)
    back = (coded(pixels).astype(float) - 128) * 20 / 127
    assert np.abs(back - pixels).max() <= 20 / 127 / 2 + 1e-9


@pytest.mark.parametrize("absent", ["cv2"])
def test_without_opencv_it_is_said_how_to_get_it(monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    picture = texture(32, 32)
    with pytest.raises(DataError, match=r"needs OpenCV: pip install 'mmcoop\[flow\]', or give"):
        dense_flow(picture, picture, 32)


# Flow computed before


@pytest.fixture
def folder(tmp_path):
    """Ten pictures a direction of the clip "run": level 10·k in `u` and 10·k + 100 in `v`."""
    for direction, more in (("u", 0), ("v", 100)):
        (tmp_path / direction / "run").mkdir(parents=True)
        for k in range(10):
            level = np.full((24, 32), 10 * k + more, np.uint8)
            Image.fromarray(level).save(tmp_path / direction / "run" / f"frame{k:03d}.png")
    return tmp_path


def in_the_field(level: float, side: int, length: int) -> float:
    """A level of a stored picture, `length` pixels long, as that of a field of `side` pixels."""
    pixels = (level - 128) / 127 * 20
    return 128 + pixels * side / length / 20 * 127


@pytest.mark.parametrize(
    ("count", "picked"),
    [
        (1, [5]),
        (2, [2, 7]),
        (3, [1, 5, 8]),
        (10, list(range(10))),
        (20, [k // 2 for k in range(20)]),
    ],
)
def test_stored_flow_is_taken_from_the_middles_of_equal_parts(folder, count, picked):
    fields = stored_flow(folder, "run", count, 16)
    assert fields.shape == (count, 2, 16, 16)
    assert fields.dtype == np.uint8
    for field, k in zip(fields, picked, strict=True):
        assert (field[0] == round(in_the_field(10 * k, 16, 32))).all()
        assert (field[1] == round(in_the_field(10 * k + 100, 16, 24))).all()


@pytest.mark.parametrize("side", [24, 96])
def test_stored_and_computed_flow_have_one_unit(tmp_path, side):
    """A picture of 96 × 64 that moves by 6 pixels to the right and by 4 down."""
    pytest.importorskip("cv2")
    computed = dense_flow(*displaced(6, 4, height=64, width=96), side).astype(float)
    for direction, pixels in (("u", 6), ("v", 4)):
        (tmp_path / direction / "run").mkdir(parents=True)
        level = np.full((64, 96), round(128 + pixels * 127 / 20), np.uint8)
        Image.fromarray(level).save(tmp_path / direction / "run" / "0.png")
    stored = stored_flow(tmp_path, "run", 1, side)[0].astype(float)
    inner = slice(side // 4, -side // 4)
    for axis in (0, 1):
        assert np.median(computed[axis, inner, inner]) == pytest.approx(stored[axis, 0, 0], abs=2)


def test_stored_flow_is_scaled_to_the_side(folder):
    slope = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (48, 64))
    for k in range(10):
        Image.fromarray(slope).save(folder / "u" / "run" / f"frame{k:03d}.png")
    field = stored_flow(folder, "run", 1, 16)[0]
    expected = np.linspace(0, 255, 64).reshape(16, 4).mean(1)
    expected = [in_the_field(level, 16, 64) for level in expected]
    np.testing.assert_allclose(field[0].astype(float), np.tile(expected, (16, 1)), atol=1.5)


@pytest.mark.parametrize("kind", ["jpg", "bmp", "webp", "tif"])
def test_stored_flow_may_be_of_any_kind_of_picture_and_of_colours(folder, kind):
    for direction in ("u", "v"):
        for path in (folder / direction / "run").glob("*.png"):
            Image.open(path).convert("RGB").save(path.with_suffix(f".{kind}"))
            path.unlink()
    fields = stored_flow(folder, "run", 10, 16).astype(int)
    for k in range(10):
        assert np.abs(fields[k, 0] - in_the_field(10 * k, 16, 32)).max() <= 2
        assert np.abs(fields[k, 1] - in_the_field(10 * k + 100, 16, 24)).max() <= 2


def test_other_files_beside_stored_flow_are_passed_over(folder):
    expected = stored_flow(folder, "run", 3, 16)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", ".frame000.png", "._frame001.png"):
        (folder / "u" / "run" / name).write_bytes(b"not a picture")
    (folder / "v" / "run" / "old.png").mkdir()
    np.testing.assert_array_equal(stored_flow(folder, "run", 3, 16), expected)


def test_the_name_of_a_clip_is_no_pattern(folder):
    for direction in ("u", "v"):
        shutil.copytree(folder / direction / "run", folder / direction / "[a]*")
    np.testing.assert_array_equal(
        stored_flow(folder, "[a]*", 2, 8), stored_flow(folder, "run", 2, 8)
    )
    with pytest.raises(Unusable):
        stored_flow(folder, "r*", 2, 8)


@pytest.mark.parametrize("direction", ["u", "v"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_flow_is_named(folder, direction, empty):
    shutil.rmtree(folder / direction / "run")
    if empty:
        (folder / direction / "run").mkdir()
    message = f"no flow pictures in {folder / direction / 'run'}"
    with pytest.raises(Unusable, match=message) as caught:
        stored_flow(folder, "run", 3, 16)
    assert caught.value.reason == "missing"


def test_unequal_numbers_of_flow_pictures_are_unreadable(folder):
    (folder / "v" / "run" / "frame009.png").unlink()
    with pytest.raises(Unusable, match="10 u but 9 v pictures of run") as caught:
        stored_flow(folder, "run", 3, 16)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_damaged_flow_picture_is_unreadable(folder, share):
    path = folder / "v" / "run" / "frame005.png"
    noise = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(Unusable, match=f"{path}: ") as caught:
        stored_flow(folder, "run", 1, 16)
    assert caught.value.reason == "unreadable"

"""Pictures of more than eight bits keep their numbers, or are refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcoop.datasets.depth import measured, read_levels
from mmcoop.datasets.media import read_picture
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.rejects import Unusable
from mmcoop.recipes.folder import Folder

RNG = np.random.default_rng(0)
DEPTH = RNG.integers(0, 65536, (6, 10), dtype=np.uint16)
DEPTH[0, 0] = 65535


def pnm(path: Path, magic: str, pixels: np.ndarray, largest: int) -> None:
    """Netpbm's raw formats, of which Pillow writes no more than eight bits."""
    height, width = pixels.shape[:2]
    header = f"{magic}\n{width} {height}\n{largest}\n".encode()
    path.write_bytes(header + pixels.astype(">u2" if largest > 255 else "u1").tobytes())


def save(path: Path, levels: np.ndarray) -> Path:
    if path.suffix == ".pgm":
        pnm(path, "P5", levels, 65535)
    else:
        Image.fromarray(levels).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("a.png", DEPTH),
        ("a.tif", DEPTH),
        ("a.pgm", DEPTH),
        ("a.tif", DEPTH.astype(np.int32) * 100),
        ("a.tif", DEPTH.astype(np.float32) / 7 - 3),
    ],
    ids=["png", "tif", "pgm", "int32", "float32"],
)
def test_every_number_is_one_of_the_file(tmp_path, name, levels):
    path = save(tmp_path / name, levels)
    if len(set(levels.shape)) == 2:
        square = save(tmp_path / f"square{path.suffix}", levels[:, 2:8])
        np.testing.assert_array_equal(read_levels(square, 6), levels[:, 2:8])
    for side in (3, 5, 24):
        rows, columns = (
            ((np.arange(side) + 0.5) * length / side).astype(int) for length in levels.shape
        )
        found = read_levels(path, side)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, levels[np.ix_(rows, columns)])


def test_depth_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(DEPTH[:, :6]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_levels(tmp_path / "a.png", 6), np.rot90(DEPTH[:, :6], -1))


@pytest.mark.parametrize("name", ["l.png", "rgb.png", "1023.pgm", "large.tif", "broken.png"])
def test_what_would_not_keep_its_numbers_is_refused(tmp_path, name):
    path = tmp_path / name
    if name == "1023.pgm":
        pnm(path, "P5", DEPTH % 1024, 1023)
    elif name == "broken.png":
        path.write_bytes(save(tmp_path / "a.png", DEPTH).read_bytes()[:60])
    else:
        large = DEPTH.astype(np.int32) * 2000 + 1
        bytes_ = (DEPTH >> 8).astype(np.uint8)
        content = {"l.png": bytes_, "rgb.png": np.dstack([bytes_] * 3), "large.tif": large}[name]
        Image.fromarray(content).save(path)
    with pytest.raises(Unusable, match=name) as caught:
        read_levels(path, 4)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm", "alpha.png"])
def test_colours_of_sixteen_bits_are_not_cut_down_to_eight(tmp_path, name):
    cv2 = pytest.importorskip("cv2")
    channels = 4 if name == "alpha.png" else 3
    cv2.imwrite(str(tmp_path / name), np.dstack([DEPTH] * channels))
    with pytest.raises(Unusable, match=r"more than eight bits .*\.npy") as caught:
        read_picture(tmp_path / name, 8)
    assert caught.value.reason == "unreadable"
    cv2.imwrite(str(tmp_path / name), np.dstack([(DEPTH >> 8).astype(np.uint8)] * channels))
    assert read_picture(tmp_path / name, 8).shape == (8, 8, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_a_file_of_several_pictures_is_no_picture(tmp_path, name):
    first, *others = (Image.new("RGB", (8, 8), (k, 90, 9)) for k in range(0, 200, 50))
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(Unusable, match="it has 4 pictures, and one is expected"):
        read_picture(tmp_path / name, 8)


def test_their_mean_and_deviation_are_measured(tmp_path):
    levels = [DEPTH[:, :6] // (k + 1) for k in range(150)]
    paths = [save(tmp_path / f"{k:03}.png", one) for k, one in enumerate(levels)]
    paths[0].write_bytes(b"damaged")
    mean, std = measured(paths, 6)
    of_some = np.stack(levels[2::2]).astype(float)  # 75 are as many as 100 or fewer, evenly spaced
    assert mean == pytest.approx(of_some.mean())
    assert std == pytest.approx(of_some.std())
    Image.new("L", (8, 8)).save(tmp_path / "000.png")
    assert measured(paths, 6) is None
    assert measured([save(tmp_path / "flat.png", np.full((4, 4), 900, np.uint16))], 4) == (900, 1)
    assert measured([], 6) is None


def test_depth_maps_are_built_into_a_data_set(tmp_path):
    maps = {}
    for k in range(16):
        path = tmp_path / "source" / ("box", "ball")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        maps[f"{path.parent.name}/{k}"] = 1000 + DEPTH[:, :6] // (k + 1)
        save(path, maps[f"{path.parent.name}/{k}"])
    Image.new("L", (6, 6), 9).save(tmp_path / "source" / "box" / "zz.png")
    recipe = Folder(source=tmp_path / "source", modality=["depth=path:image"], size=6)
    recipe.build(tmp_path / "data", workers=1)
    dataset = open_dataset(tmp_path / "data")
    spec = dataset.modalities["depth"]
    assert (spec.kind, spec.shape, spec.dtype) == ("image", (1, 6, 6), "float32")
    assert dataset.rejects == {"unreadable": 1}
    seen = {}
    for split in SPLITS:
        part = dataset.split(split)
        stored = part.read("depth", np.arange(len(part)))
        seen |= dict(zip(part.table["id"].to_pylist(), stored, strict=True))
    for id, levels in maps.items():
        np.testing.assert_array_equal(seen[id][0], levels)
    training = dataset.split("train").read("depth", np.arange(dataset.rows["train"]))
    assert spec.mean == pytest.approx(training.mean(dtype=float), rel=1e-6)
    assert spec.std == pytest.approx(training.std(dtype=float), rel=1e-6)

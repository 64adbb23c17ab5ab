"""A contact sheet shows a few samples of each class, every modality of them, and which they are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.reporting.preview import FORMATS, check_preview, draw_preview

# a cell of 2.6 × 1.5 inches at 110 dots an inch, and 0.3 inches above all
WIDTH, HEIGHT, ABOVE = 286, 165, 33

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(modalities, content)`: a data set of so many classes, `each` training samples in each.

    `content(name, k)` is the modality of the k-th of them.
    """

    def call(
        modalities: Mapping[str, Modality],
        content: Callable[[str, int], Any],
        classes: int = 2,
        each: int = 2,
        names: Callable[[int], str] = "class {}".format,
        ids: Callable[[int], str] = "sample {}".format,
    ) -> Path:
        header = Header(
            name="small",
            recipe="tests",
            options={},
            classes=[names(label) for label in range(max(classes, 2))],
            modalities=modalities,
            source="made by the tests",
        )
        folder = tmp_path / "data"
        with write_dataset(folder, header, overwrite=True) as writer:
            for k in range(classes * each):
                columns = {name: content(name, k) for name in modalities}
                writer.add("train", id=ids(k), label=k % classes, group=ids(k), **columns)
            for split in ("validation", "test"):
                columns = {name: content(name, 0) for name in modalities}
                writer.add(split, id=split, label=0, group=split, **columns)
        return folder

    return call


def drawn(folder: Path, **options: Any) -> np.ndarray:
    """The sheet as pixels, `(height, width, 3)`."""
    path = folder.parent / "sheet.png"
    draw_preview(open_dataset(folder), path, **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def cells(sheet: np.ndarray, rows: int, columns: int) -> list[list[np.ndarray]]:
    """The inner half of every cell, by row and column: none of its frame or title."""
    assert sheet.shape == (HEIGHT * rows + ABOVE, WIDTH * columns, 3), "so many cells in size"
    below = sheet[ABOVE:]
    return [
        [
            below[HEIGHT * r + 50 : HEIGHT * r + 120, WIDTH * c + 70 : WIDTH * c + 220]
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def shows(cell: np.ndarray, colour: tuple[int, int, int], within: int = 12) -> float:
    """How much of a cell has a colour."""
    return float((np.abs(cell - np.array(colour)).max(-1) <= within).mean())


def is_blank(cell: np.ndarray) -> bool:
    return bool((cell == 255).all())


COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 230), (200, 200, 20)]


def vector(name: str, k: int) -> np.ndarray:
    return np.arange(1.0, 5.0)


VECTOR = {"x": Modality("vector", (4,), "float32", "mlp")}


# Every kind


def test_frames_are_shown_side_by_side(make, jpeg):
    def content(name: str, k: int) -> list[bytes]:
        return [jpeg(np.full((60, 40, 3), COLOURS[(k + i) % 4], np.uint8)) for i in range(3)]

    modalities = {"visual": Modality("frames", (3, 3, 60, 40), "uint8", "resnet18")}
    ((first, second, third, fourth),) = cells(drawn(make(modalities, content)), 1, 4)
    # samples 0 and 2 are of the one class, 1 and 3 of the other
    for cell, k in ((first, 0), (second, 2), (third, 1), (fourth, 3)):
        places = [
            np.nonzero((np.abs(cell - np.array(COLOURS[(k + i) % 4])).max(-1) < 12).any(0))[0]
            for i in range(3)
        ]
        assert all(len(place) > 10 for place in places)
        assert places[0].max() < places[1].min() <= places[1].max() < places[2].min()


def test_of_many_frames_four_are_shown_from_all_of_the_clip(make, jpeg):
    def content(name: str, k: int) -> list[bytes]:
        colours = [(0, 0, 0), (0, 0, 0), COLOURS[0], (0, 0, 0), (0, 0, 0)]
        return [jpeg(np.full((40, 40, 3), colour, np.uint8)) for colour in colours]

    modalities = {"visual": Modality("frames", (5, 3, 40, 40), "uint8", "resnet18")}
    sheet = drawn(make(modalities, content))
    assert shows(sheet, (0, 0, 0)) > 0.2
    assert shows(sheet, COLOURS[0], within=60) == 0


def test_an_image_has_its_colours(make):
    def content(name: str, k: int) -> np.ndarray:
        return np.broadcast_to(np.array(COLOURS[k], np.uint8)[:, None, None], (3, 20, 30))

    modalities = {"image": Modality("image", (3, 20, 30), "uint8", "resnet18")}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell, k in zip(row, (0, 2, 1, 3), strict=True):
        assert shows(cell, COLOURS[k], within=2) > 0.9


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_numbers_is_grey_by_how_far_it_is_from_the_mean(make, channels):
    def content(name: str, k: int) -> np.ndarray:
        return np.full((channels, 20, 30), 5.0 + (k - 1) * 6)  # −3, 0, +3, +6 deviations of 2

    modalities = {
        "image": Modality("image", (channels, 20, 30), "float16", "conv", mean=5.0, std=2.0)
    }
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell, level in zip(row, (0, 255, 128, 255), strict=True):
        assert np.abs(cell - level).max() <= 2


def test_flow_is_red_to_the_right_and_blue_to_the_left(make):
    def content(name: str, k: int) -> np.ndarray:
        field = np.full((2, 2, 24, 24), 128, np.uint8)
        field[:, 0] = 228 if k % 2 else 28  # class 1 moves to the right
        field[:, 1] = 255  # and all of them down, which is not shown
        return field

    modalities = {"flow": Modality("flow", (2, 2, 24, 24), "uint8", "resnet18", mean=128.0)}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell, right in zip(row, (False, False, True, True), strict=True):
        red, _, blue = cell.reshape(-1, 3)[((cell != 255).any(-1)).ravel()].mean(0)
        assert (red > blue + 50) == right
        assert (blue > red + 50) != right


def test_no_motion_is_white(make):
    def content(name: str, k: int) -> np.ndarray:
        return np.zeros((2, 2, 24, 24))

    modalities = {"flow": Modality("flow", (2, 2, 24, 24), "float32", "resnet18")}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    assert all(cell.min() > 240 for cell in row)


def test_a_spectrogram_has_its_low_tones_below(make):
    def content(name: str, k: int) -> np.ndarray:
        bank = np.full((1, 16, 40), -10.0)
        bank[:, (5 if k % 2 else 10)] = 0.0  # class 1 hums low
        return bank

    modalities = {"audio": Modality("spectrogram", (1, 16, 40), "float16", "resnet18")}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell, low in zip(row, (False, False, True, True), strict=True):
        bright = np.nonzero(cell.sum(-1).mean(1) > 300)[0]
        assert len(bright) > 2
        assert (bright.mean() > cell.shape[0] / 2) == low


def test_the_zeros_after_a_short_sound_are_left_white(make):
    def content(name: str, k: int) -> np.ndarray:
        bank = np.full((1, 16, 40), -10.0)
        bank[:, 4:8, :20] = -3.0
        bank[:, :, 10] = 0.0  # within the sound they are levels like others
        bank[:, :, 20:] = 0.0
        return bank

    modalities = {"audio": Modality("spectrogram", (1, 16, 40), "float16", "resnet18")}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell in row:
        wide = cell.shape[1]
        assert cell[:, int(0.65 * wide) :].min() > 240
        assert cell[:, : int(0.5 * wide)].mean() < 150


def test_a_series_is_drawn_a_line_a_channel(make):
    def content(name: str, k: int) -> np.ndarray:
        level = np.arange(20.0)
        return np.stack([level, -level] if k % 2 else [level, level], 1)

    modalities = {"eeg": Modality("series", (20, 2), "float32", "conv1d")}
    (row,) = cells(drawn(make(modalities, content)), 1, 4)
    for cell, two in zip(row, (False, False, True, True), strict=True):
        ink = (cell < 200).any(-1)
        assert ink.any()
        # on the left a rising line is below; the falling one above
        left = ink[:, : cell.shape[1] // 3]
        assert left[cell.shape[0] // 2 :].any()
        assert left[: cell.shape[0] // 3].any() == two


def test_a_vector_is_drawn_as_bars(make):
    def content(name: str, k: int) -> np.ndarray:
        return np.array([0.0, 0.0, 1.0, 1.0] if k % 2 else [1.0, 1.0, 0.0, 0.0])

    (row,) = cells(drawn(make(VECTOR, content)), 1, 4)
    for cell, right in zip(row, (False, False, True, True), strict=True):
        ink = (cell < 250).any(-1).mean(0)
        half = len(ink) // 2
        assert (ink[half + 5 :] > 0.9).all() == right
        assert (ink[: half - 5] > 0.9).all() != right


def test_pictures_stand_above_sounds_and_those_above_numbers(make, jpeg):
    modalities = {
        "a": Modality("vector", (4,), "float32", "mlp"),
        "b": Modality("spectrogram", (1, 8, 8), "float32", "resnet18"),
        "c": Modality("frames", (1, 3, 30, 60), "uint8", "resnet18"),
        "d": Modality("series", (6, 2), "float32", "conv1d"),
        "e": Modality("flow", (1, 2, 30, 60), "uint8", "resnet18"),
        "f": Modality("image", (3, 30, 60), "uint8", "resnet18"),
    }
    colours = {"c": COLOURS[0], "f": COLOURS[1]}

    def content(name: str, k: int) -> Any:
        if name == "c":
            return [jpeg(np.full((30, 60, 3), colours["c"], np.uint8))]
        if name == "f":
            return np.broadcast_to(np.array(colours["f"])[:, None, None], (3, 30, 60))
        return np.ones(modalities[name].shape)

    rows = cells(drawn(make(modalities, content)), 6, 4)
    assert all(shows(cell, colours["c"]) > 0.9 for cell in rows[0])
    assert all(shows(cell, colours["f"]) > 0.9 for cell in rows[1])
    for row in rows[2:]:
        assert not any(is_blank(cell) for cell in row)


# What is shown


@pytest.mark.parametrize(
    ("classes", "each", "rows", "columns", "last"),
    [
        (1, 1, 1, 1, 1),
        (1, 5, 1, 2, 2),  # two samples a class
        (3, 2, 1, 6, 6),
        (4, 2, 2, 6, 2),  # six to a row
        (5, 1, 1, 5, 5),
        (12, 1, 2, 6, 6),
        (40, 1, 2, 6, 6),  # twelve classes
    ],
)
def test_the_sheet_has_a_cell_a_sample(make, classes, each, rows, columns, last):
    found = cells(drawn(make(VECTOR, vector, classes, each)), rows, columns)
    blank = [[is_blank(cell) for cell in row] for row in found]
    assert blank == [[False] * columns] * (rows - 1) + [[False] * last + [True] * (columns - last)]


def test_each_row_of_samples_has_a_row_a_modality(make):
    modalities = {**VECTOR, "y": VECTOR["x"], "z": VECTOR["x"]}
    found = cells(drawn(make(modalities, vector, classes=4)), 6, 6)
    assert [is_blank(cell) for cell in found[2]] == [False] * 6
    assert [is_blank(cell) for cell in found[5]] == [False] * 2 + [True] * 4


def test_of_many_classes_those_shown_are_spread_over_all(make):
    def content(name: str, k: int) -> np.ndarray:
        return np.broadcast_to(np.array([k * 10, 0, 0])[:, None, None], (3, 8, 16))

    modalities = {"image": Modality("image", (3, 8, 16), "uint8", "resnet18")}
    found = cells(drawn(make(modalities, content, classes=23, each=1)), 2, 6)
    shown = [round(float(cell[..., 0].mean()) / 10) for row in found for cell in row]
    assert shown == list(range(0, 23, 2))


def test_a_class_without_a_sample_is_left_out(make):
    folder = make(VECTOR, vector, classes=1, each=2)
    assert drawn(folder).shape == (HEIGHT + ABOVE, 2 * WIDTH, 3)


def test_another_split_can_be_shown(make):
    folder = make(VECTOR, vector, classes=3)
    assert drawn(folder, split="test").shape == (HEIGHT + ABOVE, WIDTH, 3)


def test_names_are_shown_as_they_stand(make):
    """A dollar sign begins no formula, which could not even be drawn."""
    plain = drawn(make(VECTOR, vector, names=lambda label: f"class {label}"))
    names = {0: "$x_1$", 1: r"cost in $ \frac{"}
    odd = drawn(make(VECTOR, vector, names=names.get, ids=lambda k: rf"$\nope{k}$"))
    assert odd.shape == plain.shape
    assert (odd != plain).any()


def test_long_names_do_not_run_into_each_other(make):
    """Of the white columns in between, those between two letters are few pixels wide."""
    sheet = drawn(
        make(
            VECTOR,
            vector,
            names=lambda label: "class " * 30 + str(label),
            ids=lambda k: f"{'x' * 90}{k}",
        )
    )
    inked = (sheet < 200).any(-1)
    frame = int(np.argmax(inked.mean(1) > 0.8))
    ink = np.nonzero(inked[:frame].any(0))[0]
    assert (np.diff(ink) > 8).sum() == 3, "four titles"
    assert 0 < ink.min() < ink.max() < sheet.shape[1] - 1


def test_the_end_of_a_long_id_is_shown(make):
    same = drawn(make(VECTOR, vector, ids=lambda k: f"{'x' * 90}{k}"))
    other = drawn(make(VECTOR, vector, ids=lambda k: f"{'x' * 90}{k + 4}"))
    assert (same[:50] != other[:50]).any()


def test_the_same_data_set_gives_the_same_sheet(make):
    folder = make(VECTOR, vector)
    assert (drawn(folder) == drawn(folder)).all()


# The file


@pytest.mark.parametrize(
    ("ending", "begins"),
    [
        ("png", b"\x89PNG"),
        ("PNG", b"\x89PNG"),
        ("pdf", b"%PDF"),
        ("svg", b"<?xml"),
        ("jpg", b"\xff\xd8"),
    ],
)
def test_the_ending_says_what_is_written(make, tmp_path, ending, begins):
    folder = make(VECTOR, vector)
    path = tmp_path / f"sheet.{ending}"
    check_preview(path, overwrite=False)
    draw_preview(open_dataset(folder), path)
    assert path.read_bytes().startswith(begins)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", path.name]


@pytest.mark.parametrize(
    "name", ["sheet.gif", "sheet.txt", "sheet", "png", ".png", "sheet.png.old"]
)
def test_another_ending_is_refused(tmp_path, name):
    message = r"its name must end in \.png, \.pdf, \.svg, \.jpg$"
    with pytest.raises(UsageError, match=f"^preview {tmp_path / name}: {message}"):
        check_preview(tmp_path / name, overwrite=True)
    assert FORMATS == (".png", ".pdf", ".svg", ".jpg")


def test_an_existing_file_is_refused_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "sheet.png"
    path.write_text("precious")
    message = "sheet.png exists: choose another preview, or replace it with overwrite=True$"
    with pytest.raises(UsageError, match=message):
        check_preview(path, overwrite=False)
    check_preview(path, overwrite=True)
    assert path.read_text() == "precious"


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(UsageError, match="sheet.png is a folder: give preview the name of a fil"):
        check_preview(tmp_path / "sheet.png", overwrite=True)


def test_a_file_in_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere does not exist: make it, or change preview$"):
        check_preview(tmp_path / "nowhere" / "sheet.png", overwrite=False)


def test_a_damaged_shard_is_not_drawn(make, tmp_path):
    folder = make(VECTOR, vector)
    shard = folder / "train-00000-of-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="train-00000-of-00001.arrow is damaged"):
        draw_preview(open_dataset(folder), tmp_path / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

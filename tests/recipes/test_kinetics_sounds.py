"""kinetics-sounds: every line of the published lists, and a validation cut that shares no video."""

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.rejects import Reject
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes import RECIPES
from mmcoop.recipes.clip_recipe import Listing
from mmcoop.recipes.kinetics_sounds import CLASSES, KineticsSounds

ID = "dQw4w9WgXcQ"


@pytest.fixture(scope="module")
def lists(shared_data: Path) -> dict[str, Path]:
    folder = shared_data / "kinetics-sounds"
    return {"train_list": folder / "my_train.txt", "test_list": folder / "my_test.txt"}


@pytest.fixture(scope="module")
def lines(lists) -> dict[str, tuple[str, int]]:
    """Split of the list and class number by id, by plain reading."""
    found = {}
    for split, path in zip(("train", "test"), lists.values(), strict=True):
        for line in path.read_text().split("\n"):
            if line:
                id, _, number = line.split(",")
                found[id] = (split, int(number))
    return found


@pytest.fixture(scope="module")
def listed(lists, tmp_path_factory) -> Listing:
    return KineticsSounds(source=tmp_path_factory.mktemp("empty"), **lists).listing()


def recipe(folder: Path, train: str, test: str, **options) -> KineticsSounds:
    """A recipe with lists of these texts, and the folder as its source."""
    (folder / "train.txt").write_text(train, encoding="utf-8")
    (folder / "test.txt").write_text(test, encoding="utf-8")
    lists = {"train_list": folder / "train.txt", "test_list": folder / "test.txt"}
    return KineticsSounds(**{"source": folder, **lists, **options})


def test_the_recipe_is_found_by_its_name_and_every_option_has_a_help_text():
    assert RECIPES.load("kinetics-sounds") is KineticsSounds
    assert all(field.metadata["help"] for field in fields(KineticsSounds))


# The whole lists


def test_every_line_is_listed_with_its_class(listed, lines):
    assert len(listed.clips) == 14_799 + 2_597
    assert [clip.id for clip in listed.clips] == list(lines)
    for clip in listed.clips:
        split, number = lines[clip.id]
        assert (clip.split == "test") == (split == "test")
        assert clip.label == number
        assert clip.group == clip.id[:11]
    assert list(listed.rejects) == []


def test_the_classes_are_those_that_the_numbers_stand_for(listed, shared_data):
    names = json.loads((shared_data / "kinetics-sounds" / "class_names.json").read_text())
    assert {str(k): name for k, name in enumerate(listed.classes)} == names
    assert len(CLASSES) == 31


def test_the_windows_are_ten_seconds_from_the_start_in_the_id(listed):
    for clip in listed.clips:
        times = clip.id[11:].split("_")[1:]
        assert clip.start == float(times[0])
        assert clip.end == clip.start + 10
        assert len(times) == (1 if clip.split == "test" else 2)


def test_a_tenth_of_each_class_is_validation(listed, lines):
    training = Counter(number for split, number in lines.values() if split == "train")
    cut = Counter(clip.label for clip in listed.clips if clip.split == "validation")
    # the clips of the list are one a video, so that the share is met to within half a clip
    for number, count in training.items():
        assert abs(cut[number] - 0.1 * count) <= 0.5
    for split in SPLITS:
        assert {clip.label for clip in listed.clips if clip.split == split} == set(range(31))


def test_no_video_is_in_two_splits(listed):
    videos = {
        split: {clip.id[:11] for clip in listed.clips if clip.split == split} for split in SPLITS
    }
    assert not videos["validation"] & (videos["train"] | videos["test"])
    assert not videos["train"] & videos["test"]
    assert listed.leakage == {}


def test_the_cut_is_the_same_each_time_and_another_with_another_seed(lists, listed, tmp_path):
    same = KineticsSounds(source=tmp_path, **lists).listing()
    assert same.clips == listed.clips
    other = KineticsSounds(source=tmp_path, seed=1, **lists).listing()
    assert other.clips != listed.clips
    larger = KineticsSounds(source=tmp_path, validation=0.3, **lists).listing()
    assert sum(clip.split == "validation" for clip in larger.clips) == pytest.approx(
        0.3 * 14_799, abs=16
    )


# Small lists


def test_a_video_of_the_test_list_is_never_in_validation(tmp_path):
    """It stays in training, as listed, and is told: validation decides which epoch is best."""
    train = "".join(f"video{v:06d}_{k},10,{k % 2}\n" for v in range(40) for k in range(2))
    test = "".join(f"video{v:06d}_9,10,0\n" for v in range(30))
    found = recipe(tmp_path, train, test, validation=0.4).listing()
    validation = {clip.group for clip in found.clips if clip.split == "validation"}
    assert len(validation) == 4
    assert validation <= {f"video{v:06d}" for v in range(30, 40)}
    assert found.leakage == {"train+test": 30}
    assert found.shared_groups


def test_a_clip_in_both_lists_is_in_training_alone_and_told(tmp_path):
    train = f"{ID}_30,10,4\naaaaaaaaaaa_1,10,4\nbbbbbbbbbbb_1,10,4\n"
    found = recipe(tmp_path, train, f"{ID}_30,10,4\nccccccccccc_1,10,4\n").listing()
    assert [clip.id for clip in found.clips].count(f"{ID}_30") == 1
    assert found.rejects == [Reject(f"{ID}_30", "duplicate", "listed more than once")]


@pytest.mark.parametrize(
    ("line", "start", "end"),
    [
        (f"{ID}_30,10,0", 30, 40),
        (f"{ID}_000030_000040,10,0", 30, 40),
        (f"{ID}_30,7.5,0", 30, 37.5),
        (f"  {ID}_30,4,30  ", 30, 34),
        (f"{ID},10,0", None, None),
    ],
)
def test_a_line_says_what_is_to_be_cut_out_of_a_whole_video(tmp_path, line, start, end):
    (tmp_path / f"{ID}.mp4").touch()
    (clip, _) = recipe(tmp_path, line, "aaaaaaaaaaa_1,10,1").listing().clips
    assert clip.paths == {"path": tmp_path / f"{ID}.mp4"}
    assert (clip.start, clip.end) == (start, end)
    assert clip.perhaps_cut == (start is not None)


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_30.mp4",
        f"{ID}_000030.mp4",
        f"playing_clarinet/{ID}_000030_000040.mp4",
        f"playing clarinet/{ID}_30000_40000.mkv",
    ],
)
def test_a_file_named_after_its_window_is_read_whole(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    found = recipe(tmp_path, f"{ID}_30,10,10", "aaaaaaaaaaa_1,10,1").listing()
    clip, gone = found.clips
    assert clip.paths == {"path": tmp_path / name}
    assert (clip.start, clip.end, clip.perhaps_cut) == (None, None, False)
    assert gone.paths == {}
    assert (gone.start, gone.end) == (1, 11)
    assert found.missing == [gone]


def test_videos_that_match_no_line_and_links_to_no_file_are_told(tmp_path):
    for name in (f"{ID}_30.mp4", "holiday.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "disk" / "gone.mp4")
    found = recipe(
        tmp_path, f"{ID}_30,10,4\naaaaaaaaaaa_1,10,4\n", "bbbbbbbbbbb_1,10,4\n"
    ).listing()
    assert found.report == {
        "unused_files": 1,
        "first_unused_files": ["holiday.mp4"],
        "broken_links": 1,
        "first_broken_links": ["gone.mp4"],
    }


def test_of_several_that_in_the_folder_of_the_class_is_taken(tmp_path):
    for folder in ("a", "playing clarinet", "z"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{ID}_30.mp4").touch()
    clip, _ = recipe(tmp_path, f"{ID}_30,10,10", "aaaaaaaaaaa_1,10,1").listing().clips
    assert clip.paths["path"].parent.name == "playing clarinet"


def test_the_sound_that_was_taken_out_of_a_clip_is_not_the_clip(tmp_path):
    (tmp_path / f"{ID}_30.wav").touch()
    clip, _ = recipe(tmp_path, f"{ID}_30,10,10", "aaaaaaaaaaa_1,10,1").listing().clips
    assert clip.paths == {}


def test_lists_of_windows_with_their_line_ends_and_mark_are_read(tmp_path):
    train = f"\ufeff{ID}_30,10,0\r\n\r\n\u00a0aaaaaaaaaaa_1,10,1\u200b \r\n"
    found = recipe(tmp_path, train, "bbbbbbbbbbb_1,10,1\r\n").listing()
    assert [clip.id for clip in found.clips] == [f"{ID}_30", "aaaaaaaaaaa_1", "bbbbbbbbbbb_1"]


def test_a_small_data_set_is_built(film, tmp_path):
    """Whole videos, of which two windows each are cut: seconds 1 to 3 and 4 to 5."""
    source = tmp_path / "source"
    source.mkdir()
    pictures = [np.full((48, 64, 3), 40 * (k // 5), np.uint8) for k in range(30)]
    video = film(source / "video000000.mp4", pictures, fps=5, sound=np.zeros(96_000), rate=16_000)
    for k in range(1, 5):
        (source / f"video{k:06d}.mp4").symlink_to(video)
    train = "".join(f"video{v:06d}_1,2,{v % 2}\nvideo{v:06d}_4,1,{v % 2}\n" for v in range(4))
    chosen = recipe(tmp_path, train, "video000004_2,2.5,1", source=source, size=48, frames=1)
    chosen.build(tmp_path / "data", workers=2)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.rows == {"train": 4, "validation": 4, "test": 1}
    assert dataset.classes == list(CLASSES)
    rows = []
    for split in SPLITS:
        part = dataset.split(split)
        rows += part.table.select(["id", "label", "group", "duration"]).to_pylist()
    assert len({row["id"] for row in rows}) == 9
    for row in rows:
        video, start = row["id"].split("_")
        assert row["group"] == video
        assert row["label"] == (1 if video == "video000004" else int(video[-1]) % 2)
        seconds = {"1": 2, "4": 1, "2": 2.5}[start]
        assert row["duration"] == pytest.approx(seconds, abs=0.05)


# Refused


@pytest.mark.parametrize(
    "line",
    [
        "id,seconds,class",
        f"{ID}_30",
        f"{ID}_30,10",
        f"{ID}_30,10,0,1",
        f"{ID}_30,ten,0",
        f"{ID}_30,10,-1",
        f"{ID}_30,10,31",
        f"{ID}_30,10,{'9' * 5000}",
        f"{ID}_30,10,playing_piano",
        f"{ID}_30 10 0",
        f"{ID}_30, 10, 0",
        f"{ID[:-1]}_30,10,0",
        f"v_{ID}_30,10,0",
        "../../etc/passwd,10,0",
    ],
)
@pytest.mark.parametrize("where", ["train", "test"])
def test_another_line_is_refused_with_its_number(tmp_path, line, where):
    good = "aaaaaaaaaaa_1,10,0\n\nbbbbbbbbbbb_1,10,0\n"
    texts = {"train": good, "test": good, where: good + line + "\n"}
    with pytest.raises(DataError) as error:
        recipe(tmp_path, **texts).listing()
    assert str(error.value) == (
        f"{tmp_path / where}.txt, line 4: expected `id,seconds,class` with a class of 0…30, "
        f"found {line[:80]!r}"
    )


@pytest.mark.parametrize("text", ["", "\n \n"])
@pytest.mark.parametrize("where", ["train", "test"])
def test_an_empty_list_is_refused(tmp_path, text, where):
    texts = {"train": "aaaaaaaaaaa_1,10,0", "test": "aaaaaaaaaaa_1,10,0", where: text}
    message = f"^the list .*{where}.txt is empty: expected `id,seconds,class` with a class of 0…30$"
    with pytest.raises(DataError, match=message):
        recipe(tmp_path, **texts).listing()


def test_a_missing_list_is_refused(tmp_path):
    chosen = recipe(tmp_path, "", "", train_list=tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="nowhere.txt is missing"):
        chosen.listing()


def test_a_list_that_is_no_text_is_refused(tmp_path):
    chosen = recipe(tmp_path, "", "")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="train.txt cannot be read: 'utf-8' codec"):
        chosen.listing()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_nothing_is_refused(tmp_path, share):
    chosen = recipe(tmp_path, f"{ID}_30,10,0", "aaaaaaaaaaa_1,10,0", validation=share)
    with pytest.raises(UsageError, match=f"^validation {share}: it must be between 0 and 1$"):
        chosen.listing()


def test_a_source_without_a_match_is_refused_with_names_from_both_sides(lists, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.mp4").touch()
    message = (
        "^none of the 17,396 clips is in source .*source: looked for --4-0ihtnBU_000058_000068, "
        "--6q_33gNew_000132_000142, -00nar1nEPc_000033_000043, …; there is one.mp4$"
    )
    with pytest.raises(DataError, match=message):
        KineticsSounds(source=source, **lists).build(tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]

"""ucf101: the three official splits in full, groups kept apart, flow computed or read."""

import io
from collections import Counter, defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.printable import printable
from mmcoop.recipes import RECIPES
from mmcoop.recipes.clip_recipe import Listing
from mmcoop.recipes.ucf101 import UCF101

OFFICIAL = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


@pytest.fixture(scope="module")
def splits(shared_data: Path) -> Path:
    return shared_data / "ucf101"


@pytest.fixture(scope="module", params=OFFICIAL)
def fold(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def lines(splits, fold) -> dict[str, dict[str, str]]:
    """Class by clip, for both lists, by plain reading."""
    found = {}
    for split in ("train", "test"):
        text = (splits / f"{split}list0{fold}.txt").read_bytes().decode()
        names = [line.split(" ")[0] for line in text.split("\r\n") if line]
        found[split] = {
            name.split("/")[1].removesuffix(".avi"): name.split("/")[0] for name in names
        }
    return found


@pytest.fixture(scope="module")
def listed(splits, fold, tmp_path_factory) -> Listing:
    return UCF101(source=tmp_path_factory.mktemp("empty"), splits=splits, fold=fold).listing()


def lists(folder: Path, **texts: str) -> Path:
    """A folder of lists of three classes with these texts."""
    folder.mkdir(exist_ok=True)
    usual = {
        "classInd": "1 Archery\r\n2 HandstandPushups\r\n3 YoYo\r\n",
        "trainlist01": "Archery/v_Archery_g01_c01.avi 1\r\nYoYo/v_YoYo_g02_c01.avi 3\r\n",
        "testlist01": "Archery/v_Archery_g03_c01.avi\r\n",
    }
    for name, text in {**usual, **texts}.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def test_the_recipe_is_found_by_its_name_and_every_option_has_a_help_text():
    assert RECIPES.load("ucf101") is UCF101
    assert all(field.metadata["help"] for field in fields(UCF101))


# The whole lists


def test_every_clip_is_listed_with_its_class(listed, lines, fold):
    assert (len(lines["train"]), len(lines["test"])) == OFFICIAL[fold]
    assert len(listed.clips) == 13_320
    assert [clip.id for clip in listed.clips] == [*lines["train"], *lines["test"]]
    for clip in listed.clips:
        split = "test" if clip.split == "test" else "train"
        assert listed.classes[clip.label] == lines[split][clip.id]
        assert (clip.start, clip.end) == (None, None)
    assert list(listed.rejects) == []


def test_the_classes_are_in_their_official_order(listed, splits):
    names = (splits / "classInd.txt").read_bytes().decode().split("\r\n")
    assert [f"{k} {name}" for k, name in enumerate(listed.classes, 1)] == [n for n in names if n]
    assert len(listed.classes) == 101


def test_clips_of_one_group_of_one_class_are_kept_together(listed):
    """The lists spell one class in two ways: the clip's name without its clip number will do."""
    groups, names = defaultdict(set), defaultdict(set)
    for clip in listed.clips:
        name = clip.id.rsplit("_", 1)[0]
        groups[clip.group].add(name)
        names[name].add(clip.group)
    assert all(len(each) == 1 for each in [*groups.values(), *names.values()])
    assert len(groups) == 101 * 25


def test_no_group_is_in_two_splits_and_every_class_in_each(listed):
    splits = defaultdict(set)
    for clip in listed.clips:
        splits[clip.group].add(clip.split)
    assert all(len(each) == 1 for each in splits.values())
    assert listed.leakage == {}
    assert not listed.shared_groups
    for split in SPLITS:
        assert {clip.label for clip in listed.clips if clip.split == split} == set(range(101))


def test_about_a_tenth_of_each_class_is_validation(listed, lines):
    training = Counter(lines["train"].values())
    cut = Counter(listed.classes[c.label] for c in listed.clips if c.split == "validation")
    sizes = Counter(clip.group for clip in listed.clips)
    for name, count in training.items():
        largest = max(sizes[group] for group in sizes if group.startswith(f"{name}_g"))
        assert abs(cut[name] - 0.1 * count) <= largest / 2


def test_the_cut_depends_on_the_seed(splits, tmp_path):
    first, same, other = (
        UCF101(source=tmp_path, splits=splits, seed=seed).listing().clips for seed in (0, 0, 1)
    )
    assert first == same
    assert first != other


# Small lists


@pytest.mark.parametrize("folder", ["", "Archery/", "videos/Archery/"])
@pytest.mark.parametrize("ending", ["avi", "AVI", "mp4"])
def test_videos_are_found_in_class_folders_or_not(tmp_path, folder, ending):
    path = tmp_path / f"{folder}v_Archery_g01_c01.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = UCF101(source=tmp_path, splits=lists(tmp_path / "lists")).listing()
    assert {c.id: c.paths for c in found.found} == {"v_Archery_g01_c01": {"path": path}}
    assert [c.id for c in found.missing] == ["v_YoYo_g02_c01", "v_Archery_g03_c01"]


def test_lists_and_videos_need_not_agree_on_upper_and_lower_case(tmp_path):
    path = tmp_path / "v_HandstandPushups_g01_c01.avi"
    path.touch()
    train = "HandstandPushups/v_HandStandPushups_g01_c01.avi 2\r\n"
    found = UCF101(source=tmp_path, splits=lists(tmp_path / "lists", trainlist01=train)).listing()
    assert found.clips[0].id == "v_HandStandPushups_g01_c01"
    assert found.clips[0].paths == {"path": path}
    assert found.clips[0].group == "HandstandPushups_g01"
    assert found.classes[found.clips[0].label] == "HandstandPushups"


def test_lines_may_end_in_what_is_not_seen(tmp_path):
    folder = lists(
        tmp_path / "lists",
        classInd="\ufeff1 Archery\u200b\n2 YoYo \n",
        trainlist01="Archery/v_Archery_g01_c01.avi 1\u00a0\nYoYo/v_YoYo_g02_c01.avi 2\n",
    )
    found = UCF101(source=tmp_path, splits=folder).listing()
    assert found.classes == ["Archery", "YoYo"]
    assert found.clips[0].id == "v_Archery_g01_c01"


def test_videos_that_match_no_line_and_links_to_no_file_are_told(tmp_path):
    for name in ("v_Archery_g01_c01.avi", "v_Archery_g07_c01.avi"):
        (tmp_path / name).touch()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "disk" / "gone.mp4")
    found = UCF101(source=tmp_path, splits=lists(tmp_path / "lists")).listing()
    assert found.report == {
        "unused_files": 1,
        "first_unused_files": ["v_Archery_g07_c01.avi"],
        "broken_links": 1,
        "first_broken_links": ["gone.mp4"],
    }


def test_of_several_the_first_by_path_is_taken(tmp_path):
    for folder in ("b", "a", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v_Archery_g01_c01.avi").touch()
    found = UCF101(source=tmp_path, splits=lists(tmp_path / "lists")).listing().found
    assert [clip.paths["path"].parent.name for clip in found] == ["a"]


def test_the_fold_says_which_lists_are_read(tmp_path):
    folder = lists(
        tmp_path,
        trainlist02="YoYo/v_YoYo_g01_c01.avi 3",
        testlist02="\ufeffYoYo/v_YoYo_g07_c01.avi\n\n",
    )
    found = UCF101(source=tmp_path, splits=folder, fold=2).listing()
    assert [clip.id for clip in found.clips] == ["v_YoYo_g01_c01", "v_YoYo_g07_c01"]


def test_a_clip_in_both_lists_is_in_training_alone_and_told(tmp_path):
    test = "Archery/v_Archery_g01_c01.avi\r\nArchery/v_Archery_g03_c01.avi\r\n"
    found = UCF101(source=tmp_path, splits=lists(tmp_path, testlist01=test)).listing()
    assert [(c.id, c.split) for c in found.clips] == [
        ("v_Archery_g01_c01", "train"),
        ("v_YoYo_g02_c01", "train"),
        ("v_Archery_g03_c01", "test"),
    ]
    assert [(r.id, r.reason) for r in found.rejects] == [("v_Archery_g01_c01", "duplicate")]


# What is read


TRAIN = "".join(
    f"{name}/v_{name}_g{group:02d}_c01.avi {number}\n"
    for number, name in ((1, "Archery"), (3, "YoYo"))
    for group in (4, 5, 6)
)
TEST = "Archery/v_Archery_g01_c01.avi\nYoYo/v_YoYo_g01_c01.avi\n"
CLIPS = [Path(line.split()[0]).stem for line in (TRAIN + TEST).splitlines()]


@pytest.fixture
def small(film, tmp_path) -> Path:
    """Films of a pattern that moves 2 pixels a frame, right in Archery and down in YoYo."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    pattern = np.asarray(coarse.resize((192, 192), Image.Resampling.BICUBIC))
    for name, axis in (("Archery", 1), ("YoYo", 0)):
        pictures = [np.roll(pattern, 2 * k, axis)[:96, :96] for k in range(12)]
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        clips = [clip for clip in CLIPS if name in clip]
        whole = film(folder / f"{clips[0]}.avi", pictures, codec="mpeg4", fps=12)
        for clip in clips[1:]:
            (folder / f"{clip}.avi").symlink_to(whole)
    lists(tmp_path / "lists", trainlist01=TRAIN, testlist01=TEST)
    return tmp_path


def test_flow_is_computed_between_each_picture_and_the_next(small):
    data = small / "data"
    UCF101(source=small / "videos", splits=small / "lists", size=96).build(data, workers=2)
    dataset = open_dataset(data)
    assert {name: spec.kind for name, spec in dataset.modalities.items()} == {
        "flow": "flow",
        "rgb": "frames",
    }
    assert dataset.rows == {"train": 4, "validation": 2, "test": 2}
    for split in SPLITS:
        part = dataset.split(split)
        index = np.arange(len(part))
        fields = (part.read("flow", index).astype(float) - 128) * 20 / 127  # in pixels
        assert fields.shape == (len(part), 9, 2, 96, 96)
        for label, field in zip(part.labels, fields, strict=True):
            right, down = np.median(field, axis=(0, 2, 3))
            expected = (2, 0) if dataset.classes[label] == "Archery" else (0, 2)
            assert (right, down) == pytest.approx(expected, abs=0.3)
        for pictures in part.read("rgb", index):
            assert [Image.open(io.BytesIO(p)).size for p in pictures] == [(96, 96)] * 9
        durations = part.table["duration"].to_numpy()
        np.testing.assert_allclose(durations, 1.0, atol=0.01)


def write_flow(folder: Path, clips: list[str]) -> Path:
    """Six pictures a clip and direction: u gets brighter by 10, v darker."""
    for direction, sign in (("u", 1), ("v", -1)):
        for clip in clips:
            (folder / direction / clip).mkdir(parents=True)
            for k in range(6):
                picture = Image.new("L", (40, 30), 128 + sign * 10 * k)
                picture.save(folder / direction / clip / f"frame{k:06d}.png")
    return folder


def test_precomputed_flow_is_read_from_its_folder(small):
    flow = write_flow(small / "tvl1", CLIPS)
    data = small / "data"
    UCF101(source=small / "videos", splits=small / "lists", size=32, flow=flow).build(data)
    dataset = open_dataset(data)
    assert dataset.options["flow"] == str(flow)
    assert sum(dataset.rows.values()) == 8
    for split in SPLITS:
        part = dataset.split(split)
        stored = part.read("flow", np.arange(len(part)))
        assert stored.shape == (len(part), 9, 2, 32, 32)
        # the middle one of each third of six pictures: a pixel of 40 × 30 is one of 32 × 32 times
        # 0.8 across and 1.067 down
        expected = np.array([[136, 117], [152, 96], [168, 75]])
        assert (stored[:, 1::3] == expected[None, :, :, None, None]).all()


def test_a_clip_without_its_flow_is_rejected(small):
    flow = write_flow(small / "tvl1", CLIPS[1:])
    data = small / "data"
    UCF101(source=small / "videos", splits=small / "lists", size=32, flow=flow).build(data)
    rejects = pd.read_parquet(data / "rejects.parquet")
    assert rejects[["id", "reason"]].values.tolist() == [[CLIPS[0], "missing"]]
    assert f"u/{CLIPS[0]}" in rejects.detail[0]


# Refused


def refused(recipe: UCF101, message: str, error: type = DataError) -> None:
    with pytest.raises(error, match=message):
        recipe.listing()


@pytest.mark.parametrize("fold", [0, 4, -1])
def test_another_fold_is_refused(splits, tmp_path, fold):
    recipe = UCF101(source=tmp_path, splits=splits, fold=fold)
    refused(recipe, f"^fold {fold}: choose one of 1, 2, 3$", UsageError)


def test_a_folder_without_the_lists_is_refused(tmp_path):
    recipe = UCF101(source=tmp_path, splits=tmp_path / "lists")
    message = "classInd.txt is missing: splits is the lists' folder$"
    refused(recipe, f"^{tmp_path}/lists/{message}")


def test_a_missing_list_is_refused(tmp_path):
    folder = lists(tmp_path)
    (folder / "testlist01.txt").unlink()
    refused(UCF101(source=tmp_path, splits=folder), "^.*testlist01.txt is missing: ")


@pytest.mark.parametrize("name", ["classInd", "trainlist01", "testlist01"])
def test_an_empty_list_is_refused(tmp_path, name):
    folder = lists(tmp_path, **{name: "\r\n \r\n"})
    refused(UCF101(source=tmp_path, splits=folder), rf"^{tmp_path}/{name}\.txt is empty$")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    folder = lists(tmp_path)
    (folder / "trainlist01.txt").write_bytes(b"\xff\xfe")
    refused(UCF101(source=tmp_path, splits=folder), "trainlist01.txt cannot be read: 'utf-8'")


@pytest.mark.parametrize(
    "line", ["Archery", "3 Archery", "1 YoYo", "2 Yo Yo", "two YoYo", "2", "9" * 5000 + " YoYo"]
)
def test_a_line_that_names_no_class_is_refused_with_its_number(tmp_path, line):
    folder = lists(tmp_path, classInd=f"1 Archery\r\n\r\n{line}\r\n")
    with pytest.raises(DataError) as error:
        UCF101(source=tmp_path, splits=folder).listing()
    said = f"{tmp_path}/classInd.txt, line 3: expected `2 ClassName`, found {line!r}"
    assert str(error.value) == printable(said)


@pytest.mark.parametrize(
    "line",
    [
        "Archery",
        "v_Archery_g01_c02.avi",
        "Archery/v_Archery_c02.avi",
        "Archery/Archery_g01_c02.avi",
        "Archery/v_Archery_g01_c02.mp4",
        "Archery/v_Archery_g01_c02.avi one",
        "Archery/v_Archery_g01_c02.avi 1 1",
        "../v_Archery_g01_c02.avi",
        "/v_Archery_g01_c02.avi",
        "Archery/../v_Archery_g01_c02.avi",
    ],
)
@pytest.mark.parametrize("name", ["trainlist01", "testlist01"])
def test_a_line_that_names_no_clip_is_refused_with_its_number(tmp_path, line, name):
    folder = lists(tmp_path, **{name: f"Archery/v_Archery_g09_c01.avi\r\n{line}\r\n"})
    with pytest.raises(DataError) as error:
        UCF101(source=tmp_path, splits=folder).listing()
    assert str(error.value) == (
        f"{tmp_path}/{name}.txt, line 2: expected `Class/v_Class_g01_c01.avi`, found {line!r}"
    )


@pytest.mark.parametrize(
    "line",
    [
        "Fencing/v_Fencing_g01_c01.avi",
        "archery/v_archery_g01_c01.avi",
        "Archery/v_Archery_g01_c01.avi 0",
        "Archery/v_Archery_g01_c01.avi 2",
        "Archery/v_Archery_g01_c01.avi 4",
    ],
)
def test_a_class_or_number_outside_the_list_is_refused_with_its_line(tmp_path, line):
    folder = lists(tmp_path, trainlist01=f"YoYo/v_YoYo_g02_c01.avi 3\r\n{line}\r\n")
    with pytest.raises(DataError) as error:
        UCF101(source=tmp_path, splits=folder).listing()
    assert str(error.value) == (
        f"{tmp_path}/trainlist01.txt, line 2: {line!r} does not agree with the classes of "
        "classInd.txt"
    )


@pytest.mark.parametrize("there", [(), ("u",), ("v",)])
def test_a_flow_folder_without_both_directions_is_refused(splits, tmp_path, there):
    for name in there:
        (tmp_path / "flow" / name).mkdir(parents=True)
    recipe = UCF101(source=tmp_path, splits=splits, flow=tmp_path / "flow")
    refused(recipe, "^flow .*flow has no folders u and v$")


def test_a_source_without_a_match_is_refused_with_names_from_both_sides(splits, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.avi").touch()
    message = (
        "^none of the 13,320 clips is in source .*source: looked for v_ApplyEyeMakeup_g08_c01, "
        "v_ApplyEyeMakeup_g08_c02, v_ApplyEyeMakeup_g08_c03, …; there is one.avi$"
    )
    with pytest.raises(DataError, match=message):
        UCF101(source=source, splits=splits).build(tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]

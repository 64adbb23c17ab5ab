"""A clip of YouTube is told by its name, and its file found under any of the usual ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcoop.datasets.source_files import SourceFiles
from mmcoop.datasets.youtube import ClipName, YouTubeFiles, parse_name

ID = "dQw4w9WgXcQ"
LETTERS = "ABCXYZabcxyz0189_-"


def files(folder: Path, *names: str) -> YouTubeFiles:
    """The folder with empty files of these names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return YouTubeFiles(SourceFiles(folder, ["video"]))


def found(folder: Path, asked: str, *names: str, label: str | None = None) -> tuple[str, bool]:
    """The name found among `names`, and whether it is taken for the whole video."""
    path, whole = files(folder, *names).find(asked, label) or (folder / "nothing", False)
    return path.relative_to(folder).as_posix(), whole


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ID, (ID, None, None)),
        (f"{ID}_30", (ID, 30, None)),
        (f"{ID}_0", (ID, 0, None)),
        (f"{ID}_000030", (ID, 30, None)),
        (f"{ID}_000030_000040", (ID, 30, 40)),
        (f"{ID}_30000_40000", (ID, 30000, 40000)),
        # ids that look like something else
        ("-3Mwkq-7TV4_2", ("-3Mwkq-7TV4", 2, None)),
        ("a_1_2_3_4_5", ("a_1_2_3_4_5", None, None)),
        ("12345678_90_7", ("12345678_90", 7, None)),
        ("___________", ("___________", None, None)),
        ("____________7", ("___________", 7, None)),
    ],
)
def test_a_name_says_the_video_and_the_window(name, expected):
    assert parse_name(name) == ClipName(*expected)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ID[:-1],
        ID + "x",
        f"{ID}_",
        f"{ID}_x",
        f"{ID}_3x",
        f"{ID}_-3",
        f"{ID}_3.5",
        f"{ID}_1_2_3",
        f"{ID}_1_",
        f"{ID} ",
        f"{ID}\n",
        f"v_{ID}",
        "dQw4w9WgX?Q",
        "dQw4w9WgX.Q_30",
        f"{ID}_{'9' * 5000}",  # Python makes no number of so many digits
    ],
)
def test_a_name_of_another_form_says_nothing(name):
    assert parse_name(name) is None


@given(
    video=st.text(LETTERS, min_size=11, max_size=11),
    start=st.integers(0, 99_999),
    lasts=st.integers(1, 600),
    padding=st.sampled_from([1, 6]),
)
def test_what_was_put_into_a_name_comes_out_of_it(video, start, lasts, padding):
    name = f"{video}_{start:0{padding}}_{start + lasts:0{padding}}"
    assert parse_name(name) == (video, start, start + lasts)


# Files


@pytest.mark.parametrize("asked", [f"{ID}_30", f"{ID}_000030_000040"])
@pytest.mark.parametrize(
    "stem",
    [
        f"{ID}_30",
        f"{ID}_000030",
        f"{ID}_30_40",
        f"{ID}_000030_000040",
        f"{ID}_30000",
        f"{ID}_30000_40000",
        f"{ID}_030000_040000",
    ],
)
@pytest.mark.parametrize("folder", ["", "bowling/", "train/bowling/"])
def test_a_clip_is_found_under_every_usual_name_in_any_folder(tmp_path, asked, stem, folder):
    name = f"{folder}{stem}.mp4"
    assert found(tmp_path, asked, name) == (name, False)


@pytest.mark.parametrize("asked", [f"{ID}_30", f"{ID}_000030_000040"])
@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_3.mp4",
        f"{ID}_300.mp4",
        f"{ID}_31.mp4",
        f"{ID}_0.mp4",
        f"{ID}_3000_4000.mp4",
        f"{ID}x.mp4",
        f"{ID[::-1]}_30.mp4",
        f"{ID[::-1]}.mp4",
        f"{ID.lower()}_30.mp4",
        "30.mp4",
    ],
)
def test_another_window_or_video_is_not_the_clip(tmp_path, asked, name):
    assert found(tmp_path, asked, name) == ("nothing", False)


@pytest.mark.parametrize("end", ["35", "35000", "300", "40"])
def test_a_window_with_another_end_is_not_the_clip(tmp_path, end):
    start = "30000" if len(end) == 5 else "30"
    assert found(tmp_path, f"{ID}_000030_000041", f"{ID}_{start}_{end}.mp4") == ("nothing", False)


@pytest.mark.parametrize("asked", [f"{ID}_30", f"{ID}_000030_000040"])
def test_a_file_named_after_the_video_alone_is_the_whole_video(tmp_path, asked):
    assert found(tmp_path, asked, f"a/{ID}.webm") == (f"a/{ID}.webm", True)


def test_a_clip_without_a_window_is_its_own_file(tmp_path):
    names = [f"{ID}.mp4", f"{ID}_30.mp4"]
    assert found(tmp_path, ID, *names) == (f"{ID}.mp4", False)


def test_a_clip_without_a_window_is_else_any_clip_of_its_video(tmp_path):
    names = [f"{ID[::-1]}_30.mp4", f"b/{ID}_000030_000040.mp4"]
    assert found(tmp_path, ID, *names) == (f"b/{ID}_000030_000040.mp4", False)


ORDER = [f"z/{ID}_30.mp4", f"b/{ID}_000030_000040.mp4", f"a/{ID}.mp4"]


def test_the_very_name_goes_before_the_window_and_that_before_the_whole_video(tmp_path):
    assert found(tmp_path, f"{ID}_30", *ORDER) == (ORDER[0], False)
    (tmp_path / ORDER[0]).unlink()
    assert found(tmp_path, f"{ID}_30") == (ORDER[1], False)
    (tmp_path / ORDER[1]).unlink()
    assert found(tmp_path, f"{ID}_30") == (ORDER[2], True)


@pytest.mark.parametrize(
    "folder", ["playing piano", "playing_piano", "Playing-Piano", "PlayingPiano"]
)
def test_of_files_of_one_name_that_in_the_folder_of_the_class_is_taken(tmp_path, folder):
    names = [f"a/{ID}_30.mp4", f"{folder}/{ID}_30.mp4", f"z/{ID}_30.mp4"]
    assert found(tmp_path, f"{ID}_30", *names, label="playing piano")[0] == names[1]


def test_the_whole_video_in_the_folder_of_the_class_does_not_go_before_the_clip(tmp_path):
    names = [f"a/{ID}_30.mp4", f"singing/{ID}.mp4"]
    assert found(tmp_path, f"{ID}_30", *names, label="singing") == (names[0], False)


@pytest.mark.parametrize("label", [None, "singing"])
def test_else_the_first_by_path_is_taken(tmp_path, label):
    names = [f"b/{ID}_30.mp4", f"a/{ID}_30.mp4", f"c/{ID}_30.mp4"]
    assert found(tmp_path, f"{ID}_30", *names, label=label)[0] == names[1]


def test_a_name_of_another_form_is_found_under_itself_alone(tmp_path):
    names = ["my clip.mp4", "my clip_30.mp4"]
    assert found(tmp_path, "my clip", *names) == ("my clip.mp4", False)
    assert found(tmp_path, "other", *names) == ("nothing", False)

"""mm-debiased: every entry of the authors' list, found under any name, each window its own."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes import RECIPES
from mmcoop.recipes.clip_recipe import Listing, write_missing
from mmcoop.recipes.mm_debiased import MMDebiased

SPLIT = {"training": "train", "validation": "validation", "testing": "test"}
# counted by the paper's authors, see PAPER.md
PER_CLASS = {
    "bowling": 1671,
    "cleaning floor": 1564,
    "motorcycling": 1481,
    "singing": 1453,
    "whistling": 1437,
    "playing cello": 1387,
    "playing piano": 1380,
    "playing flute": 1350,
    "lawn mowing": 1303,
    "writing on blackboard": 999,
}
ID = "dQw4w9WgXcQ"


@pytest.fixture(scope="module")
def path(shared_data: Path) -> Path:
    return shared_data / "MM-Debiased.json"


@pytest.fixture(scope="module")
def entries(path) -> dict[str, dict[str, str]]:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def listed(path, empty) -> Listing:
    return MMDebiased(source=empty, list=path).listing()


def a_list(folder: Path, entries: dict[str, Any]) -> Path:
    """A list of these entries, a line each; of labels alone, a list of training clips."""
    whole = {
        id: {"subset": "training", "label": entry} if isinstance(entry, str) else entry
        for id, entry in entries.items()
    }
    path = folder / "list.json"
    path.write_text(json.dumps(whole, indent=0))
    return path


def test_the_recipe_is_found_by_its_name_and_every_option_has_a_help_text():
    assert RECIPES.load("mm-debiased") is MMDebiased
    assert all(field.metadata["help"] for field in fields(MMDebiased))


# The whole list


def test_every_entry_is_listed_in_its_split_and_class(listed, entries):
    assert len(listed.clips) == 14_025
    assert [clip.id for clip in listed.clips] == list(entries)
    for clip in listed.clips:
        entry = entries[clip.id]
        assert clip.split == SPLIT[entry["subset"]]
        assert listed.classes[clip.label] == entry["label"]
        assert clip.group == clip.id[:11]
    assert listed.rejects == ()


def test_the_counts_are_those_of_the_paper(listed):
    assert Counter(clip.split for clip in listed.clips) == {
        "train": 11_368,
        "validation": 1_185,
        "test": 1_472,
    }
    assert Counter(listed.classes[clip.label] for clip in listed.clips) == PER_CLASS
    assert listed.classes == sorted(PER_CLASS)
    for split in SPLITS:
        assert {clip.label for clip in listed.clips if clip.split == split} == set(range(10))


def test_the_windows_are_those_in_the_ids(listed):
    """Split by hand: after the 11 characters come nothing, `_start`, or `_start_end`."""
    forms: Counter[int] = Counter()
    for clip in listed.clips:
        _, *times = clip.id[11:].split("_")
        forms[len(times)] += 1
        seconds = [float(time) for time in times]
        if len(seconds) == 1:
            seconds.append(seconds[0] + 10)
        assert (clip.start, clip.end) == (tuple(seconds) or (None, None))
    assert forms == {1: 11_129, 2: 2_689, 0: 207}


def test_the_videos_in_several_subsets_are_told(listed, entries):
    subsets = defaultdict(set)
    for id, entry in entries.items():
        subsets[id[:11]].add(SPLIT[entry["subset"]])
    shared = [tuple(sorted(each)) for each in subsets.values() if len(each) > 1]
    assert len(shared) == 185
    assert Counter(shared) == {
        ("train", "validation"): 177,
        ("test", "train"): 7,
        ("test", "validation"): 1,
    }
    assert listed.leakage == {"train+test": 7, "train+validation": 177, "validation+test": 1}
    assert listed.shared_groups
    assert listed.report == {}


def test_leak_free_moves_every_video_to_the_split_of_most_of_its_clips(path, entries, empty):
    found = MMDebiased(source=empty, list=path, split="leak-free").listing()
    assert found.leakage == {}
    assert not found.shared_groups
    of_video = defaultdict(list)
    for id, entry in entries.items():
        of_video[id[:11]].append(SPLIT[entry["subset"]])
    moved: Counter[str] = Counter()
    assert [clip.id for clip in found.clips] == list(entries)
    for clip in found.clips:
        mine = of_video[clip.group]
        most = max(mine.count(split) for split in SPLITS)
        expected = next(split for split in SPLITS if mine.count(split) == most)
        assert clip.split == expected
        before = SPLIT[entries[clip.id]["subset"]]
        if before != clip.split:
            moved[f"{before} to {clip.split}"] += 1
    assert moved.total() > 100
    assert found.report == {"moved_to_keep_every_video_in_one_split": dict(moved)}
    for split in SPLITS:
        assert {clip.label for clip in found.clips if clip.split == split} == set(range(10))


def test_where_nothing_is_shared_nothing_is_moved(tmp_path):
    clips = {
        "aaaaaaaaaaa_1": {"subset": "training", "label": "singing"},
        "aaaaaaaaaaa_2": {"subset": "training", "label": "singing"},
        "bbbbbbbbbbb_1": {"subset": "testing", "label": "singing"},
    }
    recipe = MMDebiased(source=tmp_path, list=a_list(tmp_path, clips), split="leak-free")
    assert [clip.split for clip in recipe.listing().clips] == ["train", "train", "test"]
    assert recipe.listing().report == {}


def test_the_missing_clips_are_written_for_a_download_tool(listed, entries, tmp_path):
    write_missing(tmp_path / "missing.csv", listed)
    missing = pd.read_csv(tmp_path / "missing.csv").set_index("id")
    assert list(missing.index) == list(entries)
    assert list(missing.video) == [id[:11] for id in entries]
    assert missing.start["fbVaD-oDUIE_000168_000178"] == 168
    assert missing.end["fbVaD-oDUIE_000168_000178"] == 178
    assert (missing.start["ZUJ5LJGX9oc_20"], missing.end["ZUJ5LJGX9oc_20"]) == (20, 30)
    bare = missing.loc["xCwDi3Vqm0s"]
    assert bare.isna().tolist() == [False, True, True]
    assert missing.start.isna().sum() == 207


# What is found


@pytest.mark.parametrize(
    ("id", "name", "whole"),
    [
        (f"{ID}_30", f"{ID}_30.mp4", False),
        (f"{ID}_30", f"{ID}_000030.mkv", False),
        (f"{ID}_30", f"motorcycling/{ID}_000030_000040.mp4", False),
        (f"{ID}_30", f"{ID}_30000_40000.mp4", False),
        (f"{ID}_30", f"deep/er/{ID}.webm", True),
        (f"{ID}_30", f"A title, with [brackets] [{ID}].webm", True),
        (f"{ID}_000030_000040", f"{ID}_000030_000040.mp4", False),
        (f"{ID}_000030_000040", f"{ID}_30.avi", False),
        (f"{ID}_000030_000040", f"{ID}.mp4", True),
        (ID, f"{ID}.mp4", False),
        (ID, f"{ID}_30.mp4", False),
    ],
)
def test_a_clip_is_found_and_only_a_whole_video_is_cut(tmp_path, id, name, whole):
    source = tmp_path / "source"
    (source / name).parent.mkdir(parents=True)
    (source / name).touch()
    path = a_list(tmp_path, {id: "motorcycling", "aaaaaaaaaaa_5": "singing"})
    here, gone = MMDebiased(source=source, list=path).listing().clips
    assert here.paths == {"path": source / name}
    assert (here.start, here.end) == ((30.0, 40.0) if whole else (None, None))
    assert here.perhaps_cut == whole
    assert gone.paths == {}
    assert (gone.start, gone.end) == (5.0, 15.0)


def test_of_a_file_that_several_windows_are_asked_of_none_is_the_whole(tmp_path):
    (tmp_path / f"{ID}.mp4").touch()
    path = a_list(tmp_path, {f"{ID}_0": "singing", f"{ID}_234": "singing", f"{ID}_5": "singing"})
    clips = MMDebiased(source=tmp_path, list=path).listing().clips
    assert [(clip.start, clip.perhaps_cut) for clip in clips] == [
        (0.0, False),
        (234.0, False),
        (5.0, False),
    ]


def test_the_sound_that_was_taken_out_of_a_clip_is_not_the_clip(tmp_path):
    for name in (f"audio/{ID}_30.wav", f"video/{ID}_30.mp4", f"video/{ID}_30.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    recipe = MMDebiased(source=tmp_path, list=a_list(tmp_path, {f"{ID}_30": "singing"}))
    (clip,) = recipe.listing().clips
    assert clip.paths == {"path": tmp_path / "video" / f"{ID}_30.mp4"}


def test_videos_that_match_no_entry_are_told(tmp_path):
    (tmp_path / "clips" / "singing").mkdir(parents=True)
    for name in (f"{ID}_30.mp4", f"{ID}_31.mp4", "singing/other.mp4", "singing/notes.txt"):
        (tmp_path / "clips" / name).touch()
    path = a_list(tmp_path, {f"{ID}_30": "singing"})
    found = MMDebiased(source=tmp_path / "clips", list=path).listing()
    assert found.report == {
        "unused_files": 2,
        "first_unused_files": [f"{ID}_31.mp4", "singing/other.mp4"],
    }


def test_of_several_that_in_the_folder_of_the_class_is_taken(tmp_path):
    for folder in ("a", "playing_piano", "z"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{ID}_30.mp4").touch()
    recipe = MMDebiased(source=tmp_path, list=a_list(tmp_path, {f"{ID}_30": "playing piano"}))
    (clip,) = recipe.listing().clips
    assert clip.paths["path"].parent.name == "playing_piano"


def test_loops_of_links_end(tmp_path):
    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    (folder / f"{ID}_30.mp4").touch()
    (folder / "back").symlink_to(tmp_path / "source")
    (folder / "self").symlink_to("self")
    (folder / f"{ID}_50.mp4").symlink_to(f"{ID}_50.mp4")
    path = a_list(tmp_path, {f"{ID}_30": "singing", f"{ID}_50": "singing"})
    found, lost = MMDebiased(source=tmp_path / "source", list=path).listing().clips
    assert found.paths == {"path": folder / f"{ID}_30.mp4"}
    assert lost.paths == {}


def test_links_that_lead_to_no_file_are_told(tmp_path):
    (tmp_path / "clips" / "singing").mkdir(parents=True)
    (tmp_path / "clips" / "singing" / f"{ID}_30.mp4").symlink_to(tmp_path / "disk" / "a.mp4")
    path = a_list(tmp_path, {f"{ID}_30": "singing"})
    found = MMDebiased(source=tmp_path / "clips", list=path).listing()
    assert [clip.id for clip in found.missing] == [f"{ID}_30"]
    assert found.report == {
        "broken_links": 1,
        "first_broken_links": [f"singing/{ID}_30.mp4"],
    }


# What is read


def seconds_film(film: Callable[..., Path], path: Path, seconds: float) -> Path:
    """A film whose picture gets brighter every second, with a hum in its seconds 10 to 20."""
    pictures = [np.full((48, 64, 3), 8 * int(k / 5), np.uint8) for k in range(round(5 * seconds))]
    time = np.arange(int(16_000 * seconds)) / 16_000
    hum = np.sin(2 * np.pi * 440 * time) * ((time >= 10) & (time < 20)) * 0.5
    return film(path, pictures, fps=5, sound=hum, rate=16_000, key_every=25)


def test_windows_are_cut_out_of_whole_videos_and_clips_are_taken_as_they_are(film, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    whole = seconds_film(film, source / "aaaaaaaaaaa.mp4", 30)  # the video
    (source / "bbbbbbbbbbb_10.mp4").symlink_to(whole)  # by its name a clip
    (source / "ccccccccccc.mp4").symlink_to(whole)  # of an id without a window
    seconds_film(film, source / "ddddddddddd.mp4", 10.8)  # hardly longer than the window
    seconds_film(film, source / "eeeeeeeeeee.mp4", 12)  # longer: the video, cut off
    clips = {
        "aaaaaaaaaaa_10": ("training", 10.0, [11, 15, 18]),
        "aaaaaaaaaaa_000012_000018": ("validation", 6.0, [13, 15, 17]),
        "bbbbbbbbbbb_10": ("testing", 30.0, [5, 15, 25]),
        "ccccccccccc": ("testing", 30.0, [5, 15, 25]),
        "ddddddddddd_20": ("testing", 10.8, [1, 5, 9]),
        "eeeeeeeeeee_8": ("testing", 4.0, [8, 10, 11]),
        "eeeeeeeeeee_20": ("testing", None, []),
    }
    entries = {
        id: {"subset": subset, "label": "singing" if id < "e" else "whistling"}
        for id, (subset, _, _) in clips.items()
    }
    recipe = MMDebiased(source=source, list=a_list(tmp_path, entries), size=48)
    recipe.build(tmp_path / "data", workers=2)
    dataset = open_dataset(tmp_path / "data")
    seen = set()
    for split in SPLITS:
        part = dataset.split(split)
        index = np.arange(len(part))
        rows = part.table.select(["id", "group", "duration"]).to_pylist()
        frames, sounds = part.read("visual", index), part.read("audio", index)
        for row, pictures, sound in zip(rows, frames, sounds, strict=True):
            subset, seconds, shown = clips[row["id"]]
            seen.add(row["id"])
            assert split == SPLIT[subset]
            assert row["group"] == row["id"][:11]
            assert row["duration"] == pytest.approx(seconds, abs=0.1)
            levels = [np.asarray(Image.open(io.BytesIO(p)).convert("L")).mean() for p in pictures]
            # three are stored of each part; what evaluation sees is the middle one
            np.testing.assert_allclose(levels[1::3], [8 * second for second in shown], atol=3)
            # the hum is heard in all of a window of seconds 10 to 20, and only later in others
            loud = sound[0].max(0)[20:580].astype(float) > 0
            expected = {"aaaaaaaaaaa_10": 1, "aaaaaaaaaaa_000012_000018": 1, "eeeeeeeeeee_8": 0.36}
            assert loud.mean() == pytest.approx(expected.get(row["id"], 0), abs=0.05)
    assert seen == set(clips) - {"eeeeeeeeeee_20"}
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet")
    assert rejects[["id", "reason"]].values.tolist() == [["eeeeeeeeeee_20", "outside-file"]]
    assert dataset.leakage == {"train+validation": 1}


# Refused


def refused(path: Path, source: Path, message: str, error: type = DataError, **options) -> None:
    with pytest.raises(error, match=message):
        MMDebiased(source=source, list=path, **options).listing()


EXPECTED = r'expected \{id: \{"subset": "training", "label": "bowling"\}, …\}'


def test_a_missing_list_is_refused(empty):
    message = "^list nowhere.json is missing: give the authors' MM-Debiased.json; expected"
    refused(Path("nowhere.json"), empty, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read: 'utf-8' codec"),
        (b"", f"cannot be read: Expecting value: line 1 column 1 .*; {EXPECTED}$"),
        (b'{"a": 1,\n"b": }', f"cannot be read: Expecting value: line 2 column 6 .*; {EXPECTED}$"),
        (b"id,subset\n", f"cannot be read: .* line 1 .*; {EXPECTED}$"),
        (b"[" * 100_000, f"cannot be read: .*recursion.*; {EXPECTED}$"),
        (b"[1, 2]", rf"is not the list: {EXPECTED}, found '\[1, 2\]'$"),
        (b"{}", rf"is not the list: {EXPECTED}, found '\{{\}}'$"),
        (b'"words"', f"is not the list: {EXPECTED}, found '\"words\"'$"),
    ],
)
def test_what_is_not_the_list_is_refused_with_what_was_expected(tmp_path, content, message):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    refused(path, tmp_path, f"^list {path} {message}")


def test_a_folder_in_the_place_of_the_list_is_refused(tmp_path):
    refused(tmp_path, tmp_path, f"^list {tmp_path} cannot be read: .*Is a directory")


@pytest.mark.parametrize(
    ("id", "entry"),
    [
        (ID, "singing"),
        (ID, None),
        (ID, []),
        (ID, {"subset": "training"}),
        (ID, {"label": "singing"}),
        (ID, {"subset": "train", "label": "singing"}),
        (ID, {"subset": "", "label": "singing"}),
        (ID, {"subset": ["training"], "label": "singing"}),
        (ID, {"subset": {}, "label": "singing"}),
        (ID, {"subset": "training", "label": 3}),
        (ID, {"subset": "training", "label": None}),
        (ID, {"subset": "training", "label": ["singing"]}),
        (ID, {"subset": "training", "label": "sining"}),
        (ID, {"subset": "training", "label": "Singing"}),
        ("not an id", {"subset": "training", "label": "singing"}),
        (f"{ID}_x", {"subset": "training", "label": "singing"}),
        ("ünïcödé", {"subset": "training", "label": "singing"}),
    ],
)
def test_an_entry_of_another_form_is_refused_with_its_line(tmp_path, id, entry):
    good = {f"aaaaaaaaaaa_{k}": {"subset": "testing", "label": "singing"} for k in range(3)}
    path = tmp_path / "list.json"
    lines = [json.dumps({k: v}, ensure_ascii=False)[1:-1] for k, v in {**good, id: entry}.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}")
    with pytest.raises(DataError) as error:
        MMDebiased(source=tmp_path, list=path).listing()
    said = str(error.value)
    assert said.startswith(f"list {path}, line 5: expected {{id: ")
    assert "with subset training, validation, testing and label bowling, cleaning floor, " in said
    assert said.endswith(f"found {json.dumps({id: entry})}")


def test_a_long_entry_is_cut_short_in_the_message(tmp_path):
    path = a_list(tmp_path, {ID: {"subset": "x" * 5000, "label": "singing"}})
    with pytest.raises(DataError) as error:
        MMDebiased(source=tmp_path, list=path).listing()
    assert len(str(error.value)) < 400 + len(str(path))


def test_another_rule_of_splitting_is_refused(path, empty):
    message = "^unknown split 'fair': choose one of listed, leak-free$"
    refused(path, empty, message, UsageError, split="fair")


def test_a_source_that_is_no_folder_is_refused(path, tmp_path):
    message = "^source .*nowhere is not a folder: give the folder of the clips$"
    refused(path, tmp_path / "nowhere", message)


def test_a_source_without_a_match_is_refused_with_names_from_both_sides(path, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("one.mp4", "two.mp4", "three.mkv", "four.webm", "notes.txt"):
        (source / name).touch()
    message = (
        "^none of the 14,025 clips is in source .*source: looked for ZUJ5LJGX9oc_20, "
        "fbVaD-oDUIE_000168_000178, 6YvG7XQD7gE_40, …; there is four.webm, one.mp4, three.mkv, …$"
    )
    with pytest.raises(DataError, match=message):
        MMDebiased(source=source, list=path).build(tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("names", "said"), [((), "nothing"), (("a.txt", "b"), "a.txt, b; .*")])
def test_a_source_without_a_video_is_refused_with_what_it_has(path, tmp_path, names, said):
    for name in names:
        (tmp_path / name).touch()
    recipe = MMDebiased(source=tmp_path, list=path)
    with pytest.raises(DataError, match=f"; there is {said}$"):
        recipe.plan(recipe.listing())

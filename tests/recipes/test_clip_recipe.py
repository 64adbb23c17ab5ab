"""What the recipes of clips share: options, limits, splits, what is missing, what is refused."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.rejects import Reject
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes.clip_recipe import (
    ClipRecipe,
    Listing,
    by_split,
    cut_validation,
    in_splits,
    limited,
    unused,
    without_duplicates,
    write_missing,
)
from mmcoop.settings import option

HERE = {"path": Path("here.mp4")}


def clip(id: str, split: str = "train", label: int = 0, group: str | None = None, **more) -> Clip:
    return Clip(id, split, label, group or id, more.pop("paths", HERE), **more)


def listing(clips: Sequence[Clip], **more) -> Listing:
    return Listing(
        name="given",
        source="the tests",
        classes=["low", "high"],
        clips=clips,
        kinds=more.pop("kinds", {"audio": ("spectrogram", "path")}),
        names="here.mp4, there.mp4",
        **more,
    )


@dataclass(frozen=True, kw_only=True)
class Sounds(ClipRecipe):
    """A recipe as one writes it: every file of a folder, in turn in each split and class."""

    classes: int = option(2, "number of classes")

    def listing(self) -> Listing:
        clips = [
            Clip(path.stem, SPLITS[k % 3], k // 3 % self.classes, f"group {k}", {"path": path})
            for k, path in enumerate(sorted(self.source.iterdir()))
        ]
        return listing(clips, report={"files": len(clips)})


@pytest.fixture(scope="module")
def sounds(shared_data: Path, tmp_path_factory) -> Path:
    """24 links to short clips with sound, of two lengths."""
    folder = tmp_path_factory.mktemp("sounds") / "sounds"
    folder.mkdir()
    films = [shared_data / "clips" / "grid" / "bbaf2n.mpg"]
    films += [shared_data / "clips" / "audio_torchcodec_sine.wav"]
    for k in range(24):
        film = films[k % 2]
        (folder / f"sound{k:02d}{film.suffix}").symlink_to(film)
    return folder


# Options


def test_every_option_has_a_help_text():
    assert all(field.metadata["help"] for field in fields(ClipRecipe))


@pytest.mark.parametrize("name", ["frames", "stored_frames", "short_side", "size", "limit"])
@pytest.mark.parametrize("number", [0, -1])
def test_a_count_below_one_is_refused(tmp_path, name, number):
    with pytest.raises(UsageError, match=f"^{name} is {number}: it must be at least 1$"):
        Sounds(source=tmp_path, **{name: number})


@pytest.mark.parametrize("name", ["min_seconds", "size_limit", "time_limit"])
@pytest.mark.parametrize("number", [0.0, -0.5, float("nan"), float("inf")])
def test_a_measure_that_is_not_above_zero_is_refused(tmp_path, name, number):
    with pytest.raises(UsageError, match=f"^{name} is {number}: it must be "):
        Sounds(source=tmp_path, **{name: number})


@pytest.mark.parametrize("stored", [2, 6, 7, 12])
def test_frames_to_draw_from_need_one_in_the_middle_of_each_part(tmp_path, stored):
    with pytest.raises(UsageError, match=f"stored_frames is {stored}: .* odd multiple of frames"):
        Sounds(source=tmp_path, stored_frames=stored)
    assert Sounds(source=tmp_path, stored_frames=3).options()["stored_frames"] == 3


def test_the_options_are_those_given_as_json(tmp_path):
    options = Sounds(source=tmp_path, limit=3, min_seconds=0.25).options()
    assert json.loads(json.dumps(options)) == {
        "source": str(tmp_path),
        "frames": 3,
        "stored_frames": None,
        "short_side": 256,
        "size": 224,
        "min_seconds": 0.25,
        "size_limit": 4.0,
        "time_limit": 60.0,
        "limit": 3,
        "seed": 0,
        "classes": 2,
    }


def test_the_options_decide_how_clips_are_read(tmp_path):
    clips = [clip(split, split) for split in SPLITS]
    recipe = Sounds(
        source=tmp_path,
        frames=5,
        short_side=90,
        size=64,
        min_seconds=0.25,
        size_limit=0.5,
        time_limit=7,
    )
    arrays = {"x": Modality("vector", (3,), "float32", "mlp")}
    plan = recipe.plan(listing(clips, flow_folder=tmp_path, arrays=arrays))
    reading = plan.reading
    assert (reading.frames, reading.short_side, reading.size) == (5, 90, 64)
    assert reading.stored_frames == 15
    assert (reading.min_seconds, reading.max_bytes) == (0.25, 2**29)
    assert (reading.flow_folder, reading.arrays) == (tmp_path, arrays)
    assert reading.kinds == {"audio": ("spectrogram", "path")}
    assert plan.time_limit == 7


# The plan


def test_the_plan_has_what_was_found_a_split_at_a_time_and_rejects_the_rest(tmp_path):
    clips = [
        clip("d", "test"),
        clip("a", "validation"),
        clip("gone", "train", paths={}),
        clip("c", "train", 1),
        clip("b", "train"),
    ]
    odd = Reject("odd", "duplicate", "listed more than once")
    plan = Sounds(source=tmp_path).plan(listing(clips, rejects=[odd], report={"moved": 4}))
    assert [clip.id for clip in plan.clips] == ["c", "b", "a", "d"]
    assert list(plan.rejects) == [odd, Reject("gone", "missing", "no file found")]
    header = plan.header
    assert (header.name, header.recipe, header.source) == ("given", "given", "the tests")
    assert header.classes == ["low", "high"]
    assert list(header.modalities) == ["audio"]
    assert header.columns == {"duration": "float32", "notes": "string"}
    assert header.report == {
        "asked_for": {"train": 3, "validation": 1, "test": 1},
        "found": {"train": 2, "validation": 1, "test": 1},
        "groups_in_several_splits_of_those_asked_for": {},
        "moved": 4,
    }
    assert not header.shared_groups
    assert Sounds(source=tmp_path).plan(listing(clips, shared_groups=True)).header.shared_groups


def test_a_missing_clip_is_rejected_with_the_files_that_are_not_there(tmp_path):
    clips = [
        *(clip(split, split) for split in SPLITS),
        clip("a", paths={}, absent={"x/a.mp4": ["sound", "film"]}),
        clip("b", paths={}, absent={"b.wav": ["sound"]}),
        clip("c", paths={}, absent={"c.wav": ["sound"], "c.mp4": ["film"]}),
    ]
    kinds = {"sound": ("spectrogram", "wav"), "film": ("frames", "mp4")}
    plan = Sounds(source=tmp_path).plan(listing(clips, kinds=kinds))
    assert [tuple(reject) for reject in plan.rejects] == [
        ("a", "missing", "no file found: x/a.mp4"),
        ("b", "missing", "no file found: b.wav (sound)"),
        ("c", "missing", "no file found: c.wav (sound), c.mp4 (film)"),
    ]


def test_groups_in_several_splits_are_counted_found_or_not(tmp_path):
    clips = [
        clip("a", "train", group="one"),
        clip("b", "train", group="one"),
        clip("c", "test", group="one", paths={}),
        clip("d", "validation", group="two"),
        clip("e", "train", group="two"),
        clip("f", "test", group="two"),
        clip("g", "test", group="three"),
    ]
    given = listing(clips)
    assert given.leakage == {"train+test": 1, "train+validation+test": 1}
    told = Sounds(source=tmp_path).plan(given).header.report
    assert told["groups_in_several_splits_of_those_asked_for"] == given.leakage


def test_nothing_found_says_what_was_looked_for_and_what_is_there(tmp_path):
    clips = [clip(f"clip{k}", SPLITS[k % 3], paths={}) for k in range(1200)]
    message = (
        f"^none of the 1,200 clips is in source {tmp_path}: looked for clip0, clip1, clip2, …; "
        "there is here.mp4, there.mp4"
    )
    with pytest.raises(DataError, match=message):
        Sounds(source=tmp_path).plan(listing(clips))


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_found_of_one_split_says_of_which(tmp_path, split):
    clips = [clip(f"{s}{k}", s, paths={} if s == split else HERE) for k in range(2) for s in SPLITS]
    message = (
        f"^none of the 2 {split} clips is in source {tmp_path}, and a data set needs all three "
        f"splits: looked for {split}0, {split}1; there is here.mp4, there.mp4"
    )
    with pytest.raises(DataError, match=message):
        Sounds(source=tmp_path).plan(listing(clips))


def test_nothing_found_says_which_files_were_looked_for_and_what_was_rejected(tmp_path):
    clips = [clip(s, s, paths={}, absent={f"{s}.wav": ["audio"]}) for s in SPLITS]
    rejects = [Reject("odd", "duplicate", "line 3 repeats line 2")]
    message = (
        r"looked for train\.wav, validation\.wav, test\.wav; there is here\.mp4, there\.mp4 \(1 "
        r"rejected: duplicate 1; the first: odd, duplicate: line 3 repeats line 2\)$"
    )
    with pytest.raises(DataError, match=message):
        Sounds(source=tmp_path).plan(listing(clips, rejects=rejects))


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_a_clip_is_refused(tmp_path, split):
    clips = [clip(s, s) for s in SPLITS if s != split]
    message = f"^there is no {split} clip to look for: "
    with pytest.raises(DataError, match=message):
        Sounds(source=tmp_path).plan(listing(clips))


def test_a_list_of_rejects_alone_is_refused_with_the_first(tmp_path):
    rejects = [Reject("odd", "outside-folder", "'../x' is not a path"), Reject("z", "missing")]
    message = (
        r"^there is no clip to look for \(2 rejected: missing 1, outside-folder 1; the first: "
        r"odd, outside-folder: '\.\./x' is not a path\): "
    )
    with pytest.raises(DataError, match=message):
        Sounds(source=tmp_path).plan(listing([], rejects=rejects))


def test_a_refused_build_leaves_nothing(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(DataError, match="^there is no clip to look for"):
        Sounds(source=tmp_path / "source").build(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_existing_folder_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="data exists and was not made by mmcoop"):
        Sounds(source=tmp_path / "nowhere").build(tmp_path / "data")


def test_what_a_recipe_lists_is_built(sounds, tmp_path):
    Sounds(source=sounds).build(tmp_path / "data", workers=2)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.rows == {"train": 8, "validation": 8, "test": 8}
    assert dataset.report["files"] == 24
    assert dataset.leakage == {}
    for k, split in enumerate(SPLITS):
        table = dataset.split(split).table.select(["id", "label", "group"]).to_pandas()
        assert list(table.id) == [f"sound{i:02d}" for i in range(k, 24, 3)]
        assert list(table.label) == [0, 1] * 4
    assert len(pd.read_parquet(tmp_path / "data" / "rejects.parquet")) == 0


# Limits


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 4)), max_size=60),
    st.integers(1, 20),
)
def test_a_limit_is_shared_evenly_among_the_classes_of_each_split(kinds, limit):
    clips = [clip(str(k), split, label) for k, (split, label) in enumerate(kinds)]
    chosen = limited(clips, limit)
    assert [c.id for c in chosen] == sorted((c.id for c in chosen), key=int), "their order stays"
    for split in SPLITS:
        there = Counter(c.label for c in clips if c.split == split)
        taken = Counter(c.label for c in chosen if c.split == split)
        assert taken.total() == min(limit, there.total())
        for label, count in there.items():
            # as many as any other, but for one, unless there are no more
            assert taken[label] == count or taken[label] >= max(taken.values()) - 1
            first = [c.id for c in clips if (c.split, c.label) == (split, label)]
            mine = [c.id for c in chosen if (c.split, c.label) == (split, label)]
            assert mine == first[: len(mine)], "the first of the class"


def test_without_a_limit_all_stay():
    clips = [clip("b"), clip("a", "test")]
    assert limited(clips, None) == clips


def test_a_limited_data_set_is_the_same_for_any_number_of_workers(sounds, tmp_path):
    for workers in (1, 2, 3):
        recipe = Sounds(source=sounds, limit=3)
        recipe.build(tmp_path / str(workers), workers=workers)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / str(workers)).iterdir()}
        for workers in (1, 2, 3)
    ]
    assert contents[0] == contents[1] == contents[2]
    dataset = open_dataset(tmp_path / "2")
    assert dataset.rows == {"train": 3, "validation": 3, "test": 3}
    for split in SPLITS:
        assert sorted(dataset.split(split).labels) == [0, 0, 1]
    assert dataset.report["found"] == {"train": 8, "validation": 8, "test": 8}


# Splits


def test_clips_are_counted_in_all_splits():
    assert by_split([clip("a", "test"), clip("b", "train"), clip("c", "test")]) == {
        "train": 1,
        "validation": 0,
        "test": 2,
    }
    assert list(by_split([])) == list(SPLITS)


def test_of_clips_asked_for_twice_the_first_stays():
    clips = [clip("a", "train"), clip("b"), clip("a", "test"), clip("a", "train")]
    first, rejects = without_duplicates(clips)
    assert first == clips[:2]
    assert rejects == [Reject("a", "duplicate", "listed more than once")] * 2
    assert without_duplicates(clips, ["line 1", "line 2", "line 3", "line 4"]) == (
        first,
        [Reject("a", "duplicate", f"line {k} repeats line 1") for k in (3, 4)],
    )


def test_files_of_no_clip_are_counted_and_the_first_are_named():
    folder = Path("clips")
    clips = [
        clip("a", paths={"path": folder / "a.mp4"}),
        clip("b", paths={"film": folder / "x/b.mp4", "sound": folder / "x/b.wav"}),
        clip("gone", paths={}),
    ]
    files = [folder / name for name in ("a.mp4", "x/b.mp4", "x/b.wav")]
    assert unused(files, folder, clips) == {}
    files += [folder / f"y/{k}.mp4" for k in range(7)]
    assert unused(files, folder, clips) == {
        "unused_files": 7,
        "first_unused_files": [f"y/{k}.mp4" for k in range(5)],
    }


def test_new_splits_leave_all_else_as_it_is():
    clips = [clip("a", "train", 1, "g", start=1.0, end=2.0), clip("b", "test", perhaps_cut=True)]
    moved = in_splits(clips, ["test", "validation"])
    assert moved == [
        clip("a", "test", 1, "g", start=1.0, end=2.0),
        clip("b", "validation", perhaps_cut=True),
    ]


def grouped(n: int, split: str = "train") -> list[Clip]:
    """So many clips of four classes, three to a group."""
    return [clip(f"{split}{k}", split, k // 3 % 4, f"{split} group {k // 3}") for k in range(n)]


def test_validation_is_cut_out_of_training_a_group_at_a_time():
    clips = [*grouped(480), *grouped(60, "test")]
    cut = cut_validation(clips, 0.1, seed=0)
    assert [c.id for c in cut] == [c.id for c in clips]
    assert [c for c in cut if c.split == "test"] == clips[480:]
    splits = defaultdict(set)
    for c in cut:
        splits[c.group].add(c.split)
    assert all(len(each) == 1 for each in splits.values())
    validation = Counter(c.label for c in cut if c.split == "validation")
    assert validation == dict.fromkeys(range(4), 12), "a tenth of each class"


def test_the_cut_depends_on_the_seed_and_not_on_what_was_found():
    clips = grouped(480)

    def chosen(clips: Sequence[Clip], seed: int) -> set[str]:
        return {c.id for c in cut_validation(clips, 0.1, seed) if c.split == "validation"}

    missing = [clip(c.id, c.split, c.label, c.group, paths={}) for c in clips]
    assert chosen(missing, 0) == chosen(clips, 0)
    assert chosen(clips[::-1], 0) == chosen(clips, 0)
    assert chosen(clips, 1) != chosen(clips, 0)


def test_groups_that_are_to_be_kept_stay_in_training():
    clips = grouped(48)
    keep = {c.group for c in clips} - {"train group 5", "train group 4", "train group 9"}
    cut = cut_validation(clips, 0.4, 0, keep=keep)
    # groups 5 and 9 are of one class and one of them must stay, and 4 is the only one of its class
    (taken,) = {c.group for c in cut if c.split == "validation"}
    assert taken in ("train group 5", "train group 9")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(UsageError, match=f"^validation {share}: it must be between 0 and 1$"):
        cut_validation(grouped(48), share, 0)


# What is missing


def test_the_missing_clips_are_written_with_their_windows(tmp_path):
    clips = [
        clip("here"),
        clip("abcdefghijk_30", group="abcdefghijk", paths={}, start=30.0, end=40.0),
        clip("-bcdefghijk", paths={}),
        clip("talk, part 1", "test", paths={}, start=3723.2531, end=1234567.5),
    ]
    path = tmp_path / "missing.csv"
    write_missing(path, listing(clips))
    assert path.read_bytes() == (
        b"id,video,start,end\n"
        b"abcdefghijk_30,abcdefghijk,30,40\n"
        b"-bcdefghijk,-bcdefghijk,,\n"
        b'"talk, part 1","talk, part 1",3723.2531,1234567.5\n'
    )
    with path.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [c.id for c in clips[1:]]
    assert list(tmp_path.iterdir()) == [path]


def test_missing_clips_that_are_asked_for_by_path_are_written_with_their_files(tmp_path):
    clips = [
        clip("here"),
        clip("a", group="film", paths={}, start=1.0, absent={"x/a.mp4": ["audio", "visual"]}),
        clip("b", paths={}, absent={"b.wav": ["audio"], "b, c.mp4": ["visual"]}),
    ]
    write_missing(tmp_path / "missing.csv", listing(clips))
    assert (tmp_path / "missing.csv").read_text() == (
        "id,video,start,end,modality,path\n"
        "a,film,1,,audio+visual,x/a.mp4\n"
        "b,b,,,audio,b.wav\n"
        'b,b,,,visual,"b, c.mp4"\n'
    )


def test_where_nothing_is_missing_the_header_alone_is_written(tmp_path):
    write_missing(tmp_path / "missing.csv", listing([clip("here")]))
    assert (tmp_path / "missing.csv").read_text() == "id,video,start,end\n"

"""folder: one's own clips, by their folders or by a table, are rows or are rejects."""

import io
import os
import wave
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from mmcoop.datasets.clip_reader import Clip
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.rejects import Reject
from mmcoop.datasets.transforms import build_transform
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes import RECIPES
from mmcoop.recipes.clip_recipe import Listing
from mmcoop.recipes.features import Features
from mmcoop.recipes.folder import Folder

CLASSES = ("cello", "flute", "piano")


def touch(folder: Path, *names: str) -> Path:
    """The folder with empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(folder: Path, *rows: Mapping[str, Any], ending: str = "csv") -> Path:
    """A manifest of these rows, beside the folder."""
    path = folder.parent / f"clips.{ending}"
    frame = pd.DataFrame(rows)
    if ending == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows of a manifest, of three classes in turn."""
    return [
        {"id": f"clip{k:03d}", "path": f"{k:03d}.mp4", "label": CLASSES[k % 3], **more}
        for k in range(count)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of thirty empty films, 000.mp4 …"""
    return touch(tmp_path / "source", *(f"{k:03d}.mp4" for k in range(30)))


def listed(source: Path, *rows: Mapping[str, Any], ending: str = "csv", **options) -> Listing:
    """The listing of a manifest of these rows."""
    return Folder(source=source, manifest=table(source, *rows, ending=ending), **options).listing()


def refused(recipe: Folder, message: str, error: type = DataError) -> None:
    with pytest.raises(error, match=message):
        recipe.listing()


def by_id(listing: Listing) -> dict[str, Clip]:
    return {clip.id: clip for clip in listing.clips}


def test_the_recipe_is_found_by_its_name_and_every_option_has_a_help_text():
    assert RECIPES.load("folder") is Folder
    assert all(field.metadata["help"] for field in fields(Folder))


# Class folders


def test_a_folder_a_class(tmp_path):
    names = ["flute/b.mp4", "flute/a.webm", "cello/deep/er/a.MKV", "piano/x.y.mp4"]
    found = Folder(source=touch(tmp_path, *names)).listing()
    assert found.classes == ["cello", "flute", "piano"]
    assert {c.id: (found.classes[c.label], c.paths["path"]) for c in found.clips} == {
        "cello/deep/er/a": ("cello", tmp_path / "cello/deep/er/a.MKV"),
        "flute/a": ("flute", tmp_path / "flute/a.webm"),
        "flute/b": ("flute", tmp_path / "flute/b.mp4"),
        "piano/x.y": ("piano", tmp_path / "piano/x.y.mp4"),
    }
    assert all(clip.group == clip.id for clip in found.clips)
    assert all((clip.start, clip.end) == (None, None) for clip in found.clips)
    assert found.kinds == {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"{label}/a.mp4" for label in ("10", "9", "-1", "0")]
    assert Folder(source=touch(tmp_path, *names)).listing().classes == ["-1", "0", "9", "10"]
    touch(tmp_path, "--3/a.mp4")
    assert Folder(source=tmp_path).listing().classes == ["--3", "-1", "0", "10", "9"]


def test_clips_without_a_split_are_shared_out_evenly_in_each_class(tmp_path):
    names = [f"{label}/{k:02d}.mp4" for label in CLASSES for k in range(40)]
    found = Folder(source=touch(tmp_path, *names)).listing()
    counts = Counter((found.classes[clip.label], clip.split) for clip in found.clips)
    for label in CLASSES:
        assert counts[label, "validation"] == 4
        assert counts[label, "test"] == 8
        assert counts[label, "train"] == 28
    again = Folder(source=tmp_path).listing()
    assert again.clips == found.clips
    other = Folder(source=tmp_path, seed=1).listing()
    assert {c.id: c.split for c in other.clips} != {c.id: c.split for c in found.clips}
    more = Folder(source=tmp_path, validation=0.3, test=0.4).listing()
    assert Counter(clip.split for clip in more.clips) == {"train": 36, "validation": 36, "test": 48}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "validation", "test"), ("training", "val", "testing"), ("Train", "DEV", "TEST")],
)
def test_a_folder_a_split_with_classes_in_it(tmp_path, train, validation, test):
    words = {"train": train, "validation": validation, "test": test}
    names = [f"{word}/{label}/a.mp4" for word in words.values() for label in CLASSES]
    found = Folder(source=touch(tmp_path, *names)).listing()
    assert found.classes == list(CLASSES)
    assert len(found.clips) == 9
    for clip in found.clips:
        word, label, _ = clip.id.split("/")
        assert words[clip.split] == word
        assert found.classes[clip.label] == label


def test_a_missing_validation_folder_is_cut_out_of_training(tmp_path):
    names = [f"train/{label}/{k}.mp4" for label in CLASSES for k in range(20)]
    names += [f"test/{label}/{k}.mp4" for label in CLASSES for k in range(5)]
    found = Folder(source=touch(tmp_path, *names)).listing()
    assert Counter(clip.split for clip in found.clips) == {"train": 54, "validation": 6, "test": 15}
    assert all(clip.id.startswith("test/") == (clip.split == "test") for clip in found.clips)


def test_classes_that_are_called_like_splits_are_classes_beside_others(tmp_path):
    names = [f"{label}/{k}.mp4" for label in ("train", "tram") for k in range(9)]
    assert Folder(source=touch(tmp_path, *names)).listing().classes == ["train", "tram"]


def test_splits_beside_classes_are_refused(tmp_path):
    """Taken for classes, they would be shared out anew, test clips into training."""
    touch(tmp_path, "train/cello/a.mp4", "test/cello/b.mp4", "extra/c.mp4")
    message = f"^source {tmp_path}: test looks like a split, and extra does not: let there be"
    refused(Folder(source=tmp_path), message)


def test_what_lies_beside_the_class_folders_is_rejected(tmp_path):
    names = [f"{label}/{k}.mp4" for label in CLASSES for k in range(3)]
    found = Folder(source=touch(tmp_path, *names, "loose.mp4")).listing()
    assert len(found.clips) == 9
    assert [tuple(reject) for reject in found.rejects] == [
        ("loose.mp4", "unknown-class", "it is not in the folder of a class")
    ]


def test_what_lies_beside_the_class_folders_of_a_split_is_rejected(tmp_path):
    names = [f"{split}/cello/a.mp4" for split in SPLITS]
    found = Folder(source=touch(tmp_path, *names, "train/loose.mp4", "looser.mp4")).listing()
    assert sorted(clip.id for clip in found.clips) == [f"{s}/cello/a" for s in sorted(SPLITS)]
    assert {(reject.id, reject.reason) for reject in found.rejects} == {
        ("train/loose.mp4", "unknown-class"),
        ("looser.mp4", "unknown-class"),
    }


def test_files_that_differ_in_their_ending_alone_are_all_in_under_their_whole_names(tmp_path):
    names = [f"{label}/{k}.mp4" for label in CLASSES for k in range(3)]
    found = Folder(source=touch(tmp_path, *names, "cello/0.webm", "cello/0.MP4")).listing()
    assert found.rejects == []
    ids = {clip.paths["path"].relative_to(tmp_path).as_posix(): clip.id for clip in found.clips}
    alike = ("cello/0.MP4", "cello/0.mp4", "cello/0.webm")
    assert ids == {name: name if name in alike else name[:-4] for name in [*names, *alike]}


def test_files_that_differ_in_their_ending_alone_are_kept_in_one_split(tmp_path):
    names = [f"{label}/{k}.{e}" for label in CLASSES for k in range(9) for e in ("mp4", "mpg")]
    found = Folder(source=touch(tmp_path, *names)).listing()
    assert len(found.clips) == 54
    assert {clip.group for clip in found.clips} == {name[:-4] for name in names}
    splits = {split: {c.group for c in found.clips if c.split == split} for split in SPLITS}
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & (splits["train"] | splits["test"])


def test_a_name_that_is_left_to_two_files_is_a_duplicate_that_names_them(tmp_path):
    names = [f"{label}/{k}.mp4" for label in CLASSES for k in range(3)]
    found = Folder(source=touch(tmp_path, *names, "cello/0.avi", "cello/0.avi.mkv")).listing()
    assert [tuple(reject) for reject in found.rejects] == [
        ("cello/0.avi", "duplicate", "cello/0.avi.mkv repeats cello/0.avi")
    ]


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        (None, {"film.mp4", "reel.mpg"}),
        (["audio=path"], {"film.mp4", "reel.mpg", "sound.wav"}),
        (["a=path:spectrogram"], {"film.mp4", "reel.mpg", "sound.wav"}),
        (["flow=path"], {"film.mp4", "reel.mpg"}),
        (["image=path"], {"picture.png"}),
        (["x=path:image"], {"picture.png"}),
    ],
)
def test_files_that_have_every_modality_are_taken(tmp_path, modalities, expected):
    names = ["film.mp4", "reel.mpg", "sound.wav", "picture.png", "notes.txt", ".hidden.mp4"]
    touch(tmp_path, *(f"cello/{name}" for name in names), "cello/.cache/film.mp4", ".a/film.mp4")
    found = Folder(source=tmp_path, modality=modalities).listing()
    assert {clip.paths["path"].name for clip in found.clips} == expected


def test_clips_without_a_known_ending_are_known_by_their_content(tmp_path):
    """Their ids are their whole names where what follows a dot is no ending."""
    for name in ("flute/op. 5", "flute/op. 6", "cello/one", "cello/two.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(8000), 16_000, format="AIFF")
    touch(tmp_path, "cello/notes", "flute/cover.jpg")
    found = Folder(source=tmp_path, modality=["audio=path"]).listing()
    groups = {clip.id: clip.group for clip in found.clips}
    assert groups == {id: id for id in ("cello/one", "cello/two", "flute/op. 5", "flute/op. 6")}
    assert found.report["first_unused_files"] == ["cello/notes", "flute/cover.jpg"]
    table(tmp_path, *({"id": id, "path": id, "label": id[:5]} for id in groups if "two" not in id))
    listed = Folder(
        source=tmp_path, manifest=tmp_path.parent / "clips.csv", modality=["x=path"]
    ).listing()
    assert listed.kinds == {"x": ("spectrogram", "path")}


def test_spellings_of_one_class_are_one_class(tmp_path):
    """Composed or not, with spaces or zero-width characters at its ends."""
    cafe = "caf\u00e9"
    spellings = [cafe, "cafe\u0301", f"{cafe} ", f"\u200b{cafe}"]
    names = [f"{name}/{k}.mp4" for k, name in enumerate(spellings)]
    source = touch(tmp_path, *names, "the\u0301/a.mp4", f"{cafe}/ 9.mp4", "Caf\u00e9/a.mp4")
    found = Folder(source=source).listing()
    assert found.classes == ["Caf\u00e9", cafe, "th\u00e9"]
    kept = {clip.id: found.classes[clip.label] for clip in found.clips}
    assert kept == {
        **{f"{cafe}/{k}": cafe for k in (0, 1, 2, 3, 9)},
        "th\u00e9/a": "th\u00e9",
        "Caf\u00e9/a": "Caf\u00e9",
    }
    assert all(clip.paths["path"].is_file() for clip in found.clips)


@pytest.mark.parametrize("name", ["a:b", "c\\d", "e\nf", "g..", "h\u202ei", "\U0001f600"])
def test_any_name_of_a_folder_can_be_that_of_a_class(tmp_path, name):
    found = Folder(source=touch(tmp_path, f"{name}/x:\\y.mp4", "z/z.mp4")).listing()
    assert set(found.classes) == {name, "z"}
    assert by_id(found)[f"{name}/x:\\y"].paths == {"path": tmp_path / name / "x:\\y.mp4"}
    assert found.rejects == []


def test_files_whose_ids_are_one_in_two_spellings_are_duplicates(tmp_path):
    found = Folder(source=touch(tmp_path, "a/th\u00e9.mp4", "a/the\u0301.mp4", "b/x.mp4")).listing()
    assert [clip.id for clip in found.clips] == ["a/th\u00e9", "b/x"]
    assert [(r.id, r.reason) for r in found.rejects] == [("a/th\u00e9", "duplicate")]


def test_names_that_are_not_utf_8_are_rejected_and_make_no_class(tmp_path):
    source = touch(tmp_path, *(f"{label}/{k}.mp4" for label in CLASSES for k in range(9)))
    for name in (b"caf\xe9/1.mp4", b"cello/\xff.mp4"):
        path = Path(os.fsdecode(os.fsencode(source) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = Folder(source=source).listing()
    assert found.classes == list(CLASSES)
    assert len(found.clips) == 27
    assert [reject.reason for reject in found.rejects] == ["name", "name"]


def test_cells_of_a_table_are_compared_as_names(source):
    rows = [
        {"id": f" clip{k}\ufeff", "path": f"{k:03d}.mp4", "label": label, "group": f"g{k % 2} "}
        for k, label in enumerate(["th\u00e9", "the\u0301 ", "t", "\u00a0t"] * 5)
    ]
    found = listed(source, *rows)
    assert found.classes == ["t", "th\u00e9"]
    assert {clip.id for clip in found.clips} == {f"clip{k}" for k in range(20)}
    assert {clip.group for clip in found.clips} == {"g0", "g1"}


def test_whether_a_gif_is_a_picture_or_a_film_has_to_be_said(tmp_path):
    source = touch(tmp_path / "s", *(f"{c}/{k}.gif" for c in CLASSES for k in range(9)))
    refused(Folder(source=source, modality=["x=path"]), r"may be picture or video\)\? Say it: mod")
    for modality, kind in (("x=path:image", "image"), ("visual=path", "frames")):
        listing = Folder(source=source, modality=[modality]).listing()
        assert [kind for kind, _ in listing.kinds.values()] == [kind]
        assert len(listing.clips) == 27


def test_files_that_are_no_clips_are_counted_and_the_first_are_named(tmp_path):
    names = [f"{label}/{k}.mp4" for label in CLASSES for k in range(3)]
    others = ["cello/0.wav", *(f"piano/notes/{k}.txt" for k in range(6)), "README"]
    found = Folder(source=touch(tmp_path, *names, *others, "cello/.cache.txt")).listing()
    assert len(found.clips) == 9
    assert found.report == {
        "unused_files": 8,
        "first_unused_files": ["README", "cello/0.wav", *(f"piano/notes/{k}.txt" for k in "012")],
    }


def test_where_every_file_is_a_clip_there_is_nothing_to_tell(tmp_path):
    touch(tmp_path, *(f"{label}/{k}.mp4" for label in CLASSES for k in range(3)))
    assert Folder(source=tmp_path).listing().report == {}


def test_folders_of_classes_without_a_clip_are_named(tmp_path):
    touch(tmp_path, "a/x.mp4", "b/deep/x.mp4", "b/empty/x.txt", "c/sound.mp3", ".hidden/x.txt")
    (tmp_path / "d").mkdir()
    found = Folder(source=tmp_path).listing()
    assert found.classes == ["a", "b"]
    assert found.report == {
        "unused_files": 2,
        "first_unused_files": ["b/empty/x.txt", "c/sound.mp3"],
        "folders_without_a_clip": ["c", "d"],
    }


def test_folders_of_splits_and_of_their_classes_without_a_clip_are_named(tmp_path):
    touch(tmp_path, *(f"{split}/a/x.mp4" for split in ("train", "test")), "test/b/x.mp4")
    touch(tmp_path, "train/b/x.mp3", "val/a/x.mp3", "test/a/deep/x.txt")
    found = Folder(source=tmp_path, modality=["visual=path"]).listing()
    assert found.report["folders_without_a_clip"] == ["val", "train/b"]
    assert found.report["unused_files"] == 3


def test_loops_of_links_end(tmp_path):
    source = touch(tmp_path / "source", *(f"{label}/a.mp4" for label in CLASSES))
    (source / "cello" / "up").symlink_to(source)
    (source / "flute" / "self").symlink_to("self")
    (source / "piano" / "self.mp4").symlink_to("self.mp4")
    found = Folder(source=source).listing()
    assert sorted(clip.id for clip in found.clips) == ["cello/a", "flute/a", "piano/a"]
    assert found.rejects == [Reject("piano/self.mp4", "missing", "the link leads to no file")]


def test_links_whose_disk_is_not_there_are_rejected(tmp_path):
    source = touch(tmp_path / "source", *(f"{label}/a.mp4" for label in CLASSES))
    for name in ("a.webm", "b.mp4", "b.txt"):
        (source / "cello" / name).symlink_to(tmp_path / "disk" / name)
    found = Folder(source=source).listing()
    assert sorted(clip.id for clip in found.clips) == ["cello/a", "flute/a", "piano/a"]
    why = ("missing", "the link leads to no file")
    assert found.rejects == [Reject("cello/a.webm", *why), Reject("cello/b.mp4", *why)]


def test_where_no_link_leads_to_a_file_it_is_said(tmp_path):
    (tmp_path / "cello").mkdir()
    (tmp_path / "cello" / "a.mp4").symlink_to(tmp_path / "disk" / "a.mp4")
    message = (
        rf"^source {tmp_path} has no folder of a class with clips: there is cello \(1 rejected: "
        r"missing 1; the first: cello/a.mp4, missing: the link leads to no file\)$"
    )
    refused(Folder(source=tmp_path), message)


def test_links_to_clips_elsewhere_are_followed(tmp_path):
    elsewhere = touch(tmp_path / "disk", "a.mp4", "b.mp4")
    (tmp_path / "source" / "cello").mkdir(parents=True)
    (tmp_path / "source" / "cello" / "one.mp4").symlink_to(elsewhere / "a.mp4")
    (tmp_path / "source" / "flute").symlink_to(elsewhere)
    found = Folder(source=tmp_path / "source").listing()
    assert sorted(clip.id for clip in found.clips) == ["cello/one", "flute/a", "flute/b"]


# Tables


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_says_what_is_where(source, ending):
    rows = [
        {
            "id": f"clip{k}",
            "label": CLASSES[k % 3],
            "path": f"{k:03d}.mp4",
            "split": ("train", "Val", "TEST")[k // 3 % 3],
            "group": f"film{k // 9}" if k % 2 else "",
            "start": k / 4 if k % 3 else "",
            "end": 20.125 if k % 5 else "",
        }
        for k in range(18)
    ]
    if ending == "parquet":  # has numbers and nothing, where a .csv has text
        rows = [{k: None if v == "" else v for k, v in row.items()} for row in rows]
    found = by_id(listed(source, *rows, ending=ending))
    assert len(found) == 18
    for k in range(18):
        clip = found[f"clip{k}"]
        assert clip.label == k % 3
        assert clip.split == ("train", "validation", "test")[k // 3 % 3]
        assert clip.paths == {"path": source / f"{k:03d}.mp4"}
        assert clip.group == (f"film{k // 9}" if k % 2 else f"clip{k}")
        assert clip.start == (k / 4 if k % 3 else None)
        assert clip.end == (20.125 if k % 5 else None)
        assert not clip.perhaps_cut


def test_ids_and_labels_are_text_as_it_stands(source):
    rows = [{"id": f"{k:04d}", "label": f"0{k % 2}", "path": f"{k:03d}.mp4"} for k in range(8)]
    rows[0]["id"] = "NA"
    found = listed(source, *rows)
    assert [clip.id for clip in found.clips] == ["NA", *(f"{k:04d}" for k in range(1, 8))]
    assert found.classes == ["00", "01"]


def test_numbers_in_a_parquet_table_will_do_for_ids_and_labels(source):
    rows = [{"id": k, "label": 10 - k % 2, "path": f"{k:03d}.mp4"} for k in range(8)]
    found = listed(source, *rows, ending="parquet")
    assert found.classes == ["9", "10"]
    assert [clip.id for clip in found.clips] == [str(k) for k in range(8)]


def test_a_table_of_excel_is_read(source):
    path = source.parent / "clips.csv"
    lines = [
        "\ufeffid,path,label",
        *(f"{k},{k:03d}.mp4,{CLASSES[k % 3]}" for k in range(9)),
        "",
        "",
    ]
    path.write_bytes("\r\n".join(lines).encode())
    assert len(Folder(source=source, manifest=path).listing().found) == 9


def arrays_in_class_folders(folder: Path, shape: tuple[int, ...], offset: float, dtype) -> None:
    """24 arrays with a constant channel, and one about `offset`."""
    rng = np.random.default_rng(0)
    for k in range(24):
        array = np.zeros(shape, dtype)
        array[..., 1] = offset + rng.integers(0, 20, shape[:-1]).astype(dtype)
        path = folder / CLASSES[k % 3] / f"{k}.npy"
        path.parent.mkdir(exist_ok=True, parents=True)
        np.save(path, array)


@pytest.mark.parametrize("shape", [(2,), (4, 2)])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("offset", [0, 100, 1_700_000_000])
def test_arrays_are_normalised_by_their_training_samples(tmp_path, shape, dtype, offset):
    arrays_in_class_folders(tmp_path / "source", shape, offset, dtype)
    recipe = Folder(source=tmp_path / "source", modality=["clock=path"])
    recipe.build(tmp_path / "data", workers=1)
    dataset = open_dataset(tmp_path / "data")
    clock = dataset.modalities["clock"]
    assert clock.dtype == ("float64" if offset > 1e6 else "float32")
    train = dataset.split("train")
    ids = train.ids(np.arange(len(train)))
    numbers = np.array([np.load(tmp_path / "source" / f"{id}.npy") for id in ids], np.float64)
    columns = numbers.reshape(-1, 2)
    assert clock.mean == pytest.approx(tuple(columns.mean(axis=0)), rel=1e-12)
    assert clock.std == pytest.approx((1.0, columns[:, 1].std()), rel=1e-9)
    seen = build_transform(clock, training=False)(train.read("clock", np.arange(len(train))))
    normal = (columns[:, 1] - columns[:, 1].mean()) / columns[:, 1].std()
    np.testing.assert_allclose(seen.reshape(-1, 2)[:, 1], normal, atol=1e-5)
    assert seen.reshape(-1, 2)[:, 0].abs().max() == 0


@pytest.mark.parametrize("shape", [(2,), (4, 2)])
def test_the_same_arrays_are_treated_the_same_by_both_recipes(tmp_path, shape):
    """As files of a folder, and as one array of all samples with the same splits."""
    arrays_in_class_folders(tmp_path / "clips", shape, 3, np.float64)
    Folder(source=tmp_path / "clips", modality=["x=path"]).build(tmp_path / "one", workers=1)
    one = open_dataset(tmp_path / "one")
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [
        (id, one.classes[label], split)
        for split in SPLITS
        for id, label in zip(
            one.split(split).column("id").to_pylist(), one.split(split).labels, strict=True
        )
    ]
    pd.DataFrame(rows, columns=["id", "label", "split"]).to_csv(tables / "labels.csv", index=False)
    stacked = np.array([np.load(tmp_path / "clips" / f"{id}.npy") for id, *_ in rows])
    np.save(tables / "x.npy", stacked)
    np.save(tables / "y.npy", stacked)
    Features(source=tables).build(tmp_path / "other")
    ours, theirs = open_dataset(tmp_path / "other").modalities["x"], one.modalities["x"]
    assert ours.mean == pytest.approx(theirs.mean, rel=1e-12)
    assert ours.std == pytest.approx(theirs.std, rel=1e-12)
    assert replace(ours, mean=0.0, std=1.0) == replace(theirs, mean=0.0, std=1.0)


@pytest.mark.parametrize("shape", [(2,), (4, 2)])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_arrays_that_float32_cannot_tell_apart_are_refused_unless_normalised(
    tmp_path, shape, dtype
):
    arrays_in_class_folders(tmp_path / "near", shape, 100, dtype)
    near = Folder(source=tmp_path / "near", modality=["clock=path"], standardize=False).listing()
    assert (near.arrays["clock"].mean, near.arrays["clock"].std) == (0.0, 1.0)
    arrays_in_class_folders(tmp_path / "far", shape, 1_700_000_000, dtype)
    far = Folder(source=tmp_path / "far", modality=["clock=path"], standardize=False)
    message = "channel 1: numbers about 1.7e\\+09 that differ by .* turn standardize on"
    refused(far, f"^modality 'clock', arrays such as .*, {message}")


def test_whole_numbers_that_float64_cannot_tell_apart_are_refused(tmp_path):
    arrays_in_class_folders(tmp_path, (2,), 2**60, np.int64)
    recipe = Folder(source=tmp_path, modality=["clock=path"])
    refused(recipe, "^modality 'clock', arrays such as .*, channel 1, has numbers so large")


@pytest.mark.parametrize("which", ["semicolons", "tabs", "UTF-16", "sep line", "blank lines"])
def test_a_table_of_any_dialect_is_read_with_its_lines_counted(source, which):
    frame = pd.DataFrame(numbered(9, split="")).assign(note="a, b; c")
    path = source.parent / "clips.csv"
    text = {
        "semicolons": lambda: frame.to_csv(index=False, sep=";"),
        "tabs": lambda: frame.to_csv(index=False, sep="\t"),
        "UTF-16": lambda: frame.to_csv(index=False),
        "sep line": lambda: "sep=;\n" + frame.to_csv(index=False, sep=";"),
        "blank lines": lambda: "\n\n" + frame.to_csv(index=False),
    }[which]()
    encoding = "utf-16" if which == "UTF-16" else "utf-8"
    path.write_text(text, encoding=encoding)
    found = Folder(source=source, manifest=path).listing()
    assert [clip.id for clip in found.clips] == frame.id.tolist()
    path.write_text(text.replace("clip004", ""), encoding=encoding)
    line = next(n for n, line in enumerate(text.split("\n"), start=1) if "clip004" in line)
    refused(Folder(source=source, manifest=path), f"line {line}: id or label is empty")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", [None, "id", "\u00a0id"])
def test_the_ids_of_a_table_may_be_in_the_index_of_pandas(source, ending, name):
    frame = pd.DataFrame(numbered(9)).set_index("id").rename_axis(name)
    path = source.parent / f"clips.{ending}"
    frame.to_csv(path) if ending == "csv" else frame.to_parquet(path)
    found = Folder(source=source, manifest=path).listing()
    assert [clip.id for clip in found.clips] == frame.index.tolist()
    frame.reset_index(drop=True).to_csv(path) if ending == "csv" else frame.reset_index(
        drop=True
    ).to_parquet(path)
    refused(Folder(source=source, manifest=path), "has no column id")


def test_seconds_may_have_a_decimal_comma_where_nothing_else_can_be_meant(source):
    path = source.parent / "clips.csv"
    frame = pd.DataFrame(numbered(9, start="0,25", end="1234,5"))
    frame.to_csv(path, sep=";", index=False)
    assert {(c.start, c.end) for c in Folder(source=source, manifest=path).listing().clips} == {
        (0.25, 1234.5)
    }
    frame.assign(end="1,234").to_csv(path, sep=";", index=False)
    refused(Folder(source=source, manifest=path), "line 2: end is '1,234', expected seconds")


def test_an_index_of_several_levels_is_the_ids_if_one_is_called_so(source):
    path = source.parent / "clips.parquet"
    frame = pd.DataFrame(numbered(9, speaker="ada")).set_index(["id", "label"])
    frame.to_parquet(path)
    found = Folder(source=source, manifest=path).listing()
    assert [clip.id for clip in found.clips] == frame.index.get_level_values("id").tolist()
    assert [found.classes[clip.label] for clip in found.clips] == [CLASSES[k % 3] for k in range(9)]
    frame.reset_index("label").set_index("speaker", append=True).rename_axis(
        [None, None]
    ).to_parquet(path)
    refused(Folder(source=source, manifest=path), "has an index of 2 levels")


def test_a_file_is_found_however_its_path_is_spelt(tmp_path):
    spelt = ["caf\u00e9/a.mp4", "cafe\u0301/b.mp4"]
    source = touch(tmp_path / "source", "cafe\u0301/a.mp4", "cafe\u0301/b.mp4")
    rows = [{"id": k, "path": spelt[k % 2], "label": f"c{k % 2}"} for k in range(8)]
    found = listed(source, *rows)
    assert [clip.paths["path"].name for clip in found.clips] == ["a.mp4", "b.mp4"] * 4
    assert len({clip.group for clip in found.clips}) == 2
    touch(source, "caf\u00e9 /c.mp4", "caf\u00e9\u200b/c.mp4")
    rows[0]["path"] = "\u200bcaf\u00e9/c.mp4"
    reject = next(r for r in listed(source, *rows).rejects if r.id == "0")
    assert (reject.reason, "3 files" in reject.detail) == ("name", True)


def test_a_table_with_two_columns_of_one_name_is_refused(source):
    path = source.parent / "clips.csv"
    path.write_text("id,path,label,cafe\u0301,caf\u00e9\na,000.mp4,cello,1,2\n")
    refused(Folder(source=source, manifest=path), f"{path} has 2 columns 'caf\u00e9': keep one")


def test_clips_of_one_group_are_kept_together(source):
    rows = [{**row, "group": f"film{k // 5}"} for k, row in enumerate(numbered(30))]
    found = listed(source, *rows)
    splits = defaultdict(set)
    for clip in found.clips:
        splits[clip.group].add(clip.split)
    assert len(splits) == 6
    assert all(len(each) == 1 for each in splits.values())
    assert {split for each in splits.values() for split in each} == set(SPLITS)


def test_groups_that_the_table_has_in_two_splits_are_told(source):
    rows = [
        {**row, "split": SPLITS[k // 3 % 3], "group": "one" if k < 6 else ""}
        for k, row in enumerate(numbered(18))
    ]
    found = listed(source, *rows)
    assert found.leakage == {"train+validation": 1}
    assert found.shared_groups


def test_missing_files_are_missing_and_do_not_change_the_splits(source):
    before = {clip.id: clip.split for clip in listed(source, *numbered(30)).clips}
    for k in (3, 4, 20):
        (source / f"{k:03d}.mp4").unlink()
    (source / "004.mp4").mkdir()
    after = listed(source, *numbered(30))
    assert {clip.id: clip.split for clip in after.clips} == before
    assert {clip.id for clip in after.missing} == {"clip003", "clip004", "clip020"}


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("../secret.mp4", "'../secret.mp4' is not a path inside the source folder"),
        ("a/../../secret.mp4", "'a/../../secret.mp4' is not a path inside the source folder"),
        ("a/../001.mp4", "'a/../001.mp4' is not a path inside the source folder"),
        (r"..\secret.mp4", r"'..\\secret.mp4' is not a path inside the source folder"),
        ("/etc/passwd", "'/etc/passwd' is not a path inside the source folder"),
        (r"C:\clips\a.mp4", r"'C:\\clips\\a.mp4' is not a path inside the source folder"),
        ("loop.mp4", "'loop.mp4' is a loop of symbolic links"),
        ("ring/ring/a.mp4", "'ring/ring/a.mp4' is a loop of symbolic links"),
    ],
)
def test_a_path_that_leads_out_of_the_folder_or_nowhere_is_rejected(source, path, detail):
    if "loop" not in detail:
        detail += ": paths are relative to it"
    touch(source.parent, "secret.mp4")
    (source / "loop.mp4").symlink_to("loop.mp4")
    (source / "ring").symlink_to("gnir")
    (source / "gnir").symlink_to("ring")
    found = listed(source, *numbered(12), {"id": "odd", "label": "cello", "path": path})
    assert [tuple(reject) for reject in found.rejects] == [("odd", "outside-folder", detail)]
    assert "odd" not in by_id(found)
    assert len(found.found) == 12


@pytest.mark.parametrize("path", ["x" * 300 + ".mp4", "a\0b.mp4", "001.mp4/a.mp4", "nowhere/a.mp4"])
def test_a_path_that_cannot_be_is_missing(source, path):
    found = listed(
        source, *numbered(12), {"id": "odd", "label": "cello", "path": path}, ending="parquet"
    )
    assert by_id(found)["odd"].paths == {}
    assert [clip.id for clip in found.missing] == ["odd"]


def test_a_whole_path_is_taken_if_it_leads_into_the_folder(source, tmp_path, monkeypatch):
    touch(tmp_path / "disk", "a.mp4")
    (tmp_path / "alias").symlink_to(source)
    (source / "linked.mp4").symlink_to(tmp_path / "disk" / "a.mp4")
    rows = numbered(12)
    for k, path in enumerate(
        (source / "000.mp4", tmp_path / "alias/001.mp4", source / "linked.mp4")
    ):
        rows[k]["path"] = str(path)
    rows[3]["path"] = str(source / "nothere.mp4")
    rows[4]["path"] = str(tmp_path / "disk" / "a.mp4")
    found = listed(source, *rows)
    paths = {clip.id: clip.paths.get("path") for clip in found.clips}
    assert paths["clip000"] == source / "000.mp4"
    assert paths["clip001"] == source / "001.mp4"
    assert paths["clip002"] == source / "linked.mp4"
    assert [clip.id for clip in found.missing] == ["clip003"]
    assert [(reject.id, reject.reason) for reject in found.rejects] == [
        ("clip004", "outside-folder")
    ]
    monkeypatch.chdir(tmp_path)
    near = Folder(source=Path("source"), manifest=Path("clips.csv")).listing()
    assert by_id(near)["clip001"].paths == {"path": Path("source/001.mp4")}


def test_a_clip_of_several_files_says_which_are_not_there(source):
    touch(source, "sounds/a.wav")
    rows = numbered(12, wav="sounds/a.wav")
    rows[3] |= {"wav": "sounds/b.wav"}
    rows[4] |= {"wav": "sounds/c.wav", "path": "x.mp4"}
    modality = ["audio=wav", "visual=path", "flow=path"]
    found = listed(source, *rows, modality=modality)
    assert {clip.id: clip.absent for clip in found.missing} == {
        "clip003": {"sounds/b.wav": ["audio"]},
        "clip004": {"sounds/c.wav": ["audio"], "x.mp4": ["visual", "flow"]},
    }
    assert all(not clip.paths for clip in found.missing)
    assert all(not clip.absent for clip in found.found)


def test_the_files_of_a_clip_are_in_the_order_of_the_modalities(source):
    """The same in every process: a build that goes on recognises its plan."""
    columns = [f"column{k}" for k in range(8)]
    rows = [{**row, **dict.fromkeys(columns, "000.mp4")} for row in numbered(12)]
    modality = [f"m{column}={column}" for column in columns[::-1]]
    assert list(listed(source, *rows, modality=modality).clips[0].paths) == columns[::-1]


def test_an_empty_path_is_missing(source):
    found = listed(source, *numbered(12), {"id": "odd", "label": "cello", "path": ""})
    assert [tuple(reject) for reject in found.rejects] == [
        ("odd", "missing", "its cell in the column path is empty")
    ]


def test_rows_of_one_file_are_one_group_where_none_is_named(source):
    windows = [
        {"id": f"window{k}", "path": f"./{k // 10:03d}.mp4", "label": CLASSES[k % 3], "start": k}
        for k in range(40)
    ]
    found = listed(source, *windows, validation=0.25, test=0.25)
    assert [clip.group for clip in found.clips] == [f"window{k // 10 * 10}" for k in range(40)]
    splits = [{clip.split for clip in found.clips[k : k + 10]} for k in range(0, 40, 10)]
    assert all(len(of_file) == 1 for of_file in splits)
    assert found.leakage == {}
    # that the window is of a file elsewhere in its own split is told
    apart = [{**row, "split": SPLITS[k % 3]} for k, row in enumerate(windows)]
    assert sum(listed(source, *apart).leakage.values()) == 4
    # and a group that is named goes first
    named = listed(source, *[{**row, "group": "all"} for row in windows[:2]], *numbered(12)[2:])
    assert [clip.group for clip in named.clips[:3]] == ["all", "all", "clip002"]


def test_rows_that_share_one_of_several_files_are_one_group_in_a_chain(source):
    films = ["000.mp4", "001.mp4", "002.mp4", "001.mp4"]
    sounds = ["010.mp4", "011.mp4", "010.mp4", "010.mp4"]
    rows = [
        {"id": f"r{k}", "film": film, "wav": sound, "label": CLASSES[k % 3]}
        for k, (film, sound) in enumerate(zip(films, sounds, strict=True))
    ]
    more = [{**row, "film": row["path"], "wav": row["path"]} for row in numbered(12)[3:]]
    found = listed(source, *rows, *more, modality=["visual=film", "audio=wav"])
    # r1 shares its film with r3, which shares its sound with r0 and r2
    assert [clip.group for clip in found.clips[:5]] == ["r0", "r0", "r0", "r0", "clip003"]


def test_an_id_that_occurs_twice_is_in_once(source):
    found = listed(source, *numbered(12), {"id": "clip003", "label": "flute", "path": "013.mp4"})
    assert len(found.clips) == 12
    assert found.classes[by_id(found)["clip003"].label] == "cello"
    assert [tuple(reject) for reject in found.rejects] == [
        ("clip003", "duplicate", "line 14 (013.mp4) repeats line 5 (003.mp4)")
    ]


def test_where_nothing_is_found_the_kinds_need_not_be_known(tmp_path):
    source = touch(tmp_path / "source", "other.mp4")
    manifest = table(source, *numbered(30))
    recipe = Folder(source=source, manifest=manifest, modality=["mood=path", "eeg=path:series"])
    listing = recipe.listing()
    assert len(listing.missing) == 30
    message = (
        "^none of the 30 clips is in source .*source: looked for 000.mp4, 001.mp4, 002.mp4, …; "
        "there is other.mp4$"
    )
    with pytest.raises(DataError, match=message):
        recipe.build(tmp_path / "data")
    assert not (tmp_path / "data").exists()


# Modalities


def write_wav(path: Path, seconds: float, hertz: float = 440) -> None:
    time = np.arange(round(16_000 * seconds)) / 16_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((8000 * np.sin(2 * np.pi * hertz * time)).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def everything(film: Callable[..., Path], tmp_path_factory) -> Path:
    """Nine clips with a film, a sound, a picture, a series and a vector each, by number."""
    folder = tmp_path_factory.mktemp("everything") / "source"
    for name in ("film", "sound", "picture", "series", "vector"):
        (folder / name).mkdir(parents=True)
    for k in range(9):
        pictures = [np.full((48, 64, 3), 20 * k + 4 * (i // 5), np.uint8) for i in range(20)]
        film(folder / "film" / f"{k}.mp4", pictures, fps=5)
        write_wav(folder / "sound" / f"{k}.wav", 1 + k / 10)
        Image.new("RGB", (90, 60), (10 * k, 255 - 10 * k, 7)).save(folder / f"picture/{k}.png")
        np.save(folder / "series" / f"{k}.npy", np.full((25, 4), k, np.int16))
        np.save(folder / "vector" / f"{k}.npy", np.arange(6.0) * k)
    return folder


def rows_of(everything: Path, *columns: str) -> list[dict[str, str]]:
    endings = {"film": "mp4", "sound": "wav", "picture": "png", "series": "npy", "vector": "npy"}
    return [
        {
            "id": f"clip{k}",
            "label": CLASSES[k % 3],
            "split": SPLITS[k // 3],
            **{column: f"{column}/{k}.{endings[column]}" for column in columns},
        }
        for k in range(9)
    ]


def test_every_kind_of_modality_is_read_from_its_own_column(everything, tmp_path):
    columns = ("film", "sound", "picture", "series", "vector")
    modalities = [
        "audio=sound",
        "visual=film",
        "photo=picture",
        "eeg=series",
        "words=vector:vector",
    ]
    path = tmp_path / "clips.csv"
    pd.DataFrame(rows_of(everything, *columns)).to_csv(path, index=False)
    data = tmp_path / "data"
    recipe = Folder(source=everything, manifest=path, modality=modalities, size=40, frames=2)
    recipe.build(data, workers=2)
    dataset = open_dataset(data)
    assert {name: (spec.kind, spec.input_shape) for name, spec in dataset.modalities.items()} == {
        "audio": ("spectrogram", (1, 128, 140)),  # the median of 1.0, 1.1, … 1.8 s
        "eeg": ("series", (25, 4)),
        "photo": ("image", (3, 40, 40)),
        "visual": ("frames", (2, 3, 40, 40)),
        "words": ("vector", (6,)),
    }
    assert dataset.classes == list(CLASSES)
    assert dataset.recipe == dataset.name == "folder"
    assert dataset.source == str(everything)
    assert dataset.options["modality"] == modalities
    assert dataset.options["manifest"] == str(path)
    for s, split in enumerate(SPLITS):
        part = dataset.split(split)
        index = np.arange(3)
        rows = part.table.select(["id", "label", "group", "duration"]).to_pylist()
        numbers = range(3 * s, 3 * s + 3)
        assert [(r["id"], r["label"]) for r in rows] == [(f"clip{k}", k % 3) for k in numbers]
        assert [row["group"] for row in rows] == [f"clip{k}" for k in numbers]
        # the film lasts 4 s: the shorter of the two, film and sound, counts
        np.testing.assert_allclose([r["duration"] for r in rows], [1 + k / 10 for k in numbers])
        for k, pictures in zip(numbers, part.read("visual", index), strict=True):
            levels = [np.asarray(Image.open(io.BytesIO(p))).mean() for p in pictures]
            # six are stored, of which the second and the fifth are seen in evaluation
            np.testing.assert_allclose(levels[1::3], [20 * k + 4, 20 * k + 12], atol=3)
        for k, sound in zip(numbers, part.read("audio", index), strict=True):
            steps = 1 + (round(16_000 * (1 + k / 10)) - 400) // 160
            assert (sound[0, :, :steps] != 0).any(0).all()
            assert not sound[0, :, steps:].any()
        for k, photo in zip(numbers, part.read("photo", index), strict=True):
            assert (photo == np.array([10 * k, 255 - 10 * k, 7])[:, None, None]).all()
        for k, series in zip(numbers, part.read("eeg", index), strict=True):
            assert (series == k).all()
        for k, vector in zip(numbers, part.read("words", index), strict=True):
            np.testing.assert_array_equal(vector, np.arange(6) * k)


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        ("audio=sound", "spectrogram"),
        ("speech=film", "spectrogram"),
        ("visual=film", "frames"),
        ("rgb=film", "frames"),
        ("flow=film", "flow"),
        ("image=picture", "image"),
        # a name of no known kind: by its files
        ("mood=sound", "spectrogram"),
        ("mood=film", "frames"),
        ("mood=picture", "image"),
        ("mood=series", "series"),
        ("mood=vector", "vector"),
        # a name of a kind that its files are not of
        ("audio=vector", "vector"),
        ("visual=picture", "image"),
        ("flow=series", "series"),
        ("image=film", "frames"),
        # said
        ("mood=film:flow", "flow"),
        ("audio=film:frames", "frames"),
        ("visual=sound:spectrogram", "spectrogram"),
    ],
)
def test_the_kind_is_the_one_said_or_that_of_the_name_or_of_the_files(everything, modality, kind):
    name, column = modality.split("=")[0], modality.split("=")[1].split(":")[0]
    path = everything.parent / "clips.csv"
    pd.DataFrame(rows_of(everything, column)).to_csv(path, index=False)
    found = Folder(source=everything, manifest=path, modality=[modality]).listing()
    assert found.kinds == {name: (kind, column)}


def test_class_folders_of_arrays_are_read(everything, tmp_path):
    for label in CLASSES:
        (tmp_path / "source" / label).mkdir(parents=True)
        for k in range(9):
            (tmp_path / "source" / label / f"{k}.npy").symlink_to(everything / f"vector/{k}.npy")
    recipe = Folder(source=tmp_path / "source", modality=["words=path:vector"])
    recipe.build(tmp_path / "data", workers=1)
    dataset = open_dataset(tmp_path / "data")
    assert sum(dataset.rows.values()) == 27
    table = dataset.split("train").table.to_pylist()
    for row in table:
        assert row["words"] == [i * int(row["id"][-1]) for i in range(6)]
        assert row["duration"] is None


def test_the_first_array_that_can_be_read_decides_the_shape(everything, tmp_path):
    rows = rows_of(everything, "series")
    source = tmp_path / "source"
    (source / "series").mkdir(parents=True)
    for k in range(9):
        (source / "series" / f"{k}.npy").symlink_to(everything / "series" / f"{k}.npy")
    for k, array in ((0, None), (4, np.zeros((25, 5))), (8, np.full((25, 4), np.nan))):
        (source / "series" / f"{k}.npy").unlink()
        if array is None:
            (source / "series" / f"{k}.npy").write_text("words")
        else:
            np.save(source / "series" / f"{k}.npy", array)
    recipe = Folder(source=source, manifest=table(source, *rows), modality=["eeg=series"])
    recipe.build(tmp_path / "data", workers=1)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.modalities["eeg"].shape == (25, 4)
    assert dataset.rows == {"train": 2, "validation": 2, "test": 2}
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet")
    assert dict(zip(rejects.id, rejects.reason, strict=True)) == {
        "clip0": "unreadable",
        "clip4": "wrong-shape",
        "clip8": "not-a-number",
    }


def test_an_array_of_another_kind_than_said_is_refused(everything):
    path = table(everything, *rows_of(everything, "series", "vector"))
    for modality, message in (
        ("x=vector:series", r"vector/0.npy has shape \(6,\): expected \(time steps, channels\)$"),
        ("x=series:vector", r"series/0.npy has shape \(25, 4\): expected \(features,\)$"),
    ):
        recipe = Folder(source=everything, manifest=path, modality=[modality])
        refused(recipe, f"^modality 'x': .*{message}")


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (0,), (5, 0)])
def test_an_array_that_is_neither_vector_nor_series_is_refused(tmp_path, shape):
    for label in CLASSES:
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "a.npy", np.zeros(shape))
    message = r"^modality 'x': .*cello/a.npy has shape \(.*\): expected \(features,\) or \(time st"
    refused(Folder(source=tmp_path, modality=["x=path"]), message)


def test_arrays_of_which_none_can_be_read_are_refused(tmp_path):
    touch(tmp_path, *(f"{label}/a.npy" for label in CLASSES))
    message = "^modality 'x': none of its files can be read, the first: .*cello/a.npy: not an array"
    refused(Folder(source=tmp_path, modality=["x=path"]), message)


def test_a_window_of_a_longer_file_is_cut_out(film, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pictures = [np.full((48, 64, 3), 8 * (k // 5), np.uint8) for k in range(100)]
    film(source / "long.mp4", pictures, fps=5)
    windows = [(None, None), (2, 5), (2.5, None), (None, 4), (19.8, 40), (30, 40)]
    rows = [
        {
            "id": f"clip{k}",
            "label": "ab"[k // 3],
            "path": "long.mp4",
            "split": SPLITS[k % 3],
            "start": start,
            "end": end,
        }
        for k, (start, end) in enumerate(windows)
    ]
    manifest = table(source, *rows, ending="parquet")
    recipe = Folder(source=source, manifest=manifest, modality=["visual=path"], frames=1)
    recipe.build(tmp_path / "data", workers=1)
    found = {}
    for split in SPLITS:
        part = open_dataset(tmp_path / "data").split(split)
        found |= dict(zip(part.ids(np.arange(len(part))), part.table["duration"], strict=True))
    expected = {"clip0": 20.0, "clip1": 3.0, "clip2": 17.5, "clip3": 4.0}
    assert {id: pytest.approx(seconds.as_py()) for id, seconds in found.items()} == expected
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet")
    assert dict(zip(rejects.id, rejects.reason, strict=True)) == {
        "clip4": "too-short",
        "clip5": "outside-file",
    }


# Refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio", "^modality 'audio': write NAME=COLUMN or NAME=COLUMN:KIND, KIND one of frames"),
        ("=path", "^modality '=path': write NAME=COLUMN"),
        ("audio=", "^modality 'audio=': write NAME=COLUMN"),
        ("audio=:frames", "^modality 'audio=:frames': write NAME=COLUMN"),
        ("audio=path:", "^modality 'audio=path:': write NAME=COLUMN"),
        ("audio=path:sound", "^modality 'audio=path:sound': write .* KIND one of frames, image"),
        ("audio=wav", "^modality 'audio=wav': without a manifest the only column is path$"),
        ("a+b=path", r"^'a\+b' cannot name a modality"),
        ("label=path", "^a modality cannot be named like the column 'label'$"),
        ("duration=path", "^a modality cannot be named like the column 'duration'$"),
    ],
)
def test_a_modality_that_cannot_be_meant_is_refused(tmp_path, text, message):
    source = touch(
        tmp_path / "source", *(f"{label}/{k}.mp4" for label in CLASSES for k in range(3))
    )
    with pytest.raises(UsageError, match=message):
        Folder(source=source, modality=[text]).build(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_modality_given_twice_is_refused(tmp_path):
    recipe = Folder(source=tmp_path, modality=["audio=path", "audio=path:frames"])
    refused(recipe, "^modality audio is given twice$", UsageError)


def test_a_modality_of_no_known_kind_is_refused_with_what_to_say(source):
    for k in range(6):
        (source / f"{k}.dat").touch()
    rows = [{"id": k, "label": "a", "path": f"{k}.dat"} for k in range(6)]
    recipe = Folder(source=source, manifest=table(source, *rows), modality=["mood=path"])
    message = (
        r"^what is modality 'mood', of files like .*0\.dat\? Say it: modality mood=COLUMN:KIND, "
        "KIND one of frames, image"
    )
    refused(recipe, message)


def test_a_source_that_is_no_folder_is_refused(tmp_path):
    message = "^source .*nowhere is not a folder: give the folder of the clips$"
    refused(Folder(source=tmp_path / "nowhere"), message)
    path = tmp_path / "clips.csv"
    pd.DataFrame(numbered(3)).to_csv(path, index=False)
    refused(Folder(source=tmp_path / "nowhere", manifest=path), message)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "nothing"),
        (["a.mp4", "b.mp4"], r"a.mp4, b.mp4 \(2 rejected: unknown-class 2; the first: a.mp4, .*"),
        (
            ["x/a.txt", "y/b.txt"],
            r"x, y; endings of its files: .txt \(2\). Files of any ending can be listed in a "
            "manifest, with modality NAME=COLUMN:KIND",
        ),
        (["train/a.mp4"], r"train/a.mp4 \(1 rejected: unknown-class 1; .*"),
    ],
)
def test_a_source_without_class_folders_is_refused_with_what_it_has(tmp_path, names, said):
    message = f"^source {tmp_path} has no folder of a class with clips: there is {said}$"
    refused(Folder(source=touch(tmp_path, *names)), message)


def test_one_class_is_refused(tmp_path):
    source = touch(tmp_path / "source", *(f"cello/{k}.mp4" for k in range(30)))
    with pytest.raises(DataError, match="^there is one class, 'cello': a data set needs two"):
        Folder(source=source).build(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        ("wav", "For its .wav files: modality audio=path"),
        ("png", "For its .png files: modality image=path"),
        ("npy", "For its .npy files: modality table=path"),
        ("xyz", r"there is cello, flute, [a-z]+; endings of its files: .xyz \(27\)"),
    ],
)
def test_where_there_are_other_files_alone_it_is_said_how_to_ask_for_them(tmp_path, ending, advice):
    source = touch(tmp_path / "source", *(f"{c}/{k}.{ending}" for c in CLASSES for k in range(9)))
    refused(Folder(source=source), advice)
    if ending in ("wav", "png"):
        modality = [advice.split()[-1]]
        assert len(Folder(source=source, modality=modality).listing().clips) == 27


def test_too_few_clips_for_three_splits_are_refused(tmp_path):
    source = touch(tmp_path / "source", "cello/a.mp4")
    with pytest.raises(DataError, match="^there is no validation clip to look for "):
        Folder(source=source).build(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.1, 0.0), (0.5, 0.5), (-1, 0.2)])
def test_shares_that_leave_nothing_are_refused(source, validation, test):
    with pytest.raises(UsageError, match=f"^validation {validation} test {test}: both must be"):
        listed(source, *numbered(30), validation=validation, test=test)


def test_a_table_that_is_missing_is_refused(source):
    message = "^manifest nowhere.csv cannot be read: No such file"
    refused(Folder(source=source, manifest=Path("nowhere.csv")), message)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01\x02", b"id,path\na,b\na,b,c,d\n"])
def test_what_is_not_a_table_is_refused(source, content, ending):
    path = source.parent / f"clips.{ending}"
    path.write_bytes(content)
    refused(
        Folder(source=source, manifest=path),
        f"^manifest {path} (cannot be read: |is neither UTF-8)",
    )


def test_a_table_of_too_many_cells_is_refused(source):
    path = source.parent / "clips.csv"
    path.write_text("id,path,label\na,000.mp4,cello,loud\nb,001.mp4,cello,soft\n")
    message = "has rows of more cells than its first row has names: quote cells with commas"
    refused(Folder(source=source, manifest=path), f"^manifest {path} {message}")


def test_a_table_without_a_line_is_refused(source):
    path = source.parent / "clips.csv"
    path.write_text("id,path,label\n")
    message = f"^manifest {path} has no line below its header$"
    refused(Folder(source=source, manifest=path), message)


@pytest.mark.parametrize("column", ["id", "label", "path"])
def test_a_table_without_a_column_is_refused_with_those_it_has(source, column):
    rows = [{k: v for k, v in row.items() if k != column} for row in numbered(3)]
    has = ", ".join(rows[0])
    path = table(source, *rows)
    message = f"^manifest {path} has no column {column}; it has {has}. Columns with the paths of"
    refused(Folder(source=source, manifest=path), message)


def test_a_table_without_the_columns_of_the_modalities_is_refused(source):
    path = table(source, *numbered(3))
    recipe = Folder(source=source, manifest=path, modality=["audio=wav", "visual=film"])
    refused(recipe, "has no column film, wav; it has id, path, label. Columns")


def test_another_word_for_a_split_is_refused(source):
    path = table(source, *numbered(3, split="both"))
    message = f"^the column split of {path} says 'both': write one of train, training, validation"
    refused(Folder(source=source, manifest=path), message)


def test_splits_for_some_alone_are_refused(source):
    rows = [*numbered(3, split="train"), *numbered(6, split="")[3:]]
    refused(
        Folder(source=source, manifest=table(source, *rows)),
        "^3 of 6 samples have no split, one of them in group 'clip003': give every sample one",
    )


def test_splits_without_training_are_refused(source):
    path = table(source, *numbered(3, split="test"))
    refused(Folder(source=source, manifest=path), "^the splits are test: no sample is for training")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "id or label is empty$"),
        ({"label": ""}, "id or label is empty$"),
        ({"start": "soon"}, "start is 'soon', expected seconds from the file's beginning$"),
        ({"start": "-1"}, "start is '-1', expected seconds"),
        ({"start": "1:30"}, "start is '1:30', expected seconds"),
        ({"end": "nan"}, "end is 'nan', expected seconds"),
        ({"end": "inf"}, "end is 'inf', expected seconds"),
        ({"start": "5", "end": "5"}, "the end, 5 s, is not after the start$"),
        ({"start": "5.5", "end": "5"}, "the end, 5 s, is not after the start$"),
        ({"end": "0"}, "the end, 0 s, is not after the start$"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused_with_its_line(source, change, message):
    rows = numbered(4, start="", end="")
    rows[2] |= change
    path = table(source, *rows)
    refused(Folder(source=source, manifest=path), f"^manifest {path}, line 4: {message}")
    # counted as an editor does, empty lines and all
    path.write_text(path.read_text().replace("\n", "\n\n", 1))
    refused(Folder(source=source, manifest=path), f"^manifest {path}, line 5: {message}")


# The length of spectrograms


def write_sounds(folder: Path, lengths: Sequence[float]) -> Path:
    """A wav file for each length in seconds, in two classes."""
    for k, seconds in enumerate(lengths):
        path = folder / "ab"[k % 2] / f"{k:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.zeros(round(8000 * seconds), "<i2").tobytes())
    return folder


@pytest.mark.parametrize(
    ("lengths", "more", "steps"),
    [
        ([1.0, 2.0, 2.5, 3.0, 60.0], {}, 250),
        ([1.0, 2.0], {}, 150),
        ([90.0] * 3, {}, 3000),  # at most 30 s, unless asked for
        ([1.0] * 4, {"sound_seconds": 2.345}, 235),
        ([1.0] * 4, {"sound_seconds": 90}, 9000),
    ],
)
def test_a_spectrogram_is_as_long_as_the_median_clip_or_as_asked_for(
    tmp_path, lengths, more, steps
):
    source = write_sounds(tmp_path / "sounds", lengths)
    recipe = Folder(source=source, modality=["audio=path"], **more)
    assert recipe.time_steps(recipe.listing()) == steps


def test_windows_count_with_their_own_length(tmp_path):
    source = write_sounds(tmp_path / "sounds", [10.0] * 6)
    rows = [
        {"id": f"{k}", "label": "ab"[k % 2], "path": f"{'ab'[k % 2]}/{k:03d}.wav", "start": "4",
         "end": "7" if k < 5 else ""}
        for k in range(6)
    ]  # fmt: skip
    manifest = tmp_path / "clips.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    recipe = Folder(source=source, manifest=manifest, modality=["audio=path"])
    assert recipe.time_steps(recipe.listing()) == 300


def test_clips_that_cannot_be_measured_do_not_count(tmp_path):
    source = write_sounds(tmp_path / "sounds", [2.0] * 4)
    for name in ("a/x.wav", "b/y.wav"):
        (source / name).write_bytes(b"RIFF, but no sound")
    recipe = Folder(source=source, modality=["audio=path"])
    assert recipe.time_steps(recipe.listing()) == 200


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 4000.0])
def test_a_spectrogram_of_an_impossible_length_is_refused(tmp_path, seconds):
    source = write_sounds(tmp_path / "sounds", [2.0] * 4)
    with pytest.raises(UsageError, match="^sound_seconds"):
        recipe = Folder(source=source, modality=["audio=path"], sound_seconds=seconds)
        recipe.time_steps(recipe.listing())


def test_missing_files_that_differ_in_case_are_reported(source):
    """As in a table from where case does not count: the first ones with what is there."""
    rows = [row | {"path": row["path"].upper()} for row in numbered(8)] + numbered(30)[8:]
    report = listed(source, *rows).report
    assert report["missing_files_that_differ_in_case"] == 8
    assert report["first_differing_in_case"] == {f"{k:03d}.MP4": f"{k:03d}.mp4" for k in range(5)}


def test_constant_channels_are_reported(tmp_path):
    """They carry no information: of training samples, since those decide what is normalised."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(12):
        array = rng.normal(size=(6, 3)).astype(np.float32)
        array[:, 1] = 7
        np.save(tmp_path / f"{k}.npy", array)
        split = "train" if k < 6 else "validation" if k < 9 else "test"
        rows.append({"id": k, "label": k % 3, "split": split, "a": f"{k}.npy", "b": f"{k}.npy"})
    path = tmp_path / "list.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    report = Folder(source=tmp_path, manifest=path, modality=["x=a", "y=b"]).listing().report
    assert report["constant_features"] == {"x": 1, "y": 1}
    assert report["first_constant_features"] == {"x": ["channel 1"], "y": ["channel 1"]}

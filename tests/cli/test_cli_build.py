"""Data sets of clips, built, trained on, valuated and enhanced by the commands."""

import csv
import json
import shutil
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmcoop import load_run, open_dataset
from mmcoop.datasets.reader import SPLITS
from mmcoop.recipes.kinetics_sounds import KineticsSounds
from mmcoop.recipes.ucf101 import UCF101

pytestmark = pytest.mark.timeout(600)  # sixteen commands as processes, on a machine of any kind

# of the development clips, those that are quick to decode: how many seconds they last
SECONDS = {
    "grid/bbaf2n.mpg": 2.98,
    "grid/brbk7n.mpg": 2.98,
    "mdn_rabbit320.mp4": 7.78,
    "mdn_rabbit320.webm": 7.78,
    "ffmpeg-python_in.mp4": 6.97,
}
LONG = ("torchcodec_nasa_13013.mp4", 13.0)
SUBSETS = {"training": "train", "validation": "validation", "testing": "test"}


@dataclass(frozen=True)
class Row:
    """What is known of a row beforehand."""

    split: str
    label: str
    group: str
    seconds: float


@dataclass(frozen=True)
class Story:
    """A folder in which the commands were run, what they said, and the rows there should be."""

    folder: Path
    rows: Mapping[str, Row]
    said: Mapping[str, object]


def link(path: Path, clip: Path) -> None:
    """Let `path`, but for the ending of its name, be a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + clip.suffix).symlink_to(clip)


# --- trees


def mm_debiased_tree(folder: Path, data: Path) -> tuple[list[str], dict[str, Row]]:
    """Clips of the list under every usual name, in turn for each split."""
    entries = json.loads((data / "MM-Debiased.json").read_text())
    # of a video with several entries, a file of the whole would be found for all of them
    entries_of = Counter(id[:11] for id in entries)
    usual = list(SECONDS)
    # the form of the id, by its parts; the clip; the name of its file; how much of it there is
    habits: list[tuple[int, str, Callable[..., str], float | None]] = [
        (2, usual[0], lambda id, v, s, label: id, None),
        (2, usual[1], lambda id, v, s, label: f"{v}_{s:06d}", None),
        (2, usual[2], lambda id, v, s, label: f"some/{v}_{s:06d}_{s + 10:06d}", None),
        (2, usual[3], lambda id, v, s, label: f"{v}_{s * 1000}_{s * 1000 + 10000}", None),
        (2, usual[4], lambda id, v, s, label: f"{label.replace(' ', '_')}/{id}", None),
        (2, usual[0], lambda id, v, s, label: f"videos/{v}", None),  # hardly longer: the clip
        (2, LONG[0], lambda id, v, s, label: f"videos/{v}", 10.0),  # the video
        (2, LONG[0], lambda id, v, s, label: id, LONG[1]),  # by its name the clip
        (3, usual[1], lambda id, v, s, label: f"{label}/{id}", None),
        (3, usual[2], lambda id, v, s, label: f"{v}_{s}", None),
        (3, LONG[0], lambda id, v, s, label: f"{v}", 10.0),
        (1, usual[3], lambda id, v, s, label: f"{v}", None),
        (1, usual[4], lambda id, v, s, label: f"{v}_000007_000017", None),
    ]
    rows: dict[str, Row] = {}
    for k, (parts, clip, name, seconds) in enumerate(habits):
        for id, entry in entries.items():
            video, *times = [id[:11], *id[11:].split("_")[1:]]
            subset = list(SUBSETS)[k % 3]
            start = int(times[0]) if times else 0
            cut_fits = seconds != 10.0 or start <= 2
            alone = entries_of[video] == 1 and id not in rows
            if (len(times) + 1, entry["subset"]) == (parts, subset) and cut_fits and alone:
                break
        link(folder / "clips" / name(id, video, start, entry["label"]), data / "clips" / clip)
        rows[id] = Row(SUBSETS[subset], entry["label"], video, seconds or SECONDS[clip])
    words = ["--source", "clips", "--list", str(data / "MM-Debiased.json"), "--size", "64"]
    return ["mm-debiased", *words], rows


def kinetics_sounds_tree(folder: Path, data: Path) -> tuple[list[str], dict[str, Row]]:
    lists = {k: data / "kinetics-sounds" / f"my_{k}.txt" for k in ("train", "test")}
    names = json.loads((data / "kinetics-sounds" / "class_names.json").read_text())
    listing = KineticsSounds(
        source=data / "clips", train_list=lists["train"], test_list=lists["test"]
    ).listing()
    rows = {}
    for split in SPLITS:
        # which of the training list are validation is for the recipe's own tests to check
        chosen = [clip for clip in listing.clips if clip.split == split][5::60][:3]
        for k, clip in enumerate(chosen):
            start = int(clip.id[12:].split("_")[0])
            label = names[str(clip.label)]
            habits = [clip.id, f"{clip.id[:11]}_{start:06d}", f"{label}/{clip.id[:11]}"]
            film = list(SECONDS)[k % len(SECONDS)]
            link(folder / "clips" / habits[k % 3], data / "clips" / film)
            rows[clip.id] = Row(split, label, clip.id[:11], SECONDS[film])
    words = ["--train-list", str(lists["train"]), "--test-list", str(lists["test"])]
    return ["kinetics-sounds", "--source", "clips", *words, "--size", "64"], rows


def ucf101_tree(folder: Path, data: Path) -> tuple[list[str], dict[str, Row]]:
    listing = UCF101(source=data / "clips", splits=data / "ucf101", fold=2).listing()
    rows = {}
    for split in SPLITS:
        chosen = [clip for clip in listing.clips if clip.split == split][7::150][:3]
        for k, clip in enumerate(chosen):
            label = listing.classes[clip.label]
            film = list(SECONDS)[k % len(SECONDS)]
            link(folder / "UCF-101" / label / clip.id, data / "clips" / film)
            group = clip.id.split("_")[2]
            rows[clip.id] = Row(split, label, f"{label}_{group}", SECONDS[film])
    words = ["--source", "UCF-101", "--splits", str(data / "ucf101"), "--fold", "2"]
    return ["ucf101", *words, "--size", "64"], rows


def folder_tree(folder: Path, data: Path) -> tuple[list[str], dict[str, Row]]:
    """Class folders in split folders, in the sizes of the paper."""
    rows = {}
    for split, word in zip(SPLITS, ("train", "val", "test"), strict=True):
        for k, label in enumerate(("face", "rabbit", "face")):
            film = [name for name in SECONDS if ("rabbit" in name) == (label == "rabbit")][k // 2]
            id = f"{word}/{label}/clip {k}"
            link(folder / "clips" / id, data / "clips" / film)
            rows[id] = Row(split, label, id, SECONDS[film])
    (folder / "clips" / "train" / "face" / "loop").symlink_to(folder / "clips")
    return ["folder", "--source", "clips"], rows


TREES = {
    "mm-debiased": mm_debiased_tree,
    "kinetics-sounds": kinetics_sounds_tree,
    "ucf101": ucf101_tree,
    "folder": folder_tree,
}


@pytest.fixture(scope="module")
def stories(shared_data: Path, process, tmp_path_factory) -> Iterator[Callable[[str], Story]]:
    """Each recipe from its tree to an enhanced model, by commands as processes, two at a time.

    Begun all at once; `stories(name)` waits for one of them.
    """

    # not in the threads: where these are the first, each would empty the folder they are in
    folders = {name: tmp_path_factory.mktemp(name) for name in TREES}

    def tell(name: str) -> Story:
        folder = folders[name]
        build, rows = TREES[name](folder, shared_data)
        said = {}
        for command in (
            ["build-dataset", *build, "--workers", "2"],
            ["train", "--epochs", "1", "--batch-size", "4"],
            ["valuate"],
            ["enhance", "--epochs", "1"],
        ):
            said[command[0]] = process(folder, *command)
        return Story(folder, rows, said)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("OMP_NUM_THREADS", "1")
        told = {name: pool.submit(tell, name) for name in TREES}
        yield lambda name: told[name].result()


@pytest.fixture(params=TREES)
def story(request, stories) -> Story:
    return stories(request.param)


def dataset_of(story: Story):
    (folder,) = (story.folder / "data").iterdir()
    return open_dataset(folder)


# --- from clips to an enhanced model


def test_every_command_succeeds(story):
    for name, result in story.said.items():
        assert result.returncode == 0, f"{name}: {result.stderr}"
        assert "Traceback" not in result.stderr


def test_nothing_but_what_was_promised_is_left(story):
    names = {path.name for path in story.folder.iterdir()}
    assert names - {"clips", "UCF-101"} == {"data", "runs", "scores.parquet"}
    assert not list(story.folder.rglob(".*"))


def test_the_rows_are_those_expected(story):
    dataset = dataset_of(story)
    assert sum(dataset.rows.values()) == len(story.rows)
    for split in SPLITS:
        columns = ["id", "label", "group", "duration"]
        for row in dataset.split(split).table.select(columns).to_pylist():
            expected = story.rows[row["id"]]
            assert split == expected.split
            assert dataset.classes[row["label"]] == expected.label
            assert row["group"] == expected.group
            assert row["duration"] == pytest.approx(expected.seconds, abs=0.06)


def test_what_was_not_found_is_among_the_rejects(story):
    dataset = dataset_of(story)
    asked = {"mm-debiased": 14_025, "kinetics-sounds": 17_396, "ucf101": 13_320}
    missing = asked.get(dataset.name, len(story.rows)) - len(story.rows)
    assert dataset.rejects == ({"missing": missing} if missing else {})
    rejects = pd.read_parquet(dataset.folder / "rejects.parquet")
    assert len(set(rejects.id) - set(story.rows)) == len(rejects) == missing
    assert dataset.report["found"] == dataset.rows


def test_a_model_of_the_default_encoders_is_trained_and_enhanced(story):
    dataset = dataset_of(story)
    side = 224 if dataset.name == "folder" else 64
    for modality in dataset.modalities.values():
        # only the published recipes have spectrograms of the published length
        if modality.kind != "spectrogram":
            assert modality.input_shape[-1] == side
        elif dataset.name != "folder":
            assert modality.input_shape[-1] == 1024
    for run in ("joint", "joint-sample"):
        found = load_run(story.folder / "runs" / run)
        assert found.status == "finished"
        assert set(found.architecture.encoders.values()) == {"resnet18"}
        assert len(found.metrics) == 1
        assert np.isfinite(found.metrics["loss"]).all()


def test_every_training_clip_is_valued(story):
    scores = pd.read_parquet(story.folder / "scores.parquet")
    assert set(scores.id) == {id for id, row in story.rows.items() if row.split == "train"}
    contributions = scores.filter(like="contribution_")
    assert contributions.shape[1] == 2
    assert (contributions.sum(axis=1) == 2 * scores.correct).all()


def test_a_sheet_of_it_is_drawn(story, mmcoop, tmp_path):
    folder = dataset_of(story).folder
    result = mmcoop(tmp_path, "info", str(folder), "--preview", "sheet.png", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["preview"] == "sheet.png"
    labels = [row.label for row in story.rows.values() if row.split == "train"]
    shown = sum(min(count, 2) for count in Counter(labels).values())
    with Image.open(tmp_path / "sheet.png") as sheet:
        # two modalities, six samples to a row at most
        assert shown <= 6
        assert sheet.size == (286 * shown, 165 * 2 + 33)


def test_the_build_tells_what_it_left_out_and_what_is_shared(stories):
    said = " ".join(stories("mm-debiased").said["build-dataset"].stdout.split())
    assert "built data/mm-debiased:" in said
    assert "train 5, validation 4, test 4" in said
    assert "rejects │ missing 14,012" in said
    assert "train 11,368, validation 1,185, test 1,472" in said
    assert "train+test 7, train+validation 177, validation+test 1" in said


def test_info_tells_it_again(stories, mmcoop):
    result = mmcoop(stories("mm-debiased").folder, "info", "data/mm-debiased", "--json")
    facts = json.loads(result.stdout)
    assert facts["samples"] == {"train": 5, "validation": 4, "test": 4}
    assert facts["asked_for"] == {"train": 11_368, "validation": 1_185, "test": 1_472}
    assert facts["found"] == facts["samples"]
    assert facts["rejects"] == {"missing": 14_012}
    assert facts["groups_in_several_splits"] == {}
    assert facts["groups_in_several_splits_of_those_asked_for"] == {
        "train+test": 7,
        "train+validation": 177,
        "validation+test": 1,
    }
    assert facts["options"]["list"].endswith("MM-Debiased.json")
    assert facts["columns"] == ["duration", "notes"]


# --- dry runs of the whole lists


def dry_run(mmcoop, folder: Path, *words: str) -> dict:
    """The facts of a dry run with an empty folder of clips, which leaves nothing."""
    (folder / "clips").mkdir(exist_ok=True)
    before = sorted(folder.rglob("*"))
    result = mmcoop(folder, "build-dataset", *words, "--source", "clips", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    assert sorted(folder.rglob("*")) == before
    return json.loads(result.stdout)


def test_a_dry_run_tells_of_the_whole_list_of_mm_debiased(mmcoop, shared_data, tmp_path):
    words = ["mm-debiased", "--list", str(shared_data / "MM-Debiased.json")]
    facts = dry_run(mmcoop, tmp_path, *words)
    counts = {"clips": 14_025, "train": 11_368, "validation": 1_185, "test": 1_472}
    assert facts["asked_for"] == facts["missing"] == counts
    assert facts["found"] == dict.fromkeys(counts, 0)
    assert facts["first_missing"][0] == "ZUJ5LJGX9oc_20"
    assert len(facts["classes"]) == 10
    assert facts["in_the_source"] == "nothing"
    assert facts["groups_in_several_splits"] == {
        "groups": 185,
        "train+test": 7,
        "train+validation": 177,
        "validation+test": 1,
    }
    apart = dry_run(mmcoop, tmp_path, *words, "--split", "leak-free")
    assert apart["groups_in_several_splits"] == {"groups": 0}
    moved = apart["moved_to_keep_every_video_in_one_split"]
    for split in SPLITS:
        came = sum(n for way, n in moved.items() if way.endswith(f"to {split}"))
        went = sum(n for way, n in moved.items() if way.startswith(f"{split} to"))
        assert apart["asked_for"][split] - counts[split] == came - went


def test_a_dry_run_tells_of_the_whole_lists_of_kinetics_sounds(mmcoop, shared_data, tmp_path):
    folder = shared_data / "kinetics-sounds"
    words = [
        "--train-list",
        str(folder / "my_train.txt"),
        "--test-list",
        str(folder / "my_test.txt"),
    ]
    facts = dry_run(mmcoop, tmp_path, "kinetics-sounds", *words)
    asked = facts["asked_for"]
    assert asked["clips"] == 17_396
    assert (asked["train"] + asked["validation"], asked["test"]) == (14_799, 2_597)
    assert asked["validation"] == pytest.approx(1_480, abs=16)
    assert facts["groups_in_several_splits"] == {"groups": 0}
    assert len(facts["classes"]) == 31


@pytest.mark.parametrize(
    ("fold", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_a_dry_run_tells_of_the_whole_lists_of_ucf101(
    mmcoop, shared_data, tmp_path, fold, train, test
):
    words = ["ucf101", "--splits", str(shared_data / "ucf101"), "--fold", str(fold)]
    asked = dry_run(mmcoop, tmp_path, *words)["asked_for"]
    assert asked["clips"] == 13_320
    assert (asked["train"] + asked["validation"], asked["test"]) == (train, test)


# --- small data sets of sounds


def hum(path: Path, seconds: float = 0.6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.full(round(16_000 * seconds), 100, "<i2").tobytes())


def sounds(
    folder: Path, rows: Iterable[Mapping[str, object]], there: Callable[[int], bool]
) -> None:
    """clips.csv of these rows in `folder`, and clips/ with the sounds that are `there`."""
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "clips.csv", index=False)
    for k, path in enumerate(frame.path):
        if there(k):
            hum(folder / "clips" / path)


SOUNDS = ["build-dataset", "folder", "--source", "clips", "--modality", "audio=path"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a table of 24 sounds of uneven classes, of which every sixth is missing."""
    rows = [
        {
            "id": f"sound {k}",
            "path": f"{k}.wav",
            "label": "rare" if k % 8 < 3 else "usual",
            "split": SPLITS[k // 8],
            "start": 0.25 * k if k % 6 == 5 else "",
            "end": 0.25 * k + 1 if k % 6 == 5 else "",
            "group": f"video {k // 2}",
        }
        for k in range(24)
    ]
    sounds(tmp_path, rows, there=lambda k: k % 6 != 5)
    return tmp_path


LISTED = [*SOUNDS, "--manifest", "clips.csv"]


def tree(folder: Path) -> dict[Path, bytes | None]:
    """Everything in a folder, with its content."""
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


def test_a_dry_run_says_what_would_be_found_and_writes_nothing(mmcoop, work):
    before = tree(work)
    result = mmcoop(work, *LISTED, "--dry-run")
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "asked for │ clips 24, train 8, validation 8, test 8" in said
    assert "found │ clips 20, train 7, validation 7, test 6" in said
    assert "missing │ clips 4, train 1, validation 1, test 2" in said
    assert "first missing │ sound 5, sound 11, sound 17, sound 23" in said
    assert "in the source │ 0.wav, 1.wav, 10.wav, …" in said
    assert "groups in several splits │ groups 0" in said
    assert tree(work) == before


def test_a_dry_run_says_which_file_is_read_for_which_clip(mmcoop, work):
    said = " ".join(mmcoop(work, *LISTED, "--dry-run").stdout.split())
    assert "first to read │ sound 0: clips/0.wav │ │ │ sound 1: clips/1.wav" in said
    facts = json.loads(mmcoop(work, *LISTED, "--dry-run", "--json").stdout)
    assert facts["first_to_read"][4] == {"id": "sound 4", "files": ["clips/4.wav"]}
    assert facts["first_missing_files"] == [f"{k}.wav" for k in (5, 11, 17, 23)]


def test_a_dry_run_takes_the_limit_into_account(mmcoop, work):
    facts = json.loads(mmcoop(work, *LISTED, "--dry-run", "--limit", "3", "--json").stdout)
    assert "the_build_would_fail" not in facts
    assert facts["found"] == {"clips": 20, "train": 7, "validation": 7, "test": 6}
    assert facts["to_read"] == {"clips": 9, "train": 3, "validation": 3, "test": 3}
    assert mmcoop(work, *LISTED, "--limit", "3", "--quiet").returncode == 0
    assert open_dataset(work / "data" / "folder").rows == {"train": 3, "validation": 3, "test": 3}


def test_a_dry_run_says_that_a_split_would_be_empty(mmcoop, work):
    for k in range(8, 16):
        (work / "clips" / f"{k}.wav").unlink(missing_ok=True)
    result = mmcoop(work, *LISTED, "--dry-run", "--json")
    assert result.returncode == 0
    facts = json.loads(result.stdout)
    assert facts["splits_without_a_clip"] == ["validation"]
    assert facts["the_build_would_fail"].startswith(
        "none of the 8 validation clips is in --source clips, and a data set needs all three splits"
    )
    fails(mmcoop(work, *LISTED), 1, facts["the_build_would_fail"])


def test_a_dry_run_names_the_first_rejects(mmcoop, work):
    table = pd.read_csv(work / "clips.csv", dtype=str)
    again = table[table.path.isin(["3.wav", "4.wav"])].assign(path="5.wav")
    pd.concat([table, again]).to_csv(work / "clips.csv", index=False)
    facts = json.loads(mmcoop(work, *LISTED, "--dry-run", "--json").stdout)
    assert facts["rejects"] == {"duplicate": 2}
    assert facts["first_rejects"] == [
        {
            "id": f"sound {k}",
            "reason": "duplicate",
            "detail": f"line {23 + k} (5.wav) repeats line {2 + k} ({k}.wav)",
        }
        for k in (3, 4)
    ]


def test_a_dry_run_foresees_what_the_build_rejects_undecoded(mmcoop, work):
    table = pd.read_csv(work / "clips.csv", dtype=str, keep_default_na=False)
    odd = {
        "empty": ("e.wav", "", ""),
        "short": ("0.wav", "0.1", "0.2"),
        "long": ("0.wav", "", "1e5"),
    }
    more = [
        {"id": id, "path": path, "start": start, "end": end, "label": "rare", "split": "train"}
        for id, (path, start, end) in odd.items()
    ]
    (work / "clips" / "e.wav").touch()
    pd.concat([table, pd.DataFrame(more)]).to_csv(work / "clips.csv", index=False)
    facts = json.loads(mmcoop(work, *LISTED, "--dry-run", "--json").stdout)
    assert facts["rejects"] == {"too-large": 1, "too-short": 1, "unreadable": 1}
    assert facts["found"]["clips"] == facts["to_read"]["clips"] == 20
    assert (facts["missing"]["clips"], facts["asked_for"]["clips"]) == (4, 27)
    built = json.loads(mmcoop(work, *LISTED, "--json").stdout)
    assert built["rejects"] == {**facts["rejects"], "missing": 4}
    assert sum(built["samples"].values()) == 20


def test_a_split_of_which_no_clip_can_be_used_is_foreseen(mmcoop, work):
    for k in range(8, 16):
        (work / "clips" / f"{k}.wav").write_bytes(b"")
    facts = json.loads(mmcoop(work, *LISTED, "--dry-run", "--json").stdout)
    assert facts["the_build_would_fail"].startswith(
        "none of the 8 validation clips in --source clips can be used (8 rejected: unreadable 8;"
    )
    fails(mmcoop(work, *LISTED), 1, facts["the_build_would_fail"])


def test_a_dry_run_is_quiet_when_told(mmcoop, work):
    result = mmcoop(work, *LISTED, "--dry-run", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_dry_run_does_not_mind_what_is_at_out(mmcoop, work):
    (work / "data" / "folder").mkdir(parents=True)
    (work / "data" / "folder" / "thesis.txt").touch()
    assert mmcoop(work, *LISTED, "--dry-run").returncode == 0


@pytest.mark.parametrize("words", [["--dry-run"], []])
def test_the_missing_clips_are_written_for_a_download_tool(mmcoop, work, words):
    result = mmcoop(work, *LISTED, "--write-missing", "missing.csv", "--json", *words)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["written"] == "4 missing clips to missing.csv"
    with (work / "missing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {
            "id": f"sound {k}",
            "video": f"video {k // 2}",
            "start": str(k / 4),
            "end": str(k / 4 + 1),
            "modality": "audio",
            "path": f"{k}.wav",
        }
        for k in (5, 11, 17, 23)
    ]
    names = {path.name for path in work.iterdir()}
    assert names == {"clips", "clips.csv", "missing.csv"} | ({"data"} if not words else set())


def test_what_is_missing_of_the_paper_is_written(mmcoop, shared_data, tmp_path):
    ids = list(json.loads((shared_data / "MM-Debiased.json").read_text()))
    for id in ids[:3]:
        hum(tmp_path / "clips" / f"{id}.mp4")
    words = ["--source", "clips", "--list", str(shared_data / "MM-Debiased.json"), "--dry-run"]
    result = mmcoop(tmp_path, "build-dataset", "mm-debiased", *words, "--write-missing", "m.csv")
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "m.csv").read_text().split("\n")
    assert lines[0] == "id,video,start,end"
    assert lines[-1] == ""
    assert len(lines) == 14_025 - 3 + 2
    for id, line in zip(ids[3:], lines[1:-1], strict=True):
        times = [int(time) for time in id[12:].split("_") if time]
        start, end = (times[0], times[0] + 10) if times else ("", "")
        assert line == f"{id},{id[:11]},{start},{end}"


def test_info_shows_what_did_not_get_in(mmcoop, work):
    built = mmcoop(work, *LISTED, "--json")
    rows = [
        {"id": f"sound {k}", "reason": "missing", "detail": f"no file found: {k}.wav"}
        for k in (11, 17, 23, 5)
    ]
    assert json.loads(built.stdout)["rejected"] == rows
    shown = mmcoop(work, "info", "data/folder")
    assert "sound 11: missing: no file found: 11.wav" in " ".join(shown.stdout.split())
    words = ["info", "data/folder/rejects.parquet"]
    assert json.loads(mmcoop(work, *words, "--json").stdout) == rows
    table = " ".join(mmcoop(work, *words).stdout.split())
    assert "│ sound 5 │ missing │ no file found: 5.wav │" in table


def test_a_build_that_fails_says_where_its_rejects_are(mmcoop, work):
    for k in range(8, 16):
        (work / "clips" / f"{k}.wav").write_bytes(b"no sound")
    result = mmcoop(work, *LISTED)
    path = "data/.folder.building/rejects.parquet"
    fails(
        result,
        1,
        "no sample for the split validation: a data set needs all three (11 rejected: "
        "missing 3, unreadable 8; the first: sound 10, unreadable:",
        f"mmcoop info {path}",
    )
    assert len(json.loads(mmcoop(work, "info", path, "--json").stdout)) == 11


def test_an_existing_file_of_missing_clips_is_kept_unless_told(mmcoop, work):
    words = [*LISTED, "--dry-run", "--write-missing", "clips.csv"]
    before = tree(work)
    fails(mmcoop(work, *words), 2, "clips.csv exists: choose another --write-missing, or replace")
    assert tree(work) == before
    assert mmcoop(work, *words, "--overwrite").returncode == 0
    assert (work / "clips.csv").read_text().startswith("id,video,start,end,modality,path\n")


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_a_limit_is_balanced_and_the_same_for_any_number_of_workers(mmcoop, work, limit):
    for workers in ("1", "2"):
        words = ["--limit", str(limit), "--workers", workers, "--out", workers, "--quiet"]
        assert mmcoop(work, *LISTED, *words).returncode == 0
    first, second = ({p.name: p.read_bytes() for p in (work / n).iterdir()} for n in ("1", "2"))
    assert first == second
    dataset = open_dataset(work / "1")
    found = (
        ("train", {"usual": 4, "rare": 3}),
        ("validation", {"usual": 4, "rare": 3}),
        ("test", {"usual": 4, "rare": 2}),
    )
    for split, there in found:
        counts = Counter(dataset.classes[label] for label in dataset.split(split).labels)
        assert counts.total() == min(limit, sum(there.values()))
        for name, number in there.items():
            assert counts[name] == number or counts[name] >= max(counts.values()) - 1


# --- refused


def fails(result, code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    said = " ".join(result.stderr.replace("│", " ").split())
    for word in words:
        assert word in said
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def inputs(shared_data: Path, tmp_path_factory) -> Path:
    """A folder of odd input. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("b.mp4", "a.mp4"):
        hum(folder / "clips" / name)
    (folder / "MM.json").symlink_to(shared_data / "MM-Debiased.json")
    (folder / "wrong.json").write_text('{"dQw4w9WgXcQ_30":\n {"subset": "both", "label": "x"}}')
    (folder / "ks").symlink_to(shared_data / "kinetics-sounds")
    (folder / "wrong.txt").write_text("dQw4w9WgXcQ_30,10,0\ndQw4w9WgXcQ_50,10,31\n")
    (folder / "ucf").symlink_to(shared_data / "ucf101")
    shutil.copytree(shared_data / "ucf101", folder / "wrong")
    with (folder / "wrong" / "trainlist01.txt").open("a") as file:
        file.write("Flying/v_Flying_g01_c01.avi 102\n")
    (folder / "wrong.csv").write_text("id,path\na,a.mp4\n")
    (folder / "data" / "taken").mkdir(parents=True)
    (folder / "data" / "taken" / "thesis.txt").write_text("years of work")
    return folder


MM = ["mm-debiased", "--source", "clips", "--list", "MM.json"]
KS = ["kinetics-sounds", "--source", "clips", "--test-list", "ks/my_test.txt"]
UCF = ["ucf101", "--source", "clips", "--splits", "ucf"]
TRAIN = ["--train-list", "ks/my_train.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mm-debiased", "--source", "clips"], "--list"),
        (["mm-debiased", "--list", "MM.json"], "--source"),
        ([*MM, "--split", "fair"], "choose one of listed, leak-free"),
        ([*MM, "--limit", "0"], "--limit is 0: it must be at least 1"),
        ([*MM, "--limit", "0", "--dry-run"], "--limit is 0: it must be at least 1"),
        ([*MM, "--size-limit", "inf"], "--size-limit is inf: it must be a finite number"),
        ([*MM, "--workers", "0"], "--workers"),
        ([*MM, "--workers", "many"], "--workers"),
        ([*MM, "--out", "data/taken", "--overwrite"], "was not made by mmcoop"),
        ([*MM, "--write-missing", "nowhere/m.csv"], "the folder nowhere does not exist: make it"),
        ([*MM, "--write-missing", "clips"], "clips is a folder: give --write-missing the name"),
        ([*MM, "--flow", "flow"], "--flow"),
        ([*KS, "--dry-run"], "--train-list"),
        ([*KS, *TRAIN, "--validation", "1.5"], "--validation 1.5: it must be between 0 and 1"),
        ([*UCF, "--fold", "4"], "--fold 4: choose one of 1, 2, 3"),
        (["folder"], "--source"),
        (["folder", "--source", "clips", "--modality", "x"], "write NAME=COLUMN"),
        (["folder", "--source", "clips", "--modality", "x=y"], "the only column is path"),
        (["--workers", "2"], "--workers is not an option of keypad"),  # it reads no clips
        (["--source", "clips"], "--source is not an option of keypad, the default recipe"),
        (["--seed", "1", "--source=clips"], "name one of keypad, av-digits, folder, mm-debiased"),
        (["keypad", "--dry-run"], "--dry-run"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_nothing(mmcoop, inputs, words, message):
    before = tree(inputs)
    fails(mmcoop(inputs, "build-dataset", *words), 2, message)
    assert tree(inputs) == before


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["mm-debiased", "--source", "nowhere", "--list", "MM.json"],
            ["--source nowhere is not a folder: give the folder of the clips"],
        ),
        (
            ["mm-debiased", "--source", "clips", "--list", "none.json"],
            ["--list none.json is missing: give the authors' MM-Debiased.json"],
        ),
        (
            ["mm-debiased", "--source", "clips", "--list", "wrong.json"],
            [
                '--list wrong.json, line 1: expected {id: {"subset": "training", "label": "bowl',
                'found {"dQw4w9WgXcQ_30": {"subset": "both"',
            ],
        ),
        (
            ["mm-debiased", "--source", "clips", "--list", "wrong.txt"],
            ["--list wrong.txt cannot be read", "line 1", "expected {id:"],
        ),
        (
            MM,
            [
                "none of the 14,025 clips is in --source clips: looked for ZUJ5LJGX9oc_20, ",
                "; there is a.mp4, b.mp4",
            ],
        ),
        (
            [*KS, "--train-list", "wrong.txt"],
            [
                "wrong.txt, line 2: expected `id,seconds,class` with a class of 0…30, found "
                "'dQw4w9WgXcQ_50,10,31'"
            ],
        ),
        ([*KS, "--train-list", "MM.json"], ["MM.json, line 1: expected `id,seconds,class`"]),
        ([*KS, "--train-list", "none.txt"], ["none.txt is missing"]),
        ([*KS, *TRAIN], ["none of the 17,396 clips", "looked for --4-0ihtnBU", "a.mp4, b.mp4"]),
        (
            ["ucf101", "--source", "clips", "--splits", "wrong"],
            [
                "wrong/trainlist01.txt, line 9538: 'Flying/v_Flying_g01_c01.avi 102' does not "
                "agree with the classes of classInd.txt"
            ],
        ),
        (
            ["ucf101", "--source", "clips", "--splits", "ks"],
            ["ks/classInd.txt is missing", "--splits is the lists' folder"],
        ),
        (UCF, ["none of the 13,320 clips", "looked for v_ApplyEyeMakeup_g08_c01", "a.mp4, b.mp4"]),
        ([*UCF, "--flow", "clips"], ["--flow clips has no folders u and v"]),
        (["folder", "--source", "clips"], ["clips has no folder of a class", "a.mp4, b.mp4"]),
        (
            ["folder", "--source", "clips", "--manifest", "wrong.csv"],
            ["--manifest wrong.csv has no column label; it has id, path"],
        ),
    ],
)
@pytest.mark.parametrize("more", [[], ["--write-missing", "new.csv"]])
def test_unusable_input_exits_with_1_and_leaves_nothing(mmcoop, inputs, words, messages, more):
    before = tree(inputs)
    fails(mmcoop(inputs, "build-dataset", *words, *more), 1, *messages)
    (inputs / "new.csv").unlink(missing_ok=True)  # what it says is true all the same
    assert tree(inputs) == before


def test_one_of_them_as_a_process_of_its_own(process, inputs):
    fails(process(inputs, "build-dataset", *MM), 1, "Error: none of the 14,025 clips is in")


def test_what_leaves_the_folder_is_rejected_and_told(mmcoop, work):
    table = pd.read_csv(work / "clips.csv", dtype=str)
    odd = {"up": "../clips.csv", "root": "/etc/passwd", "ring": "ring.wav"}
    (work / "clips" / "ring.wav").symlink_to("ring.wav")
    more = [{"id": id, "path": path, "label": "rare", "split": "train"} for id, path in odd.items()]
    pd.concat([table, pd.DataFrame(more)]).to_csv(work / "clips.csv", index=False)
    result = mmcoop(work, *LISTED, "--dry-run", "--json")
    assert json.loads(result.stdout)["rejects"] == {"outside-folder": 3}
    result = mmcoop(work, *LISTED, "--json", "--quiet")
    assert json.loads(result.stdout)["rejects"]["outside-folder"] == 3
    rejects = pd.read_parquet(work / "data" / "folder" / "rejects.parquet")
    assert set(rejects[rejects.reason == "outside-folder"].id) == set(odd)


def test_an_existing_data_set_is_kept_unless_told(mmcoop, work):
    assert mmcoop(work, *LISTED, "--quiet").returncode == 0
    before = tree(work)
    for more in ([], ["--write-missing", "new.csv"], ["--manifest", "nowhere.csv"]):
        fails(mmcoop(work, *LISTED, *more), 2, "data/folder exists: choose another --out, or repl")
    words = ["--source", "nowhere", "--write-missing", "clips.csv"]
    fails(mmcoop(work, *LISTED, *words), 1, "--source nowhere is not a folder")
    assert tree(work) == before
    assert mmcoop(work, *LISTED, "--overwrite", "--limit", "1").returncode == 0
    assert sum(open_dataset(work / "data" / "folder").rows.values()) == 3


# --- the sheet


@pytest.fixture(scope="module")
def shown(tmp_path_factory, tiny_dataset) -> Path:
    """A folder with a data set, something like a run, and files."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "data").symlink_to(tiny_dataset)
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    (folder / "there.png").write_text("precious")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "--preview", "sheet.gif"], "its name must end in .png, .pdf, .svg, .jpg"),
        (["data", "--preview", "there.png"], "there.png exists: choose another --preview, or"),
        (["data", "--preview", "nowhere/sheet.png"], "the folder nowhere does not exist"),
        (["run", "--preview", "sheet.png"], "--preview is for datasets, and run is not one"),
        (["there.png", "--preview", "sheet.png"], "--preview is for datasets, and there.png"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(mmcoop, shown, words, message):
    fails(mmcoop(shown, "info", *words), 2, message)
    assert {p.name for p in shown.iterdir()} == {"data", "run", "there.png"}
    assert (shown / "there.png").read_text() == "precious"


def test_a_sheet_of_nothing_is_refused(mmcoop, shown):
    fails(mmcoop(shown, "info", "none", "--preview", "sheet.png"), 1, "none does not exist")


def test_a_sheet_replaces_a_file_when_told(mmcoop, tmp_path, tiny_dataset):
    (tmp_path / "there.png").write_text("old")
    words = ["info", str(tiny_dataset), "--preview", "there.png", "--overwrite"]
    result = mmcoop(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    assert "preview" in result.stdout
    with Image.open(tmp_path / "there.png") as sheet:
        assert sheet.size == (286 * 6, 165 * 3 + 33)
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]

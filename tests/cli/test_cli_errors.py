"""Bad input: one message, the right exit code, nothing half-written."""

import os
import shutil
from pathlib import Path

import pytest

from mmcoop import load_run


@pytest.fixture
def work(story, tmp_path) -> Path:
    """A copy of the story's folder, to damage."""
    folder = tmp_path / "work"
    shutil.copytree(story[0], folder)
    return folder


def fails(result, code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    for word in words:
        assert word in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["build-dataset", "--out"],
        ["train", "--out"],
        ["train", "--data"],
        ["valuate", "--out"],
        ["valuate", "--run"],
        ["enhance", "--out"],
        ["enhance", "--run"],
        ["evaluate", "--run"],
        ["compare", "--out"],
        ["info"],
        ["info", "data/keypad", "--preview"],
    ],
)
def test_a_path_that_is_not_utf_8_is_refused_by_its_name(story, mmcoop, words):
    """Whether there is something or not: Arrow and safetensors cannot open it."""
    before = sorted(story[0].rglob("*"))
    ending = "png" if "--preview" in words else "parquet"
    result = mmcoop(story[0], *words, os.fsdecode(b"runs/caf\xe9") + f".{ending}")
    fails(result, 2, f"the path runs/caf\\xe9.{ending} is not UTF-8: rename")
    assert sorted(story[0].rglob("*")) == before


@pytest.mark.parametrize("command", ["train", "valuate", "enhance", "evaluate"])
def test_an_empty_folder_says_what_to_do_first(mmcoop, tmp_path, command):
    first = "mmcoop build-dataset" if command == "train" else "mmcoop train"
    fails(mmcoop(tmp_path, command), 1, first)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build-dataset", "nope"], "choose one of keypad, av-digits"),
        (["build-dataset", "--seed", "1"], "data/keypad exists"),
        (["build-dataset", "--snr-audio", "3", "-3", "--out", "d"], "lower bound first"),
        (["build-dataset", "av-digits"], "--source"),
        (["train"], "runs/joint exists"),
        (["train", "--method", "nope"], "choose one of joint, unimodal, sample, modality"),
        (["train", "--fusion", "nope"], "choose one of concat, sum, late"),
        (["train", "--encoder", "audio=nope", "--out", "r"], "choose one of conv, resnet18"),
        (["train", "--encoder", "smell=conv", "--out", "r"], "no modality 'smell'"),
        (["train", "--encoder", "audio", "--out", "r"], "NAME=VALUE"),
        (["train", "--encoder", "audio=mlp", "--out", "r"], "takes vectors"),
        (["train", "--method", "unimodal", "--out", "r"], "needs the option 'modality'"),
        (["train", "--method", "unimodal", "--modality", "smell", "--out", "r"], "audio, visual"),
        (["train", "--method", "modality", "--set", "beta=1", "--out", "r"], "fraction, rule"),
        (["train", "--method", "modality", "--set", "alpha=x", "--out", "r"], "must be float"),
        (["train", "--method", "modality", "--set", "fraction=2", "--out", "r"], "at most 1"),
        (["train", "--warmup", "2", "--out", "r"], "has no warm-up"),
        (["train", "--max-extra", "2", "--out", "r"], "adds no examples: omit --max-extra"),
        (["enhance", "--max-extra", "-1", "--out", "r"], "at least 0"),
        (
            ["train", "--method", "sample", "--epochs", "3", "--warmup", "3", "--out", "r"],
            "would never start",
        ),
        (["train", "--lr", "-1", "--out", "r"], "at least 0"),
        (["train", "--epochs", "0", "--out", "r"], "at least 1"),
        (["train", "--epochs", "many", "--out", "r"], "--epochs"),
        (["train", "--device", "abacus", "--out", "r"], "'abacus' cannot be used"),
        (["train", "--resume", "--overwrite"], "exclude each other"),
        (["train", "--resume", "--epochs", "9"], "was started with epochs 3, not 9"),
        (["enhance", "--level", "nope"], "choose one of sample, modality"),
        (["enhance"], "runs/joint-sample exists"),
        (["valuate"], "scores.parquet exists"),
        (["valuate", "--out", "nowhere/s.parquet"], "folder nowhere does not exist"),
        (["valuate", "--out", "data"], "is a folder"),
        (["valuate", "--split", "nope", "--out", "s.parquet"], "train, validation, test"),
        (["nope"], "nope"),
        (["train", "--nope"], "--nope"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_nothing(story, mmcoop, words, message):
    before = {p: p.stat().st_mtime_ns for p in story[0].rglob("*")}
    fails(mmcoop(story[0], *words), 2, message)
    assert {p: p.stat().st_mtime_ns for p in story[0].rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build-dataset", "av-digits", "--source", "nowhere"], "nowhere is not a folder"),
        (["build-dataset", "av-digits", "--source", "runs"], "it has: joint, joint-sample"),
        (["train", "--data", "nowhere"], "nowhere is not a dataset folder"),
        (["evaluate", "--run", "nowhere"], "nowhere is not a run folder"),
        (["train", "--resume", "--out", "runs/new"], "runs/new is not a run folder"),
        (["info", "nowhere"], "nowhere does not exist"),
        (["info", "runs"], "runs is not a dataset"),
        (["info", "data/keypad/dataset.json"], "not a scores file"),
    ],
)
def test_unusable_input_exits_with_1_and_leaves_nothing(story, mmcoop, words, message):
    before = {p: p.stat().st_mtime_ns for p in story[0].rglob("*")}
    fails(mmcoop(story[0], *words), 1, message)
    assert {p: p.stat().st_mtime_ns for p in story[0].rglob("*")} == before


@pytest.mark.parametrize("command", ["train", "valuate", "enhance"])
def test_a_damaged_shard_is_named(mmcoop, work, command):
    shard = work / "data/keypad/train-00000-of-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    out = {"valuate": ["--out", "new.parquet"]}.get(command, ["--out", "new"])
    fails(mmcoop(work, command, *out), 1, "train-00000-of-00001.arrow is damaged", "sha256")
    assert not [p for p in work.iterdir() if "new" in p.name]


def test_a_missing_shard_is_named(mmcoop, work):
    (work / "data/keypad/test-00000-of-00001.arrow").unlink()
    fails(mmcoop(work, "evaluate"), 1, "test-00000-of-00001.arrow is missing")


def test_a_run_of_another_data_set_is_refused(mmcoop, work):
    assert mmcoop(work, "build-dataset", "--seed", "1", "--out", "other", "--quiet").returncode == 0
    for command in (["valuate", "--out", "s.parquet"], ["evaluate"], ["enhance", "--out", "r"]):
        fails(mmcoop(work, *command, "--data", "other"), 1, "trained on another data set")
    fails(mmcoop(work, "train", "--resume", "--data", "other"), 1, "trained on another data set")


def test_several_data_sets_are_listed(mmcoop, work):
    shutil.copytree(work / "data/keypad", work / "data/keypad-2")
    fails(mmcoop(work, "train", "--out", "r"), 2, "data/keypad, data/keypad-2", "--data")


def test_a_checkpoint_of_another_architecture_is_refused(mmcoop, work):
    words = ["train", "--epochs", "1", "--fusion", "late", "--out", "other", "--quiet"]
    assert mmcoop(work, *words).returncode == 0
    best = Path("checkpoints/best/model.safetensors")
    shutil.copy(work / "other" / best, work / "runs/joint" / best)
    fails(mmcoop(work, "evaluate", "--run", "runs/joint"), 1, "another architecture")


def test_a_run_that_has_not_finished_is_not_evaluated(mmcoop, work):
    run = load_run(work / "runs/joint")
    run.set_status("stopped")
    fails(mmcoop(work, "evaluate", "--run", "runs/joint"), 1, "has not finished", "--resume")
    shutil.rmtree(work / "runs/joint-sample")
    fails(mmcoop(work, "valuate", "--out", "s.parquet"), 1, "runs/joint", "--resume")


def test_a_loss_that_is_no_number_stops_and_says_where(mmcoop, tmp_path, story):
    data = str(story[0] / "data/keypad")
    result = mmcoop(tmp_path, "train", "--data", data, "--lr", "1e30", "--epochs", "2")
    fails(result, 1, "epoch 1 is nan", "nothing was saved", "--lr")
    assert not (tmp_path / "runs/joint").exists()


def test_overwrite_never_removes_what_mmcoop_did_not_make(mmcoop, work):
    precious = work / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    words = ["--out", "precious", "--overwrite"]
    for command in (["build-dataset"], ["train"], ["enhance"]):
        fails(mmcoop(work, *command, *words), 2, "was not made by mmcoop")
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_run_of_one_modality_is_not_enhanced(mmcoop, work):
    words = ["--method", "unimodal", "--modality", "audio", "--epochs", "1", "--quiet"]
    assert mmcoop(work, "train", *words).returncode == 0
    result = mmcoop(work, "enhance", "--run", "runs/unimodal-audio")
    fails(result, 2, "runs/unimodal-audio has a single modality")


def test_going_on_needs_no_data_set_named_beside_others(mmcoop, work):
    shutil.copytree(work / "data/keypad", work / "data/keypad-2")
    for command in (["train"], ["enhance", "--out", "runs/joint-sample"]):
        assert mmcoop(work, *command, "--resume").returncode == 0

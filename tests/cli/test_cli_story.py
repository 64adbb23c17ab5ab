"""The commands of the README, run bare (but for the epochs) in an empty folder."""

import json

import numpy as np
import pandas as pd
import pytest

from mmcoop import load_run, open_dataset


def test_every_command_succeeds(story):
    for name, result in story[1].items():
        assert result.returncode == 0, f"{name}: {result.stderr}"
        assert "Traceback" not in result.stderr


def test_the_promised_folders_and_files_appear(story):
    folder = story[0]
    assert sorted(p.name for p in folder.iterdir()) == ["data", "runs", "scores.parquet"]
    assert open_dataset(folder / "data" / "keypad").rows == {
        "train": 1000,
        "validation": 297,
        "test": 500,
    }
    assert sorted(p.name for p in (folder / "runs").iterdir()) == ["joint", "joint-sample"]
    for run in ("joint", "joint-sample"):
        assert load_run(folder / "runs" / run).status == "finished"


def test_no_temporary_file_is_left(story):
    assert not list(story[0].rglob(".*"))


def test_scores_hold_every_training_sample_and_are_efficient(story):
    folder = story[0]
    scores = pd.read_parquet(folder / "scores.parquet")
    train = open_dataset(folder / "data" / "keypad").split("train")
    assert scores["id"].tolist() == train.ids(np.arange(1000))
    assert (scores["label"].to_numpy() == train.labels).all()
    assert (scores["split"] == "train").all()
    contributions = scores["contribution_audio"] + scores["contribution_visual"]
    assert (contributions == 2 * scores["correct"]).all()
    assert set(scores["value_audio"]) <= {0.0, 1.0}
    assert set(scores["value_audio+visual"]) <= {0.0, 2.0}


def test_valuate_reports_means_of_its_own_file(story):
    scores = pd.read_parquet(story[0] / "scores.parquet")
    said = story[1]["valuate"].stdout
    for modality in ("audio", "visual"):
        assert f"{scores[f'contribution_{modality}'].mean():.3f}" in said
        assert f"{100 * (scores[f'contribution_{modality}'] < 1).mean():.1f} %" in said
    assert f"{100 * scores['correct'].mean():.1f} %" in said


def test_enhance_starts_from_the_joint_run_and_says_before_and_after(story):
    folder, results = story
    run = load_run(folder / "runs" / "joint-sample")
    joint = load_run(folder / "runs" / "joint")
    assert run.parent == {
        "path": "runs/joint",
        "weights": joint.weights_hash,
        "cost": joint.cost,
    }
    assert run.config.method == "sample"
    assert run.config.warmup == 0
    for word in ("before", "after", "change", "accuracy audio+visual", "contribution visual"):
        assert word in results["enhance"].stdout


def test_enhance_starts_from_the_weights_of_the_run(story):
    # the first epoch's training scores are those of the joint run's best weights
    folder = story[0]
    first = pd.read_parquet(folder / "runs/joint-sample/contributions/epoch-0001.parquet")
    first = first[first["split"] == "train"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, pd.read_parquet(folder / "scores.parquet"))


def test_evaluate_sets_two_runs_side_by_side(story):
    said = story[1]["evaluate"].stdout
    for word in ("test split, 500 samples", "runs/joint", "runs/joint-sample", "change"):
        assert word in said


def test_evaluate_gives_one_json_object_with_the_promised_keys(story, mmcoop):
    result = mmcoop(story[0], "evaluate", "--run", "runs/joint", "--json", "--quiet")
    answer = json.loads(result.stdout)
    assert {"run", "split", "samples", "accuracy", "coalitions", "contributions", "cost"} <= set(
        answer
    )
    assert answer["run"] == "runs/joint"
    assert answer["split"] == "test"
    assert answer["samples"] == 500
    assert list(answer["coalitions"]) == ["audio", "visual", "audio+visual"]
    assert answer["accuracy"] == answer["coalitions"]["audio+visual"]
    assert sum(answer["contributions"].values()) == pytest.approx(2 * answer["accuracy"])
    assert sum(c["samples"] for c in answer["classes"].values()) == 500
    hits = sum(c["samples"] * c["coalitions"]["visual"] for c in answer["classes"].values())
    assert hits / 500 == pytest.approx(answer["coalitions"]["visual"])
    assert answer["cost"]["rows_encoded"] == 3 * 1000 * 2


def test_valuate_twice_gives_the_same_bytes(story, mmcoop, tmp_path):
    again = tmp_path / "again.parquet"
    result = mmcoop(story[0], "valuate", "--run", "runs/joint", "--out", str(again))
    assert result.returncode == 0, result.stderr
    assert again.read_bytes() == (story[0] / "scores.parquet").read_bytes()


def test_the_newest_finished_run_is_the_default(story, mmcoop):
    result = mmcoop(story[0], "evaluate", "--json", "--split", "validation")
    assert json.loads(result.stdout)["run"] == "runs/joint-sample"


def test_quiet_prints_nothing(story, mmcoop):
    result = mmcoop(story[0], "evaluate", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_info_says_what_each_thing_is(story, mmcoop):
    folder = story[0]
    data = mmcoop(folder, "info", "data/keypad", "--verify")
    assert "train 1,000, validation 297, test 500" in data.stdout
    assert "every shard is as it was written" in data.stdout
    run = mmcoop(folder, "info", "runs/joint-sample")
    assert "started from" in run.stdout
    assert "runs/joint" in run.stdout
    scores = json.loads(mmcoop(folder, "info", "scores.parquet", "--json").stdout)
    assert scores["samples"] == 1000
    assert scores["value"] == "paper"
    assert scores["weights"] == load_run(folder / "runs" / "joint").weights_hash


def test_resuming_a_finished_run_leaves_it_alone(story, mmcoop):
    weights = story[0] / "runs/joint/checkpoints/last/model.safetensors"
    before = weights.stat().st_mtime_ns
    result = mmcoop(story[0], "train", "--resume")
    assert result.returncode == 0
    assert weights.stat().st_mtime_ns == before


def test_seed_method_and_fusion_name_the_run_folder(story, mmcoop, tmp_path):
    data = str(story[0] / "data" / "keypad")
    words = ["--data", data, "--epochs", "1", "--quiet"]
    for more, folder in (
        (["--method", "unimodal", "--modality", "audio"], "unimodal-audio"),
        (["--fusion", "late", "--seed", "3"], "joint-late-seed3"),
    ):
        assert mmcoop(tmp_path, "train", *words, *more).returncode == 0
        assert (tmp_path / "runs" / folder / "run.json").is_file()
    unimodal = load_run(tmp_path / "runs" / "unimodal-audio")
    assert unimodal.modalities == ("audio",)
    assert list(unimodal.metrics.filter(like="accuracy_")) == ["validation_accuracy_audio"]

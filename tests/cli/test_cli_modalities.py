"""Three modalities and more, from the files to what enhancement changed, by the commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import wavfile

from mmcoop import load_run, open_dataset
from mmcoop.core.games.coalitions import coalition_names


@pytest.fixture
def views(shared_data) -> Path:
    folder = shared_data / "uci-multiple-features"
    if not folder.is_dir():
        pytest.skip(f"the six views are not here: no folder {folder}")
    return folder


def rows_by_hand(scores: pd.DataFrame, modalities: list[str], most: int) -> int:
    """Rows that the sample-level rule adds, one modality of one sample after the other."""
    added = 0
    for sample in scores.to_dict("records"):
        left = most
        for phi in sorted(sample[f"contribution_{m}"] for m in modalities):
            wants = sum(phi < step - 1e-6 for step in (1, 0.5, 0))
            added += min(wants, left)
            left -= min(wants, left)
    return added


def go_through(
    call: Callable[..., Any],
    folder: Path,
    build: list[str],
    modalities: list[str],
    train: list[str],
) -> str:
    """Build, train, value, enhance at both levels and by the scores, evaluate; gives what the first
    enhancement said."""

    def run(*words: str) -> str:
        result = call(folder, *words)
        assert result.returncode == 0, f"{words}: {result.stderr}"
        assert "Traceback" not in result.stderr
        return result.stdout

    n, coalitions = len(modalities), coalition_names(modalities)[1:]
    run("build-dataset", *build, "--out", "data/it")
    dataset = open_dataset(folder / "data/it")
    assert list(dataset.modalities) == modalities
    samples = dataset.rows["train"]

    run("train", "--epochs", "2", *train)
    run("valuate", "--out", "scores.parquet")
    scores = pd.read_parquet(folder / "scores.parquet")
    assert len(scores) == samples
    assert list(scores.filter(like="value_")) == [f"value_{name}" for name in coalitions]
    phi = scores[[f"contribution_{m}" for m in modalities]]
    np.testing.assert_allclose(phi.sum(axis=1), n * scores["correct"], atol=1e-9)

    said = run("enhance", "--epochs", "2", "--max-extra", "2", "--run", "runs/joint")
    enhanced = load_run(folder / "runs/joint-sample")
    for epoch, row in enhanced.metrics.set_index("epoch").iterrows():
        before = pd.read_parquet(enhanced.contributions_file(int(str(epoch))))
        before = before[before["split"] == "train"]
        added = rows_by_hand(before, modalities, 2)
        assert 0 < added <= 2 * samples
        assert row["rows"] == samples + added
        assert row["rows_encoded"] == samples * n + added
    first = enhanced.metrics["rows"][0]
    assert first == samples + rows_by_hand(scores, modalities, 2)

    # by the run's own scores the first epoch is the same one
    words = ["--scores", "scores.parquet", "--max-extra", "2", "--run", "runs/joint"]
    run("enhance", "--epochs", "1", *words, "--out", "runs/by-scores")
    by_scores = load_run(folder / "runs/by-scores").metrics
    assert by_scores["rows"].tolist() == [first]
    assert by_scores["validation_loss"][0] == enhanced.metrics["validation_loss"][0]

    words = ["--level", "modality", "--epochs", "2", "--max-extra", "1", "--set", "alpha=20"]
    run("enhance", *words, "--run", "runs/joint")
    rows = load_run(folder / "runs/joint-modality").metrics["rows"]
    assert ((rows > samples) & (rows <= 2 * samples)).all()

    names = ["runs/joint", "runs/joint-sample", "runs/joint-modality"]
    choice = [word for name in names for word in ("--run", name)]
    answers = json.loads(run("evaluate", *choice, "--json", "--quiet"))
    for answer, name in zip(answers, names, strict=True):
        assert answer["run"] == name
        assert list(answer["coalitions"]) == coalitions
        assert answer["samples"] == dataset.rows["test"]
        assert list(answer["contributions"]) == modalities
        assert sum(answer["contributions"].values()) == pytest.approx(n * answer["accuracy"])
    assert "change" not in run("evaluate", *choice)  # three runs stand side by side
    return said


def test_the_six_views(mmcoop, views, tmp_path):
    modalities = ["fac", "fou", "kar", "mor", "pix", "zer"]
    build = ["features", "--source", str(views), "--label", "last"]
    said = go_through(mmcoop, tmp_path, build, modalities, [])
    shown = [line for line in said.splitlines() if "accuracy" in line]
    assert len(shown) == 6 + 6 + 1
    assert load_run(tmp_path / "runs/joint-sample").best_epoch["validation_accuracy"] > 0.9
    assert "50 other coalitions: see --json" in said


def test_three_of_the_six_views(mmcoop, views, tmp_path):
    build = ["features", "--source", str(views), "--label", "last"]
    for name in ("zer", "fou", "mor"):
        build += ["--modality", f"{name}=mfeat-{name}.csv"]
    said = go_through(mmcoop, tmp_path, build, ["fou", "mor", "zer"], [])
    shown = [line for line in said.splitlines() if "accuracy" in line]
    assert len(shown) == 7
    assert "other coalitions" not in said


@pytest.fixture
def recordings(tmp_path) -> Path:
    """36 recordings of 3 classes: sound, picture and motion, each of which tells the class about
    half of the time; a table that lists them is beside the folder."""
    source = tmp_path / "recordings"
    for name in ("sound", "picture", "motion"):
        (source / name).mkdir(parents=True)
    rng = np.random.default_rng(2)
    rows = []
    for i in range(36):
        label = i % 3
        tells = rng.random(3) < 0.6
        tone = np.sin(2 * np.pi * 400 * 3**label * np.arange(9600) / 16000)
        heard = rng.normal(0, 0.05, 9600) + 0.3 * tone * tells[0]
        wavfile.write(source / f"sound/{i}.wav", 16000, (32767 * heard).astype(np.int16))
        picture = rng.integers(0, 100, (32, 32, 3))
        picture[:, 10 * label : 10 * label + 10] += 150 * int(tells[1])
        Image.fromarray(picture.astype(np.uint8)).save(source / f"picture/{i}.png")
        motion = rng.normal(0, 0.3, (25, 3))
        motion[:, label] += np.sin(np.arange(25)) * tells[2]
        np.save(source / f"motion/{i}.npy", motion)
        files = {"sound": f"sound/{i}.wav", "picture": f"picture/{i}.png"}
        rows.append({"id": f"r{i}", "label": "abc"[label], **files, "motion": f"motion/{i}.npy"})
    pd.DataFrame(rows).to_csv(tmp_path / "recordings.csv", index=False)
    return source


def test_a_folder_of_three_modalities(mmcoop, recordings, tmp_path):
    build = ["folder", "--source", str(recordings), "--size", "28", "--workers", "1"]
    build += ["--manifest", str(tmp_path / "recordings.csv")]
    for name in ("sound", "picture", "motion"):
        build += ["--modality", f"{name}={name}"]
    train = ["--encoder", "sound=conv", "--encoder", "picture=conv", "--lr", "0.003"]
    go_through(mmcoop, tmp_path, build, ["motion", "picture", "sound"], train)

"""Advice for training follows what the modalities are, not the recipe they come from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmcoop.core.models.encoders import ENCODERS as ALL_ENCODERS
from mmcoop.datasets.advice import ENCODERS, training_advice
from mmcoop.datasets.clip_reader import Reading
from mmcoop.datasets.modality import KINDS, Modality
from mmcoop.datasets.reader import open_dataset
from mmcoop.recipes.features import Features
from mmcoop.recipes.folder import Folder
from mmcoop.training.config import TrainConfig, make_config

VECTOR, SERIES = (
    Modality("vector", (4,), "float32", "mlp"),
    Modality("series", (9, 2), "float32", "conv1d"),
)


@pytest.mark.parametrize("kinds", [["frames", "spectrogram"], ["frames", "flow"], ["image"]])
def test_clips_are_trained_as_in_the_paper(kinds):
    reading = Reading({kind: (kind, "path") for kind in kinds})
    for modalities in (reading.modalities(), {**reading.modalities(), "table": VECTOR}):
        advice = training_advice(modalities)
        assert make_config(advice.get("train", {})) == TrainConfig()


def test_small_encoders_learn_faster():
    for modalities in ({"a": VECTOR, "b": VECTOR}, {"a": VECTOR, "b": SERIES}):
        advice = training_advice(modalities)
        config = make_config(advice["train"], {"method": "sample"})
        assert config.lr > TrainConfig().lr
        assert config.warmup < config.epochs < TrainConfig().epochs
        assert make_config(advice["train"], advice["enhance"]).epochs < config.epochs


def test_a_recipe_may_know_better_how_long_to_train():
    advice = training_advice({"a": VECTOR}, epochs=7, warmup=2, enhance_epochs=3)
    usual = training_advice({"a": VECTOR})
    assert advice["train"] == {**usual["train"], "epochs": 7, "warmup": 2}
    assert advice["enhance"] == {**usual["enhance"], "epochs": 3}


def test_every_kind_has_an_encoder():
    assert ENCODERS.keys() == KINDS.keys()
    assert set(ENCODERS.values()) <= set(ALL_ENCODERS)


def test_the_same_embeddings_are_trained_the_same_from_tables_and_from_files(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [{"id": f"s{k}", "label": "ab"[k % 2]} for k in range(20)]
    (tmp_path / "tables").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "tables" / "labels.csv", index=False)
    for name, shape in (("text", (5,)), ("pose", (6, 3))):
        stored = rng.normal(size=(20, *shape)).astype(np.float32)
        np.save(tmp_path / "tables" / f"{name}.npy", stored)
        (tmp_path / name).mkdir()
        for row, one in zip(rows, stored, strict=True):
            row[name] = f"{name}/{row['id']}.npy"
            np.save(tmp_path / row[name], one)
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    Features(source=tmp_path / "tables").build(tmp_path / "a")
    modality = ["text=text", "pose=pose"]
    folder = Folder(source=tmp_path, manifest=tmp_path / "clips.csv", modality=modality)
    folder.build(tmp_path / "b", workers=1)
    tables, files = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    assert files.defaults == tables.defaults == training_advice(files.modalities)
    for name, spec in files.modalities.items():
        other = tables.modalities[name]
        assert (spec.kind, spec.shape, spec.encoder) == (other.kind, other.shape, other.encoder)

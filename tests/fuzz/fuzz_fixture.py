"""What readers are tried on, whole: a data set, a run, scores, a comparison, unfinished work."""

import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mmcoop.comparison.folder import ComparisonSpec, load_comparison
from mmcoop.comparison.starting import new_comparison
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import open_dataset
from mmcoop.datasets.writer import Header, continue_dataset, write_dataset
from mmcoop.training.config import make_config
from mmcoop.training.evaluation import evaluate_run, valuate_run
from mmcoop.training.train import train

CLASSES = ["north", "south"]
PLAN = "what is being built"


def jpeg(side: int, seed: int) -> bytes:
    """A small picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def header() -> Header:
    """Three modalities: two of numbers, one of pictures."""
    return Header(
        name="small",
        recipe="tests",
        options={"seed": 0, "source": "here"},
        classes=CLASSES,
        modalities={
            "sound": Modality("vector", (3,), "float32", "mlp", training={"noise": {"scale": 0.1}}),
            "touch": Modality(
                "series", (4, 2), "float16", "conv1d", mean=(0.0, 0.1), std=(1.0, 2.0)
            ),
        },
        source="made by the tests",
        columns={"quality": "float32", "note": "string"},
        defaults={"train": {"epochs": 2}},
        report={"files": {"sound": "a.csv"}, "joined": "row by row"},
    )


def add_samples(writer, splits: str = "tttttttttvvvveee") -> None:
    """Samples of each split."""
    rng = np.random.default_rng(0)
    names = {"t": "train", "v": "validation", "e": "test"}
    for k, letter in enumerate(splits):
        writer.add(
            names[letter],
            id=f"sample-{k}",
            label=k % 2,
            group=f"group-{k}",
            quality=k / 10,
            note="n",
            sound=rng.normal(k % 2, 1, 3),
            touch=rng.normal(k % 2, 1, (4, 2)),
        )


class _Stop(Exception):
    pass


def build(folder: Path) -> None:
    """Make everything in `folder`."""
    data = folder / "data"
    with write_dataset(data, header()) as writer:
        add_samples(writer)
        writer.reject("gone", "missing", "no file found")
    dataset = open_dataset(data)
    config = make_config({"epochs": 2, "batch_size": 8, "lr": 1e-3, "seed": 0})
    run = train(folder / "run", dataset, config)
    valuate_run(run, dataset, "all", folder / "scores.parquet")
    tested = evaluate_run(run, dataset, out=folder / "tested.parquet")
    with suppress(_Stop), continue_dataset(folder / "unfinished", header(), PLAN) as writer:
        add_samples(writer)
        writer.reject("gone", "missing", "no file found")
        for split in ("train", "validation", "test"):
            writer._flush(split)
        raise _Stop
    frames = folder / "frames"
    modality = Modality("frames", (2, 3, 8, 8), "uint8", "resnet18", size=8)
    pictures = Header("f", "tests", {}, CLASSES, {"seen": modality}, "tests")
    with write_dataset(frames, pictures) as writer:
        for k, split in enumerate(("train", "train", "validation", "test")):
            writer.add(split, id=f"{k}", label=k % 2, group=f"{k}", seen=[jpeg(12, k), jpeg(12, 9)])
    _comparison(folder, dataset, run, tested)


def _comparison(folder: Path, dataset, run, tested) -> None:
    compared = folder / "compared"
    new_comparison(
        compared, dataset, ComparisonSpec(("joint", "random"), seeds=(0, 1), settings={"warmup": 1})
    )
    (compared / "scores").mkdir()
    (compared / "results").mkdir()
    rows = []
    for method in ("joint", "random"):
        for seed in (0, 1):
            name = f"{method}-concat-seed{seed}"
            evaluated = (folder / "tested.parquet").read_bytes()
            (compared / "scores" / f"{name}.parquet").write_bytes(evaluated)
            rows.append(
                {
                    "run": name,
                    "method": method,
                    "fusion": "concat",
                    "seed": seed,
                    "epochs": 2,
                    "best_epoch": 1,
                    "validation_accuracy": 0.5,
                    "accuracy": 0.5 + 0.1 * seed,
                    "macro_f1": 0.5,
                    "mean_average_precision": 0.5,
                    "accuracy_sound": 0.4,
                    "accuracy_sound+touch": 0.5 + 0.1 * seed,
                    "contribution_sound": 0.7,
                    **run.cost,
                    "lr": 1e-3,
                    "options": "{}",
                }
            )
    pd.DataFrame(rows).to_parquet(compared / "runs.parquet", index=False)
    outcome = {
        "run": "joint-concat-seed0",
        "config": run.config.to_json(),
        "epochs": 2,
        "best_epoch": 1,
        "validation": {"accuracy": 0.5, "loss": 0.7},
        "cost": run.cost,
        "last_epoch_rows": 18,
        "test": tested,
    }
    (compared / "results" / "joint-concat-seed0.json").write_text(json.dumps(outcome))
    assert load_comparison(compared).has_runs

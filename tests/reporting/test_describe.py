"""What a data set, a run or a scores file is."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError
from mmcoop.reporting.describe import dataset_facts, run_facts, scores_facts
from mmcoop.reporting.tables import facts_table
from mmcoop.scores.scores import Scores
from mmcoop.training.config import make_config
from mmcoop.training.evaluation import valuate_run
from mmcoop.training.run import load_run
from mmcoop.training.train import train


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "modality"
    config = make_config(
        {
            "method": "modality",
            "options": {"fraction": 0.5},
            "epochs": 3,
            "batch_size": 12,
            "lr": 1e-3,
            "warmup": 1,
            "seed": 4,
        }
    )
    train(folder, open_dataset(tiny_dataset), config)
    return folder


def plain(facts: dict[str, Any]) -> bool:
    """Whether JSON has all of it as it is."""
    return json.loads(json.dumps(facts)) == facts


# --- data sets


def test_the_facts_of_a_data_set(tiny_dataset):
    dataset = open_dataset(tiny_dataset)
    assert dataset_facts(dataset) == {
        "dataset": str(tiny_dataset),
        "name": "tiny",
        "recipe": "tiny",
        "options": {"seed": 0},
        "source": "made by the tests",
        "samples": {"train": 36, "validation": 12, "test": 12},
        "classes": ["left", "middle", "right"],
        "modalities": {
            "features": {"kind": "vector", "shape": [6], "dtype": "float32", "encoder": "mlp"},
            "motion": {
                "kind": "series",
                "shape": [20, 3],
                "dtype": "float32",
                "encoder": "conv1d",
            },
            "picture": {
                "kind": "image",
                "shape": [1, 28, 28],
                "dtype": "float16",
                "encoder": "conv",
            },
        },
        "columns": ["quality"],
        "advice": {},
        "rejects": {},
        "groups_in_several_splits": {},
        "fingerprint": dataset.fingerprint,
    }
    assert plain(dataset_facts(dataset))


def test_many_classes_are_cut_short_and_large_numbers_are_grouped_in_the_table(tmp_path):
    header = Header(
        name="many",
        recipe="tests",
        options={},
        classes=[f"class{k}" for k in range(13)],
        modalities={"x": Modality("vector", (1,), "float32", "mlp")},
        source="made by the tests",
    )
    with write_dataset(tmp_path / "many", header) as writer:
        for split, rows in (("train", 1234), ("validation", 1), ("test", 2)):
            for i in range(rows):
                writer.add(split, id=f"{split}{i}", label=0, group=f"{split}{i}", x=[0.0])
        writer.reject("gone", "unreadable")
    table = facts_table(dataset_facts(open_dataset(tmp_path / "many")))
    facts = dict(zip(*(column._cells for column in table.columns), strict=True))
    names = ", ".join(f"class{k}" for k in range(12))
    assert facts["classes"] == f"13: {names}, …"
    assert facts["samples"] == "train 1,234, validation 1, test 2"
    assert facts["options"] == facts["columns"] == "none"
    assert facts["rejects"] == "unreadable 1"
    assert facts["modalities x"] == "kind vector, shape 1, dtype float32, encoder mlp"


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1234])
def test_rejects_are_listed_where_they_are_few(tmp_path, count):
    header = Header(
        name="small",
        recipe="tests",
        options={},
        classes=["one", "other"],
        modalities={"x": Modality("vector", (1,), "float32", "mlp")},
        source="made by the tests",
    )
    with write_dataset(tmp_path / "small", header) as writer:
        for split in SPLITS:
            writer.add(split, id=split, label=0, group=split, x=[0.0])
        for k in range(count):
            writer.reject(f"{k:04d}", "missing", f"no file found: {k}.mp4")
    dataset = open_dataset(tmp_path / "small")
    facts = dataset_facts(dataset)
    rows = [
        {"id": f"{k:04d}", "reason": "missing", "detail": f"no file found: {k}.mp4"}
        for k in range(count)
    ]
    few = {"rejected": rows} if count else {}
    many = {"all_rejects": f"mmcoop info {tmp_path}/small/rejects.parquet"}
    told = {name: facts[name] for name in ("rejected", "all_rejects") if name in facts}
    assert told == (few if count <= 10 else many)
    assert facts["rejects"] == ({"missing": count} if count else {})
    assert plain(facts)
    (tmp_path / "small" / "rejects.parquet").unlink()
    assert not {"rejected", "all_rejects"} & dataset_facts(dataset).keys()


def test_what_was_left_out_shared_and_reported_is_among_the_facts(tmp_path):
    header = Header(
        name="small",
        recipe="tests",
        options={"snr": [-6.0, 3.0], "limit": None},
        classes=["one", "other"],
        modalities={"x": Modality("vector", (1,), "float32", "mlp")},
        source="made by the tests",
        defaults={"train": {"epochs": 3}},
        report={"asked_for": {"train": 5}, "moved": {"test to train": 1}},
        shared_groups=True,
    )
    with write_dataset(tmp_path / "small", header) as writer:
        for split in ("train", "validation", "test"):
            writer.add(split, id=split, label=0, group=split.strip("in"), x=[0.0])
            writer.add(split, id=f"{split}2", label=0, group="one", x=[0.0])
        for id, reason in (("a", "missing"), ("b", "missing"), ("c", "unreadable")):
            writer.reject(id, reason)
    facts = dataset_facts(open_dataset(tmp_path / "small"))
    assert facts["options"] == {"snr": [-6.0, 3.0], "limit": None}
    assert facts["advice"] == {"train": {"epochs": 3}}
    assert facts["rejects"] == {"missing": 2, "unreadable": 1}
    assert facts["groups_in_several_splits"] == {"train+validation+test": 1}
    assert facts["asked_for"] == {"train": 5}
    assert facts["moved"] == {"test to train": 1}
    assert plain(facts)


# --- runs


def test_the_facts_of_a_run(trained, tiny_dataset):
    run = load_run(trained)
    metrics = run.metrics
    best = metrics[metrics["epoch"] == run.best_epoch["epoch"]].iloc[0]
    assert run_facts(run) == {
        "run": str(trained),
        "status": "finished",
        "method": "modality",
        "method_options": {"fraction": 0.5, "rule": "linear", "alpha": 1.0},
        "modalities": {"features": "mlp", "motion": "conv1d", "picture": "conv"},
        "fusion": "concat",
        "dataset": {"name": "tiny", "path": str(tiny_dataset)},
        "started_from": "scratch",
        "seed": 4,
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "epochs": 3,
        "epochs_done": 3,
        "warmup": run.config.warmup,
        "best_epoch": int(best["epoch"]),
        "validation_accuracy": round(best["validation_accuracy"], 4),
        "rows_encoded": metrics["rows_encoded"].sum(),
        "rows_valued": 2 * 18 * 3,  # twice half of 36 samples, three modalities each
        "seconds": round(metrics["seconds"].sum(), 1),
        "peak_memory": round(metrics["peak_memory"].max(), 1),
    }
    assert plain(run_facts(run))


def test_a_child_names_the_run_it_started_from(trained, tiny_dataset, tmp_path):
    config = make_config({"epochs": 1, "batch_size": 12})
    dataset = open_dataset(tiny_dataset)
    child = train(tmp_path / "child", dataset, config, parent=load_run(trained))
    facts = run_facts(child)
    assert facts["started_from"] == str(trained)
    assert facts["method_options"] == {}


def test_a_run_without_an_epoch_has_no_best_one_and_no_cost(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "fresh")
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.parquet").unlink()
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "status": "stopped"}))
    facts = run_facts(load_run(folder))
    assert facts["status"] == "stopped"
    assert facts["epochs_done"] == 0
    assert not {"best_epoch", "rows_encoded", "rows_valued", "seconds"} & facts.keys()


def test_a_run_killed_between_its_first_metrics_and_its_first_checkpoint_has_facts(
    trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "killed")
    shutil.rmtree(folder / "checkpoints")
    metrics = pd.read_parquet(folder / "metrics.parquet")
    metrics.iloc[:1].to_parquet(folder / "metrics.parquet", index=False)
    facts = run_facts(load_run(folder))
    assert facts["run"] == str(folder)
    assert "best_epoch" not in facts


# --- scores


def test_the_facts_of_scores(trained, tiny_dataset, tmp_path):
    run, dataset = load_run(trained), open_dataset(tiny_dataset)
    path = tmp_path / "scores.parquet"
    valuate_run(run, dataset, "validation", path)
    facts = scores_facts(Scores.open(path))
    assert facts["scores"] == str(path)
    assert facts["samples"] == 12
    assert facts["columns"] == list(pd.read_parquet(path).columns)
    assert facts["modalities"] == ["features", "motion", "picture"]
    assert facts["run"] == "modality"
    assert facts["weights"] == run.weights_hash
    assert facts["dataset"] == {"name": "tiny", "fingerprint": dataset.fingerprint}
    assert (facts["split"], facts["value"], facts["absent"], facts["estimator"]) == (
        "validation",
        "paper",
        "zero",
        "exact",
    )
    assert facts["versions"]["torch"] == version("torch")
    assert "format" not in facts
    assert plain(facts)


@pytest.mark.parametrize("content", ["text", "parquet"])
def test_what_is_not_a_scores_file_is_refused(tmp_path, content):
    path = tmp_path / "scores.parquet"
    if content == "text":
        path.write_text("id,split")
    else:
        pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop"):
        Scores.open(path)

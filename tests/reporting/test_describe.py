"""What a data set, a run or a scores file is."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.store import open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError
from mmcoop.reporting.describe import dataset_facts, run_facts, scores_facts
from mmcoop.training.config import make_config
from mmcoop.training.evaluation import valuate_run
from mmcoop.training.loop import train
from mmcoop.training.run import load_run


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


# --- data sets


def test_the_facts_of_a_data_set(tiny_dataset):
    dataset = open_dataset(tiny_dataset)
    assert dataset_facts(dataset) == {
        "dataset": str(tiny_dataset),
        "name": "tiny",
        "recipe": "tiny",
        "options": "seed=0",
        "source": "made by the tests",
        "samples": "train 36, validation 12, test 12",
        "classes": "3: left, middle, right",
        "modality features": "vector 6 float32, encoder mlp",
        "modality motion": "series 20×3 float32, encoder conv1d",
        "modality picture": "image 1×28×28 float16, encoder conv",
        "columns": "quality",
        "rejects": 0,
        "fingerprint": dataset.fingerprint,
    }


def test_many_classes_are_cut_short_and_large_numbers_are_grouped(tmp_path):
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
    facts = dataset_facts(open_dataset(tmp_path / "many"))
    names = ", ".join(f"class{k}" for k in range(12))
    assert facts["classes"] == f"13: {names}, …"
    assert facts["samples"] == "train 1,234, validation 1, test 2"
    assert facts["options"] == facts["columns"] == "none"
    assert facts["rejects"] == 1


# --- runs


def test_the_facts_of_a_run(trained, tiny_dataset):
    run = load_run(trained)
    metrics = run.metrics
    best = metrics[metrics["epoch"] == run.best_epoch["epoch"]].iloc[0]
    assert run_facts(run) == {
        "run": str(trained),
        "status": "finished",
        "method": "modality",
        "method options": "fraction=0.5, rule=linear, alpha=1.0",
        "modalities": "features (mlp), motion (conv1d), picture (conv)",
        "fusion": "concat",
        "data set": f"tiny at {tiny_dataset}",
        "started from": "scratch",
        "seed": 4,
        "optimizer": "adam, lr 0.001, weight decay 0.0001",
        "epochs": "3 of 3",
        "warm-up": run.config.warmup,
        "best epoch": (
            f"{int(best['epoch'])}, validation accuracy {100 * best['validation_accuracy']:.1f} %"
        ),
        "rows encoded": f"{metrics['rows_encoded'].sum():,}",
        "rows valued": str(2 * 18 * 3),  # twice half of 36 samples, three modalities each
        "seconds": f"{round(metrics['seconds'].sum(), 1):,}",
    }


def test_a_child_names_the_run_it_started_from(trained, tiny_dataset, tmp_path):
    config = make_config({"epochs": 1, "batch_size": 12})
    dataset = open_dataset(tiny_dataset)
    child = train(tmp_path / "child", dataset, config, parent=load_run(trained))
    facts = run_facts(child)
    assert facts["started from"] == str(trained)
    assert facts["method options"] == "none"


def test_a_run_without_an_epoch_has_no_best_one_and_no_cost(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "fresh")
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.parquet").unlink()
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "status": "stopped"}))
    facts = run_facts(load_run(folder))
    assert facts["status"] == "stopped"
    assert facts["epochs"] == "0 of 3"
    assert not {"best epoch", "rows encoded", "rows valued", "seconds"} & facts.keys()


def test_a_run_killed_between_its_first_metrics_and_its_first_checkpoint_has_facts(
    trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "killed")
    shutil.rmtree(folder / "checkpoints")
    metrics = pd.read_parquet(folder / "metrics.parquet")
    metrics.iloc[:1].to_parquet(folder / "metrics.parquet", index=False)
    facts = run_facts(load_run(folder))
    assert facts["run"] == str(folder)
    assert "best epoch" not in facts


# --- scores


def test_the_facts_of_scores(trained, tiny_dataset, tmp_path):
    run, dataset = load_run(trained), open_dataset(tiny_dataset)
    path = tmp_path / "scores.parquet"
    valuate_run(run, dataset, "validation", path)
    facts = scores_facts(path)
    assert facts["scores"] == str(path)
    assert facts["samples"] == "12"
    assert facts["columns"] == ", ".join(pd.read_parquet(path).columns)
    assert facts["modalities"] == "features, motion, picture"
    assert facts["run"] == "modality"
    assert facts["weights"] == run.weights_hash
    assert facts["dataset"] == f"name tiny, fingerprint {dataset.fingerprint}" or (
        facts["dataset"] == f"fingerprint {dataset.fingerprint}, name tiny"
    )
    assert (facts["split"], facts["value"], facts["absent"], facts["estimator"]) == (
        "validation",
        "paper",
        "zero",
        "exact",
    )
    assert "torch " in facts["versions"]
    assert "format" not in facts


@pytest.mark.parametrize("content", ["text", "parquet"])
def test_what_is_not_a_scores_file_is_refused(tmp_path, content):
    path = tmp_path / "scores.parquet"
    if content == "text":
        path.write_text("id,split")
    else:
        pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop"):
        scores_facts(path)

"""What `train` and `enhance` say at the end."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.reporting.summaries import best_metrics, enhanced, trained
from mmcoop.training.config import make_config
from mmcoop.training.run import Run, load_run
from mmcoop.training.train import train

COALITIONS = [
    "features",
    "motion",
    "features+motion",
    "picture",
    "features+picture",
    "motion+picture",
    "features+motion+picture",
]
MODALITIES = ["features", "motion", "picture"]


@pytest.fixture(scope="module")
def runs(tiny_dataset, tmp_path_factory) -> tuple[Run, Run]:
    """A run, and one that was fine-tuned from it; the last epoch of both is not their best."""
    folder: Path = tmp_path_factory.mktemp("runs")
    # so large a step in the last epoch does harm
    settings = {"batch_size": 12, "lr": 2e-3, "step_epochs": 2, "step_factor": 500.0, "epochs": 3}
    dataset = open_dataset(tiny_dataset)
    before = train(folder / "joint", dataset, make_config(settings))
    config = make_config(settings, {"method": "sample", "warmup": 0})
    after = train(folder / "joint-sample", dataset, config, parent=before)
    for run in (before, after):
        assert run.best_epoch["epoch"] < 3
    return before, after


def best_row(run: Run) -> pd.Series:
    """The row of the best epoch, found from the metrics alone."""
    metrics = pd.read_parquet(run.folder / "metrics.parquet")
    order = metrics.sort_values(
        ["validation_accuracy", "validation_loss"], ascending=[False, True], kind="stable"
    )
    return order.iloc[0]


def lines(tables: list) -> list[str]:
    """What a person reads, line by line."""
    console = Console(record=True, width=200, file=io.StringIO(), highlight=False)
    for table in tables:
        console.print(table, soft_wrap=isinstance(table, str), markup=False)
    return console.export_text().splitlines()


def cells(tables: list) -> dict[str, list[str]]:
    """The rows of the tables by their first cell."""
    rows = [line.strip("│┃").split("│") for line in lines(tables) if "│" in line]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_best_metrics_are_the_row_of_the_best_epoch(runs):
    for run in runs:
        assert best_metrics(run) == pytest.approx(best_row(run).to_dict(), nan_ok=True)


def test_a_training_ends_with_the_validation_numbers_of_its_best_epoch(runs):
    before, _ = runs
    answer, _ = trained(before)
    best = best_row(before)
    names = [
        "validation_loss",
        *(f"validation_accuracy_{c}" for c in COALITIONS),
        *(f"validation_contribution_{m}" for m in MODALITIES),
    ]
    assert answer == {
        "run": str(before.folder),
        "status": "finished",
        "epoch": best["epoch"],
        "validation": {name: best[name] for name in names},
        "cost": before.cost,
    }


def test_a_training_shows_the_accuracy_of_every_coalition(runs):
    before, _ = runs
    best = best_row(before)
    _, tables = trained(before)
    assert lines(tables)[0] == (
        f"{before.folder}, validation split, best epoch ({int(best['epoch'])}):"
    )
    assert cells(tables) == {
        name: [f"{100 * best[f'validation_accuracy_{name}']:.1f} %"] for name in COALITIONS
    }


def test_an_enhancement_sets_the_best_epochs_beside_each_other(runs):
    before, after = runs
    answer, _ = enhanced(before, after)
    old, new = best_row(before), best_row(after)
    assert answer["run"] == str(after.folder)
    assert answer["started_from"] == str(before.folder)
    assert answer["epoch"] == new["epoch"]
    assert list(answer["before"]) == list(answer["validation"])
    for name, number in answer["before"].items():
        assert number == old[name]
        assert answer["validation"][name] == new[name]
    assert answer["cost"] == after.cost != before.cost


def test_an_enhancement_shows_what_it_changed(runs):
    before, after = runs
    old, new = best_row(before), best_row(after)
    _, tables = enhanced(before, after)
    assert lines(tables)[0] == (f"{before.folder} → {after.folder}, validation split, best epochs:")
    found = cells(tables)
    expected = {}
    for label, name, scale, digits in (
        ("loss", "validation_loss", 1, 3),
        *((f"accuracy {c}, %", f"validation_accuracy_{c}", 100, 1) for c in COALITIONS),
        *((f"contribution {m}", f"validation_contribution_{m}", 1, 3) for m in MODALITIES),
    ):
        first, then = scale * old[name], scale * new[name]
        expected[label] = [
            f"{first:.{digits}f}",
            f"{then:.{digits}f}",
            f"{then - first:+.{digits}f}",
        ]
    assert found == expected


def test_of_many_modalities_an_enhancement_shows_the_telling_coalitions(tmp_path):
    header = Header(
        name="four",
        recipe="tests",
        options={},
        classes=["no", "yes"],
        modalities={m: Modality("vector", (2,), "float32", "mlp") for m in "abcd"},
        source="made by the tests",
    )
    with write_dataset(tmp_path / "data", header) as writer:
        for split in SPLITS:
            for i in range(6):
                writer.add(
                    split,
                    id=f"{split}-{i}",
                    label=i % 2,
                    group=f"{split}-{i}",
                    **{m: [i, 1] for m in "abcd"},
                )
    dataset = open_dataset(tmp_path / "data")
    before = train(tmp_path / "joint", dataset, make_config({"epochs": 1}))
    config = make_config({"epochs": 1, "method": "sample", "warmup": 0})
    after = train(tmp_path / "joint-sample", dataset, config, parent=before)
    answer, tables = enhanced(before, after)
    alone, all_but_one = list("abcd"), ["a+b+c", "a+b+d", "a+c+d", "b+c+d"]
    assert [name for name in cells(tables) if name] == [
        "loss",
        *(f"accuracy {name}, %" for name in (*alone, *all_but_one, "a+b+c+d")),
        *(f"contribution {m}" for m in alone),
    ]
    assert lines(tables)[-1] == "6 other coalitions: see --json"
    assert len([name for name in answer["validation"] if "accuracy" in name]) == 15


def test_the_answers_are_plain_json(runs):
    before, after = runs
    for answer in (trained(before)[0], enhanced(before, after)[0]):
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_a_run_from_disk_says_the_same(runs):
    before, _ = runs
    assert trained(load_run(before.folder))[0] == trained(before)[0]


def test_contributions_by_different_values_are_not_compared(runs, tiny_dataset, tmp_path):
    """By a graded value nothing may be far below its share: that no example was added is said."""
    before, _ = runs
    settings = {"batch_size": 12, "lr": 1e-9, "epochs": 1, "method": "sample", "warmup": 0}
    config = make_config(settings, {"value": "probability"})
    after = train(tmp_path / "run", open_dataset(tiny_dataset), config, parent=before)
    answer, tables = enhanced(before, after)
    assert not any("contribution" in name for name in answer["before"])
    assert any("probability" in str(part) and "paper" in str(part) for part in tables)
    added = int(after.metrics["rows"].iloc[0]) - 12
    assert any("no training example was added" in str(part) for part in tables) == (added == 0)

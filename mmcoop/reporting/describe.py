"""What a dataset folder, a run folder or a scores file is, in names and values."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmcoop.datasets.store import Dataset
from mmcoop.scores import read_scores_details
from mmcoop.training.run import Run


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What a data set holds, and how much was left out."""
    return {
        "dataset": str(dataset.folder),
        "name": dataset.name,
        "recipe": dataset.recipe,
        "options": ", ".join(f"{k}={v}" for k, v in dataset.options.items()) or "none",
        "source": dataset.source,
        "samples": ", ".join(f"{split} {rows:,}" for split, rows in dataset.rows.items()),
        "classes": f"{len(dataset.classes)}: {_some(dataset.classes)}",
        **{
            f"modality {name}": f"{spec.kind} {'×'.join(map(str, spec.shape))} {spec.dtype}, "
            f"encoder {spec.encoder}"
            for name, spec in dataset.modalities.items()
        },
        "columns": ", ".join(dataset.columns) or "none",
        **{
            f"advice to {name}": ", ".join(f"{k} {v}" for k, v in advice.items())
            for name, advice in dataset.defaults.items()
        },
        "rejects": dataset.rejects,
        "fingerprint": dataset.fingerprint,
    }


def run_facts(run: Run) -> dict[str, Any]:
    """How a run was trained, how far it got, and what it took."""
    config = run.config
    metrics = run.metrics
    facts: dict[str, Any] = {
        "run": str(run.folder),
        "status": run.status,
        "method": config.method,
        "method options": ", ".join(f"{k}={v}" for k, v in config.options.items()) or "none",
        "modalities": ", ".join(f"{m} ({e})" for m, e in run.architecture.encoders.items()),
        "fusion": config.fusion,
        "data set": f"{run.dataset['name']} at {run.dataset['path']}",
        "started from": run.parent["path"] if run.parent else "scratch",
        "seed": config.seed,
        "optimizer": f"{config.optimizer}, lr {config.lr:g}, weight decay {config.weight_decay:g}",
        "epochs": f"{len(metrics)} of {config.epochs}",
        "warm-up": config.warmup,
    }
    if not metrics.empty and run.best.is_dir():
        best = run.best_epoch
        facts["best epoch"] = (
            f"{best['epoch']}, validation accuracy {100 * best['validation_accuracy']:.1f} %"
        )
        facts |= {key.replace("_", " "): f"{value:,}" for key, value in run.cost.items()}
    return facts


def scores_facts(path: Path) -> dict[str, Any]:
    """What a scores file says of itself."""
    details = read_scores_details(path)
    file = pq.ParquetFile(path)
    return {
        "scores": str(path),
        "samples": f"{file.metadata.num_rows:,}",
        "columns": ", ".join(file.schema_arrow.names),
        **{
            key: ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, dict)
            else ", ".join(map(str, value))
            if isinstance(value, list)
            else value
            for key, value in details.items()
            if key != "format"
        },
    }


def _some(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, …"

"""What a dataset folder, a run folder or a scores file is: names and values, as JSON has them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmcoop.datasets.recipes.clips import Listing, by_split
from mmcoop.datasets.store import Dataset
from mmcoop.scores import read_scores_details
from mmcoop.training.run import Run


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What a data set holds, and what was left out."""
    return {
        "dataset": str(dataset.folder),
        "name": dataset.name,
        "recipe": dataset.recipe,
        "options": dataset.options,
        "source": dataset.source,
        "samples": dataset.rows,
        "classes": dataset.classes,
        "modalities": {
            name: {
                "kind": spec.kind,
                "shape": list(spec.shape),
                "dtype": spec.dtype,
                "encoder": spec.encoder,
            }
            for name, spec in dataset.modalities.items()
        },
        "columns": list(dataset.columns),
        "advice": dataset.defaults,
        "rejects": dataset.rejects,
        "groups_in_several_splits": dataset.leakage,
        **dataset.report,
        "fingerprint": dataset.fingerprint,
    }


def listing_facts(listing: Listing) -> dict[str, Any]:
    """What a recipe would build: what is asked for, what of it is there, what is missing."""
    asked, found, missing = (
        {"clips": len(clips), **by_split(clips)}
        for clips in (listing.clips, listing.found, listing.missing)
    )
    return {
        "recipe": listing.name,
        "classes": list(listing.classes),
        "asked_for": asked,
        "found": found,
        "missing": missing,
        "first_missing": [clip.id for clip in listing.missing[:5]],
        "in_the_source": listing.names,
        "groups_in_several_splits": {"groups": sum(listing.leakage.values()), **listing.leakage},
        "rejects": dict(Counter(reject.reason for reject in listing.rejects)),
        **listing.report,
    }


def run_facts(run: Run) -> dict[str, Any]:
    """How a run was trained, how far it got, and what it took."""
    config = run.config
    metrics = run.metrics
    facts: dict[str, Any] = {
        "run": str(run.folder),
        "status": run.status,
        "method": config.method,
        "method_options": dict(config.options),
        "modalities": dict(run.architecture.encoders),
        "fusion": config.fusion,
        "dataset": {"name": run.dataset["name"], "path": run.dataset["path"]},
        "started_from": run.parent["path"] if run.parent else "scratch",
        "seed": config.seed,
        "optimizer": config.optimizer,
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "epochs": config.epochs,
        "epochs_done": len(metrics),
        "warmup": config.warmup,
    }
    if not metrics.empty and run.best.is_dir():
        best = run.best_epoch
        facts["best_epoch"] = int(best["epoch"])
        facts["validation_accuracy"] = round(float(best["validation_accuracy"]), 4)
        facts |= run.cost
    return facts


def scores_facts(path: Path) -> dict[str, Any]:
    """What a scores file says of itself."""
    details = read_scores_details(path)
    file = pq.ParquetFile(path)
    return {
        "scores": str(path),
        "samples": file.metadata.num_rows,
        "columns": file.schema_arrow.names,
        **{key: value for key, value in details.items() if key != "format"},
    }

"""What a dataset folder, a run folder or a scores file is: names and values, as JSON has them."""

from typing import TYPE_CHECKING, Any

from mmcoop.datasets.reader import REJECTS_FILE, DatasetFolder, read_rejects
from mmcoop.training.config import TrainConfig
from mmcoop.training.run import Run

if TYPE_CHECKING:  # needs torch, which `mmcoop info` loads for scores alone
    from mmcoop.scores.scores import Scores

_MOST_REJECTS = 10


def dataset_facts(dataset: DatasetFolder) -> dict[str, Any]:
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
        **_rejected(dataset),
        "groups_in_several_splits": dataset.leakage,
        **dataset.report,
        "fingerprint": dataset.fingerprint,
    }


def _rejected(dataset: DatasetFolder) -> dict[str, Any]:
    """The rejects of a data set where they are few, else the command that shows them."""
    path = dataset.folder / REJECTS_FILE
    count = sum(dataset.rejects.values())
    if not count or not path.is_file():
        return {}
    if count > _MOST_REJECTS:
        return {"all_rejects": f"mmcoop info {path}"}
    return {"rejected": [reject._asdict() for reject in read_rejects(path)]}


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
        **({"scores": run.scores["path"]} if run.scores else {}),
        "seed": config.seed,
        "optimizer": config.optimizer,
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "epochs": config.epochs,
        "epochs_done": len(metrics),
        "warmup": config.warmup,
        **({"max_extra": config.max_extra} if config.max_extra else {}),
        **({"value": config.value} if config.value != TrainConfig.value else {}),
    }
    if not metrics.empty and run.best.is_dir():
        best = run.best_epoch
        facts["best_epoch"] = int(best["epoch"])
        facts["validation_accuracy"] = round(float(best["validation_accuracy"]), 4)
        facts |= run.cost
    return facts


def scores_facts(scores: "Scores") -> dict[str, Any]:
    """What scores record of themselves."""
    return {
        "scores": str(scores.path),
        "samples": len(scores),
        "columns": scores.columns,
        "modalities": list(scores.modalities),
        **scores.details,
    }

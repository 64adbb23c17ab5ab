"""What `train` and `enhance` say at the end, from the validation numbers in the run folder."""

from typing import Any

from rich.console import RenderableType

from mmcoop.core.modalities import display_coalitions
from mmcoop.reporting.tables import accuracy_table, before_after_table
from mmcoop.training.run import Run, replaced_parent

_ACCURACY, _CONTRIBUTION = "validation_accuracy_", "validation_contribution_"


def trained(run: Run) -> tuple[dict[str, Any], list[RenderableType]]:
    """The best epoch of a run, for machines and for people."""
    best = best_metrics(run)
    accuracy = {
        name.removeprefix(_ACCURACY): share
        for name, share in best.items()
        if name.startswith(_ACCURACY)
    }
    answer = {
        "run": str(run.folder),
        "status": run.status,
        "epoch": int(best["epoch"]),
        "validation": {name: best[name] for name in _validation(best)},
        "cost": run.cost,
    }
    title = f"{run.folder}, validation split, best epoch ({answer['epoch']}):"
    return answer, [title, accuracy_table(accuracy)]


def enhanced(before: Run, after: Run) -> tuple[dict[str, Any], list[RenderableType]]:
    """What a fine-tuning changed, best epoch against best epoch.

    Where `before` has been trained again since, only what the fine-tuning ended with.
    """
    if problem := replaced_parent(after, [before]):
        answer, tables = trained(after)
        return answer | {"parent_problem": problem}, [*tables, problem]
    old, new = best_metrics(before), best_metrics(after)
    same_value = before.config.value == after.config.value
    names = [n for n in _validation(new) if same_value or not n.startswith(_CONTRIBUTION)]
    answer, _ = trained(after)
    answer |= {"started_from": str(before.folder), "before": {name: old[name] for name in names}}
    title = f"{before.folder} → {after.folder}, validation split, best epochs:"
    shown = _telling(names)
    table = before_after_table(_readable(old, shown), _readable(new, shown))
    more = [f"{left} other coalitions: see --json"] if (left := len(names) - len(shown)) else []
    if not same_value:
        more.append(
            f"contributions of the two runs are by different values ({before.config.value} and "
            f"{after.config.value}): compare them with mmcoop evaluate"
        )
    if _added_nothing(after):
        more.append(
            "no training example was added: no contribution was so far below its fair share that "
            "enhancement trains the modality again"
        )
    return answer, [title, table, *more]


def _added_nothing(run: Run) -> bool:
    """Whether no epoch trained on a modality by itself: every example had all modalities."""
    complete = run.metrics["rows"] * len(run.modalities)
    return bool((run.metrics["rows_encoded"] == complete).all())


def best_metrics(run: Run) -> dict[str, float]:
    """The metrics of the epoch that was best on validation."""
    metrics = run.metrics
    row: dict[str, float] = metrics[metrics["epoch"] == run.best_epoch["epoch"]].iloc[0].to_dict()
    return row


def _validation(metrics: dict[str, float]) -> list[str]:
    named = (_ACCURACY, "validation_contribution_", "validation_loss")
    return [name for name in metrics if name.startswith(named)]


def _telling(names: list[str]) -> list[str]:
    """The names, of the accuracies those of telling coalitions alone."""
    accuracies = [name for name in names if name.startswith(_ACCURACY)]
    start = names.index(accuracies[0])
    kept = display_coalitions([name.removeprefix(_ACCURACY) for name in accuracies])
    return [
        *names[:start],
        *(_ACCURACY + name for name in kept),
        *names[start + len(accuracies) :],
    ]


def _readable(metrics: dict[str, float], names: list[str]) -> dict[str, float]:
    readable = {}
    for name in names:
        label = name.removeprefix("validation_").replace("_", " ")
        if label.startswith("accuracy "):
            readable[f"{label}, %"] = 100 * metrics[name]
        else:
            readable[label] = metrics[name]
    return readable

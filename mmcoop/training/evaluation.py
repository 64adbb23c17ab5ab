"""Valuing the samples of a split with the model of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.engine import ValuedBatch, value_batches
from mmcoop.core.valuation.utilisation import (
    branch_accuracies,
    exchanging_fusion,
    utilisation_difference,
)
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import UsageError, check_given, setting
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.scores.dataset import (
    SampleSlice,
    ValuationRequest,
    background,
    check_request,
    score,
    split_slices,
)
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import scores_table
from mmcoop.training.crossfit import cross_fit
from mmcoop.training.device import pick_device
from mmcoop.training.run import Run

_USUAL = ValuationRequest()


def value_run(
    run: Run,
    dataset: DatasetFolder,
    split: str,
    *,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Iterator[ValuedBatch]:
    """Every sample of a split of the run's data set, valued by its best weights, in order.

    Samples go through the evaluation transform. Raises `DataError` where `dataset` is not the one
    the run was trained on.
    """
    run.check_dataset(dataset)
    model = run.model.to(pick_device(runtime.device))
    batches = load_batches(
        dataset.split(split),
        modalities=run.modalities,
        batch_size=run.config.batch_size,
        workers=runtime.workers,
    )
    label = f"valuing the {split} samples of {run.name}"
    yield from value_batches(
        model, runtime.progress.track(batches, label), modalities=run.modalities
    )


def valuate_run(
    run: Run,
    dataset: DatasetFolder,
    split: str,
    out: Path | str,
    *,
    request: ValuationRequest = _USUAL,
    folds: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Scores:
    """Value the samples of a split by a run, and write their scores.

    Args:
        run: The run.
        dataset: The dataset that it was trained on.
        split: A split, or `all`.
        out: The scores file to write, `NAME.parquet`.
        request: How samples are valued, and which columns are added.
        folds: If not 0, each training sample is valued by a model that has not seen it: this many
            models are trained into a folder next to `out` (`cross_fit`).
        overwrite: Whether an existing file is replaced.
        resume: Whether an interrupted valuation is resumed.
        runtime: Device, loader processes, and where progress is shown.

    Returns:
        The scores.

    Raises:
        UsageError: `out` must not be written, folds of another split than train, or a request that
            does not fit.
        DataError: Another dataset than the run's.
    """
    check_given(run, Run, "run", "mmcoop.load_run")
    out = Path(out)
    check_request(request, split, out, overwrite or resume)
    if folds and split != "train":
        raise UsageError(
            f"cross-fitting is of training samples, not of {split} ones: choose "
            f"{setting('split', 'train')}"
        )
    if folds and request.emap:
        raise UsageError(
            f"EMAP's gap is of one model, and cross-fitting has several: no {setting('emap')}"
        )
    run.check_dataset(dataset)
    size = run.config.batch_size
    at = pick_device(runtime.device)

    def represented(model: MultimodalModel) -> tuple[Any, str]:
        return request.absence.over(
            model.to(at), run.modalities, lambda: background(dataset, run.modalities, size)
        )

    model, absent = represented(run.model)
    slices = split_slices(model, dataset, split)
    if folds:
        folder = out.with_name(f"{out.stem}-folds")
        fitted = cross_fit(run, dataset, folds, folder, runtime=runtime)
        slices = (
            SampleSlice(
                f"fold {k}", "train", represented(fold.model)[0], torch.from_numpy(held_out)
            )
            for k, (fold, held_out) in enumerate(fitted, start=1)
        )
    return score(
        slices,
        dataset,
        out,
        split=split,
        modalities=run.modalities,
        request=request,
        details={
            **_details(run, dataset, split, request, absent),
            **({"cross_fit": folds} if folds else {}),
        },
        batch_size=size,
        overwrite=overwrite,
        resume=resume,
        runtime=runtime,
    )


def evaluate_run(
    run: Run,
    dataset: DatasetFolder,
    split: str = "test",
    *,
    out: Path | None = None,
    utilisation: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> dict[str, Any]:
    """Compute the accuracy of every coalition: what is left if modalities are missing.

    The result is a dict, in which shares are in 0…1:

    - `run`, `split`, `samples`, and `groups`: their number, None if every sample is a group; -
    `accuracy`; `macro_f1`, the mean over all classes; `mean_average_precision`, the mean over the
    classes that occur; - `coalitions`: accuracy by coalition; `classes`: the same by class; -
    `contributions`: mean φ by modality; `low_contributing`: the share of samples with φ < 1; -
    `coalition_intervals`, `contribution_intervals`: their 95 % bootstrap intervals; - `cost`: the
    cost of the training, including that of the run it was fine-tuned from; - `utilisation`, if
    requested: by branch its `accuracy`, its accuracy `alone`, and the conditional utilisation
    `rate` of the others (None if undefined). For two modalities also `utilisation_difference`.

    Args:
        run: The run to evaluate.
        dataset: The dataset that it was trained on.
        split: The split to evaluate on.
        out: A file to which the scores of the samples are written.
        utilisation: Whether to compute how much each branch uses the other modalities. Only for
            runs with MMTM; takes a pass over the training samples.
        runtime: Device, loader processes, and where progress is shown.

    Returns:
        The entries above.

    Raises:
        UsageError: `utilisation` for a run without MMTM, or an unknown split.
        DataError: Another dataset than the run's.
    """
    check_given(run, Run, "run", "mmcoop.load_run")
    evaluation = evaluation_of(run, dataset, split, utilisation=utilisation, runtime=runtime)
    if out is not None:
        evaluation.scores.save(out)
    return evaluation.answer


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a run on a split: what `evaluate_run` returns, and the samples' scores."""

    answer: dict[str, Any]
    scores: Scores


def evaluation_of(
    run: Run,
    dataset: DatasetFolder,
    split: str = "test",
    *,
    utilisation: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Evaluation:
    """`evaluate_run`, with what each sample came to, so that runs can be compared."""
    if utilisation:
        exchanging_fusion(run.model)
    tables, labels, logits = [], [], []
    for batch in value_run(run, dataset, split, runtime=runtime):
        tables.append(scores_table(run.modalities, split, batch))
        assert batch.labels is not None
        labels.append(batch.labels)
        logits.append(batch.outputs)
    classes = run.architecture.classes
    details = {**_details(run, dataset, split), "classes": len(classes)}
    scores = Scores(pa.concat_tables(tables), run.modalities, details)
    summary = scores.summary(seed=0)
    accuracy = summary.accuracy
    grand = "+".join(run.modalities)
    groups = scores.dependent_groups
    answer = {
        "run": str(run.folder),
        "split": split,
        "samples": summary.samples,
        "groups": None if groups is None else len({*groups}),
        "accuracy": accuracy[grand],
        "macro_f1": summary.macro_f1[grand],
        "mean_average_precision": _mean_average_precision(torch.cat(labels), torch.cat(logits)),
        "coalitions": accuracy,
        "classes": {
            name: {"samples": count, "coalitions": summary.class_accuracy(label)}
            for label, (name, count) in enumerate(zip(classes, summary.class_samples, strict=True))
            if count
        },
        "contributions": summary.mean_contribution,
        "low_contributing": summary.low_contributing,
        "coalition_intervals": {
            name: list(summary.interval(f"accuracy_{name}"))
            for name in accuracy
            if summary.has(f"accuracy_{name}")
        },
        "contribution_intervals": {
            m: list(summary.interval(f"contribution_{m}")) for m in run.modalities
        },
        "cost": run.whole_cost,
    }
    if utilisation:
        answer |= _utilisation(run, dataset, split, runtime)
    return Evaluation(answer, scores)


def _utilisation(run: Run, dataset: DatasetFolder, split: str, runtime: Runtime) -> dict[str, Any]:
    at = pick_device(runtime.device)

    def batches(name: str, label: str) -> Iterator[Batch]:
        loaded = load_batches(
            dataset.split(name),
            modalities=run.modalities,
            batch_size=run.config.batch_size,
            workers=runtime.workers,
            with_ids=False,
        )
        return (batch.to(at) for batch in runtime.progress.track(loaded, label))

    branches = branch_accuracies(
        run.model.to(at),
        batches("train", f"means of the training samples of {run.name}"),
        batches(split, f"branches of {run.name} on the {split} samples"),
    )
    found: dict[str, Any] = {
        "utilisation": {
            m: {"accuracy": b.together, "alone": b.alone, "rate": b.utilisation}
            for m, b in branches.items()
        }
    }
    if len(branches) == 2:
        found["utilisation_difference"] = utilisation_difference(branches)
    return found


def _details(
    run: Run,
    dataset: DatasetFolder,
    split: str,
    request: ValuationRequest = _USUAL,
    absent: str = "zero",
) -> dict[str, Any]:
    return {
        **request.details(run.modalities, absent),
        "run": run.name,
        "weights": run.weights_hash,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "split": split,
    }


def _mean_average_precision(labels: Tensor, logits: Tensor) -> float:
    """Average precision of one class against the rest, averaged over the classes that are there."""
    n_classes = logits.shape[1]
    here = torch.unique(labels)
    truth = F.one_hot(labels, n_classes)[:, here]
    scores = logits.softmax(1)[:, here].nan_to_num()
    return float(average_precision_score(truth, scores, average="macro"))

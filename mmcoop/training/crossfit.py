"""Cross-fitting: models that have not seen each part of the training samples, nor their groups.

A model remembers samples that it was trained on, and may be right on them from a modality that
tells it nothing of others: valued on these samples, that modality looks well used.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmcoop.datasets.reader import DatasetFolder
from mmcoop.datasets.splitting import folds_by_group
from mmcoop.errors import Interrupted, UsageError, check_given
from mmcoop.locks import locked, recover
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.scores.precomputed import reread_precomputed
from mmcoop.training.run import Run, is_run, load_parent, load_run
from mmcoop.training.train import resume, train


def cross_fit(
    run: Run,
    dataset: DatasetFolder,
    folds: int,
    folder: Path | str,
    *,
    seed: int | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Iterator[tuple[Run, np.ndarray]]:
    """Train the model of `run` again without each fold of its training samples.

    Fold k is trained like `run`, into `folder/fold-k`, on all training samples except those of part
    k; the validation split is the same for all. If `run` was fine-tuned, so is each fold's run,
    from a model that was trained without the part as well (`fold-k-step-1`, …). Finished runs in
    `folder` are kept, interrupted ones are resumed.

    Args:
        run: The run.
        dataset: The dataset that it was trained on.
        folds: The number of parts, at least 2. Groups stay together, classes are spread evenly.
        folder: The folder of the runs.
        seed: Seed of the division; by default that of the run.
        runtime: Device, loader processes, and where progress is shown.

    Yields:
        The run of a fold, and the positions of the training samples that it has not seen.

    Raises:
        UsageError: Fewer than two folds or more than there are groups, or `folder` holds other
            folds.
        DataError: Another dataset than the run's, or the run's parent or scores file has changed.
        Interrupted: Ctrl-C or SIGTERM.
    """
    check_given(run, Run, "run", "mmcoop.load_run")
    run.check_dataset(dataset)
    split = dataset.split("train")
    groups = split.column("group").to_pylist()
    seed = run.config.seed if seed is None else seed
    fold_of = folds_by_group(groups, split.labels.tolist(), folds, seed)
    steps = _steps(run)
    for step in steps:
        if step.scores is not None:
            reread_precomputed(step.scores, dataset, step.modalities)
    return _fold_runs(steps, dataset, fold_of, Path(folder), runtime)


def _steps(run: Run) -> list[Run]:
    """The run, after those that it was fine-tuned from, the first one first."""
    steps = [run]
    while (parent := load_parent(steps[0])) is not None:
        steps.insert(0, parent)
    return steps


def _fold_runs(
    steps: Sequence[Run],
    dataset: DatasetFolder,
    fold_of: np.ndarray,
    folder: Path,
    runtime: Runtime,
) -> Iterator[tuple[Run, np.ndarray]]:
    labels = dataset.split("train").labels
    folds = int(fold_of.max()) + 1
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for k in range(folds):
            held_out = fold_of == k
            title = f"fold {k + 1} of {folds}"
            runtime.progress.note(
                f"{title}: {(~held_out).sum():,} samples to train on, {held_out.sum():,} left out"
            )
            if lost := sorted(set(labels[held_out]) - set(labels[~held_out])):
                names = ", ".join(dataset.classes[label] for label in lost)
                runtime.progress.note(
                    f"{title}: no other sample of {names}, which this model cannot learn"
                )
            part = dataset.restricted(train=np.flatnonzero(~held_out))
            places = [folder / f"fold-{k + 1}-step-{s}" for s in range(1, len(steps))]
            fitted = None
            try:
                for step, place in zip(steps, [*places, folder / f"fold-{k + 1}"], strict=True):
                    fitted = _trained(step, part, place, fitted, runtime)
            except Interrupted:
                raise Interrupted(
                    f"stopped in {title}; what is done is kept in {folder}: the same again goes on"
                ) from None
            assert fitted is not None
            yield fitted, np.flatnonzero(held_out)


def _trained(
    like: Run, part: DatasetFolder, place: Path, parent: Run | None, runtime: Runtime
) -> Run:
    """A run on the data set `part`, trained as `like` was, at `place`; resumed if it is there.

    Raises `UsageError` where another run is at `place`.
    """
    recover(place)
    if not is_run(place):
        scores = None if like.scores is None else like.scores["path"]
        return train(place, part, like.config, parent=parent, scores=scores, runtime=runtime)
    begun = load_run(place)
    same = (
        begun.config == like.config
        and begun.dataset["fingerprint"] == part.fingerprint
        and (begun.scores or {}).get("sha256") == (like.scores or {}).get("sha256")
        and (begun.parent or {}).get("weights") == (None if parent is None else parent.weights_hash)
    )
    if not same:
        raise UsageError(
            f"{place} is a run of other folds, or of another run or seed: choose another folder "
            f"than {place.parent} (mmcoop valuate has it beside --out), or remove it"
        )
    return resume(place, part, runtime=runtime)

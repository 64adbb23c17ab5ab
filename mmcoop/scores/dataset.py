"""Value samples of a dataset into a scores file, with a run's model or any other."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from mmcoop.core.batch import Batch
from mmcoop.core.choices import CLASS_VALUES, VALUES
from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix
from mmcoop.core.games.indices import parse_groups
from mmcoop.core.imputers.adapters import check_callable
from mmcoop.core.imputers.outputs import Output
from mmcoop.core.resampling import TrainingExamples
from mmcoop.core.seeds import generator
from mmcoop.core.valuation.columns import ExtraColumns
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.emap import cross_logits, emap_gap
from mmcoop.core.valuation.engine import value_batches
from mmcoop.core.valuation.value_functions import LABELS, NUMBERS, value_function
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.reader import SPLITS, DatasetFolder
from mmcoop.errors import UsageError, check_given, setting
from mmcoop.files import check_new_file, check_room
from mmcoop.locks import check_unlocked
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.scores.resume import EMAP_GAP, ScoresParts, resumable_scores
from mmcoop.scores.scores import ALL_SPLITS, Scores
from mmcoop.scores.table import check_scores_name, least_bytes, scores_table, valuation_details
from mmcoop.scores.user_model import ImputerSpec


@dataclass(frozen=True)
class ValuationRequest:
    """What to compute for the samples of a dataset.

    Attributes:
        how: How samples are valued.
        absence: What replaces an absent modality.
        interactions: `"none"`, `"pairwise"` or `"all"`.
        indices: Other attributions to add: `"banzhaf"`, `"leave-one-out"`, `"owen"`.
        groups: Groups of modalities, written as `NAME=MODALITY,MODALITY`.
        emap: The number of samples for EMAP's gap; 0 for none.
    """

    how: ValuationConfig = ValuationConfig()
    absence: ImputerSpec = ImputerSpec()
    interactions: str = "none"
    indices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    emap: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.emap, int) or self.emap < 0:
            raise UsageError(
                f"{setting('emap')} is {self.emap!r}: it must be a whole number, 0 or more"
            )

    def extra_columns(self, modalities: tuple[str, ...]) -> ExtraColumns:
        """The additional columns for these modalities.

        Raises:
            UsageError: The request does not fit the modalities.
        """
        groups = parse_groups(self.groups, modalities) if self.groups else {}
        if self.emap and len(modalities) != 2:
            raise UsageError(f"EMAP is defined for two modalities, not for {len(modalities)}")
        extra = ExtraColumns(modalities, self.interactions, self.indices, groups)
        if self.how.chosen(len(modalities))[1]:
            extra.check_drawn()
        return extra

    def details(self, modalities: tuple[str, ...], absent: str) -> dict[str, Any]:
        """The entries of a scores file's details that describe this request."""
        asked = {
            "interactions": None if self.interactions == "none" else self.interactions,
            "indices": list(self.indices),
            "groups": list(self.groups),
            "emap": self.emap,
        }
        told = {name: what for name, what in asked.items() if what}
        usual = valuation_details(self.how, len(modalities), absent)
        return {**usual, **self.absence.details, **told}


@dataclass(frozen=True)
class SampleSlice:
    """Samples valued by one model.

    Attributes:
        name: What the slice is called: a split, or a fold.
        split: The split of the samples.
        model: The model that values them.
        samples: Positions in the split, int64 `(k,)`.
    """

    name: str
    split: str
    model: Any
    samples: Tensor


def split_slices(model: Any, dataset: DatasetFolder, split: str) -> Iterator[SampleSlice]:
    """Yield one slice per split: the named one, or every split for `all`."""
    for name in SPLITS if split == ALL_SPLITS else (split,):
        yield SampleSlice(name, name, model, torch.arange(len(dataset.split(name))))


def score(
    slices: Iterable[SampleSlice],
    dataset: DatasetFolder,
    out: Path,
    *,
    split: str,
    modalities: tuple[str, ...],
    request: ValuationRequest,
    details: Mapping[str, Any],
    batch_size: int,
    output: Output = None,
    overwrite: bool = False,
    resume: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Scores:
    """Value slices of samples into a scores file, one slice after the other.

    Samples go through the evaluation transform. Memory use does not grow with their number. An
    interrupted valuation leaves its parts beside `out`; resuming from them gives the same bytes as
    an uninterrupted one. Damaged parts are valued again.

    Args:
        slices: The samples to value, with the model of each slice.
        dataset: The dataset they are from.
        out: The scores file to write.
        split: The split of all samples, or `all`.
        modalities: Names of the modalities, in column order.
        request: What to compute.
        details: Further entries of the file's details.
        batch_size: Samples loaded at once.
        output: Which item of the models' outputs holds the predictions
            (`core/imputers/outputs.py`).
        overwrite: Replace `out`, or an unfinished valuation of it.
        resume: Continue an unfinished valuation. A complete file of this valuation is kept.
        workers: Processes that load samples.
        progress: Receives progress and notes.

    Returns:
        The scores, opened from `out`.

    Raises:
        UsageError: `out` may not be written, or the request does not fit the dataset.
        DataError: The disk cannot hold `out` and its parts.
    """
    check_request(request, split, out, overwrite or resume)
    extra = request.extra_columns(modalities)
    details = {**details, "classes": len(dataset.classes)}
    with resumable_scores(out, modalities, details, resume=resume, overwrite=overwrite) as parts:
        if not parts.complete:
            _check_disk(out, parts, dataset, split, modalities, request.how)
        for path in parts.damaged:
            runtime.progress.note(f"{path} is damaged: its samples are valued again")
        for slice_ in slices if not parts.complete else ():
            for left in parts.left(slice_.name, len(slice_.samples)):
                samples = slice_.samples[left]
                batches = _batches(
                    dataset, slice_.split, samples, modalities, batch_size, runtime.workers
                )
                label = f"valuing the {slice_.name} samples"
                given = _Counted(runtime.progress.track(batches, label))
                valued = value_batches(
                    slice_.model,
                    given,
                    modalities=modalities,
                    how=request.how,
                    output=output,
                    n_classes=len(dataset.classes),
                )
                for batch in valued:
                    table = scores_table(modalities, slice_.split, batch, extra.columns(batch))
                    parts.add(table, given.last)
            if request.emap and EMAP_GAP not in parts.found:
                gap = _emap_gap(slice_, dataset, modalities, request, batch_size, output)
                parts.found[EMAP_GAP] = gap
    return Scores.open(out)


def _check_disk(
    out: Path,
    parts: ScoresParts,
    dataset: DatasetFolder,
    split: str,
    modalities: tuple[str, ...],
    how: ValuationConfig,
) -> None:
    """Raise `DataError` if the disk clearly lacks room for the parts still to be written plus the
    complete file, which exist side by side at the end.
    """
    n = len(modalities)
    function = value_function(how.value)
    numbers = 0  # values like the paper's have few distinct levels and compress to almost nothing
    if function.name in CLASS_VALUES and function.scaled:
        coalitions = anchor_coalitions(n) if how.chosen(n)[1] else coalition_matrix(n)
        numbers = len(coalitions) - 1 + n  # values of non-empty coalitions, and contributions
    named = [dataset.split(name) for name in (SPLITS if split == ALL_SPLITS else (split,))]
    tables = [pa.table({name: split.column(name) for name in ("id", "group")}) for split in named]
    size = sum(least_bytes(table, numbers) for table in tables)
    left = 1 - sum(parts.done.values()) / max(sum(map(len, named)), 1)
    check_room(out, round(size * (1 + left)))


def check_request(request: ValuationRequest, split: str, out: Path, may_exist: bool) -> None:
    """Check a request before anything is computed.

    Args:
        request: What to compute.
        split: A split, or `all`.
        out: The scores file to write.
        may_exist: Whether `out` may exist.

    Raises:
        UsageError: `out` may not be written, or the request cannot be answered for the samples of
            a dataset.
    """
    check_scores_name(out)
    check_unlocked(out)
    check_new_file(out, may_exist)
    if split not in (*SPLITS, ALL_SPLITS):
        raise UsageError(
            f"unknown split {split!r}: choose one of {', '.join((*SPLITS, ALL_SPLITS))}"
        )
    function = value_function(request.how.value)
    if function.targets in (LABELS, NUMBERS):
        what = VALUES.get(function.name, "for other labels")
        raise UsageError(
            f"value function {function.name!r} is {what}, and the samples of a data set have one "
            f"class each: choose one of {', '.join(CLASS_VALUES)}"
        )
    if request.emap and split == ALL_SPLITS:
        raise UsageError(
            f"EMAP's gap is of one split: name it with {setting('split')}, or leave "
            f"{setting('emap')} out"
        )


def score_model(
    model: Any,
    dataset: DatasetFolder,
    split: str,
    out: Path | str,
    *,
    modalities: tuple[str, ...] | None = None,
    name: str | None = None,
    weights: str | None = None,
    request: ValuationRequest = ValuationRequest(),
    batch_size: int = 64,
    output: Output = None,
    overwrite: bool = False,
    resume: bool = False,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Scores:
    """Value samples of a dataset with a user-defined model, and write a scores file.

    Args:
        model: A callable `(inputs by modality, present) -> outputs`, or any other model, which is
            then wrapped as `request.absence` specifies.
        dataset: The dataset.
        split: A split, or `all`.
        out: The scores file to write, `NAME.parquet`.
        modalities: The modalities that the model takes; all of the dataset's by default.
        name: The model's name in the scores file; its class by default.
        weights: The sha256 of its weights, to be recorded.
        request: How samples are valued, and which columns are added.
        batch_size: Samples loaded at once.
        output: Which item of the model's output holds the predictions, or their scale.
        overwrite: Whether an existing file is replaced.
        resume: Whether an interrupted valuation is resumed.
        runtime: Loader processes, and where progress is shown; the model stays on its device.

    Returns:
        The scores.

    Raises:
        UsageError: `out` may not be written, or the modalities are not those of the dataset or of
            the model.
        DataError: The model's outputs have the wrong form, or the disk is full.
    """
    check_given(dataset, DatasetFolder, "dataset", "mmcoop.open_dataset")
    check_callable(model)
    out = Path(out)
    check_request(request, split, out, overwrite or resume)
    names = tuple(dataset.modalities) if modalities is None else modalities
    for modality in names:
        if modality not in dataset.modalities:
            raise UsageError(
                f"the data set has no modality {modality!r}: choose of "
                f"{', '.join(dataset.modalities)}"
            )
    own = getattr(model, "modalities", None)
    if isinstance(own, tuple | list) and sorted(own) != sorted(names):
        raise UsageError(
            f"the model's modalities are {', '.join(own)}, not {', '.join(names)}: name those it "
            f"takes with {setting('modality')}"
        )
    represented, absent = request.absence.over(
        model, names, lambda: background(dataset, names, batch_size), output
    )
    return score(
        split_slices(represented, dataset, split),
        dataset,
        out,
        split=split,
        modalities=names,
        request=request,
        details={
            **request.details(names, absent),
            **({} if output is None else {"output": output}),
            "model": name or type(model).__name__,
            **({"weights": weights} if weights else {}),
            "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
            "split": split,
        },
        batch_size=batch_size,
        output=output if represented is model else None,
        overwrite=overwrite,
        resume=resume,
        runtime=runtime,
    )


def background(
    dataset: DatasetFolder, modalities: tuple[str, ...], batch_size: int
) -> Iterable[Batch]:
    """Load batches of the training split, from which imputers take their replacements."""
    train = dataset.split("train")
    return load_batches(train, modalities=modalities, batch_size=batch_size, with_ids=False)


def _batches(
    dataset: DatasetFolder,
    split: str,
    samples: Tensor,
    modalities: tuple[str, ...],
    batch_size: int,
    workers: int = 0,
) -> Iterable[Batch]:
    whole = torch.ones(len(samples), len(modalities), dtype=torch.bool)
    return load_batches(
        dataset.split(split),
        TrainingExamples(samples, whole),
        modalities=modalities,
        batch_size=batch_size,
        workers=workers,
    )


def _emap_gap(
    slice_: SampleSlice,
    dataset: DatasetFolder,
    modalities: tuple[str, ...],
    request: ValuationRequest,
    batch_size: int,
    output: Output,
) -> float:
    size = min(request.emap, len(slice_.samples))
    order = torch.randperm(len(slice_.samples), generator=generator(request.how.seed, "EMAP"))
    chosen = slice_.samples[order[:size]]
    (batch,) = _batches(dataset, slice_.split, chosen, modalities, size)
    rows = request.how.max_batch or batch_size
    crossed = cross_logits(slice_.model, batch.inputs, modalities, rows, output=output)
    return emap_gap(crossed, batch.labels)


class _Counted:
    """Yields batches unchanged and remembers the size of the `last` one."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.last = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.last = len(batch.labels)
            yield batch

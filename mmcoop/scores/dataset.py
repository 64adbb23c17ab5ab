"""Samples of a data set valued into a scores file, by a run's model or any other."""

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
from mmcoop.progress import SILENT, Progress
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
        """The entries of a scores file that describe this."""
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
    """Samples that one model values: `samples` positions of a `split`, int64 `(k,)`."""

    name: str
    split: str
    model: Any
    samples: Tensor


def split_slices(model: Any, dataset: DatasetFolder, split: str) -> Iterator[SampleSlice]:
    """All samples of a split, or of `all` of them, by one model."""
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
    workers: int = 0,
    progress: Progress = SILENT,
) -> Scores:
    """Value slices of samples, one after the other, into the scores file `out`.

    Samples go through the evaluation transform. Memory does not grow with the number of samples.
    Cut off, it leaves its parts beside `out`, from which `resume` continues, to the same bytes; a
    damaged part is valued again. A file of this valuation that `resume` finds complete is left as
    it is.
    `split` is the one that all are of, or `all`; `details` are written into the file. `output` says
    which item of the models' outputs holds the predictions (`core/imputers/outputs.py`).

    Raises `UsageError` where `out` may not be written, and for a request that does not fit;
    `DataError` where the disk cannot hold its parts and `out`.
    """
    check_request(request, split, out, overwrite or resume)
    extra = request.extra_columns(modalities)
    details = {**details, "classes": len(dataset.classes)}
    with resumable_scores(out, modalities, details, resume=resume, overwrite=overwrite) as parts:
        if not parts.complete:
            _check_disk(out, parts, dataset, split, modalities, request.how)
        for path in parts.damaged:
            progress.note(f"{path} is damaged: its samples are valued again")
        for slice_ in slices if not parts.complete else ():
            for left in parts.left(slice_.name, len(slice_.samples)):
                samples = slice_.samples[left]
                batches = _batches(dataset, slice_.split, samples, modalities, batch_size, workers)
                given = _Counted(progress.track(batches, f"valuing the {slice_.name} samples"))
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
    """Raise `DataError` where the disk clearly cannot hold what is to come: parts of the samples
    that are not done, and then the file beside all parts.
    """
    n = len(modalities)
    function = value_function(how.value)
    numbers = 0  # of a value like the paper's there are few different ones, which take no room
    if function.name in CLASS_VALUES and function.scaled:
        coalitions = anchor_coalitions(n) if how.chosen(n)[1] else coalition_matrix(n)
        numbers = len(coalitions) - 1 + n  # values of all but the empty one, and contributions
    named = [dataset.split(name) for name in (SPLITS if split == ALL_SPLITS else (split,))]
    tables = [pa.table({name: split.column(name) for name in ("id", "group")}) for split in named]
    size = sum(least_bytes(table, numbers) for table in tables)
    left = 1 - sum(parts.done.values()) / max(sum(map(len, named)), 1)
    check_room(out, round(size * (1 + left)))


def check_request(request: ValuationRequest, split: str, out: Path, may_exist: bool) -> None:
    """Raise `UsageError` where `out` may not be written, or samples of a data set cannot be told
    what is asked for.
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
    **where: Any,
) -> Scores:
    """Value the samples of a dataset by a user-defined model, and write their scores.

    Args:
        model: A callable `(inputs by modality, present) -> outputs`, or any model, which is then
            wrapped as in `request.absence`.
        dataset: The dataset.
        split: A split, or `all`.
        out: The scores file to write, `NAME.parquet`.
        modalities: The modalities that the model takes; by default all of the dataset.
        name: The name of the model in the scores file.
        weights: The sha256 of its weights, to be recorded.
        request: How samples are valued, and which columns are added.
        batch_size: Samples that are loaded at once.
        output: Which item of the model's output holds the predictions, or on which scale they are.
        **where: `overwrite`, `resume`, `workers` and `progress`, as for `valuate_run`.

    Returns:
        The scores.

    Raises:
        UsageError: `out` must not be written, the dataset does not have the modalities, or the
            model takes others.
        DataError: The model's outputs do not fit, or the disk is full.
    """
    check_given(dataset, DatasetFolder, "dataset", "mmcoop.open_dataset")
    check_callable(model)
    out = Path(out)
    check_request(request, split, out, where.get("overwrite", False) or where.get("resume", False))
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
        **where,
    )


def background(
    dataset: DatasetFolder, modalities: tuple[str, ...], batch_size: int
) -> Iterable[Batch]:
    """The training samples, for what stands in for an absent modality."""
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
    """Batches, passed on; `last` is the number of samples of the last one."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.last = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.last = len(batch.labels)
            yield batch

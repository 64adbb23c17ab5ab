"""Samples of a data set valued into a scores file, by a run's model or any other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.batch import Batch
from mmcoop.core.bootstrap import REPLICATES
from mmcoop.core.resampling import Rows
from mmcoop.core.summary import Summary
from mmcoop.core.valuation import ValuedBatch, value_batches
from mmcoop.core.values import value_function
from mmcoop.core.valuing import Valuing
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.store import SPLITS, Dataset
from mmcoop.files import check_new_file
from mmcoop.progress import SILENT, Progress
from mmcoop.scores_parts import resumable_scores

#: Where a split is asked for: every one of them, one after the other.
ALL_SPLITS = "all"

#: Further columns of a valued batch by name, `(batch,)` each.
Further = Callable[[ValuedBatch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Stretch:
    """Samples that one model values: `samples` positions of a `split`, int64 `(k,)`."""

    name: str
    split: str
    model: Any
    samples: Tensor


def split_stretches(model: Any, dataset: Dataset, split: str) -> Iterator[Stretch]:
    """All samples of a split, or of `all` of them, by one model."""
    for name in SPLITS if split == ALL_SPLITS else (split,):
        yield Stretch(name, name, model, torch.arange(len(dataset.split(name))))


def score(
    stretches: Iterable[Stretch],
    dataset: Dataset,
    out: Path,
    *,
    split: str,
    modalities: tuple[str, ...],
    how: Valuing,
    details: Mapping[str, Any],
    batch_size: int,
    further: Further = lambda batch: {},
    overwrite: bool = False,
    resume: bool = False,
    workers: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Summary]:
    """Value stretches of samples, one after the other, into the scores file `out`.

    Samples go through the evaluation transform. Memory does not grow with the number of samples.
    Cut off, it leaves its parts beside `out`, from which `resume` goes on, to the same bytes.
    `split` is the one that all are of, or `all`; `details` are written into the file.

    Returns a summary a split, with intervals, and one called `all` of all of them if they are
    several. Raises `UsageError` where `out` may not be written.
    """
    check_new_file(out, overwrite)
    names = (*SPLITS, ALL_SPLITS) if split == ALL_SPLITS else (split,)
    share = value_function(how.value).fair_share(len(modalities))
    summaries = {
        name: Summary(
            modalities,
            len(dataset.classes),
            fair_share=share,
            replicates=REPLICATES,
            seed=how.seed,
        )
        for name in names
    }
    with resumable_scores(out, modalities, details, summaries, resume=resume) as parts:
        for stretch in stretches:
            done = parts.done.get(stretch.name, 0)
            if done == len(stretch.samples):
                continue
            sample = stretch.samples[done:]
            batches = load_batches(
                dataset.split(stretch.split),
                Rows(sample, torch.ones(len(sample), len(modalities), dtype=torch.bool)),
                modalities=modalities,
                batch_size=batch_size,
                workers=workers,
                with_ids=True,
            )
            label = f"valuing the {stretch.name} samples"
            given = _Counted(progress.track(batches, label))
            for valued in value_batches(stretch.model, given, modalities=modalities, how=how):
                parts.add(stretch.name, stretch.split, valued, given.last, further(valued))
    return summaries


class _Counted:
    """Batches, passed on; `last` is the number of samples of the last one."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.last = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.last = len(batch.labels)
            yield batch

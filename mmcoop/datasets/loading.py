"""Training examples of a split → batches."""

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mmcoop.core.batch import Batch
from mmcoop.core.modalities import check_modalities
from mmcoop.core.resampling import TrainingExamples, complete_examples
from mmcoop.core.seeds import derive_seed, seeded
from mmcoop.datasets.reader import Split
from mmcoop.datasets.transforms import build_transform
from mmcoop.errors import UsageError, check_given


class _BatchSource(TorchDataset[Batch]):
    """The batches of some training examples, by number; absent modalities are not read."""

    def __init__(
        self,
        split: Split,
        rows: TrainingExamples,
        modalities: Sequence[str],
        batch_size: int,
        seed: int | None,
        with_ids: bool,
    ) -> None:
        self.split = split
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.with_ids = with_ids
        self.transforms = {
            name: build_transform(split.dataset.modalities[name], training=seed is not None)
            for name in modalities
        }

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, position: int) -> Batch:
        chosen = slice(position * self.batch_size, (position + 1) * self.batch_size)
        sample, present = self.rows.sample[chosen], self.rows.present[chosen]
        # transforms depend on the seed and the batch only, not on which process loads it when
        with seeded(derive_seed(self.seed or 0, "batch", position)):
            inputs = {}
            for column, (name, transform) in enumerate(self.transforms.items()):
                here = present[:, column].nonzero().squeeze(1)
                if len(here) == 0:
                    continue
                x = transform(self.split.read(name, sample[here].numpy()))
                if len(here) < len(sample):
                    x = x.new_zeros(len(sample), *x.shape[1:]).index_copy_(0, here, x)
                inputs[name] = x
        return Batch(
            inputs,
            present,
            torch.from_numpy(self.split.labels[sample.numpy()]),
            sample,
            self.split.ids(sample.numpy()) if self.with_ids else None,
            self.split.groups(sample.numpy()) if self.with_ids else None,
        )


def load_batches(
    split: Split,
    rows: TrainingExamples | None = None,
    *,
    modalities: Sequence[str] | None = None,
    batch_size: int,
    seed: int | None = None,
    workers: int = 0,
    with_ids: bool = True,
    pin_memory: bool = False,
) -> Iterable[Batch]:
    """Load training examples as batches, in order.

    Args:
        split: A split of a dataset, from `DatasetFolder.split`.
        rows: The training examples; by default every sample once, with all modalities.
        modalities: The modalities of the columns of `rows.present`; by default all of the
            dataset's.
        batch_size: Training examples per batch.
        seed: Seed of the training transforms; None for the evaluation transforms.
        workers: Processes that load ahead. Batches do not depend on their number.
        with_ids: Whether batches have the ids and groups of their samples.
        pin_memory: Whether batches are in pinned memory, for a copy to a GPU.

    Returns:
        An iterable that gives the same batches each time.

    Raises:
        UsageError: `split` is not a split, its dataset does not have the modalities, or a number is
            out of range.
    """
    for name, number, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if not isinstance(number, Integral) or number < least:
            raise UsageError(f"{name} is {number!r}: it must be a whole number, {least} or more")
    check_given(split, Split, "split", "mmcoop.open_dataset(folder).split('train')")
    known = split.dataset.modalities
    names = tuple(known) if modalities is None else check_modalities(modalities)
    if odd := [name for name in names if name not in known]:
        raise UsageError(f"the data set has no modality {odd[0]!r}: choose of {', '.join(known)}")
    if rows is None:
        rows = complete_examples(len(split), len(names))
    source = _BatchSource(split, rows, names, batch_size, seed, with_ids)
    return DataLoader(
        source,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # by default it would draw from the caller's global generator
    )

"""Which samples of its data set a loader gives, for batches that have no ids."""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from copy import copy
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from mmcoop.errors import UsageError


class SampleOrder:
    """Batches, passed on, and the positions of their samples in the data set.

    Those of a `DataLoader` are the indices that its sampler draws, whatever their order; those of
    any other iterable are counted from 0.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._drawn: deque[list[Any]] = deque()
        self._batches = batches
        self._seen = 0
        # progress bars keep what they iterate over
        loader = batches if isinstance(batches, DataLoader) else getattr(batches, "iterable", None)
        self._in_order = not isinstance(loader, DataLoader) or _in_order(loader)
        if isinstance(batches, DataLoader) and _draws_samples(batches):
            noted = copy(batches)
            # set past the loader, which takes no other sampler once it is made
            noted.__dict__["batch_sampler"] = _Noted(batches.batch_sampler, self._drawn)
            noted.__dict__["_iterator"] = None
            self._batches = noted

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def positions(self, samples: int, needed: bool) -> list[int]:
        """Positions of the samples of the next batch: to be called once for each, in order.

        `needed`: whether the batch has no ids. Raises `UsageError` if so and the loader gives
        samples in an order that cannot be seen.
        """
        start, self._seen = self._seen, self._seen + samples
        drawn = self._drawn.popleft() if self._drawn else []
        if len(drawn) == samples and all(isinstance(index, int) for index in drawn):
            return drawn
        if needed and not self._in_order:
            raise UsageError(
                "the loader shuffles, and its batches have no ids: samples numbered in this order "
                "would be mistaken for others. Give ids with every batch, or shuffle=False"
            )
        return list(range(start, start + samples))


class _Noted:
    """A batch sampler, and a record of what it draws."""

    def __init__(self, sampler: Any, drawn: deque[list[Any]]) -> None:
        self._sampler = sampler
        self._record = drawn

    def __iter__(self) -> Iterator[Any]:
        for indices in self._sampler:
            self._record.append([_as_int(index) for index in indices])
            yield indices

    def __len__(self) -> int:
        assert isinstance(self._sampler, Sized)
        return len(self._sampler)


def _as_int(index: Any) -> Any:
    """A whole number of NumPy or torch as one of Python; anything else as it is."""
    return int(index) if hasattr(index, "__index__") else index


def _draws_samples(loader: DataLoader[Any]) -> bool:
    """Whether the loader draws positions of samples, and gives its batches in the order drawn."""
    tree_map = not isinstance(loader.dataset, IterableDataset)
    return tree_map and loader.batch_sampler is not None and getattr(loader, "in_order", True)


def _in_order(loader: DataLoader[Any]) -> bool:
    """Whether the loader is known to give samples in the order of its data set."""
    if isinstance(loader.dataset, IterableDataset):
        return True  # it has no other order
    sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    if type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return isinstance(sampler, SequentialSampler) and getattr(loader, "in_order", True)

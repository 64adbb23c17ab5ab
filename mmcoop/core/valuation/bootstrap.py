"""Confidence intervals of means over samples, by a bootstrap that sees every sample once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcoop.core.seeds import generator

#: Replicates where the user does not say; 0 for none.
REPLICATES = 1000

# Counts are drawn for this many samples at a time as have at most this many of them.
_AT_A_TIME = 2**20


class BootstrapMeans:
    """Means of the columns of a table that comes in parts, with bootstrap intervals.

    In each replicate a sample counts Poisson(1) times, which is what drawing as many samples with
    replacement comes to when they are many (Oza and Russell, 2001; Chamandy et al., 2012). So
    memory is `replicates` × columns, whatever the number of samples. A sample that is NaN in a
    column has no number there, and is left out of that column.

    Samples of one group, as windows of one video are, depend on each other: all of a group count
    equally often, which is drawing whole groups with replacement (the cluster bootstrap).

    The count of a group follows from the seed and its name, that of a sample without a group from
    its place among all, however they come in parts; sums may then differ in their last bits.
    """

    def __init__(self, columns: int, replicates: int = REPLICATES, seed: int = 0) -> None:
        # by column: sums and how many numbers are in them, of the samples and of each replicate
        self._sums = torch.zeros(columns, dtype=torch.float64)
        self._numbers = torch.zeros(columns, dtype=torch.float64)
        self._drawn = torch.zeros(replicates, columns, dtype=torch.float64)
        self._counts = torch.zeros(replicates, columns, dtype=torch.float64)
        self._seed = seed
        self._generator = generator(seed, "bootstrap")

    def add(self, rows: Tensor, groups: Sequence[str] | None = None) -> None:
        """Take in some samples.

        Args:
            rows: `(samples, columns)`.
            groups: the group of each sample; None where samples are independent.
        """
        replicates = len(self._drawn)
        there = ~rows.isnan()
        numbers, counts = rows.double().where(there, 0), there.double()
        self._sums += numbers.sum(0)
        self._numbers += counts.sum(0)
        if not replicates:
            return
        names: list[str] | None = None
        if groups is not None:
            # samples of a group go in together: one draw for their sum
            names = list(dict.fromkeys(groups))
            position = {name: k for k, name in enumerate(names)}
            of_sample = torch.tensor([position[name] for name in groups], dtype=torch.long)
            nothing = torch.zeros(len(names), rows.shape[1], dtype=torch.float64)
            numbers = nothing.index_add(0, of_sample, numbers)
            counts = nothing.index_add(0, of_sample, counts)
        at_a_time = max(1, _AT_A_TIME // replicates)
        for start in range(0, len(numbers), at_a_time):
            part = slice(start, start + at_a_time)
            if names is None:
                rate = torch.ones(len(numbers[part]), replicates)
                times = torch.poisson(rate, generator=self._generator)
            else:
                times = torch.stack([self._times(name) for name in names[part]])
            times = times.double().T
            self._drawn += times @ numbers[part]
            self._counts += times @ counts[part]

    def _times(self, group: str) -> Tensor:
        """How often a group counts in each replicate, `(replicates,)`."""
        rate = torch.ones(len(self._drawn))
        return torch.poisson(rate, generator=generator(self._seed, "bootstrap", "group", group))

    @property
    def mean(self) -> Tensor:
        """Means, float64 `(columns,)`; NaN before the first number."""
        return self._sums / self._numbers

    def interval(
        self,
        level: float = 0.95,
        minus: "BootstrapMeans | None" = None,
        column: int | None = None,
    ) -> Tensor:
        """Percentile intervals of the means, or of their difference to those of other samples
        (`minus`, which had another seed): float64 `(columns, 2)`, of one `column` `(1, 2)`; NaN
        without samples or replicates.
        """
        chosen = slice(None) if column is None else slice(column, column + 1)
        drawn = self._replicated(chosen)
        if minus is not None:
            drawn = drawn - minus._replicated(chosen)
        if len(drawn) == 0:
            return torch.full((drawn.shape[1], 2), torch.nan, dtype=torch.float64)
        tail = (1 - level) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        # a replicate that happens to have no sample has no mean
        return drawn.nanquantile(ends, dim=0).T

    def _replicated(self, columns: slice) -> Tensor:
        """The means of each replicate, `(replicates, columns)`."""
        return self._drawn[:, columns] / self._counts[:, columns]

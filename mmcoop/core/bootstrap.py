"""Confidence intervals of means over samples, by a bootstrap that sees every sample once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.seeds import generator

#: Replicates where the user does not say; 0 for none.
REPLICATES = 1000


class BootstrapMeans:
    """Means of the columns of a table that comes in parts, with bootstrap intervals.

    A sample that has no such number, NaN in a column, counts in the other columns alone.

    In each replicate a sample counts Poisson(1) times, which is what drawing as many samples with
    replacement comes to when they are many (Oza and Russell, 2001; Chamandy et al., 2012). So
    memory is `replicates` × columns, whatever the number of samples.
    """

    def __init__(self, columns: int, replicates: int = REPLICATES, seed: int = 0) -> None:
        self.samples = 0
        self._sums = torch.zeros(columns, dtype=torch.float64)
        self._there = torch.zeros(columns, dtype=torch.float64)
        self._counts = torch.zeros(replicates, columns, dtype=torch.float64)
        self._drawn = torch.zeros(replicates, columns, dtype=torch.float64)
        self._generator = generator(seed, "bootstrap")

    def add(self, rows: Tensor) -> None:
        """Take in some samples, `(samples, columns)`."""
        there = ~rows.isnan()
        rows, there = rows.double().masked_fill(~there, 0), there.double()
        self.samples += len(rows)
        self._sums += rows.sum(0)
        self._there += there.sum(0)
        if len(self._counts):
            rate = torch.ones(len(rows), len(self._counts))
            times = torch.poisson(rate, generator=self._generator).double()
            self._counts += times.T @ there
            self._drawn += times.T @ rows

    @property
    def mean(self) -> Tensor:
        """Means, float64 `(columns,)`; NaN before the first sample."""
        return self._sums / self._there

    def interval(self, level: float = 0.95, minus: "BootstrapMeans | None" = None) -> Tensor:
        """Percentile intervals of the means, or of their difference to those of other samples
        (`minus`): float64 `(columns, 2)`; NaN without samples or replicates.
        """
        drawn = self._replicated()
        if minus is not None:
            drawn = drawn - minus._replicated()
        if len(drawn) == 0:
            return torch.full((len(self._sums), 2), torch.nan, dtype=torch.float64)
        tail = (1 - level) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        # a replicate that has drawn no sample has no mean
        return drawn.nanquantile(ends, dim=0).T

    def _replicated(self) -> Tensor:
        """The means of each replicate, `(replicates, columns)`."""
        return self._drawn / self._counts

    def state(self) -> dict[str, Any]:
        """All it has taken in, to go on from."""
        return {
            "samples": self.samples,
            "sums": self._sums,
            "there": self._there,
            "counts": self._counts,
            "drawn": self._drawn,
            "generator": self._generator.get_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state()`."""
        self.samples = state["samples"]
        self._sums, self._there = state["sums"], state["there"]
        self._counts, self._drawn = state["counts"], state["drawn"]
        self._generator.set_state(state["generator"])

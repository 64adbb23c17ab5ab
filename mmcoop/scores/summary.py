"""Summary statistics of a scores table."""

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mmcoop.core.games.coalitions import table_order
from mmcoop.core.games.metrics import macro_f1, modality_shares
from mmcoop.core.modalities import display_coalitions
from mmcoop.core.resampling import ROUNDING
from mmcoop.core.valuation.bootstrap import BootstrapMeans
from mmcoop.errors import DataError
from mmcoop.scores.table import TIES, TableLayout, numbers

# The largest table of classes by coalitions, in numbers; each split has two such tables.
_MOST = 2**21


class Summary:
    """Means over the rows of a scores table, in memory that does not grow with the rows.

    Args:
        layout: The columns of the table.
        n_classes: Number of classes.
        fair_share: The contribution below which a modality is low-contributing; None if every
            sample has a fair share of its own.
        replicates: Replicates of the bootstrap for intervals; 0 for no intervals.
        seed: Seed of the bootstrap.

    Attributes:
        samples: Number of rows added. Means are over all of them, and NaN before the first.
        unpredicted: Number of samples for which all modalities together predict no class, because
            outputs are NaN.
        residual: The largest violation of efficiency: the difference between the sum of a sample's
            contributions and v(N) − v(∅).

    Raises:
        DataError: The table of classes by coalitions would be too large.
    """

    def __init__(
        self,
        layout: TableLayout,
        n_classes: int = 0,
        *,
        fair_share: float | None = 1.0,
        replicates: int = 0,
        seed: int = 0,
    ) -> None:
        self.layout = layout
        self.modalities = layout.modalities
        self.coalitions = list(layout.coalitions)
        self.fair_share = fair_share
        self.samples = 0
        self.unpredicted = 0
        self.residual = 0.0
        kinds = ["contribution", "low", *(["stderr"] if layout.drawn else [])]
        self._names = [f"{kind}_{m}" for kind in kinds for m in layout.modalities]
        shown = display_coalitions(self.coalitions[1:]) if layout.classes else []
        self._shown = [self.coalitions.index(name) for name in shown]
        self._names += [*(f"accuracy_{name}" for name in shown), *layout.extra]
        self._means = BootstrapMeans(len(self._names), replicates, seed)
        k = len(self.coalitions)
        if n_classes * k > _MOST:
            raise DataError(f"it states {n_classes:,} classes, too many for {k:,} coalitions")
        self._values = torch.zeros(k, dtype=torch.float64)
        # sum of the modality shares, and the number of samples for which they are defined
        self._shares, self._shared = torch.zeros(len(self.modalities), dtype=torch.float64), 0
        # summed correctness by coalition, and the number of labelled samples
        self._hits, self._labelled = torch.zeros(k, dtype=torch.float64), 0
        # by class: samples; by class and coalition: correct predictions and all predictions of the
        # class, where each of k tied classes counts 1/k
        self._class_samples = torch.zeros(n_classes, dtype=torch.long)
        self._class_hits = torch.zeros(n_classes, k, dtype=torch.float64)
        self._class_choices = torch.zeros_like(self._class_hits)

    def add(self, table: pa.Table) -> None:
        """Add rows of a table.

        Args:
            table: Rows with the columns of the layout.

        Raises:
            DataError: A column is missing or has invalid values.
        """
        self.samples += len(table)
        phi = numbers(table, [f"contribution_{m}" for m in self.modalities])
        values = numbers(table, self.layout.value_columns)
        means = [phi, low_contributing(phi, self.fair_share)]
        if self.layout.drawn:
            means.append(numbers(table, [f"stderr_{m}" for m in self.modalities]))
        if self.layout.classes:
            hits = numbers(table, [f"correct_{name}" for name in self.coalitions[1:]])
            hits = torch.cat([torch.zeros_like(values[:, :1]), hits], dim=1)
            means.append(hits[:, self._shown])
            self._count_classes(table, hits)
        if self.layout.extra:
            means.append(numbers(table, self.layout.extra))
        groups = table["group"].to_pylist() if self.layout.grouped else None
        self._means.add(torch.cat(means, 1), groups)
        self._values += values.sum(0)
        if len(table):
            gap = phi.sum(1) - (values[:, -1] - values[:, 0])
            self.residual = max(self.residual, float(gap.abs().max()))
            shares = modality_shares(phi).local
            self._shared += int(shares.isfinite().all(1).sum())
            self._shares += shares.nansum(0)

    def _count_classes(self, table: pa.Table, hits: Tensor) -> None:
        """Add to the counts of correct and predicted classes by coalition."""
        grand = numbers(table, ["prediction"])
        self.unpredicted += int((grand < 0).sum())
        labels = numbers(table, ["label"])[:, 0]
        there = ~labels.isnan()
        if not bool(there.any()):
            return
        labels, known = labels[there].long(), len(self._class_samples)
        if int(labels.min()) < 0 or int(labels.max()) >= known:
            raise DataError(f"it has labels that are not among its {known:,} classes")
        self._labelled += len(labels)
        self._hits += hits[there].sum(0)
        self._class_samples += torch.bincount(labels, minlength=known)
        self._class_hits.index_add_(0, labels, hits[there])
        columns = [f"prediction_{name}" for name in self.coalitions[1:-1]]
        choices = torch.cat([grand.new_full(grand.shape, -1), numbers(table, columns), grand], 1)
        choices = choices.nan_to_num(nan=-1).long()
        sample, coalition, tied = self._ties(table)
        choices[sample, coalition] = -1
        choices[~there] = -1
        place = sample * choices.shape[1] + coalition
        shares = 1 / torch.bincount(place)[place].double() if len(place) else None
        self._count(choices.flatten(), torch.arange(choices.shape[1]).repeat(len(choices)))
        self._count(tied.masked_fill(~there[sample], -1), coalition, shares)

    def _count(self, classes: Tensor, columns: Tensor, shares: Tensor | None = None) -> None:
        """Add predicted classes to the counts of their coalitions (`columns`), each once or by its
        share.
        """
        # skips missing predictions (−1), and classes that the model has but the dataset does not
        counted = (classes >= 0) & (classes < len(self._class_choices))
        place = classes[counted] * self._class_choices.shape[1] + columns[counted]
        weights = None if shares is None else shares[counted]
        found = torch.bincount(place, weights, minlength=self._class_choices.numel())
        self._class_choices += found.view_as(self._class_choices)

    def _ties(self, table: pa.Table) -> tuple[Tensor, Tensor, Tensor]:
        """Row, coalition column and class of every tied class, int64 `(ties,)` each."""
        column = table[TIES].combine_chunks()
        if column.null_count == len(column):
            nothing = torch.zeros(0, dtype=torch.long)
            return nothing, nothing, nothing
        rows, items = pc.list_parent_indices(column), column.flatten()
        place = pc.index_in(items.field("coalition"), pa.array(self.coalitions, pa.string()))
        classes = items.field("class")
        if place.null_count or classes.null_count:
            raise DataError(f"{TIES} names what is no coalition of it")
        sample, coalition, tied = (
            torch.tensor(x.to_pylist(), dtype=torch.long) for x in (rows, place, classes)
        )
        return sample, coalition, tied

    @property
    def table(self) -> Tensor | None:
        """Mean value of every coalition, float64 `(2**n,)` in table order; None if only some
        coalitions were valued.
        """
        return self.in_table_order(self._values / self.samples)

    def in_table_order(self, numbers: Tensor) -> Tensor | None:
        """Reorder numbers of the `coalitions`, `(k,)`, into table order; None unless k is 2ⁿ."""
        every = len(self.coalitions) == 2 ** len(self.modalities)
        return numbers[table_order(self.layout.members)] if every else None

    @property
    def shares(self) -> dict[str, float]:
        """MM-SHAP's share by modality: the mean of |φᵐ| / Σ|φ| over samples with a non-zero φ."""
        return dict(zip(self.modalities, (self._shares / self._shared).tolist(), strict=True))

    @property
    def accuracy(self) -> dict[str, float]:
        """Accuracy by name of the non-empty coalitions; a tie of k classes with the label among
        them counts 1/k. Empty without classes or labels.
        """
        return self._by_coalition(self._hits / self._labelled)

    def class_accuracy(self, label: int) -> dict[str, float]:
        """Accuracy by coalition name over the samples of one class; NaN if it has no samples."""
        return self._by_coalition(self._class_hits[label] / self._class_samples[label])

    @property
    def macro_f1(self) -> dict[str, float]:
        """Macro-averaged F1 by coalition name. A class that neither occurs nor is predicted counts
        0. The empty coalition, "", predicts the most frequent class.
        """
        if not self._has_classes:
            return {}
        hits, chosen = self._class_hits.T.clone(), self._class_choices.T.clone()
        most = int(self._class_samples.argmax())
        hits[0, most], chosen[0, most] = self._class_samples[most], self._class_samples.sum()
        scores = macro_f1(hits, chosen, self._class_samples).tolist()
        return dict(zip(self.coalitions, scores, strict=True))

    @property
    def class_samples(self) -> list[int]:
        """Number of samples by class."""
        counts: list[int] = self._class_samples.tolist()
        return counts

    @property
    def mean_contribution(self) -> dict[str, float]:
        """Mean contribution φ by modality."""
        return {m: self.mean(f"contribution_{m}") for m in self.modalities}

    @property
    def low_contributing(self) -> dict[str, float]:
        """Share of samples on which a modality is low-contributing, by modality."""
        return {m: self.mean(f"low_{m}") for m in self.modalities}

    @property
    def stderr(self) -> dict[str, float]:
        """Mean standard error of contributions by modality; empty if they are exact."""
        return {m: self.mean(f"stderr_{m}") for m in self.modalities if self.has(f"stderr_{m}")}

    @property
    def extra(self) -> list[str]:
        """Names of the additional columns."""
        return list(self.layout.extra)

    def has(self, column: str) -> bool:
        """Whether `mean` and `interval` know this column."""
        return column in self._names

    def mean(self, column: str) -> float:
        """Mean of a column.

        Args:
            column: `contribution_<modality>`, `low_<modality>`, `stderr_<modality>` (if coalitions
                were sampled), `accuracy_<coalition>` (for `display_coalitions`), or one of `extra`.
        """
        return float(self._means.mean[self._names.index(column)])

    def interval(
        self, column: str, level: float = 0.95, minus: "Summary | None" = None
    ) -> tuple[float, float]:
        """Bootstrap interval of a mean, or of the difference of two means.

        Args:
            column: As for `mean`.
            level: Confidence level, between 0 and 1.
            minus: The summary of other, independent samples, with another seed: the interval is
                then of the difference to its mean.

        Returns:
            Lower and upper end; NaN without samples or replicates.
        """
        other = None if minus is None else minus._means
        low, high = self._means.interval(level, other, self._names.index(column))[0].tolist()
        return low, high

    @property
    def _has_classes(self) -> bool:
        return self.layout.classes and (self._labelled > 0 or self.samples == 0)

    def _by_coalition(self, numbers: Tensor) -> dict[str, float]:
        if not self._has_classes:
            return {}
        return dict(zip(self.coalitions[1:], numbers[1:].tolist(), strict=True))


def low_contributing(contributions: Tensor, fair_share: float | None = 1.0) -> Tensor:
    """Where a modality is low-contributing: its φ is below the fair share.

    Args:
        contributions: Shapley values, `(samples, n)`.
        fair_share: The fair share: 1 for the paper's value function. None uses the mean of each
            sample's contributions, (v(N) − v(∅)) / n.

    Returns:
        bool `(samples, n)`. Differences within rounding error do not count.
    """
    share = contributions.mean(-1, keepdim=True) if fair_share is None else fair_share
    return contributions < share - ROUNDING

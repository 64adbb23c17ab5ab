"""What a valuation says of a whole data set, gathered batch by batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.games.coalitions import coalition_names, table_order
from mmcoop.core.games.metrics import macro_f1, modality_shares
from mmcoop.core.modalities import display_coalitions
from mmcoop.core.resampling import ROUNDING
from mmcoop.core.valuation.bootstrap import BootstrapMeans
from mmcoop.core.valuation.engine import ValuedBatch

# The tensors of a summary.
_TOTALS = ("class_samples", "class_hits", "class_choices", "values", "order", "shares")


class Summary:
    """Running totals over valued batches; its size does not grow with the samples.

    `samples`: how many were added; what it says is of all of them, NaN before the first.
    `n_classes`: how many classes there are, None for as many as the model has outputs.
    `fair_share`: the contribution below which a modality is low-contributing, None for each
    sample's own share. `replicates`: of the bootstrap that makes the intervals, 0 for none.
    """

    def __init__(
        self,
        modalities: tuple[str, ...],
        n_classes: int | None = None,
        *,
        fair_share: float | None = 1.0,
        replicates: int = 0,
        seed: int = 0,
    ) -> None:
        self.modalities = modalities
        self.fair_share = fair_share
        self.samples = 0
        self.unpredicted = 0  # samples of which all modalities together predict no class: NaN
        self.residual = 0.0
        self._n_classes = n_classes
        self._replicates = replicates, seed
        self._names: list[str] = []  # of the columns of the bootstrap
        self._further: list[str] = []
        self._told: list[int] = []  # the coalitions whose accuracy is among them
        self._coalitions: list[str] = []
        self._means = BootstrapMeans(0, 0)
        # by class and coalition: samples of the class, those it is rightly predicted for, and those
        # it is predicted for; of k tied classes each 1/k times
        self._class_samples = torch.zeros(n_classes or 0, dtype=torch.long)
        self._class_hits = torch.zeros(0, 0, dtype=torch.float64)
        self._class_choices = torch.zeros(0, 0, dtype=torch.float64)
        self._values = torch.zeros(0, dtype=torch.float64)
        self._order = torch.zeros(0, dtype=torch.long)
        # sum of the shares, over so many samples that have them
        self._shares, self._shared = torch.zeros(len(modalities), dtype=torch.float64), 0
        self._loss = float("nan")

    def add(self, batch: ValuedBatch, further: Mapping[str, Tensor] | None = None) -> None:
        """Count one batch in; `further` columns `(batch,)` by name get means and intervals too, of
        the samples that are not NaN there.
        """
        further = further or {}
        if not self._coalitions:
            self._begin(batch, list(further))
        self.samples += len(batch)
        phi = batch.contributions
        gained = batch.values[:, -1] - batch.values[:, 0]
        if len(batch):
            self.residual = max(self.residual, float((phi.sum(1) - gained).abs().max()))
        low = low_contributing(phi, self.fair_share)
        hits = batch.hits
        means = [phi, low, *([] if batch.stderr is None else [batch.stderr])]
        means += [] if hits is None else [hits[:, self._told]]
        means += [column.unsqueeze(1) for column in further.values()]
        self._means.add(torch.cat(means, 1), batch.groups)
        self._values += batch.values.sum(0)
        if len(batch):
            shares = modality_shares(phi).local
            self._shared += int(shares.isfinite().all(1).sum())
            self._shares += shares.nansum(0)
        if batch.choices is not None:
            self.unpredicted += int((batch.choices[:, -1] < 0).sum())
        if hits is None or batch.choices is None or batch.labels is None:
            return
        self._class_samples += torch.bincount(batch.labels, minlength=len(self._class_samples))
        self._class_hits.index_add_(0, batch.labels, hits)
        choices, columns = batch.choices, torch.arange(batch.choices.shape[1])
        if batch.ties is not None:
            sample, coalition, tied = batch.ties.unbind(1)
            choices = choices.clone()
            choices[sample, coalition] = -1
            self._count_choices(tied, coalition, batch.tie_shares)
        self._count_choices(choices, columns.expand_as(choices))
        if batch.outputs.shape[1] > 1:
            self._loss += float(F.cross_entropy(batch.outputs, batch.labels, reduction="sum"))

    def _count_choices(
        self, classes: Tensor, columns: Tensor, shares: Tensor | None = None
    ) -> None:
        """Count predicted classes, each from a coalition (its column), once or by its share."""
        # not those of no class, or of one that the model has and the labels have not
        counted = (classes >= 0) & (classes < len(self._class_choices))
        place = classes[counted] * self._class_choices.shape[1] + columns[counted]
        weights = None if shares is None else shares[counted]
        said = torch.bincount(place, weights, minlength=self._class_choices.numel())
        self._class_choices += said.view_as(self._class_choices)

    @property
    def coalitions(self) -> list[str]:
        """The names of the coalitions whose values are told, the empty one, "", first."""
        return self._coalitions

    @property
    def table(self) -> Tensor | None:
        """Mean values of all coalitions, float64 `(2**n,)` in table order; None where only some are
        told.
        """
        return self.in_table_order(self._values / self.samples)

    def in_table_order(self, numbers: Tensor) -> Tensor | None:
        """Numbers of the `coalitions`, `(k,)`, as in a table; None where only some are told."""
        return numbers[self._order] if len(self._order) == 2 ** len(self.modalities) else None

    @property
    def shares(self) -> dict[str, float]:
        """MM-SHAP's share by modality: the mean of |φᵐ| / Σ|φ| over the samples where any φ is not
        0.
        """
        return dict(zip(self.modalities, (self._shares / self._shared).tolist(), strict=True))

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right predictions by coalition name, of k tied classes 1/k right; without the
        empty coalition, and nothing where
        there are no classes or labels.
        """
        return self._by_coalition(self._class_hits.sum(0).double() / self.samples)

    def class_accuracy(self, label: int) -> dict[str, float]:
        """The same among the samples of one class; NaN where there is none."""
        return self._by_coalition(self._class_hits[label].double() / self._class_samples[label])

    @property
    def macro_f1(self) -> dict[str, float]:
        """F1 by coalition name, the mean over all classes; 0 for a class that is neither there nor
        predicted. Of the empty coalition, "", that of predicting the most frequent class.
        """
        if not len(self._class_hits):
            return {}
        hits, chosen = self._class_hits.T.clone(), self._class_choices.T.clone()
        most = int(self._class_samples.argmax())
        hits[0, most], chosen[0, most] = self._class_samples[most], self._class_samples.sum()
        scores = macro_f1(hits, chosen, self._class_samples).tolist()
        return dict(zip(self._coalitions, scores, strict=True))

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
        """Mean standard error of a contribution by modality; nothing where they are exact."""
        return {m: self.mean(f"stderr_{m}") for m in self.modalities if self.has(f"stderr_{m}")}

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the prediction from all modalities, in nats; NaN where there are no
        classes or labels.
        """
        return self._loss / self.samples if self.samples else float("nan")

    @property
    def further(self) -> list[str]:
        """The names of the further columns."""
        return self._further

    def has(self, column: str) -> bool:
        """Whether there is a column of that name."""
        return column in self._names

    def mean(self, column: str) -> float:
        """The mean of a column: `contribution_<modality>`, `low_<modality>`, `stderr_<modality>`
        (where coalitions are drawn), `accuracy_<coalition>` (of `display_coalitions`) or a further
        one.
        """
        if not self._names:
            return float("nan")
        return float(self._means.mean[self._names.index(column)])

    def interval(
        self, column: str, level: float = 0.95, minus: "Summary | None" = None
    ) -> tuple[float, float]:
        """The bootstrap interval of that mean, or of its difference to that of other samples
        (`minus`, which had another seed); NaN before the first of them, and without replicates.
        """
        if not self._names or (minus is not None and not minus._names):
            return float("nan"), float("nan")
        other = None if minus is None else minus._means
        low, high = self._means.interval(level, other, self._names.index(column))[0].tolist()
        return low, high

    def state(self) -> dict[str, Any]:
        """All it has taken in, to go on from: tensors, numbers and text."""
        return {
            "samples": self.samples,
            "unpredicted": self.unpredicted,
            "residual": self.residual,
            "names": self._names,
            "further": self._further,
            "told": self._told,
            "coalitions": self._coalitions,
            "means": self._means.state(),
            "shared": self._shared,
            "loss": self._loss,
            **{name: getattr(self, f"_{name}").clone() for name in _TOTALS},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state()`."""
        self.samples, self.unpredicted = state["samples"], state["unpredicted"]
        self.residual = state["residual"]
        self._names, self._coalitions = state["names"], state["coalitions"]
        self._further, self._told = state["further"], state["told"]
        self._means = BootstrapMeans(len(self._names), *self._replicates)
        self._means.load(state["means"])
        self._shared, self._loss = state["shared"], state["loss"]
        for name in _TOTALS:
            setattr(self, f"_{name}", state[name].clone())

    def _begin(self, batch: ValuedBatch, further: list[str]) -> None:
        """Make room for what batches like this one have."""
        self._coalitions = coalition_names(self.modalities, batch.coalitions)
        kinds = ["contribution", "low", *(["stderr"] if batch.stderr is not None else [])]
        self._names = [f"{kind}_{m}" for kind in kinds for m in self.modalities]
        if batch.hits is not None:
            told = display_coalitions(self._coalitions[1:])
            self._told = [self._coalitions.index(name) for name in told]
            self._names += [f"accuracy_{name}" for name in told]
        self._further = further
        self._names += further
        self._means = BootstrapMeans(len(self._names), *self._replicates)
        self._values = torch.zeros(len(self._coalitions), dtype=torch.float64)
        self._order = table_order(batch.coalitions)
        if batch.hits is not None:
            # an output a class, or, of one of several labels, a single one
            classes = self._n_classes or max(2, batch.outputs.shape[1])
            self._class_samples = torch.zeros(classes, dtype=torch.long)
            shape = (classes, len(self._coalitions))
            self._class_hits = torch.zeros(shape, dtype=torch.float64)
            self._class_choices = torch.zeros_like(self._class_hits)
            if batch.outputs.shape[1] > 1:
                self._loss = 0.0

    def _by_coalition(self, numbers: Tensor) -> dict[str, float]:
        if not len(self._class_hits):
            return {}
        return dict(zip(self._coalitions[1:], numbers[1:].tolist(), strict=True))


def low_contributing(contributions: Tensor, fair_share: float | None = 1.0) -> Tensor:
    """Where a modality is low-contributing, φ < its fair share.

    Args:
        contributions: `(samples, n)`.
        fair_share: 1 with the paper's value; None for the mean of a sample's contributions, which
            is its own (v(N) − v(∅)) / n.

    Returns:
        bool `(samples, n)`. A rounding error below the fair share does not count.
    """
    share = contributions.mean(-1, keepdim=True) if fair_share is None else fair_share
    return contributions < share - ROUNDING

"""The library call: any model and batches in memory → what every modality contributed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import t as student
from torch import Tensor

from mmcoop.core.choices import ABSENT
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.imputers.adapters import check_callable, check_takes_present
from mmcoop.core.imputers.outputs import Output
from mmcoop.core.imputers.wrap import ImputedModel
from mmcoop.core.modalities import check_modalities
from mmcoop.core.valuation.bootstrap import REPLICATES
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import ValuedBatch, value_batches
from mmcoop.core.valuation.game import Model
from mmcoop.core.valuation.summary import Summary
from mmcoop.core.valuation.value_functions import ValueFunction, Worth
from mmcoop.errors import DataError, UsageError
from mmcoop.locks import locked
from mmcoop.reading.scores import POSITIONS
from mmcoop.scores.table import scores_file, scores_table, valuation_details


@dataclass(frozen=True, repr=False)
class Valuation:
    """The valuation of some samples; tensors have samples first.

    `ids`: their ids, or positions: then `details["ids"]` says so. `labels`, `predictions`: int64
    `(samples,)`, of a regression float64; labels are None where there are none. `values`: float64
    `(samples, 2**n)`, one column per coalition (bit m of the column's number is the m-th modality).
    `contributions`: float64 `(samples, n)`; a row sums to the value of the grand coalition less
    that of the empty one. `details`: how they were computed, as written into the file.

    `coalitions`: bool `(k, n)`, which modalities each column of `values` is of; None for all, as
    above. Where coalitions were drawn, `values` are of a few (`anchor_coalitions`), `stderr` are
    the standard errors of the contributions, and `draws`, int64 `(samples,)`, the pairs they are
    from. `groups`: which samples depend on each other, where the batches say so. `correct`: how
    right each prediction is, float64 `(samples,)`: 1/k where the label is one of k tied classes;
    None where there are no classes or labels.
    """

    modalities: tuple[str, ...]
    ids: list[str]
    labels: Tensor | None
    predictions: Tensor
    values: Tensor
    contributions: Tensor
    details: Mapping[str, Any] = field(default_factory=dict)
    coalitions: Tensor | None = None
    stderr: Tensor | None = None
    draws: Tensor | None = None
    groups: list[str] | None = None
    correct: Tensor | None = None

    def __repr__(self) -> str:
        means = zip(self.modalities, self.contributions.mean(0).tolist(), strict=True)
        told = ", ".join(f"{m} {mean:.3g}" for m, mean in means)
        value = self.details.get("value", "")
        return f"<Valuation of {len(self.ids):,} samples, value {value}: mean φ {told}>"

    def interval(self, level: float = 0.95) -> Tensor:
        """Confidence interval of each contribution for the coalitions that were drawn, float64
        `(samples, n, 2)`: Student's, with one less degrees of freedom than pairs were drawn. Of an
        exact contribution both ends are the contribution.
        """
        half = torch.zeros_like(self.contributions)
        if self.stderr is not None and self.draws is not None:
            drawn = self.draws > 1
            freedom = (self.draws[drawn] - 1).numpy()
            quantile = torch.from_numpy(student.ppf((1 + level) / 2, freedom))
            half[drawn] = quantile.unsqueeze(1) * self.stderr[drawn]
        return torch.stack([self.contributions - half, self.contributions + half], dim=-1)

    def means(self, level: float = 0.95, replicates: int = REPLICATES) -> pd.DataFrame:
        """A row a modality: mean contribution with its bootstrap interval over samples (`low`,
        `high`; over groups where samples have them), and the share of samples to which it is
        low-contributing.
        """
        share = self.details.get("fair_share")
        summary = Summary(self.modalities, fair_share=share, replicates=replicates)
        summary.add(self._as_batch())
        rows = []
        for m in self.modalities:
            low, high = summary.interval(f"contribution_{m}", level)
            rows.append((m, summary.mean_contribution[m], low, high, summary.low_contributing[m]))
        columns = ["modality", "mean", "low", "high", "low_contributing"]
        return pd.DataFrame(rows, columns=columns).set_index("modality")

    def to_frame(self) -> pd.DataFrame:
        """One row a sample, with the columns of the scores file."""
        frame: pd.DataFrame = scores_table(self.modalities, None, self._as_batch()).to_pandas()
        return frame

    def save(self, path: Path | str) -> None:
        """Write a scores file, whole or not at all, in place of what is at `path`."""
        path = Path(path)
        with locked(path), scores_file(path, self.modalities, self.details) as writer:
            writer.write(scores_table(self.modalities, None, self._as_batch()))

    def _as_batch(self) -> ValuedBatch:
        coalitions = self.coalitions
        if coalitions is None:
            coalitions = coalition_matrix(len(self.modalities))
        return ValuedBatch(
            ids=self.ids,
            coalitions=coalitions,
            labels=self.labels,
            predictions=self.predictions,
            outputs=torch.empty(len(self.ids), 0),
            choices=None,
            values=self.values,
            contributions=self.contributions,
            stderr=self.stderr,
            draws=self.draws,
            groups=self.groups,
            correct=self.correct,
        )


def valuate(
    model: Model,
    batches: Iterable[Any],
    *,
    modalities: Sequence[str],
    value: str | ValueFunction | Worth = "paper",
    absent: str = "zero",
    estimator: str = "auto",
    budget: int | None = None,
    tolerance: float | None = None,
    max_batch: int | None = None,
    seed: int = 0,
    output: Output = None,
) -> Valuation:
    """What every modality contributed to every sample.

    `model` is any callable `(inputs: dict by modality, present: bool (rows, n)) -> outputs (rows,
    classes)`; a row is a sample with a coalition of its modalities. For a model that takes no
    `present`, `mmcoop.replace_inputs` and `mmcoop.replace_features` make one. Each call is given
    copies of the inputs, so a model may work in place.

    Outputs are logits, a tensor or array, or have them as an item called `logits`, or as the only
    item with one row per row of input; `output` names another item (`output=2`, `output="scores"`).
    A single output per row is the logit of the second of two classes. `output="probabilities"` says
    that they are probabilities; outputs that look like these are refused unless it or
    `output="logits"` is given.

    Batches are mappings or objects with `inputs`, `labels` and, optionally, `ids` and `groups`
    (which samples depend on each other, as takes of one speaker do: intervals then go by groups),
    or tuples `(inputs, labels)`, or of the inputs in order and the labels. Inputs and labels are
    tensors, NumPy arrays, sparse matrices of SciPy or pandas tables, the latter row by row. The ids
    of samples without any are their positions: the indices that a `DataLoader` draws from its data
    set, shuffled or not, else a count from 0. Such scores are marked, and cannot be joined with a
    data set.
    `modalities` names the columns of `present`, in order.

    `value` names the value function (`VALUE_FUNCTIONS` in `core/valuation/value_functions.py`;
    "paper": |S| where the prediction from S is right, else 0), or is a user-defined one: `(outputs
    (rows, …), targets (rows, …), sizes (rows,)) -> values (rows,)`. `absent` is recorded with the
    scores: how the model represents an absent modality, "zero" unless it says so itself.
    `estimator`, `budget`, `tolerance`, `max_batch` and `seed`: see `ValuationConfig`.

    Raises `UsageError` for an unknown name, a budget that is too small, and what is no model or no
    iterable of batches; `DataError` for a batch, labels or outputs that do not fit, and when there
    is no batch at all.
    """
    check_callable(model)
    names = check_modalities(modalities)
    _check_batches(batches)
    check_takes_present(model, names)
    if output is not None and isinstance(model, ImputedModel):
        raise UsageError(
            f"output={output!r} is for the model that is wrapped: give it to replace_inputs or "
            "replace_features"
        )
    if not isinstance(absent, str) or absent not in ABSENT:
        raise UsageError(f"unknown absence {absent!r}: choose one of {', '.join(ABSENT)}")
    how = ValuationConfig(value, estimator, budget, tolerance, max_batch, seed)
    found: list[ValuedBatch] = []
    ids: list[str] = []
    groups: list[str] = []
    for batch in value_batches(model, batches, modalities=names, how=how, output=output):
        if found and batch.numbered != found[0].numbered:
            raise DataError(
                f"batch {len(found)} has {'no ids' if batch.numbered else 'ids'}, unlike those "
                "before it: give ids with all batches, or with none"
            )
        ids += batch.ids
        groups += batch.groups or []
        found.append(batch)
    if not found:
        raise DataError("there is no batch to value")
    if groups and len(groups) != len(ids):
        raise DataError("some batches have `groups` and some have none: give them to all")

    def whole(name: str) -> Any:
        parts = [getattr(batch, name) for batch in found]
        return None if any(part is None for part in parts) else torch.cat(parts)

    told = ("labels", "predictions", "values", "contributions", "stderr", "draws", "correct")
    return Valuation(
        modalities=names,
        ids=ids,
        details={
            **valuation_details(how, len(names), getattr(model, "absent", absent)),
            **({} if output is None else {"output": output}),
            **({"ids": POSITIONS} if found[0].numbered else {}),
        },
        coalitions=found[0].coalitions,
        groups=groups or None,
        **{name: whole(name) for name in told},
    )


def _check_batches(batches: Any) -> None:
    single = isinstance(batches, Mapping) or hasattr(batches, "inputs")
    if single:
        raise UsageError("`batches` is a single batch: put it into a list")
    if isinstance(batches, str | Tensor) or not isinstance(batches, Iterable):
        raise UsageError(
            f"`batches` is a {type(batches).__name__}: give an iterable of batches, such as a "
            "DataLoader or a list"
        )

"""The library call: any model and batches in memory → what every modality contributed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from mmcoop.core.choices import ABSENT
from mmcoop.core.imputers.adapters import check_callable, check_takes_present
from mmcoop.core.imputers.outputs import Output
from mmcoop.core.imputers.wrap import ImputedModel
from mmcoop.core.modalities import check_modalities
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import ValuedBatch, value_batches
from mmcoop.core.valuation.game import Model
from mmcoop.core.valuation.value_functions import ValueFunction, Worth
from mmcoop.errors import DataError, UsageError
from mmcoop.reading.scores import POSITIONS
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import scores_table, valuation_details


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
) -> Scores:
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
    tables: list[pa.Table] = []
    first: ValuedBatch | None = None
    for batch in value_batches(model, batches, modalities=names, how=how, output=output):
        if first is None:  # a batch may be empty, and so false
            first = batch
        if batch.numbered != first.numbered:
            raise DataError(
                f"batch {len(tables)} has {'no ids' if batch.numbered else 'ids'}, unlike those "
                "before it: give ids with all batches, or with none"
            )
        if (batch.groups is None) != (first.groups is None):
            raise DataError("some batches have `groups` and some have none: give them to all")
        tables.append(scores_table(names, None, batch))
    if first is None:
        raise DataError("there is no batch to value")
    details = {
        **valuation_details(how, len(names), getattr(model, "absent", absent)),
        **({} if output is None else {"output": output}),
        **({} if first.choices is None else {"classes": max(2, first.outputs.shape[1])}),
        **({"ids": POSITIONS} if first.numbered else {}),
    }
    return Scores(pa.concat_tables(tables, promote_options="permissive"), names, details)


def _check_batches(batches: Any) -> None:
    single = isinstance(batches, Mapping) or hasattr(batches, "inputs")
    if single:
        raise UsageError("`batches` is a single batch: put it into a list")
    if isinstance(batches, str | Tensor) or not isinstance(batches, Iterable):
        raise UsageError(
            f"`batches` is a {type(batches).__name__}: give an iterable of batches, such as a "
            "DataLoader or a list"
        )

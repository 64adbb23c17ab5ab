"""`mmcoop.valuate`: any model and batches in memory → the contribution of every modality."""

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
    """Compute the contribution of every modality to every sample.

    Args:
        model: A callable `(inputs by modality, present) -> outputs (rows, classes)`, where
            `present` is bool `(rows, n)`. For a model without `present`, use
            `mmcoop.replace_inputs` or `mmcoop.replace_features`. Every call receives copies, so the
            model may work in place. Outputs are logits: a tensor or array, or the item called
            `logits`, or the only item with one row per row of input. A single output is the logit
            of the second of two classes.
        batches: Mappings or objects with `inputs`, `labels` and, optionally, `ids` and `groups`; or
            tuples `(inputs, labels)` or `(first input, …, labels)`. Samples of a group depend on
            each other, such as recordings of one speaker: intervals then treat groups as units.
            Inputs and labels are tensors, NumPy arrays, sparse SciPy matrices or pandas tables.
            Without ids, a sample is known by its position: the index that a `DataLoader` draws,
            else a count from 0. Such scores are marked, and cannot be joined with a dataset.
        modalities: Names of the modalities, in the order of the columns of `present`.
        value: A value function, by name or user-defined:
            `(outputs (rows, …), targets (rows, …), sizes (rows,)) -> values (rows,)`. `"paper"` is
            |S| if the prediction from S is right, else 0.
        absent: How the model represents an absent modality, recorded with the scores. Ignored for
            a wrapped model, which records its own imputer.
        estimator: See `ValuationConfig`, also for the next four.
        budget: At most this many coalitions per sample, if they are sampled.
        tolerance: The standard error at which sampling stops.
        max_batch: At most this many queries per call of the model.
        seed: Seed of the sampling.
        output: The item of the model's output that holds the predictions, by name or position, or
            `"logits"` or `"probabilities"`. Outputs that look like probabilities are refused unless
            one of the last two is given.

    Returns:
        The scores, one row per sample.

    Raises:
        UsageError: A name is unknown, the budget is too small, `model` is not callable, or
            `batches` is not an iterable of batches.
        DataError: There are no batches, or a batch, its labels or the outputs have the wrong form.
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
        if first is None:  # not `not first`: an empty batch is falsy
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

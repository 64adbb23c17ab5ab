"""Model + batches → values of coalitions and contributions, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.games.coalitions import (
    anchor_coalitions,
    coalition_matrix,
    coalition_names,
)
from mmcoop.core.games.estimators import Estimate, sampled_values
from mmcoop.core.games.shapley import contributions_of
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.imputers.outputs import LOGITS, Output, OutputReader
from mmcoop.core.imputers.sample_order import SampleOrder
from mmcoop.core.imputers.user_batch import read_batch
from mmcoop.core.modalities import check_modalities
from mmcoop.core.pytree import to_device
from mmcoop.core.seeds import generator
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.game import BatchGame, Model, batch_game, device_of
from mmcoop.core.valuation.targets import Targets, targets_of
from mmcoop.core.valuation.value_functions import (
    ANY,
    CLASSES,
    LABELS,
    NUMBERS,
    ValueFunction,
    value_function,
)
from mmcoop.errors import DataError

_USUAL = ValuationConfig()


@dataclass(frozen=True)
class ValuedBatch:
    """One batch, valued. Tensors are on the CPU, samples first.

    Args:
        ids: the batch's own or, where `numbered`, positions (`core/imputers/sample_order.py`).
        coalitions: bool `(k, n)`, those whose values are there: all 2**n in table order or, where
            coalitions are drawn, `anchor_coalitions`.
        labels: int64 `(batch,)`; of a regression the numbers, float64; None where there are none.
        predictions: what is predicted from all modalities, of the same kind; the first of tied
            classes, −1 where logits are not numbers.
        outputs: the model's from all modalities, `(batch, …)`, of classes and labels as logits.
        choices: int64 `(batch, k)`, the class predicted from each coalition, the first of tied
            ones, −1 for the empty one, which predicts nothing; None where there are no classes.
        values: float64 `(batch, k)`.
        contributions: float64 `(batch, n)`, Shapley values.
        stderr: where coalitions are drawn, standard errors of the contributions.
        draws: int64 `(batch,)`, the number of pairs that these are from.
        groups: which rows depend on each other, the batch's own or, of several rows per sample, the
            samples; None where rows are independent.
        ties: int64 `(t, 3)`, for each class of a tie the sample, the coalition (its column) and
            the class; None where nothing is tied.
        correct: how right the prediction from all modalities is, float64 `(batch,)`: the last
            column of `hits`.
        numbered: whether the batch had no ids.

    If each of several labels a sample has a value of its own, each is a row, those of a sample one
    after the other: label and prediction are 0 or 1, and ids end in the label's number (`clip/3`;
    samples without ids are numbered from 0).
    """

    ids: list[str]
    coalitions: Tensor
    labels: Tensor | None
    predictions: Tensor
    outputs: Tensor
    choices: Tensor | None
    values: Tensor
    contributions: Tensor
    stderr: Tensor | None = None
    draws: Tensor | None = None
    groups: list[str] | None = None
    ties: Tensor | None = None
    correct: Tensor | None = None
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.contributions)

    @property
    def hits(self) -> Tensor | None:
        """How right each coalition's prediction is, float64 `(batch, k)`: 1 where it is the label,
        1/k where the label is one of k tied classes, else 0. None where there is no class or no
        label.
        """
        if self.choices is None or self.labels is None:
            return None
        hits = (self.choices == self.labels.unsqueeze(1)).double()
        if self.ties is not None:
            sample, coalition, tied = self.ties.unbind(1)
            hits[sample, coalition] = 0.0
            right = tied == self.labels[sample]
            hits[sample[right], coalition[right]] = self.tie_shares[right]
        return hits

    @property
    def tie_shares(self) -> Tensor:
        """How often each row of `ties` is predicted, 1/k of k tied classes; float64 `(t,)`."""
        if self.ties is None:
            return torch.zeros(0, dtype=torch.float64)
        sample, coalition, _ = self.ties.unbind(1)
        place = sample * self.coalitions.shape[0] + coalition
        return 1 / torch.bincount(place)[place].double()


def value_batches(
    model: Model,
    batches: Iterable[Any],
    *,
    modalities: Sequence[str],
    how: ValuationConfig = _USUAL,
    output: Output = None,
    n_classes: int | None = None,
) -> Iterator[ValuedBatch]:
    """Value every sample of every batch, in order, holding one batch at a time.

    A model with `encode(inputs, present)`, `fuse(features, present)` and
    `coalition_logits(features, coalitions)`, as `MultimodalModel` has, encodes each modality once a
    sample and answers all coalitions from that; any other callable is given rows, a sample and a
    coalition each. A `torch.nn.Module` is put into evaluation mode while a batch is valued and then
    back into the mode it was in, module by module.

    `core/imputers/user_batch.py: read_batch` says what a batch may be; `modalities` gives the order
    of the columns. `output` says which item of the model's output its predictions are, or on which
    scale
    (`core/imputers/outputs.py`); `n_classes`, how many classes there are, where that is known.

    Raises `UsageError` where `how` does not fit this many modalities, `DataError` for a modality
    without input, labels that the value function is not of, outputs of the wrong shape, and values
    that are not finite numbers.
    """
    names = check_modalities(modalities)
    function = value_function(how.value)
    estimator, budget = how.chosen(len(names))
    coalitions = (anchor_coalitions if budget else coalition_matrix)(len(names))
    device = device_of(model)
    known = getattr(model, "gives_logits", False) is True
    reader = OutputReader(LOGITS if known else output)
    order = SampleOrder(batches)
    for raw in order:
        batch = read_batch(raw, names)
        numbers = order.positions(batch.samples, needed=batch.ids is None)
        keys = [str(number) for number in numbers] if batch.ids is None else batch.ids
        inputs = batch.inputs
        if device is not None:
            inputs = {m: to_device(x, device) for m, x in inputs.items()}
        with torch.inference_mode(), evaluation_mode(model):
            game = batch_game(model, inputs, batch.samples, names, how.max_batch, reader)
            # the grand coalition goes first: it says what is predicted
            outputs = next(iter(game.table(coalitions[-1:])))[:, 0]
            question = targets_of(function, batch.labels, outputs, reader.probabilities, n_classes)
            play = _Play(game, function, question, reader)
            values, choices, ties = play.table(coalitions, outputs, names)
            estimate = None
            if budget:
                estimate = sampled_values(
                    estimator,
                    play.rows,
                    values,
                    [generator(how.seed, "coalitions", key) for key in keys],
                    n_modalities=len(names),
                    budget=budget,
                    tolerance=how.tolerance,
                )
        ids = _ids(keys, values.shape[2])
        groups = _groups(batch.groups, keys, values.shape[2])
        valued = _valued(ids, coalitions, play.question, outputs, values, choices, estimate)
        found = _ties(ties, valued, values.shape[2])
        valued = replace(valued, groups=groups, ties=found, numbered=batch.ids is None)
        hits = valued.hits
        yield valued if hits is None else replace(valued, correct=hits[:, -1])


class _Play:
    """One batch's game, valued: what a value function makes of a model's outputs."""

    def __init__(
        self, game: BatchGame, function: ValueFunction, question: Targets, reader: OutputReader
    ) -> None:
        self.reader = reader
        self.game = game
        self.function = function
        self.question = question

    def table(
        self, coalitions: Tensor, grand: Tensor, names: Sequence[str]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Of every sample with each of the coalitions, of which the first is the empty and the last
        the grand one, whose outputs are there: values `(samples, k, q)`, what is predicted,
        `(samples, k, …)`, if it is classes or labels, and the ties (`Targets.ties`) if there are
        any.
        """
        asked = coalitions if self.function.empty else coalitions[1:]
        values, choices, ties, start = [], [], [], 0
        for outputs in chain(self.game.table(asked[:-1]), [grand.unsqueeze(1)]):
            samples, k = outputs.shape[:2]
            suspect = self._may_be_probabilities(outputs)
            sizes = asked[start : start + k].sum(1)
            # rows in the order in which the outputs lie, so that they need not be copied
            if outputs.is_contiguous():
                sample = torch.arange(samples).repeat_interleave(k)
                worth = self._worth(outputs.flatten(0, 1), sample, sizes.repeat(samples))
                values.append(worth.view(samples, k, worth.shape[1]))
            else:
                sample = torch.arange(samples).repeat(k)
                rows = outputs.transpose(0, 1).flatten(0, 1)
                worth = self._worth(rows, sample, sizes.repeat_interleave(samples))
                values.append(worth.view(k, samples, worth.shape[1]).transpose(0, 1))
            if self.question.kind != NUMBERS:
                readable = self.question.read(outputs)
                choices.append(self.question.choices(readable))
                found = self.question.ties(readable, choices[-1])
                found[:, 1] += start
                ties.append(found)
            start += k
        if suspect:
            use = f"value function {self.function.name!r}"
            self.reader.refuse_probabilities(use, self._distributions(grand))
        table = torch.cat(values, dim=1)
        if not table.isfinite().all():
            sample, k, _ = (~table.isfinite()).nonzero()[0].tolist()
            name = coalition_names(names, asked[k : k + 1])[0] or "no modality"
            raise DataError(
                f"value function {self.function.name!r} gave {float(table[sample, k].sum())} for "
                f"{name} of sample {sample} in its batch: look for NaN in the model's outputs"
            )
        if not self.function.empty:  # v(∅) = 0 by definition
            table = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
        if not choices:
            return table, None, None
        said, tied = torch.cat(choices, dim=1), torch.cat(ties)
        if self.function.empty:  # asked or not, nothing predicts nothing
            said, tied = said[:, 1:], tied[tied[:, 1] > 0]
        else:
            tied[:, 1] += 1
        nothing = torch.full_like(said[:, :1], -1)
        return table, torch.cat([nothing, said], dim=1), tied if len(tied) else None

    def rows(self, sample: Tensor, present: Tensor) -> Tensor:
        """Values `(rows, q)` of samples with what is present."""
        # part by part, as outputs of many classes are much larger than their values
        worth = torch.cat(
            [
                self._worth(self.game.rows(some, here), some, here.sum(1))
                for some, here in self.game.parts(sample, present)
            ]
        )
        if not worth.isfinite().all():
            raise DataError(
                f"value function {self.function.name!r} gave NaN or infinity: look for NaN in the "
                "model's outputs"
            )
        return worth

    def _distributions(self, outputs: Tensor) -> bool:
        """Whether rows, if they are probabilities, are of classes that exclude each other."""
        single = self.question.column or outputs.shape[-1] == 1
        return self.question.kind == CLASSES and not single

    def _may_be_probabilities(self, outputs: Tensor) -> bool:
        """Whether outputs look like probabilities, where that makes a difference."""
        if self.function.targets == ANY or self.question.kind == NUMBERS:
            return False
        distributions = self._distributions(outputs)
        if distributions and not self.function.scaled:
            return False
        return self.reader.may_be_probabilities(outputs, distributions)

    def _worth(self, outputs: Tensor, sample: Tensor, sizes: Tensor) -> Tensor:
        device = outputs.device
        targets = self.question.targets[sample.to(device)]
        # a function of the user's is given a copy of what the model put out
        outputs = outputs.clone() if self.function.targets == ANY else self.question.read(outputs)
        worth = torch.as_tensor(self.function.worth(outputs, targets, sizes.to(device)))
        if worth.dim() not in (1, 2) or len(worth) != len(outputs):
            raise DataError(
                f"value function {self.function.name!r} gave values of shape "
                f"{tuple(worth.shape)} for {len(outputs)} rows: expected (rows,)"
            )
        worth = worth.double().cpu()
        return worth if worth.dim() == 2 else worth.unsqueeze(1)


def _ids(keys: list[str], q: int) -> list[str]:
    """The samples' ids; of q labels per sample one for each, `clip/0` and on."""
    return keys if q == 1 else [f"{key}/{label}" for key in keys for label in range(q)]


def _ties(found: Tensor | None, valued: ValuedBatch, q: int) -> Tensor | None:
    """The ties of a batch's rows, q of them a sample: a row, its coalition and a class each."""
    if found is None or valued.choices is None:
        return None
    sample, coalition, label, tied = found.unbind(1)
    return torch.stack([sample * q + label, coalition, tied], dim=1)


def _groups(own: list[str] | None, keys: list[str], q: int) -> list[str] | None:
    """The batch's own groups; the q labels of a sample depend on each other without them too."""
    return own if q == 1 else [group for group in own or keys for _ in range(q)]


def _valued(
    ids: list[str],
    coalitions: Tensor,
    question: Targets,
    outputs: Tensor,
    values: Tensor,
    choices: Tensor | None,
    estimate: Estimate | None,
) -> ValuedBatch:
    """The batch, valued: one row per sample, or per label of a sample if labels have own values."""
    q = values.shape[2]
    outputs = question.read(outputs)
    labels, said = question.labels, question.choices(outputs)
    outputs = outputs.cpu() if question.kind == NUMBERS else outputs.cpu().float()
    if q > 1:
        if question.kind != LABELS or q != outputs.shape[1]:
            raise DataError(
                f"a value function gave {q} values a sample: expected one, or one for each of "
                "several labels"
            )
        outputs, said = outputs.reshape(-1, 1), said.flatten()
        labels = None if labels is None else labels.flatten()
        choices = None if choices is None else choices.transpose(1, 2).flatten(0, 1)
    elif question.kind == LABELS:
        choices = None  # several labels, one value: there is no single prediction to be right

    def rows(x: Tensor) -> Tensor:
        """`(samples, k, q)` → `(samples · q, k)`."""
        return x.transpose(1, 2).flatten(0, 1)

    table = rows(values)
    drawn: dict[str, Any] = {}
    if estimate is None:
        contributions = contributions_of(table, coalitions.shape[1])
    else:
        contributions = rows(estimate.contributions)
        drawn = {
            "stderr": rows(estimate.stderr),
            "draws": estimate.draws.repeat_interleave(q),
        }
    # clones, since these are still tensors of inference mode
    return ValuedBatch(
        ids=ids,
        coalitions=coalitions,
        labels=None if labels is None else labels.clone(),
        predictions=said.clone(),
        outputs=outputs.clone(),
        choices=None if choices is None else choices.clone(),
        values=table.clone(),
        contributions=contributions.clone(),
        stderr=drawn["stderr"].clone() if drawn else None,
        draws=drawn["draws"].clone() if drawn else None,
    )

"""Any model, unchanged → a callable that also answers when modalities are absent.

What an absent modality is replaced by: zeros, the mean over a background, or, for each of some
draws from it, the values of another sample, the outputs averaged over draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcoop.core.choices import ABSENT
from mmcoop.core.imputers.adapters import Call, calling_adapter, check_callable, module_of
from mmcoop.core.imputers.background import (
    Inputs,
    background_inputs,
    drawn_samples,
    equally_long,
    mean_of,
)
from mmcoop.core.imputers.hooks import check_submodules, features_at, hooked
from mmcoop.core.imputers.outputs import Output, OutputReader, class_logits, label_logits
from mmcoop.core.imputers.user_batch import admitted
from mmcoop.core.modalities import check_modalities
from mmcoop.core.pytree import batch_size, take, tree_map
from mmcoop.errors import DataError, UsageError


def _log_mean(logarithms: Tensor) -> Tensor:
    return logarithms.logsumexp(1) - math.log(logarithms.shape[1])


def _average_of_classes(logits: Tensor) -> Tensor:
    """log p̄, p̄ the mean over draws of softmax probabilities: `(rows, draws, classes)` →
    `(rows, classes)`.
    """
    return _log_mean(logits.log_softmax(-1))


def _average_of_labels(logits: Tensor) -> Tensor:
    """log p̄ − log(1 − p̄), p̄ the mean over draws of sigmoid probabilities, label by label."""
    return _log_mean(F.logsigmoid(logits)) - _log_mean(F.logsigmoid(-logits))


def _by_class(outputs: Tensor, probabilities: bool) -> Tensor:
    """Class logits of the outputs `(rows, classes)`, or `(rows,)` for two classes."""
    if outputs.dim() > 2:
        raise _no_classes(outputs)
    return class_logits(outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs, probabilities)


def _by_several_classes(outputs: Tensor, probabilities: bool) -> Tensor:
    """The same of outputs that cannot be anything else."""
    if outputs.dim() != 2 or outputs.shape[1] == 1:
        raise _no_classes(outputs)
    return class_logits(outputs, probabilities)


def _no_classes(outputs: Tensor) -> DataError:
    return DataError(
        f"the model gives outputs of shape {tuple(outputs.shape)}, and not (rows, classes): give "
        "task='regression' or task='multi-label' if it has no classes to choose from, or "
        "task='classification' if one output is the logit of the second of two classes"
    )


@dataclass(frozen=True)
class Task:
    """What the outputs of a model are.

    `to_logits`: `(outputs, whether they are probabilities) -> logits`; None where they are numbers
    on no such scale. `average`: logits or numbers `(rows, draws, …) -> (rows, …)`. `exclusive`:
    whether they are classes, which exclude each other.
    """

    to_logits: Callable[[Tensor, bool], Tensor] | None
    average: Callable[[Tensor], Tensor]
    exclusive: bool = False


#: What the outputs of a model are, and so how they are averaged over draws.
TASKS: dict[str, Task] = {
    "classification": Task(_by_class, _average_of_classes, exclusive=True),
    "multi-label": Task(label_logits, _average_of_labels),
    "regression": Task(None, lambda outputs: outputs.mean(1)),
}
# where the user does not say: nothing but several classes is certain
_UNSAID = Task(_by_several_classes, _average_of_classes, exclusive=True)


def replace_inputs(
    model: Callable[..., Any],
    modalities: Sequence[str],
    absent: str = "zero",
    *,
    background: Any = None,
    draws: int = 8,
    seed: int = 0,
    task: str | None = None,
    call: Call | None = None,
    output: Output = None,
) -> "ImputedModel":
    """Wrap `model` so that the inputs of absent modalities are replaced.

    Args:
        model: A `torch.nn.Module` or any other callable. It is called as `model(**inputs)` if it
            has parameters named after the modalities, else as `model(inputs)`. Every call receives
            copies, so the model may work in place.
        modalities: Names of the modalities, in the order of the columns of `present`. The input of
            a modality is a tensor or several, in dicts, lists and tuples.
        absent: The replacement. `"zero"`: zeros, in integers and masks as well. `"mean"`: the mean
            over the background; not for integers or varying lengths. `"marginal"`: the input of
            another sample, all its tensors together, for each of `draws` samples from the
            background; outputs are averaged. All rows get the same draws, and all absent modalities
            of a row come from the same sample. Shorter tensors are padded with zeros at the end.
        background: An iterable of batches, or the inputs of one batch. It is read once, one batch
            at a time; not needed for `"zero"`.
        draws: Samples drawn for `"marginal"`; at most all of the background, each once.
        seed: Seed of the draws.
        task: What the outputs are, and so what `"marginal"` averages. `"classification"` (the
            default for two or more outputs): softmax probabilities; the result is their logarithm,
            and a single output is the logit of the second of two classes. `"multi-label"`: the
            sigmoid probability of each label; the result is its logit. `"regression"`: the outputs.
        call: `call(model, inputs)` calls the model instead.
        output: The item of the model's output that holds the logits, such as `"logits"` or `2`, if
            it is neither called `logits` nor the only one with one row per row of input.
            `"probabilities"`: outputs are probabilities, and their logarithm is taken.

    Returns:
        A `torch.nn.Module` `(inputs, present) -> logits`, where `present` is bool `(rows, n)`. A
        row with all modalities goes through the model unchanged. No call has more rows than
        `present`.

    Raises:
        UsageError: Unknown names, too few draws, or no background.
        DataError: A background or, when called, inputs or outputs that do not fit.
    """
    check_callable(model)
    names = check_modalities(modalities)
    _check(absent, background, draws)
    way = call or calling_adapter(model, names)
    replacing = partial(ImputedModel, model, names, way, OutputReader(output), _task(task))
    if absent == "zero":
        return replacing("input zero")
    batches = background_inputs(background, names)
    if absent == "mean":
        means = mean_of((batch_size(inputs), inputs) for inputs in batches)
        return replacing("input mean", fillers=means)
    drawn = drawn_samples(batches, draws, seed)
    draws = batch_size(drawn)
    return replacing(f"input {_marginal(draws)}", fillers=drawn, draws=draws)


def replace_features(
    model: nn.Module,
    places: Mapping[str, str],
    absent: str = "zero",
    *,
    background: Any = None,
    draws: int = 8,
    seed: int = 0,
    task: str | None = None,
    call: Call | None = None,
    output: Output = None,
) -> "ImputedModel":
    """Wrap `model` so that the features of absent modalities are replaced, at submodules.

    Mean and marginal are taken of features: they are computed at once, in evaluation mode, with the
    current weights of the model.

    Args:
        model: The model.
        places: The name of a submodule by modality, as in `model.named_modules()`, whose output is
            the features of the modality: `{"audio": "audio_encoder", "visual": "backbone.fc"}`. All
            tensors of the output are replaced; they have samples on the first axis. A call of the
            model must reach the submodule once.
        absent: As for `replace_inputs`.
        background: As for `replace_inputs`.
        draws: As for `replace_inputs`.
        seed: As for `replace_inputs`.
        task: As for `replace_inputs`.
        call: As for `replace_inputs`.
        output: As for `replace_inputs`.

    Returns:
        A `torch.nn.Module` `(inputs, present) -> logits`, as of `replace_inputs`.

    Raises:
        UsageError: As of `replace_inputs`, and for an unknown submodule or one that is given twice.
        DataError: As of `replace_inputs`, and for a submodule that a call does not reach or reaches
            twice, or whose features do not have samples on the first axis.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"features are replaced inside a torch.nn.Module, and the model is a "
            f"{type(model).__name__}: use replace_inputs"
        )
    if not isinstance(places, Mapping):
        raise UsageError(
            f"places={places!r}: give the name of a submodule by modality, as in "
            "{'audio': 'audio_encoder', 'visual': 'backbone.fc'}"
        )
    names = check_modalities(tuple(places))
    _check(absent, background, draws)
    check_submodules(model, places)
    way = call or calling_adapter(model, names)
    reader, kind = OutputReader(output), _task(task)
    replacing = partial(ImputedModel, model, names, way, reader, kind, places=places)
    if absent == "zero":
        return replacing("features zero")
    batches = background_inputs(background, names)
    if absent == "mean":
        means = mean_of(features_at(model, places, batches, way))
        return replacing("features mean", fillers=means)
    drawn = drawn_samples(batches, draws, seed)
    ((_, features),) = features_at(model, places, [drawn], way)
    draws = batch_size(drawn)
    return replacing(f"features {_marginal(draws)}", fillers=features, draws=draws)


class ImputedModel(nn.Module):
    """A model that answers when modalities are absent: `(inputs, present) -> logits`.

    `model` is the model as it was given, `modalities` are the columns of `present`, `absent` is a
    text that says how an absent modality is represented ("input marginal, 8 draws").

    `call` calls the model, `reader` finds its predictions, `task` says what they are. `places` are
    the submodules whose output is replaced; None: the inputs are. `fillers` replace an absent
    modality: one row, or `draws` rows, over which outputs are averaged; None: zeros.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        modalities: tuple[str, ...],
        call: Call,
        reader: OutputReader,
        task: Task,
        absent: str,
        *,
        places: Mapping[str, str] | None = None,
        fillers: Inputs | None = None,
        draws: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        if not isinstance(model, nn.Module):
            # part of this module, so that it follows into evaluation mode
            self._inside = module_of(model)
        self.modalities = modalities
        self.absent = absent
        self._call = call
        self._reader = reader
        self._task = task
        self._places = places
        self._fillers = fillers
        self._draws = draws

    @property
    def gives_logits(self) -> bool:
        """Whether its outputs are known to be on the scale of logits."""
        return self._draws is not None or self._reader.output is not None

    def forward(self, inputs: Mapping[str, Any], present: Tensor) -> Tensor:
        """Logits of every row, `(rows, …)`, from the modalities that it has.

        `inputs` have `rows` rows; `present` is bool `(rows, n)`.
        """
        inputs, present = self._checked(inputs, present)
        if self._draws is None:
            outputs = self._answer(inputs, present, torch.zeros(len(present), dtype=torch.long))
            if self._reader.probabilities and self._task.to_logits is not None:
                return self._task.to_logits(outputs, True)
            return outputs
        # a row that has everything is asked for once, and as it is
        complete = present.all(1)
        whole, lacking = complete.nonzero().squeeze(1), (~complete).nonzero().squeeze(1)
        groups: list[tuple[Tensor, int]] = []  # rows, and how many draws each was asked for with
        answers: list[Tensor] = []
        if len(whole) or not len(lacking):
            groups.append((whole, 1))
            first = torch.zeros_like(whole)
            answers.append(self._answer(take(inputs, whole), present[whole], first))
        if len(lacking):
            row = lacking.repeat_interleave(self._draws)
            draw = torch.arange(self._draws).repeat(len(lacking))
            parts = zip(
                torch.split(row, len(present)), torch.split(draw, len(present)), strict=True
            )
            drawn = [self._answer(take(inputs, r), present[r], d) for r, d in parts]
            groups.append((lacking, self._draws))
            answers.append(torch.cat(drawn))
        averages = []
        for (rows, draws), outputs in zip(groups, self._logits(answers), strict=True):
            wide = outputs.reshape(len(rows), draws, *outputs.shape[1:])
            averages.append(self._task.average(wide))
        logits = torch.cat(averages)
        return logits[torch.cat([rows for rows, _ in groups]).argsort().to(logits.device)]

    def _logits(self, outputs: list[Tensor]) -> list[Tensor]:
        """The outputs, at single precision at least, on the scale that they are averaged on."""
        wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in outputs]
        if self._task.to_logits is None:
            return wide
        logits = [self._task.to_logits(x, self._reader.probabilities) for x in wide]
        single = wide[0].dim() == 1 or wide[0].shape[-1] == 1
        exclusive = self._task.exclusive and not single
        suspect = [self._reader.may_be_probabilities(x, exclusive) for x in wide if x.numel()]
        if suspect and all(suspect):
            self._reader.refuse_probabilities("averaging over draws", exclusive)
        return logits

    def _answer(self, inputs: Inputs, present: Tensor, draw: Tensor) -> Tensor:
        """The model's outputs; row `draw[i]` of the fillers replaces what is absent in row i."""
        here = dict(zip(self.modalities, present.unbind(1), strict=True))

        def replace(modality: str, x: Any) -> Any:
            if self._fillers is None:
                return _zeroed(x, here[modality])
            # only whole inputs, masks and all, can be made longer
            pad = self._places is None and self._draws is not None
            return _replaced(modality, x, here[modality], self._fillers[modality], draw, pad)

        # what the model is given it may write into: never the caller's own tensors
        replaced = self.modalities if self._places is None and not present.all() else ()
        given = {
            m: replace(m, x) if m in replaced else tree_map(torch.clone, x)
            for m, x in inputs.items()
        }
        rows = len(present)
        if self._places is None:
            return self._reader(self._call(self.model, given), rows)
        assert isinstance(self.model, nn.Module)
        with hooked(self.model, self._places, rows, replace):
            return self._reader(self._call(self.model, given), rows)

    def _checked(self, inputs: Mapping[str, Any], present: Tensor) -> tuple[Inputs, Tensor]:
        missing = [m for m in self.modalities if m not in inputs]
        if missing:
            raise DataError(
                f"the batch has no input for the modality {missing[0]!r}; it has: "
                f"{', '.join(sorted(inputs)) or 'none'}"
            )
        inputs = {**inputs, **{m: admitted(m, inputs[m]) for m in self.modalities}}
        expected = (batch_size(inputs), len(self.modalities))
        if tuple(present.shape) != expected:
            raise DataError(
                f"`present` is of shape {tuple(present.shape)}: expected {expected}, a row a "
                "sample and a column a modality"
            )
        return inputs, present.cpu()


def _zeroed(x: Any, here: Tensor) -> Any:
    """`x`, zero in the rows that are not `here`."""

    def zero(tensor: Tensor) -> Tensor:
        # masked_fill would do, but not for unsigned numbers of 16 bits and more
        return torch.where(_rows(here, tensor), tensor, tensor.new_zeros(()))

    return tree_map(zero, x)


def _replaced(modality: str, x: Any, here: Tensor, fillers: Any, draw: Tensor, pad: bool) -> Any:
    """`x`, with row `draw[i]` of the fillers where row i is not `here`.

    Chosen, never multiplied: what an absent row holds must not matter, even if it is NaN.
    """

    def choose(tensor: Tensor, filler: Tensor) -> Tensor:
        if tensor.is_floating_point() != filler.is_floating_point():
            raise DataError(
                f"the modality {modality!r} holds {tensor.dtype}, and {filler.dtype} in the "
                "background: give both in one form"
            )
        if pad:
            tensor, filler = equally_long(tensor, filler)
        if tensor.shape[1:] != filler.shape[1:]:
            raise DataError(
                f"a sample of the modality {modality!r} is of shape {tuple(tensor.shape[1:])}, and "
                f"of {tuple(filler.shape[1:])} in the background: only equal shapes can replace "
                "each other"
            )
        return torch.where(_rows(here, tensor), tensor, take(filler.to(tensor), draw))

    return tree_map(choose, x, fillers)


def _rows(here: Tensor, like: Tensor) -> Tensor:
    """`here`, bool `(rows,)`, so that it broadcasts over a tensor `(rows, …)`."""
    return here.to(like.device).view(-1, *(1,) * (like.dim() - 1))


def _marginal(draws: int) -> str:
    return f"marginal, {draws} draw{'s' if draws > 1 else ''}"


def _task(name: str | None) -> Task:
    if name is not None and name not in TASKS:
        raise UsageError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    return _UNSAID if name is None else TASKS[name]


def _check(absent: str, background: Any, draws: int) -> None:
    if not isinstance(absent, str) or absent not in ABSENT:
        raise UsageError(f"unknown absence {absent!r}: choose one of {', '.join(ABSENT)}")
    if absent != "zero" and background is None:
        raise UsageError(
            f"absent={absent!r} needs a background: give background=, an iterable of batches, or "
            "inputs by modality, of samples such as those the model was trained on"
        )
    if draws < 1:
        raise UsageError(f"draws is {draws}: at least 1 is needed")

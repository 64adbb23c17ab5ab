"""Any model, unchanged → a callable that also answers when modalities are absent.

What an absent modality is replaced by: zeros, the mean over a background, or, for each of some
draws from it, the values of another sample, the outputs averaged over draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcoop.core.background import (
    Inputs,
    background_inputs,
    drawn_samples,
    equally_long,
    mean_of,
)
from mmcoop.core.calling import Call, logits_of, way_of_calling
from mmcoop.core.choices import ABSENT
from mmcoop.core.coalitions import check_modalities
from mmcoop.core.nested import batch_size, mapped, take
from mmcoop.core.places import at_places, check_places, features_at
from mmcoop.errors import DataError, UsageError

#: `(rows, draws, …) -> (rows, …)`.
Average = Callable[[Tensor], Tensor]


def _average_of_probabilities(logits: Tensor) -> Tensor:
    """log p̄, p̄ the mean over draws of softmax probabilities: `(rows, draws, classes)` →
    `(rows, classes)`.
    """
    if logits.dim() != 3 or logits.shape[2] == 1:
        raise DataError(
            f"the model gives outputs of shape {(*logits.shape[:1], *logits.shape[2:])}, and not "
            "(rows, classes): give task='regression' or task='multi-label' if it has no classes "
            "to choose from"
        )
    return _log_mean(logits.log_softmax(-1))


def _average_of_labels(logits: Tensor) -> Tensor:
    """log p̄ − log(1 − p̄), p̄ the mean over draws of sigmoid probabilities, label by label."""
    return _log_mean(F.logsigmoid(logits)) - _log_mean(F.logsigmoid(-logits))


def _average(outputs: Tensor) -> Tensor:
    return outputs.mean(1)


def _log_mean(logarithms: Tensor) -> Tensor:
    return logarithms.logsumexp(1) - math.log(logarithms.shape[1])


#: What the outputs of a model are, and so how they are averaged over draws.
TASKS: dict[str, Average] = {
    "classification": _average_of_probabilities,
    "multi-label": _average_of_labels,
    "regression": _average,
}


def replace_inputs(
    model: Callable[..., Any],
    modalities: Sequence[str],
    absent: str = "zero",
    *,
    background: Any = None,
    draws: int = 8,
    seed: int = 0,
    task: str = "classification",
    call: Call | None = None,
) -> "Replacing":
    """`model`, with the input of an absent modality replaced.

    `model` is a `torch.nn.Module` or any other callable. It is called as `model(**inputs)` if it
    has parameters named after the modalities, else as `model(inputs)`, or as `call(model, inputs)`.
    Its output is a tensor or array of logits, rows first, or has it as `logits` or as its first
    item. A modality's input is a tensor or several, in dicts, lists and tuples.

    `absent` says by what:

    - `"zero"`: zeros, in tensors of whole numbers and masks as well.
    - `"mean"`: the mean over the background. Not for whole numbers, nor for varying lengths.
    - `"marginal"`: the input of another sample, its tensors together, once for each of `draws`
      samples drawn from the background with `seed`; the outputs are averaged. Every row gets the
      same draws, and all its absent modalities come from the same one. Tensors of different
      lengths are padded with zeros at their ends.

    `background`: an iterable of batches, or the inputs of one; read once, a batch at a time, and
    not at all for zero. With fewer samples than `draws`, each of them is drawn once.

    `task` says what marginal averages: softmax probabilities (`"classification"`: the result is
    their logarithm), the sigmoid probability of each label (`"multi-label"`: the result is its
    logit) or the outputs themselves (`"regression"`).

    The result is a `torch.nn.Module`: `(inputs, present) -> logits`, where `present` is bool
    `(rows, n)`, columns in the order of `modalities`. A row that has everything goes through the
    model as it is. No call has more rows than `present`.

    Raises `UsageError` for unknown names, too few draws and a background that is missing, and
    `DataError` for a background or, when called, for inputs and outputs that do not fit.
    """
    names = check_modalities(modalities)
    _check(absent, background, draws, task)
    way = call or way_of_calling(model, names)
    if absent == "zero":
        return Replacing(model, names, "input zero", way)
    batches = background_inputs(background, names)
    if absent == "mean":
        means = mean_of((batch_size(inputs), inputs) for inputs in batches)
        return Replacing(model, names, "input mean", way, fillers=means)
    drawn = drawn_samples(batches, draws, seed)
    draws = batch_size(drawn)
    text = f"input {_marginal(draws)}"
    return Replacing(model, names, text, way, None, drawn, TASKS[task], draws)


def replace_features(
    model: nn.Module,
    places: Mapping[str, str],
    absent: str = "zero",
    *,
    background: Any = None,
    draws: int = 8,
    seed: int = 0,
    task: str = "classification",
    call: Call | None = None,
) -> "Replacing":
    """`model`, with the features of an absent modality replaced at a submodule.

    `places` gives, for every modality, the name of the submodule whose output its features are, as
    `model.named_modules()` has it: `{"audio": "audio_encoder", "visual": "backbone.fc"}`. All the
    tensors of its output are replaced; they have samples first. It is reached once a call.

    Everything else is as in `replace_inputs`. Mean and marginal are of features: they are worked
    out at once, in evaluation mode, with the weights that the model has now.

    Raises `UsageError` also for a name that is no submodule's or two modalities at one place, and
    `DataError` for a place that a call does not reach or reaches twice, and for features without
    samples first.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"features are replaced inside a torch.nn.Module, and the model is a "
            f"{type(model).__name__}: use replace_inputs"
        )
    names = check_modalities(tuple(places))
    _check(absent, background, draws, task)
    check_places(model, places)
    way = call or way_of_calling(model, names)
    if absent == "zero":
        return Replacing(model, names, "features zero", way, places)
    batches = background_inputs(background, names)
    if absent == "mean":
        means = mean_of(features_at(model, places, batches, way))
        return Replacing(model, names, "features mean", way, places, means)
    drawn = drawn_samples(batches, draws, seed)
    ((_, features),) = features_at(model, places, [drawn], way)
    draws = batch_size(drawn)
    text = f"features {_marginal(draws)}"
    return Replacing(model, names, text, way, places, features, TASKS[task], draws)


class Replacing(nn.Module):
    """A model that answers when modalities are absent: `(inputs, present) -> logits`.

    `model` is the model as it was given, `modalities` are the columns of `present`, `absent` is a
    text that says how an absent modality is represented ("input marginal, 8 draws").

    `places` are the submodules whose output is replaced; None: the inputs are. `fillers` are what
    stands in for each modality, `draws` rows, over which `average` averages; None: zeros.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        modalities: tuple[str, ...],
        absent: str,
        call: Call,
        places: Mapping[str, str] | None = None,
        fillers: Inputs | None = None,
        average: Average | None = None,
        draws: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.modalities = modalities
        self.absent = absent
        self._call = call
        self._places = places
        self._fillers = fillers
        self._average = average
        self._draws = draws

    def forward(self, inputs: Mapping[str, Any], present: Tensor) -> Tensor:
        """Logits of every row, `(rows, …)`, from the modalities that it has.

        `inputs` have `rows` rows; `present` is bool `(rows, n)`.
        """
        inputs, present = self._checked(inputs, present)
        if self._average is None:
            return self._answer(inputs, present, torch.zeros(len(present), dtype=torch.long))
        # a row that has everything is asked for once, and as it is
        complete = present.all(1)
        whole, partial = complete.nonzero().squeeze(1), (~complete).nonzero().squeeze(1)
        answers = []
        if len(whole) or not len(partial):
            outputs = self._answer(take(inputs, whole), present[whole], torch.zeros_like(whole))
            answers.append(_averaged(self._average, outputs, draws=1))
        if len(partial):
            row = partial.repeat_interleave(self._draws)
            draw = torch.arange(self._draws).repeat(len(partial))
            parts = zip(
                torch.split(row, len(present)), torch.split(draw, len(present)), strict=True
            )
            outputs = torch.cat([self._answer(take(inputs, r), present[r], d) for r, d in parts])
            answers.append(_averaged(self._average, outputs, self._draws))
        logits = torch.cat(answers)
        return logits[torch.cat([whole, partial]).argsort().to(logits.device)]

    def _answer(self, inputs: Inputs, present: Tensor, draw: Tensor) -> Tensor:
        """The model's logits; row `draw[i]` of the fillers replaces what is absent in row i."""
        here = dict(zip(self.modalities, present.unbind(1), strict=True))

        def replace(modality: str, x: Any) -> Any:
            if self._fillers is None:
                return _zeroed(x, here[modality])
            # only whole inputs, masks and all, can be made longer
            pad = self._places is None and self._average is not None
            return _replaced(modality, x, here[modality], self._fillers[modality], draw, pad)

        if self._places is None:
            if not present.all():
                inputs = {**inputs, **{m: replace(m, inputs[m]) for m in self.modalities}}
            return self._ask(inputs, len(present))
        assert isinstance(self.model, nn.Module)
        with at_places(self.model, self._places, len(present), replace):
            return self._ask(inputs, len(present))

    def _ask(self, inputs: Inputs, rows: int) -> Tensor:
        logits = logits_of(self._call(self.model, inputs))
        if logits.dim() == 0 or len(logits) != rows:
            raise DataError(
                f"the model gave an output of shape {tuple(logits.shape)} for {rows} rows: "
                "expected one row each"
            )
        return logits

    def _checked(self, inputs: Mapping[str, Any], present: Tensor) -> tuple[Inputs, Tensor]:
        missing = [m for m in self.modalities if m not in inputs]
        if missing:
            raise DataError(
                f"the batch has no input for the modality {missing[0]!r}; it has: "
                f"{', '.join(sorted(inputs)) or 'none'}"
            )
        expected = (batch_size(inputs), len(self.modalities))
        if tuple(present.shape) != expected:
            raise DataError(
                f"`present` is of shape {tuple(present.shape)}: expected {expected}, a row a "
                "sample and a column a modality"
            )
        return dict(inputs), present.cpu()


def _averaged(average: Average, outputs: Tensor, draws: int) -> Tensor:
    """Outputs of `draws` draws of each row, one after the other → one a row."""
    wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return average(wide.reshape(len(wide) // draws, draws, *wide.shape[1:]))


def _zeroed(x: Any, here: Tensor) -> Any:
    """`x`, zero in the rows that are not `here`."""
    return mapped(lambda tensor: tensor.masked_fill(~_rows(here, tensor), 0), x)


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

    return mapped(choose, x, fillers)


def _rows(here: Tensor, like: Tensor) -> Tensor:
    """`here`, bool `(rows,)`, so that it broadcasts over a tensor `(rows, …)`."""
    return here.to(like.device).view(-1, *(1,) * (like.dim() - 1))


def _marginal(draws: int) -> str:
    return f"marginal, {draws} draw{'s' if draws > 1 else ''}"


def _check(absent: str, background: Any, draws: int, task: str) -> None:
    if absent not in ABSENT:
        raise UsageError(f"unknown absence {absent!r}: choose one of {', '.join(ABSENT)}")
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if absent != "zero" and background is None:
        raise UsageError(
            f"absent={absent!r} needs a background: give background=, an iterable of batches, or "
            "inputs by modality, of samples such as those the model was trained on"
        )
    if draws < 1:
        raise UsageError(f"draws is {draws}: at least 1 is needed")

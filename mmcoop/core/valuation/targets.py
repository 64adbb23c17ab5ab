"""What a batch's samples are asked: which class, which labels, or which numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcoop.core.imputers.outputs import class_logits, label_logits
from mmcoop.core.valuation.value_functions import (
    ANY,
    CLASSES,
    EITHER,
    LABELS,
    NUMBERS,
    PREDICTED,
    ValueFunction,
    highest_other,
    predictions,
)
from mmcoop.errors import DataError, setting


@dataclass(frozen=True)
class Targets:
    """`kind`: CLASSES, LABELS or NUMBERS. `targets`: what outputs are compared with, on their
    device. `labels`: the true labels, on the CPU; None where the batch has none. `probabilities`:
    whether outputs are probabilities. `column`: whether they are one logit per row, `(rows,)`.
    """

    kind: str
    targets: Tensor
    labels: Tensor | None
    probabilities: bool = False
    column: bool = False

    def read(self, outputs: Tensor) -> Tensor:
        """Outputs as they are compared: logits `(…, classes)`, logits `(…, labels)`, or numbers."""
        if self.kind == NUMBERS:
            return outputs
        if self.kind == LABELS:
            return label_logits(outputs, self.probabilities)
        return class_logits(outputs.unsqueeze(-1) if self.column else outputs, self.probabilities)

    def ties(self, outputs: Tensor, choices: Tensor) -> Tensor:
        """Where several classes are predicted, their highest logits being equal; of labels those
        whose logit is 0, which says neither 0 nor 1.

        Args:
            outputs: `(samples, k, classes)`, or `(samples, k, labels)`.
            choices: those of these outputs.

        Returns:
            int64 `(t, 4)` on the CPU, a row a tied class: sample, position among the k, label (0
            for classes), class.
        """
        if self.kind == LABELS:
            place = (outputs == 0).nonzero().cpu().repeat_interleave(2, dim=0)
            which = torch.arange(len(place)) % 2
            return torch.cat([place, which.unsqueeze(1)], dim=1)
        outputs = outputs if outputs.is_floating_point() else outputs.double()
        chosen = choices.clamp(min=0).unsqueeze(-1).to(outputs.device)
        highest = outputs.gather(-1, chosen)
        place = (highest == highest_other(outputs, chosen)).squeeze(-1).nonzero()
        sample, position = place.unbind(1)
        which, tied = (outputs[sample, position] == highest[sample, position]).nonzero().unbind(1)
        return torch.stack(
            [sample[which], position[which], torch.zeros_like(which), tied], dim=1
        ).cpu()

    def choices(self, outputs: Tensor) -> Tensor:
        """What outputs predict, as `read` gives them, on the CPU: a class, int64 `(…)` of outputs
        `(…, classes)`, −1 where a logit is NaN; 0 or 1 of each label; the numbers themselves,
        float64, in the shape of the labels if they are as many.
        """
        if self.kind == CLASSES:
            return predictions(outputs).cpu()
        if self.kind == LABELS:
            return (outputs > 0).long().cpu()
        assert self.labels is not None
        numbers = outputs.double().cpu()
        alike = numbers.numel() == self.labels.numel()
        return numbers.reshape(self.labels.shape) if alike else numbers


def targets_of(
    function: ValueFunction,
    labels: Tensor | None,
    outputs: Tensor,
    probabilities: bool = False,
    n_classes: int | None = None,
) -> Targets:
    """The question that a value function asks of samples with these labels, by what a model puts
    out for them from all modalities, `(samples, …)`.

    One output per sample is the logit of the second of two classes; its labels may then be 0.0 and
    1.0, as its loss takes them. `probabilities`: whether outputs are probabilities rather than
    logits. `n_classes`: how many classes there are, where that is known.

    A function for any labels takes whole numbers as class labels, or as 0-or-1 labels where there
    is one for each output, all else as numbers to be met, and no labels as the predicted classes.
    Raises `DataError` where labels and outputs do not fit it.
    """
    kind = function.targets
    if kind == ANY:
        kind = _kind(labels, outputs)
    elif kind == EITHER:
        kind = LABELS if labels is not None and labels.dim() == 2 else CLASSES
    if labels is None and kind != PREDICTED:
        raise DataError(
            f"value function {function.name!r} needs `labels`, and the batch has none: "
            "'predicted-probability' does without"
        )
    if kind == NUMBERS:
        assert labels is not None
        numbers = labels.double()
        if function.targets == NUMBERS:
            if outputs.dim() == numbers.dim() + 1 and outputs.shape[-1] == 1:
                numbers = numbers.unsqueeze(-1)  # one number per sample, as a column
            if numbers.shape != outputs.shape:
                raise DataError(
                    f"labels of shape {tuple(labels.shape)} for predictions of shape "
                    f"{tuple(outputs.shape)}: value function {function.name!r} needs a number for "
                    "each"
                )
        return Targets(NUMBERS, numbers.to(outputs.device), labels.double().cpu())
    if kind == LABELS:
        return _several_labels(function, labels, outputs, probabilities)
    column = outputs.dim() == 1
    if not column and outputs.dim() != 2:
        raise DataError(
            f"the model gave outputs of shape {tuple(outputs.shape)} for {len(outputs)} samples: "
            "expected (samples, classes)"
        )
    given = outputs.unsqueeze(1) if column else outputs
    logits = class_logits(given, probabilities)
    if n_classes is not None and logits.shape[1] != n_classes:
        raise DataError(
            f"the model gave an output of size {given.shape[1]} per sample, and there are "
            f"{n_classes} classes: expected one number per class (if they are in another item of "
            f"its output, name it with {setting('output')})"
        )
    classes = None if labels is None else _class_labels(labels, logits.shape[1])
    if kind == CLASSES:
        assert classes is not None
        return Targets(CLASSES, classes.to(outputs.device), classes, probabilities, column)
    said = predictions(logits)
    if bool((said < 0).any()):
        raise DataError("the model's logits from all modalities hold NaN: no class is predicted")
    return Targets(CLASSES, said, classes, probabilities, column)


def _several_labels(
    function: ValueFunction, labels: Tensor | None, outputs: Tensor, probabilities: bool
) -> Targets:
    assert labels is not None
    if outputs.dim() != 2:
        raise DataError(
            f"the model gave outputs of shape {tuple(outputs.shape)} for {len(outputs)} samples: "
            "expected (samples, labels)"
        )
    if labels.shape != outputs.shape or not bool(((labels == 0) | (labels == 1)).all()):
        raise DataError(
            f"labels of shape {tuple(labels.shape)} for logits of shape "
            f"{tuple(outputs.shape)}: value function {function.name!r} needs a 0 or 1 for each"
        )
    truth = labels.long()
    return Targets(LABELS, truth.to(outputs.device), truth.cpu(), probabilities)


def _kind(labels: Tensor | None, outputs: Tensor) -> str:
    if labels is None:
        return PREDICTED
    if labels.is_floating_point():
        return NUMBERS
    return LABELS if labels.dim() == 2 and labels.shape == outputs.shape else CLASSES


def _class_labels(labels: Tensor, n_classes: int) -> Tensor:
    if n_classes == 2:  # the labels may be as binary cross-entropy takes them
        labels = labels.squeeze(1) if labels.dim() == 2 and labels.shape[1] == 1 else labels
        if labels.is_floating_point() and bool(((labels == 0) | (labels == 1)).all()):
            labels = labels.long()
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels of type {labels.dtype} and shape {tuple(labels.shape)}: class labels are "
            "whole numbers, one a sample"
        )
    labels = labels.long().cpu()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        wrong = labels[(labels < 0) | (labels >= n_classes)][0]
        raise DataError(
            f"label {int(wrong)} has no class: the model has {n_classes} classes, 0 to "
            f"{n_classes - 1}"
        )
    return labels

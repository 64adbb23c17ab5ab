"""What a batch's samples are asked: which class, which labels, or which numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcoop.core.values import (
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
from mmcoop.errors import DataError


@dataclass(frozen=True)
class Question:
    """`kind`: CLASSES, LABELS or NUMBERS. `targets`: what outputs are compared with, on their
    device. `labels`: the truth as it is told, on the CPU; None where the batch has none.
    """

    kind: str
    targets: Tensor
    labels: Tensor | None

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
        """What outputs predict, on the CPU: a class, int64 `(…)` of outputs `(…, classes)`, −1
        where a logit is NaN; 0 or 1 of each label; the numbers themselves, float64, in the shape
        of the labels if they are as many.
        """
        if self.kind == CLASSES:
            return predictions(outputs).cpu()
        if self.kind == LABELS:
            return (outputs > 0).long().cpu()
        assert self.labels is not None
        numbers = outputs.double().cpu()
        alike = numbers.numel() == self.labels.numel()
        return numbers.reshape(self.labels.shape) if alike else numbers


def question_of(function: ValueFunction, labels: Tensor | None, outputs: Tensor) -> Question:
    """The question that a value function asks of samples with these labels, by what a model puts
    out for them from all modalities, `(samples, …)`.

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
                numbers = numbers.unsqueeze(-1)  # one number a sample, as a column
            if numbers.shape != outputs.shape:
                raise DataError(
                    f"labels of shape {tuple(labels.shape)} for predictions of shape "
                    f"{tuple(outputs.shape)}: value function {function.name!r} needs a number for "
                    "each"
                )
        return Question(NUMBERS, numbers.to(outputs.device), labels.double().cpu())
    if outputs.dim() != 2:
        raise DataError(
            f"the model gave logits of shape {tuple(outputs.shape)} for {len(outputs)} samples: "
            "expected (samples, classes)"
        )
    if kind == LABELS:
        assert labels is not None
        if labels.shape != outputs.shape or not bool(((labels == 0) | (labels == 1)).all()):
            raise DataError(
                f"labels of shape {tuple(labels.shape)} for logits of shape "
                f"{tuple(outputs.shape)}: value function {function.name!r} needs a 0 or 1 for each"
            )
        return Question(LABELS, labels.long().to(outputs.device), labels.long().cpu())
    classes = None if labels is None else _class_labels(labels, outputs.shape[1])
    if kind == CLASSES:
        assert classes is not None
        return Question(CLASSES, classes.to(outputs.device), classes)
    said = predictions(outputs)
    if bool((said < 0).any()):
        raise DataError("the model's logits from all modalities hold NaN: no class is predicted")
    return Question(CLASSES, said, classes)


def _kind(labels: Tensor | None, outputs: Tensor) -> str:
    if labels is None:
        return PREDICTED
    if labels.is_floating_point():
        return NUMBERS
    return LABELS if labels.dim() == 2 and labels.shape == outputs.shape else CLASSES


def _class_labels(labels: Tensor, n_classes: int) -> Tensor:
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

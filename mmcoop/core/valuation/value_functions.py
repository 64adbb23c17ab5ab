"""Value functions v(S): the value of a coalition's prediction.

They work on rows, a row being one sample seen with one coalition of its modalities.

Classes whose logits are equal and highest are tied. A tie of k classes counts as its expectation if
one of them were drawn: right by 1/k where the label is among them, predicted 1/k times for each of
them. So no class is favoured because it comes first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.errors import DataError, UsageError

#: `(outputs (rows, …), targets (rows, …), sizes (rows,))` → values `(rows,)`, or `(rows, q)` for
#: q values a sample; `sizes` are the numbers of modalities present.
Worth = Callable[[Tensor, Tensor, Tensor], Tensor]

#: What a value function compares the outputs with.
CLASSES = "classes"  # class labels, int (rows,)
PREDICTED = "predicted classes"  # the classes predicted from all modalities, int (rows,)
LABELS = "labels"  # which labels a sample has, 0 or 1, (rows, labels)
EITHER = "classes or labels"  # labels where there are several a sample, else classes
NUMBERS = "numbers"  # numbers to be met, (rows,) or (rows, d)
ANY = "any"  # whatever the batch has


@dataclass(frozen=True)
class ValueFunction:
    """A way to value a coalition's prediction (`core/choices.py` describes each in a few words).

    Attributes:
        worth: the function.
        targets: what it compares outputs with.
        fair_share: the contribution below which a modality is low-contributing: 1 with the paper's
            value. None: each sample's own, (v(N) − v(∅)) / n, the mean of its contributions.
        best: the value of a prediction that is certain and right; None where there is no such
            number, as of a log-likelihood without a scale, or where `fair_share` is the unit.
        empty: whether the empty coalition is asked for its prediction; where not, v(∅) = 0 by
            definition.
        scaled: whether the value depends on the scale of the outputs, and not only on which of them
            is highest.
    """

    name: str
    worth: Worth
    targets: str = CLASSES
    fair_share: float | None = None
    best: float | None = None
    empty: bool = True
    scaled: bool = True


def paper_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = |S| if the arg-max prediction from S is the label, else 0 (the paper's value).

    v(∅) = 0 whatever the bias predicts, since |∅| = 0. Range 0…n, whole numbers but for ties.
    """
    return rightness(outputs, targets) * sizes


def correct_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = 1 if the arg-max prediction from S is the label, else 0; of k tied classes 1/k."""
    return rightness(outputs, targets)


def probability_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = p(y | S), the softmax probability of the target class. Range 0…1."""
    return log_likelihood_value(outputs, targets, sizes).exp()


def log_likelihood_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = log p(y | S), in nats. At most 0."""
    # classes first: over a last dimension that is short, torch's softmax takes ten times as long
    logits = _full_precision(outputs).t().contiguous()
    return F.log_softmax(logits, 0).gather(0, targets.unsqueeze(0)).squeeze(0).double()


def margin_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = the target's logit less the highest other one; above 0 where S predicts the target.

    Raises `DataError` for fewer than two classes.
    """
    if outputs.shape[-1] < 2:
        raise DataError(f"a margin needs two classes: the model has {outputs.shape[-1]}")
    logits, target = outputs.double(), targets.unsqueeze(-1)
    return (logits.gather(-1, target) - highest_other(logits, target)).squeeze(-1)


def negative_loss_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = −loss in nats: the cross-entropy of a class label, which makes it the log-likelihood,
    or of 0-or-1 labels `(rows, labels)` the mean of their binary cross-entropies.
    """
    if targets.dim() == 2:
        each = F.binary_cross_entropy_with_logits(
            outputs.double(), targets.double(), reduction="none"
        )
        return -each.mean(-1)
    return log_likelihood_value(outputs, targets, sizes)


def negative_squared_error_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = −(prediction − target)², the mean of these over d numbers a sample."""
    error = (outputs.double() - targets.double()).square()
    return -(error if error.dim() == 1 else error.flatten(1).mean(1))


def label_probability_value(outputs: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    """v(S) of each label = the sigmoid probability of its truth, `(rows, labels)`. Range 0…1."""
    return F.logsigmoid(outputs.double() * (2 * targets.double() - 1)).exp()


def _full_precision(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def rightness(logits: Tensor, targets: Tensor) -> Tensor:
    """How right the arg-max predictions are, in 0…1.

    Args:
        logits: `(rows, classes)`.
        targets: class numbers, int64 `(rows,)`.

    Returns:
        float64 `(rows,)`: 1/k where the target is one of k classes of the highest logit, 1 without
        a tie; 0 elsewhere, and where a logit is NaN.
    """
    logits = logits if logits.is_floating_point() else logits.double()
    chosen = targets.unsqueeze(-1)
    others, own = highest_other(logits, chosen), logits.gather(-1, chosen)
    right = (own > others).double().squeeze(-1)
    if bool((tied := (own == others).squeeze(-1)).any()):
        right[tied] = 1 / (logits[tied] == own[tied]).sum(-1).double()
    return right


def highest_other(logits: Tensor, chosen: Tensor) -> Tensor:
    """The highest logit of a class that is not the chosen one, `(…, 1)`; −∞ of a single class.

    `logits`: `(…, classes)`; `chosen`: class numbers, `(…, 1)`.
    """
    # to compare all classes with the highest takes four times as long
    return logits.scatter(-1, chosen, -torch.inf).amax(-1, keepdim=True)


def class_shares(logits: Tensor) -> Tensor:
    """How often each class is predicted: 1 for that of the highest logit, 1/k for each of k tied.

    `logits`: `(…, classes)`. Returns float64 of the same shape; all 0 where a logit is NaN.
    """
    highest = logits == logits.amax(-1, keepdim=True)
    return highest.double() / highest.sum(-1, keepdim=True).clamp(min=1)


def predictions(logits: Tensor) -> Tensor:
    """The class of the highest logit, the first of tied ones: int64 `(…)` of logits `(…, classes)`.

    −1, no class, where a logit is NaN: arg-max would name class 0 or whichever NaN comes first.
    """
    classes = logits.argmax(-1)
    if not bool(logits.sum().isnan()):  # one pass; it may be NaN of infinities too
        return classes
    return classes.masked_fill(logits.isnan().any(-1), -1)


VALUE_FUNCTIONS: dict[str, ValueFunction] = {
    f.name: f
    for f in (
        ValueFunction("paper", paper_value, fair_share=1.0, empty=False, scaled=False),
        ValueFunction("correct", correct_value, best=1.0, scaled=False),
        ValueFunction("probability", probability_value, best=1.0),
        ValueFunction("log-likelihood", log_likelihood_value),
        ValueFunction("margin", margin_value),
        ValueFunction("negative-loss", negative_loss_value, targets=EITHER),
        ValueFunction("predicted-probability", probability_value, targets=PREDICTED, best=1.0),
        ValueFunction("negative-squared-error", negative_squared_error_value, targets=NUMBERS),
        ValueFunction("label-probability", label_probability_value, targets=LABELS, best=1.0),
    )
}


def value_function(value: str | ValueFunction | Worth) -> ValueFunction:
    """The value function called `value`, or made of a user-defined callable.

    A callable is given the batch's labels as they are (class numbers where the batch has none:
    those predicted from all modalities), and the empty coalition is asked too. Raises `UsageError`,
    listing the legal names, for an unknown name.
    """
    if isinstance(value, ValueFunction):
        return value
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        return ValueFunction(f"custom: {name}", value, targets=ANY)
    if not isinstance(value, str) or value not in VALUE_FUNCTIONS:
        raise UsageError(
            f"unknown value function {value!r}: choose one of {', '.join(VALUE_FUNCTIONS)}"
        )
    return VALUE_FUNCTIONS[value]

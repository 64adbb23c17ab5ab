"""Value functions: what a coalition's prediction is worth, v(S)."""

from collections.abc import Callable

from torch import Tensor

from mmcoop.errors import UsageError

#: `(logits (batch, coalitions, classes), labels (batch,), sizes (coalitions,))` → float64 values
#: `(batch, coalitions)`; `sizes` are the numbers of modalities present.
ValueFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def paper_value(logits: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """v(S) = |S| if the arg-max prediction from S is the label, else 0 (the paper's value).

    v(∅) = 0 whatever the bias predicts, since |∅| = 0. Range 0…n, whole numbers.
    """
    correct = predictions(logits) == labels.unsqueeze(1)
    return (correct * sizes).double()


def predictions(logits: Tensor) -> Tensor:
    """The class of the highest logit, int64 `(…)` of logits `(…, classes)`.

    −1, no class, where a logit is NaN: arg-max would name class 0 or whichever NaN comes first.
    """
    return logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1)


VALUE_FUNCTIONS: dict[str, ValueFunction] = {"paper": paper_value}


def value_function(name: str) -> ValueFunction:
    """The value function called `name`; `UsageError`, listing the legal names, if none is."""
    if name not in VALUE_FUNCTIONS:
        raise UsageError(
            f"unknown value function {name!r}: choose one of {', '.join(VALUE_FUNCTIONS)}"
        )
    return VALUE_FUNCTIONS[name]

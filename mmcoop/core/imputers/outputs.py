"""What a model puts out → the one tensor that its predictions are read from, on a known scale."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Number
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mmcoop.core.arrays import as_tensor, is_array
from mmcoop.errors import DataError, UsageError, setting

#: Which item of a model's output holds its predictions, by name or position; the two names below
#: also say what the numbers are. None: recognised where that is certain.
Output = str | int | None

LOGITS, PROBABILITIES = "logits", "probabilities"


def check_output(output: Output) -> None:
    """Raise `UsageError` for what is neither a name nor a position."""
    if isinstance(output, bool) or not isinstance(output, str | int | None):
        raise UsageError(
            f"output={output!r}: give the name or the position of the item that holds the "
            f"predictions, or {LOGITS!r} or {PROBABILITIES!r}"
        )


def check_no_model(output: Any) -> None:
    """Raise `DataError` where what was given as a model is a function that makes one."""
    if isinstance(output, nn.Module):
        raise DataError(
            f"what was given as the model makes a {type(output).__name__}: give that; on the "
            "command line, name a function that takes no argument"
        )


class OutputReader:
    """Finds the predictions in a model's outputs, and remembers where they were.

    The first call decides for all later ones, so that no batch is read differently because of its
    size or its numbers.
    """

    def __init__(self, output: Output = None) -> None:
        check_output(output)
        self.output = output
        # whether outputs are known not to be probabilities: by the user's word, or by their range
        self._on_logit_scale = output is not None
        self._found: Any = None
        self._within: OutputReader | None = None  # reads the item that was found

    @property
    def probabilities(self) -> bool:
        """Whether the user says that outputs are probabilities."""
        return self.output == PROBABILITIES

    def __call__(self, given: Any, rows: int) -> Tensor:
        """The predictions, `(rows, …)`, in memory of their own.

        Args:
            given: What the model returned: a tensor, an array or a table; or a mapping, sequence,
                dataclass or object with several items. Of these, `output` is the one taken; without
                it the item called `logits`, or else the only one with a row per row of input.
            rows: How many rows the model was asked for.

        Raises:
            DataError: Where there is no such item, where several could be meant, for what is no
                array of numbers, and for another number of rows.
        """
        check_no_model(given)
        items = _items(given)
        if items is not None:
            if self._within is None:
                self._found, self._within = self._choice(given, items, rows), OutputReader()
            if self._found not in items:
                raise DataError(f"the model's output has no {self._found!r} any more: {_of(items)}")
            return self._within(items[self._found], rows)
        if self.output not in (None, LOGITS, PROBABILITIES):
            raise DataError(
                f"{setting('output', self.output)} names one of several items, and the model gave "
                f"a single {type(given).__name__}"
            )
        if given is None or isinstance(given, str):
            raise DataError(
                f"the model gave a {type(given).__name__}: expected one row of numbers per row of "
                "input, as a tensor or an array, alone or as one of several items"
            )
        tensor = as_tensor(given, "the model's output (expected logits)")
        if tensor.dim() == 0 or len(tensor) != rows:
            raise DataError(
                f"the model gave outputs of shape {tuple(tensor.shape)} for {rows} rows: expected "
                "one row each"
            )
        return tensor.clone()  # models may write their next output into the same memory

    def _choice(self, given: Any, items: Mapping[Any, Any], rows: int) -> Any:
        """The key of the item that holds the predictions."""
        names = list(items)
        if self.output in items:
            return self.output
        if isinstance(self.output, int) and -len(names) <= self.output < len(names):
            return names[self.output]
        if self.output not in (None, LOGITS, PROBABILITIES):
            raise DataError(f"the model's output has no item {self.output!r}: {_of(items)}")
        if LOGITS in items:
            return LOGITS
        likely = [name for name, item in items.items() if _has_rows(item, rows)]
        likely = likely or [name for name, item in items.items() if LOGITS in (_items(item) or ())]
        # of hidden states (rows, steps, width) and (rows, classes), the latter are predictions
        flat = [name for name in likely if len(getattr(items[name], "shape", "")) <= 2]
        if len(flat or likely) == 1:
            return (flat or likely)[0]
        what = "several items that could be its predictions" if likely else "no predictions in it"
        example = (flat or likely or names or [0])[-1]
        raise DataError(
            f"the model gave a {type(given).__name__} with {what} ({_of(items)}): say which item "
            f"they are, as in {setting('output', example)}"
        )

    def may_be_probabilities(self, outputs: Tensor, classes: bool) -> bool:
        """Whether all outputs so far could be probabilities, and nobody said what they are.

        Args:
            outputs: `(…, classes)`. Not looked at once there were some that cannot be.
            classes: Whether rows are distributions over classes, which sum to 1, rather than one
                probability for each label.
        """
        if not self._on_logit_scale and outputs.numel():
            self._on_logit_scale = not _like_probabilities(outputs, classes)
        return not self._on_logit_scale

    def refuse_probabilities(self, use: str, classes: bool) -> NoReturn:
        """Raise `DataError` for outputs that may be probabilities; `use` is what needs logits."""
        how = "are 0 or more and sum to 1" if classes else "are all from 0 to 1"
        raise DataError(
            f"the model's outputs look like probabilities (for every coalition they {how}), and "
            f"{use} needs logits: give {setting('output', PROBABILITIES)} to have their logarithms "
            f"taken, or {setting('output', LOGITS)} if they are logits"
        )


def class_logits(outputs: Tensor, probabilities: bool = False) -> Tensor:
    """Logits of two classes or more, `(…, classes)`.

    Args:
        outputs: `(…, classes)`; with one column, the logit z of the second of two classes, which
            gives (0, z), or its probability.
        probabilities: Whether they are probabilities, of which the logarithms are taken.

    Raises:
        DataError: For probabilities below 0, or that do not sum to 1; for whole numbers in one
            column, which are predicted classes rather than logits.
    """
    single = outputs.shape[-1] == 1
    if single and not outputs.is_floating_point():
        raise DataError(
            f"the model gave one {outputs.dtype} per row: a predicted class, where logits are "
            "expected (of scikit-learn: decision_function or predict_log_proba, not predict)"
        )
    if not probabilities:
        return torch.cat([torch.zeros_like(outputs), outputs], -1) if single else outputs
    if outputs.numel() and not _like_probabilities(outputs, classes=not single):
        what = "are not all from 0 to 1" if single else "are not 0 or more with a sum of 1"
        raise DataError(f"{setting('output', PROBABILITIES)}, but outputs {what}")
    p = outputs.double()
    return (torch.cat([1 - p, p], -1) if single else p).log()


def label_logits(outputs: Tensor, probabilities: bool = False) -> Tensor:
    """The logit of each label, `(…, labels)`, of logits or of probabilities.

    Raises `DataError` for probabilities outside 0…1.
    """
    if not probabilities:
        return outputs
    if outputs.numel() and not _like_probabilities(outputs, classes=False):
        raise DataError(f"{setting('output', PROBABILITIES)}, but outputs are not all from 0 to 1")
    return outputs.double().logit()


def _like_probabilities(outputs: Tensor, classes: bool) -> bool:
    """Whether all rows `(…, classes)` are distributions or, of labels, numbers from 0 to 1."""
    if outputs.is_complex() or not bool((outputs >= 0).all()):
        return False
    if not classes:
        return bool((outputs <= 1).all())
    # what a softmax in this precision is off by
    exact = torch.finfo(outputs.dtype).eps if outputs.is_floating_point() else 0.0
    return bool(((outputs.double().sum(-1) - 1).abs() <= max(1e-4, 4 * exact)).all())


def _has_rows(item: Any, rows: int) -> bool:
    if not is_array(item) or (isinstance(item, Tensor) and item.is_nested):
        return False
    return len(item.shape) > 0 and item.shape[0] == rows


def _items(given: Any) -> dict[Any, Any] | None:
    """What an output consists of, by name or position; None where it is one thing."""
    if is_array(given) or isinstance(given, type):
        return None
    if isinstance(given, Mapping):
        return dict(given)
    if is_dataclass(given):
        return {field.name: getattr(given, field.name) for field in fields(given)}
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return dict(zip(given._fields, given, strict=True))
    if isinstance(given, list | tuple):
        return None if given and _holds_numbers(given) else dict(enumerate(given))
    items = dict(getattr(given, "__dict__", {}))
    if hasattr(given, LOGITS):
        items[LOGITS] = given.logits
    return items or None


def _holds_numbers(x: Any) -> bool:
    """Whether a list or tuple holds numbers, or lists of numbers."""
    return all(isinstance(y, Number) or (isinstance(y, list) and _holds_numbers(y)) for y in x)


def _of(items: Mapping[Any, Any]) -> str:
    """What there is to choose from: `0: (64, 16), 1: (64, 4), 2: NoneType`."""

    def shape(item: Any) -> str:
        if not is_array(item) or (isinstance(item, Tensor) and item.is_nested):
            return type(item).__name__
        return str(tuple(item.shape))

    return ", ".join(f"{name!r}: {shape(item)}" for name, item in items.items()) or "nothing"

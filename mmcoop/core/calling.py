"""How a model of any kind is called with inputs by modality, and where its logits are."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmcoop.errors import DataError

#: `(model, inputs by modality) -> output`.
Call = Callable[[Any, dict[str, Any]], Any]


def way_of_calling(model: Callable[..., Any], modalities: Sequence[str]) -> Call:
    """`model(**inputs)` if it has parameters named after the modalities, else `model(inputs)`."""
    if takes_by_name(model, modalities):
        return lambda model, inputs: model(**inputs)
    return lambda model, inputs: model(inputs)


def takes_by_name(model: Callable[..., Any], modalities: Sequence[str]) -> bool:
    """Whether a model has parameters named after all the modalities."""
    try:
        called = signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):  # what is not written in Python may have no signature
        return False
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {p.name for p in called.parameters.values() if p.kind in by_name}.issuperset(modalities)


def check_no_model(output: Any) -> None:
    """Raise `DataError` where what was given as a model is a function that makes one."""
    if isinstance(output, nn.Module):
        raise DataError(
            f"what was given as the model makes a {type(output).__name__}: give that; on the "
            "command line, name a function that takes no argument"
        )


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: a tensor or an array of numpy, which is the output, its
    `logits` (a key or an attribute) or its first item. Raises `DataError` where there is none.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, list | tuple) and output:
        found = output[0]
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found)
    if not isinstance(found, Tensor):
        check_no_model(found)
        raise DataError(
            f"the model gave a {type(output).__name__}: expected logits, as a tensor, as `logits` "
            "or as the first of several items; pick them with call=lambda model, inputs: …"
        )
    return found

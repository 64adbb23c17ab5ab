"""The model that is valued: one of the user's own, and how any model does without a modality."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mmcoop.core.absence import replace_features, replace_inputs
from mmcoop.errors import DataError, UsageError


def load_own_model(name: str, weights: Path | None = None) -> Any:
    """The model that `package.module:make_model` names, with the weights in a safetensors file.

    The module is looked for in the current folder too. What it names is a function or class that
    takes no argument and gives the model, or the model itself. Raises `UsageError` where there is
    no such thing, and `DataError` where the weights cannot be read or are of another model.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"--model {name!r}: write it as package.module:make_model")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as error:
        raise UsageError(f"--model {name}: cannot import {module}: {error}") from None
    if found is None:
        raise UsageError(f"--model {name}: {module} has no {attribute!r}")
    model = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not callable(model):
        raise UsageError(f"--model {name} gives a {type(model).__name__}, which is no model")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _load_weights(model: Any, path: Path) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError("--weights are for a torch.nn.Module: leave them out")
    try:
        content = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a safetensors file: {error}") from None
    try:
        model.load_state_dict(content)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise DataError(f"{path} is of another model: {' '.join(lines[1:3]).strip()}") from None


def takes_present(model: Any) -> bool:
    """Whether a model says itself what to do without a modality: it has a parameter `present`."""
    target = model.forward if isinstance(model, nn.Module) else model
    try:
        return "present" in inspect.signature(target).parameters
    except (TypeError, ValueError):  # some callables of C have no signature
        return False


@dataclass(frozen=True)
class Absence:
    """What stands in for an absent modality.

    `absent`: "zero", "mean" or "marginal", in place of its input or, with `features`, of what a
    submodule a modality puts out (`mmcoop.core.absence`); `draws` and `seed` are those of marginal.
    None leaves it to a model that takes `present`, and is zero for any other one.
    """

    absent: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    draws: int = 8
    seed: int = 0

    def over(
        self, model: Any, modalities: Sequence[str], background: Callable[[], Any]
    ) -> tuple[Any, str]:
        """The model as `(inputs, present) -> logits`, and how it represents what is absent.

        `background` gives batches of the training split, and is called where they are needed.
        Raises `UsageError` and `DataError` as `replace_inputs` and `replace_features`.
        """
        if self.absent is None and not self.features and takes_present(model):
            return model, getattr(model, "absent", "zero" if hasattr(model, "fuse") else "own")
        absent = self.absent or "zero"
        more: dict[str, Any] = {"draws": self.draws, "seed": self.seed}
        if absent != "zero":
            more["background"] = background()
        if not self.features:
            replaced = replace_inputs(model, modalities, absent, **more)
        elif set(self.features) != set(modalities):
            odd = ", ".join(sorted(set(self.features) ^ set(modalities)))
            raise UsageError(
                f"--features: name a submodule for each of {', '.join(modalities)}, and no other "
                f"modality; amiss: {odd}"
            )
        else:
            places = {m: self.features[m] for m in modalities}
            replaced = replace_features(model, places, absent, **more)
        return replaced, replaced.absent

"""A user-defined model: how it is loaded, and how it is made to work without a modality."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from mmcoop.core.imputers.adapters import UnclearCall, calling_adapter, takes_present
from mmcoop.core.imputers.outputs import Output
from mmcoop.core.imputers.wrap import replace_features, replace_inputs
from mmcoop.core.modalities import check_modalities
from mmcoop.errors import MmcoopError, UsageError, setting
from mmcoop.weights import load_weights


def load_own_model(name: str, weights: Path | None = None) -> Any:
    """Import the model that `package.module:make_model` names, and load its weights.

    The current folder is searched as well. The name refers to a function or class that returns the
    model when called without arguments, or to the model itself: any other callable.

    Args:
        name: Where the model is, `package.module:attribute`.
        weights: A file of weights; None leaves the model as it is.

    Returns:
        The model.

    Raises:
        UsageError: The name does not exist, importing or calling it fails, or it is not a model.
        DataError: The weights cannot be read, or do not match the model.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"{setting('model')} {name!r}: write it as package.module:make_model")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:
        raise UsageError(
            f"{setting('model')} {name}: cannot import {module}: {_said(error)}"
        ) from error
    if found is None:
        raise UsageError(f"{setting('model')} {name}: {module} has no {attribute!r}")
    model = found
    if not isinstance(found, nn.Module) and callable(found) and _gives_model(name, found):
        try:
            model = found()
        except Exception as error:
            raise UsageError(f"{setting('model')} {name} failed: {_said(error)}") from error
    if not callable(model):
        raise UsageError(
            f"{setting('model')} {name} gives {type(model).__name__}, which is no model"
        )
    if weights is not None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"{setting('weights')} are for a torch.nn.Module: leave them out")
        load_weights(model, weights)
    return model


@contextmanager
def own_errors(name: str, model: Any) -> Iterator[None]:
    """Turn errors raised by a user-defined model's code into `UsageError`s that name the line.

    Errors from elsewhere pass through unchanged.

    Args:
        name: The model's name, for messages.
        model: The model that is called in the block.
    """
    try:
        yield
    except MmcoopError:
        raise
    except Exception as error:
        forward = model.forward if isinstance(model, nn.Module) else model
        try:
            code = inspect.getsourcefile(forward if inspect.isroutine(forward) else type(forward))
        except TypeError:  # a callable implemented in C
            code = None
        frames = traceback.extract_tb(error.__traceback__)
        if not (own := [frame for frame in frames if frame.filename == code]):
            if isinstance(error, TypeError) and _is_of_arguments(error, model):
                raise UsageError(
                    f"{setting('model')} {name} takes other arguments than it is given: "
                    f"{error}. It is given "
                    f"the modalities by name, those of {setting('modality')} where that is "
                    "there, or `inputs, "
                    f"present` if it has `present` and neither {setting('absent')} nor "
                    f"{setting('features')} is given"
                ) from error
            raise
        raise UsageError(
            f"{setting('model')} {name} failed: {type(error).__name__}: {error} "
            f"({own[-1].filename}, line {own[-1].lineno})"
        ) from error


def _is_of_arguments(error: TypeError, model: Any) -> bool:
    """Whether the error is Python's refusal of the arguments of the model's own call."""
    function = model.forward if isinstance(model, nn.Module) else model
    called = getattr(function, "__qualname__", f"{type(model).__name__}.__call__")
    return str(error).startswith(f"{called}() ")


def _gives_model(name: str, found: Any) -> bool:
    """Whether the object must be called to get the model, rather than being the model itself."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some callables implemented in C have no signature
        return False
    open_ended = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in parameters if p.default is p.empty and p not in open_ended]
    if not inspect.isclass(found):
        return not needed and not open_ended
    if needed:
        raise UsageError(
            f"{setting('model')} {name} is a class that needs {', '.join(needed)}: name a "
            "function that gives "
            "the model"
        )
    return True


def _said(error: Exception) -> str:
    """The message of an error in user-defined code, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and not f.filename.startswith("<")]
    own = [f for f in own if Path(f.filename).parent.name != "importlib"]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


@dataclass(frozen=True)
class ImputerSpec:
    """What replaces an absent modality.

    Attributes:
        absent: `"zero"`, `"mean"` or `"marginal"`, as for `mmcoop.replace_inputs`. None lets a
            model that takes `present` decide, and means zero for any other model.
        features: Submodules by modality, whose outputs are replaced instead of the inputs.
        draws: Samples drawn per query for `"marginal"`.
        seed: Seed of these draws.
    """

    absent: str | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    draws: int = 8
    seed: int = 0

    @property
    def details(self) -> dict[str, Any]:
        """The entries of a scores file's details that describe this, except the imputer's name."""
        drawn = {"absent_seed": self.seed} if self.absent == "marginal" else {}
        return {**({"features": dict(self.features)} if self.features else {}), **drawn}

    def over(
        self,
        model: Any,
        modalities: Sequence[str],
        background: Callable[[], Any],
        output: Output = None,
    ) -> tuple[Any, str]:
        """Wrap `model` so that it can be evaluated without some of its modalities.

        Args:
            model: The model. Returned unchanged if it takes `present` and `absent` is None.
            modalities: Names of the modalities, in order.
            background: Returns batches of the training split; called only if they are needed.
            output: Which item of a wrapped model's output holds the predictions.

        Returns:
            The model as `(inputs, present) -> logits`, and the name of the imputer.

        Raises:
            UsageError: `features` are set for a model that is not a `torch.nn.Module`, or do not
                name every modality; and for the reasons of `mmcoop.replace_inputs`.
            DataError: For the reasons of `mmcoop.replace_inputs`.
        """
        check_modalities(modalities)
        if self.absent is None and not self.features and takes_present(model):
            return model, getattr(model, "absent", "zero" if hasattr(model, "fuse") else "own")
        if self.features and not isinstance(model, nn.Module):
            raise UsageError(
                f"{setting('features')} are of a torch.nn.Module, and the model is a "
                f"{type(model).__name__}: "
                "leave them out"
            )
        try:
            call = calling_adapter(model, modalities)
        except UnclearCall as error:
            raise UsageError(
                f"{error.what}: put it into a torch.nn.Module that takes the modalities by name, "
                "or one dict of them, and value that"
            ) from None
        absent = self.absent or "zero"
        more: dict[str, Any] = {
            "draws": self.draws,
            "seed": self.seed,
            "task": "classification",
            "output": output,
            "call": call,
        }
        if absent != "zero":
            more["background"] = background()
        if not self.features:
            replaced = replace_inputs(model, modalities, absent, **more)
        elif set(self.features) != set(modalities):
            odd = ", ".join(sorted(set(self.features) ^ set(modalities)))
            raise UsageError(
                f"{setting('features')}: name a submodule for each of {', '.join(modalities)}, "
                "and no other "
                f"modality; amiss: {odd}"
            )
        else:
            places = {m: self.features[m] for m in modalities}
            replaced = replace_features(model, places, absent, **more)
        return replaced, replaced.absent

"""Places in a model where the features of one modality are: named submodules."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from mmcoop.core.imputers.adapters import Call
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.pytree import batch_size, to_device, tree_map
from mmcoop.errors import DataError, UsageError


def check_submodules(model: nn.Module, places: Mapping[str, str]) -> None:
    """Raise `UsageError` where a place is no submodule of the model, or that of two modalities."""
    known = [name for name, _ in model.named_modules() if name]
    for modality, place in places.items():
        if not isinstance(place, str) or place not in known:
            near = get_close_matches(str(place), known, n=5)
            told = f"near names: {', '.join(near)}" if near else "model.named_modules() lists them"
            raise UsageError(
                f"the model has no submodule {place!r} for the modality {modality!r}; {told}"
            )
    if len(set(places.values())) < len(places):
        told = ", ".join(f"{modality} at {place}" for modality, place in places.items())
        raise UsageError(f"each modality needs a place of its own: {told}")


@contextmanager
def hooked(
    model: nn.Module,
    places: Mapping[str, str],
    rows: int,
    replace: Callable[[str, Any], Any],
) -> Iterator[None]:
    """In the block, `replace(modality, output)` instead of the output of each of the submodules; as
    it is where that is None. The model is called once in the block, with `rows` rows.

    Raises `DataError` where a submodule is not reached just once, or gives tensors that do not
    have samples first.
    """
    reached = dict.fromkeys(places, 0)

    def hook_for(modality: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            reached[modality] += 1
            place = f"the place {places[modality]!r} of the modality {modality!r}"
            if reached[modality] > 1:
                raise DataError(f"{place} is reached twice in one call: name one reached once")
            shapes = _shapes(output)
            if not shapes:
                raise DataError(f"{place} gives no tensor: name a submodule that gives features")
            for shape in shapes:
                if shape[:1] != (rows,):
                    raise DataError(
                        f"{place} gives a tensor of shape {shape} for {rows} rows: name a "
                        "submodule whose output has samples first"
                    )
            return replace(modality, output)

        return hook

    hooks = [
        model.get_submodule(place).register_forward_hook(hook_for(modality))
        for modality, place in places.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for modality, times in reached.items():
        if times == 0:
            raise DataError(
                f"the place {places[modality]!r} of the modality {modality!r} is not reached when "
                "the model is called: name a submodule that is"
            )


def features_at(
    model: nn.Module, places: Mapping[str, str], batches: Iterable[dict[str, Any]], call: Call
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the submodules give for each batch of inputs, in evaluation mode: `(rows, features by
    modality)`.
    """
    parameter = next(model.parameters(), None)
    for inputs in batches:
        rows = batch_size(inputs)
        found: dict[str, Any] = {}

        def note(modality: str, output: Any, found: dict[str, Any] = found) -> None:
            # a copy: what comes next in the model may work in place
            found[modality] = tree_map(torch.clone, output)

        # copies: a model may work in place
        inputs = tree_map(torch.clone, inputs)
        if parameter is not None:
            inputs = to_device(inputs, parameter.device)
        with torch.no_grad(), evaluation_mode(model), hooked(model, places, rows, note):
            call(model, inputs)
        yield rows, found


def _shapes(x: Any) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tuple(tensor.shape))
        return tensor

    tree_map(note, x)
    return found

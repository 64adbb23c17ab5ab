"""Loading weights into a user-defined model, whatever it was wrapped in when they were saved."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcoop.errors import DataError, said

#: Tensors by name.
State = Mapping[str, Tensor]

# name parts added by DataParallel and torch.compile
_WRAPPERS = {"module", "_orig_mod"}
# AveragedModel's counter
_COUNTER = "n_averaged"
# first bytes of files from torch.save: zip archives or, before 2020, pickles
_TORCH = (b"PK\x03\x04", b"\x80")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights from a file into a model, without executing code from the file.

    Names may differ by parts that wrappers add (`module.`, `_orig_mod.`), or by a common prefix.
    For shared weights, one of the names suffices.

    Args:
        model: The model.
        path: A file from safetensors or `torch.save`, with a state dict or a checkpoint that
            contains one.

    Raises:
        DataError: The file cannot be read, holds more than data, is of another model, or several
            states of a checkpoint fit the model.
    """
    own: State = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }
    best: dict[str, tuple[list[str], State]] = {}
    for part, state in _states(path).items():
        tried = [(_misfits(renamed, own), renamed) for renamed in _renamed(state, own)]
        best[part] = min(tried, key=lambda attempt: len(attempt[0]))
    fitting = [part for part, (misfits, _) in best.items() if not misfits]
    if len(fitting) > 1:
        raise DataError(
            f"{path} holds several states that fit the model, {', '.join(fitting)}: save the one "
            "that is meant alone"
        )
    if not fitting:
        misfits, _ = min(best.values(), key=lambda attempt: len(attempt[0]))
        raise DataError(f"{path} is of another model: {misfits[0]}")
    model.load_state_dict(best[fitting[0]][1], strict=False)


def _states(path: Path) -> dict[str, State]:
    """The state dicts in a file, by their key in the checkpoint."""
    try:
        with path.open("rb") as file:
            of_torch = file.read(4).startswith(_TORCH)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {said(error)}") from None
    content = _read_torch(path) if of_torch else _read_safetensors(path)
    if _is_state(content):
        return {"": content}
    parts = content.items() if isinstance(content, Mapping) else ()
    states = {str(name): part for name, part in parts if _is_state(part)}
    if not states:
        raise DataError(f"{path} holds no weights: write one with {_HOW}")
    return states


# errors raised for damaged files
_DAMAGED = (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError)
_HOW = "torch.save(model.state_dict(), FILE) or safetensors.torch.save_file"


def _is_state(content: Any) -> TypeGuard[State]:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a safetensors file: {said(error)}. To write weights: {_HOW}"
        ) from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except UnpicklingError:
        raise DataError(
            f"{path} holds more than tensors, numbers and text, or is damaged, and is not opened: "
            f"write the weights alone, with {_HOW}"
        ) from None
    except _DAMAGED as error:
        reason = said(error).splitlines() or [type(error).__name__]
        raise DataError(f"{path} is damaged: {reason[0]}") from None


def _renamed(state: State, own: State) -> Iterator[State]:
    """Yield the state as it is, then with the names that it may have in the model."""
    yield state
    names = {_bare(name): name for name in own}
    bare = {_bare(name): tensor for name, tensor in state.items() if name != _COUNTER}
    if len(names) < len(own) or len(bare) < len(state) - (_COUNTER in state):
        return  # names would not be unique without the wrappers' parts
    while True:
        yield {names.get(name, name): tensor for name, tensor in bare.items()}
        first = {name.partition(".")[0] for name in bare}
        if len(first) > 1 or not all("." in name for name in bare):
            return
        bare = {name.partition(".")[2]: tensor for name, tensor in bare.items()}


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _misfits(state: State, own: State) -> list[str]:
    """Differences between a state and that of the model, in words."""
    # the file may have only one of the names of shared weights
    shared = {id(own[name]) for name in state.keys() & own.keys()}
    lost = [n for n, x in own.items() if n not in state and id(x) not in shared and n != _COUNTER]
    return [
        *(f"{name!r} is missing from it" for name in lost),
        *(f"{name!r} is in it alone" for name in state if name not in own),
        *(
            f"{name!r} has shape {tuple(x.shape)} there, {tuple(own[name].shape)} in the model"
            for name, x in state.items()
            if name in own and x.shape != own[name].shape
        ),
    ]

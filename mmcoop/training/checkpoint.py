"""Checkpoints: a folder of weights (safetensors) and, to go on from, the state of training."""

import sys
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcoop.errors import DataError
from mmcoop.files import read_json, sha256, standing_folder, whole_folder, write_json

WEIGHTS = "model.safetensors"
_INFO = "checkpoint.json"
_STATE = "state.pt"


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    info: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole, in place of the one that stands there.

    `info` is small and readable (epoch, accuracy); `state` is whatever training needs to go on,
    of tensors, numbers, strings, lists and dicts only, so that it loads without running code.
    """
    with whole_folder(folder) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary / WEIGHTS
        )
        write_json(temporary / _INFO, info)
        if state is not None:
            torch.save(_canonical(state), temporary / _STATE)


def _canonical(value: Any) -> Any:
    """`value` in the one form in which equal states are equal bytes.

    Pickle writes an object it has met before as a reference to it, and a tensor with all of the
    memory that it is a view of: what was loaded from a checkpoint shares less than what was made.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_canonical(entry) for entry in value)
    return sys.intern(value) if type(value) is str else value


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint."""
    return standing_folder(folder).is_dir()


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a checkpoint's weights into `model`.

    Raises `DataError` where there are none, they are damaged, or they are those of another
    architecture.
    """
    weights = _read(folder, WEIGHTS, lambda path: load_file(path))
    own = model.state_dict()
    if weights.keys() != own.keys():
        odd = sorted(weights.keys() ^ own.keys())[0]
        side = "only in the checkpoint" if odd in weights else "missing from it"
        raise DataError(f"{folder / WEIGHTS} is of another architecture: {odd!r} is {side}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise DataError(
                f"{folder / WEIGHTS} is of another architecture: {name!r} has shape "
                f"{tuple(tensor.shape)} there, {tuple(own[name].shape)} in the model"
            )
    model.load_state_dict(weights)


def load_state(folder: Path) -> dict[str, Any]:
    """The state of training in a checkpoint; `DataError` where it is missing or damaged."""
    state = _read(
        folder, _STATE, lambda path: torch.load(path, weights_only=True, map_location="cpu")
    )
    if not isinstance(state, dict):
        raise DataError(f"the checkpoint {folder / _STATE} does not hold the state of a training")
    return state


def load_info(folder: Path) -> dict[str, Any]:
    """What `checkpoint.json` says: epoch, validation accuracy and loss."""
    info = read_json(standing_folder(folder) / _INFO)
    if not isinstance(info, dict):
        raise DataError(f"{folder / _INFO} is not what mmcoop writes: expected a JSON object")
    return info


def weights_hash(folder: Path) -> str:
    """sha256 of a checkpoint's weights file."""
    path = standing_folder(folder) / WEIGHTS
    if not path.is_file():
        raise DataError(f"{path} is missing")
    return sha256(path)


def _read(folder: Path, name: str, read: Any) -> Any:
    path = standing_folder(folder) / name
    if not path.is_file():
        raise DataError(f"the checkpoint {path} is missing")
    try:
        return read(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"the checkpoint {path} is damaged: {reason}") from None
    except UnpicklingError:
        raise DataError(
            f"the checkpoint {path} cannot be loaded safely: it is damaged, or holds more than data"
        ) from None

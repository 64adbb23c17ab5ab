"""Checkpoints: a folder of weights (safetensors) and, to resume from, the state of training."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import _TYPES as _DTYPES
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import TypedDict

from mmcoop.errors import DataError, setting
from mmcoop.files import atomic_folder, standing_folder, write_json
from mmcoop.reading.json_files import AS_WRITTEN, Count, checked
from mmcoop.reading.torch_state import read_torch
from mmcoop.training.checkpoint_info import INFO, WEIGHTS, CheckpointInfo

_STATE = "state.pt"


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    info: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole, in place of the one that stands there.

    `info` is small and readable (epoch, accuracy); `state` is whatever training needs to resume,
    of tensors, numbers, strings, lists and dicts only, so that it loads without running code.
    """
    with atomic_folder(folder, _bytes(weights) + _bytes(state)) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary / WEIGHTS
        )
        write_json(temporary / INFO, info)
        if state is not None:
            torch.save(_canonical(state), temporary / _STATE)


def _bytes(value: Any) -> int:
    """How many bytes the tensors in `value` take."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = list(value.values())
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


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
    path = _weights_file(folder)
    with _damage_named(path):
        weights = load_file(path)
    check_same_tensors(weights, model.state_dict(), path)
    model.load_state_dict(weights)


def check_weights(own: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `DataError` unless a checkpoint has weights of the names, shapes and kinds of `own`.

    Reads the description of the file alone; `own` may be on the device "meta", so that nothing of
    a size that a file states is allocated before a file is there that has this many bytes.
    """
    path = _weights_file(folder)
    with _damage_named(path), safe_open(path, "pt") as file:
        described = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {
            name: torch.empty(each.get_shape(), dtype=_DTYPES[each.get_dtype()], device="meta")
            for name, each in described.items()
        }
    check_same_tensors(found, own, path)


@with_config(AS_WRITTEN)
class TrainingState(TypedDict):
    """What `state.pt` holds, beside the states of the optimiser and of the method."""

    epoch: Annotated[int, Field(ge=1, le=2**53)]
    best: CheckpointInfo
    stale_epochs: Count


def load_training_state(folder: Path, optimizer: Optimizer, method: nn.Module) -> dict[str, Any]:
    """The state of training in a checkpoint, for this optimiser and method.

    Raises `DataError` where it is missing, damaged, or one that they could not be in.
    """
    state, path = load_state(folder), standing_folder(folder) / _STATE
    checked({name: state.get(name) for name in TrainingState.__annotations__}, TrainingState, path)
    check_optimizer_state(state.get("optimizer"), optimizer, path)
    check_same_tensors(state.get("method"), method.state_dict(), path)
    return state


def load_state(folder: Path) -> dict[str, Any]:
    """The state of training in a checkpoint; `DataError` where it is missing or damaged."""
    path = standing_folder(folder) / _STATE
    try:
        state = read_torch(path)
    except DataError as error:
        raise DataError(f"the checkpoint {error}") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DataError(f"the checkpoint {path} does not hold the state of a training")
    return state


def check_same_tensors(found: Any, own: Mapping[str, Tensor], where: object) -> None:
    """Raise `DataError` unless `found` has tensors of the names, shapes and kinds of `own`."""
    if not isinstance(found, Mapping) or found.keys() ^ own.keys():
        odd = sorted(map(str, found.keys() ^ own.keys()))[0] if isinstance(found, Mapping) else ""
        side = "only in the checkpoint" if odd not in own else "missing from it"
        raise DataError(f"{where} is of another architecture: {odd!r} is {side}")
    for name, tensor in found.items():
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
        if shape != tuple(own[name].shape):
            raise DataError(
                f"{where} is of another architecture: {name!r} has shape {shape} there, "
                f"{tuple(own[name].shape)} in the model"
            )
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise DataError(
                f"{where} is of another architecture: {name!r} is {tensor.dtype} there, "
                f"{own[name].dtype} in the model"
            )


def check_optimizer_state(found: Any, optimizer: Optimizer, where: object) -> None:
    """Raise `DataError` unless `found` is a state that `optimizer` could be in.

    It must have the groups of parameters of the optimiser, with settings of the same kinds, and for
    each parameter what the optimiser keeps of one: tensors of the parameter's shape, and counts.
    """

    def refuse(what: str) -> DataError:
        return DataError(
            f"{where} does not fit this training: {what}; start anew with "
            f"{setting('overwrite', True)}"
        )

    own = optimizer.state_dict()
    if not isinstance(found, dict) or found.keys() != own.keys():
        raise refuse("it has no state of the optimiser")
    groups = found["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise refuse("the optimiser has other groups of parameters")
    for group, ours in zip(groups, own["param_groups"], strict=True):
        if not isinstance(group, dict) or group.keys() != ours.keys():
            raise refuse("the optimiser has other settings")
        for name in ours.keys() - {"lr", "initial_lr"}:
            if not _equal(group[name], ours[name]):
                raise refuse(f"the optimiser has another setting {name!r}")
        if not (isinstance(group["lr"], float) and math.isfinite(group["lr"])):
            raise refuse("the learning rate is no number")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = _kept_of_a_parameter(optimizer)
    if not isinstance(found["state"], dict):
        raise refuse("it has no state of the parameters")
    for k, state in found["state"].items():
        if type(k) is not int or not 0 <= k < len(parameters) or not isinstance(state, dict):
            raise refuse(f"there is no parameter {k}")
        if state.keys() != kept.keys():
            raise refuse(f"other numbers are kept of parameter {k}")
        for name, is_count in kept.items():
            value = state[name]
            if is_count is None and value is None:
                continue
            shape = () if is_count else tuple(parameters[k].shape)
            fits = isinstance(value, Tensor) and tuple(value.shape) == shape
            if not (fits and value.is_floating_point()):
                raise refuse(f"{name} of parameter {k} has not the shape {shape}")
            if is_count and not 0 <= float(value) < math.inf:
                raise refuse(f"{name} of parameter {k} is {float(value)}")


def _equal(found: Any, own: Any) -> bool:
    """Whether a setting of the optimiser, of numbers, text, lists and tuples, is the own one."""
    if type(found) is not type(own):
        return False
    if isinstance(own, list | tuple):
        return len(found) == len(own) and all(map(_equal, found, own))
    return bool(found == own)


def _kept_of_a_parameter(optimizer: Optimizer) -> dict[str, bool | None]:
    """What such an optimiser keeps of a parameter: the names, and whether each is a count; None for
    what it keeps a place for alone.
    """
    parameter = nn.Parameter(torch.zeros(2))
    twin = type(optimizer)([parameter], **optimizer.defaults)
    parameter.grad = torch.zeros(2)
    twin.step()
    state = twin.state_dict()["state"].get(0, {})
    return {name: None if value is None else value.dim() == 0 for name, value in state.items()}


def _weights_file(folder: Path) -> Path:
    path = standing_folder(folder) / WEIGHTS
    if not path.is_file():
        raise DataError(f"the checkpoint {path} is missing")
    return path


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"the checkpoint {path} is damaged: {reason}") from None

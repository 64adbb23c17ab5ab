"""What a checkpoint says of itself, and which weights it has; loads without torch."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, with_config
from typing_extensions import TypedDict

from mmcoop.errors import DataError
from mmcoop.files import sha256, standing_folder
from mmcoop.reading.json_files import AS_WRITTEN, Count, checked, read_json

WEIGHTS = "model.safetensors"
INFO = "checkpoint.json"


@with_config(AS_WRITTEN)
class CheckpointInfo(TypedDict):
    """What `checkpoint.json` holds."""

    epoch: Count
    validation_accuracy: Annotated[float, Field(ge=0, le=1)]
    validation_loss: FiniteFloat


def load_info(folder: Path) -> dict[str, Any]:
    """What `checkpoint.json` says; `DataError` where it is missing or damaged."""
    return read_json(standing_folder(folder) / INFO, dict[str, Any])


def load_epoch(folder: Path) -> dict[str, Any]:
    """Epoch, validation accuracy and loss of a checkpoint of a run; as `load_info` otherwise."""
    return dict(checked(load_info(folder), CheckpointInfo, folder / INFO))


def weights_hash(folder: Path) -> str:
    """sha256 of a checkpoint's weights file."""
    path = standing_folder(folder) / WEIGHTS
    if not path.is_file():
        raise DataError(f"{path} is missing")
    return sha256(path)

"""Description of one modality of a dataset."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat, with_config
from typing_extensions import TypedDict

from mmcoop.errors import DataError
from mmcoop.reading.json_files import AS_WRITTEN

#: Kinds of modality, and the shape of one sample.
KINDS = {
    "frames": "(frames, 3, height, width), each frame stored as JPEG",
    "image": "(channels, height, width)",
    "flow": "(frames, 2, height, width), horizontal and vertical displacement",
    "spectrogram": "(1, frequency bins, time steps)",
    "series": "(time steps, channels)",
    "vector": "(features,)",
}

#: The channel axis of a sample, along which normalisation may differ.
_CHANNEL_AXIS = {
    "frames": -3,
    "image": -3,
    "flow": -3,
    "spectrogram": -3,
    "series": -1,
    "vector": -1,
}

_DIMENSIONS = {"frames": 4, "image": 3, "flow": 4, "spectrogram": 3, "series": 2, "vector": 1}
_DTYPES = ("uint8", "float16", "float32", "float64")

#: The longest side of frames that are resized.
_LONGEST_SIDE = 16384

#: The most numbers per sample: Arrow's lists have 32-bit lengths.
_LARGEST = 2**31 - 1


def _check_shape(shape: list[int]) -> list[int]:
    if math.prod(shape) > _LARGEST:
        raise ValueError(f"a sample of this shape has more than {_LARGEST:,} numbers")
    return shape


#: The shape of a sample, as JSON has it.
Shape = Annotated[
    list[Annotated[int, Field(ge=1, le=_LARGEST)]],
    Field(min_length=1, max_length=4),
    AfterValidator(_check_shape),
]


@with_config(AS_WRITTEN)
class ModalityContent(TypedDict):
    """The entry of a modality in `dataset.json`: the fields of `Modality`."""

    kind: str
    shape: Shape
    dtype: str
    encoder: str
    mean: FiniteFloat | list[FiniteFloat]
    std: FiniteFloat | list[FiniteFloat]
    size: Annotated[int, Field(ge=1, le=_LONGEST_SIDE)] | None
    training: dict[str, dict[str, Annotated[float, Field(ge=0, le=_LONGEST_SIDE)]]]
    segments: NotRequired[Annotated[int, Field(ge=1, le=2**31 - 1)] | None]


@dataclass(frozen=True)
class Modality:
    """One modality of a dataset, as recorded in `dataset.json`.

    A model sees `(stored − mean) / std` in float32, computed in float64 if that is stored.

    Attributes:
        kind: One of `KINDS`.
        shape: Shape of one stored sample.
        dtype: `uint8`, `float16`, `float32`, or, for numbers whose differences float32 cannot
            resolve, `float64`.
        encoder: Name of the default encoder.
        mean: One number, or one per channel (for a vector, per feature).
        std: Likewise.
        size: Frames are resized to `size × size` pixels. Stored frames may then have any height
            and width, and `shape` has the sizes after resizing. None: not resized.
        training: Arguments of the random training transforms by name (`transforms.py`).
        segments: How many of the stored frames or flow fields a model sees: one from each of this
            many equal segments, drawn at random in training, the middle one in evaluation. None
            uses all of them.

    Raises:
        DataError: A field has an invalid value.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    encoder: str
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    size: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    segments: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"unknown kind of modality {self.kind!r}: one of {', '.join(KINDS)}")
        if len(self.shape) != _DIMENSIONS[self.kind] or min(self.shape) < 1:
            raise DataError(f"shape {self.shape} is not that of {self.kind}: {KINDS[self.kind]}")
        if self.dtype not in _DTYPES:
            raise DataError(f"unknown dtype {self.dtype!r}: one of {', '.join(_DTYPES)}")
        if self.size is not None and (self.kind != "frames" or self.size < 1):
            raise DataError(f"size is {self.size}: only frames are resized, to a size of 1 or more")
        if self.segments is not None:
            if self.kind not in ("frames", "flow"):
                raise DataError(f"{self.kind} has no segments: only frames and flow have")
            if self.segments < 1 or self.shape[0] % (2 * self.segments) != self.segments:
                raise DataError(
                    f"{self.shape[0]} stored frames do not make {self.segments} segments that each "
                    "have a middle: store an odd number of times as many"
                )
        for name in ("mean", "std"):
            number = getattr(self, name)
            channels = self.shape[_CHANNEL_AXIS[self.kind]]
            if isinstance(number, tuple) and len(number) != channels:
                raise DataError(f"{name} has {len(number)} numbers: expected 1 or {channels}")
        if not np.min(self.std) > 0:
            raise DataError(f"std is {self.std}: it must be above 0")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as an encoder receives it."""
        shape = (*self.shape[:-2], self.size, self.size) if self.size else self.shape
        return (self.segments, *shape[1:]) if self.segments else shape

    @property
    def no_motion(self) -> float:
        """The stored number that means no displacement, for flow: 128 in bytes, else 0."""
        return 128.0 if self.dtype == "uint8" else 0.0

    @property
    def precision(self) -> str:
        """The dtype in which samples are normalised: float32, or float64 if that is stored."""
        return "float64" if self.dtype == "float64" else "float32"

    def along_channels(self, number: float | tuple[float, ...]) -> np.ndarray:
        """`mean` or `std` as an array of `precision` that broadcasts over samples."""
        numbers = np.asarray(number, self.precision)
        return numbers.reshape(-1, *(1,) * (-1 - _CHANNEL_AXIS[self.kind]))

    def by_channel(self, sample: np.ndarray) -> np.ndarray:
        """Reshape one sample to two axes, `(numbers, channels)`."""
        last = np.moveaxis(sample, _CHANNEL_AXIS[self.kind], -1)
        return last.reshape(-1, last.shape[-1])

    def to_json(self) -> dict[str, Any]:
        """The entry of the modality in `dataset.json`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "segments" or value is not None  # as in datasets of earlier versions
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Modality":
        """Make a modality from its entry in `dataset.json`.

        Raises:
            DataError: A field has an invalid value.
        """
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**fields)

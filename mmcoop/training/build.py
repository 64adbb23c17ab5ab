"""Building a model from what a run folder or a data set says of it.

Loads torch when a model is built, not before: a run is described without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, with_config
from typing_extensions import TypedDict

from mmcoop.core.models.encoders import ENCODERS, build_encoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.datasets.modality import Shape
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, UsageError
from mmcoop.methods import METHODS
from mmcoop.reading.json_files import AS_WRITTEN
from mmcoop.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mmcoop.core.models.model import MultimodalModel


@with_config(AS_WRITTEN)
class _Input(TypedDict):
    encoder: str
    shape: Shape


@with_config(AS_WRITTEN)
class ArchitectureContent(TypedDict):
    """What `run.json` holds of a model."""

    modalities: Annotated[dict[str, _Input], Field(min_length=1)]
    fusion: str
    classes: Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True)
class Architecture:
    """All that decides a model but its weights.

    `encoders` and `shapes`: encoder name and input shape by modality. `classes`: their names.
    """

    encoders: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    fusion: str
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "modalities": {
                name: {"encoder": encoder, "shape": list(self.shapes[name])}
                for name, encoder in self.encoders.items()
            },
            "fusion": self.fusion,
            "classes": list(self.classes),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Architecture":
        modalities = content["modalities"]
        return cls(
            encoders={name: m["encoder"] for name, m in modalities.items()},
            shapes={name: tuple(m["shape"]) for name, m in modalities.items()},
            fusion=content["fusion"],
            classes=tuple(content["classes"]),
        )

    def described(self) -> "dict[str, Tensor]":
        """Names, shapes and kinds of the model's weights, which are on no device.

        Raises `DataError` where it cannot be built.
        """
        import torch

        try:
            with torch.device("meta"):
                return dict(self.build().state_dict())
        except (RuntimeError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"no model can be built as stated: {error}") from None

    def build(self, seed: int = 0) -> "MultimodalModel":
        """The model, its weights drawn from `seed`; torch's own generator is left as it was."""
        from mmcoop.core.models.model import MultimodalModel
        from mmcoop.core.seeds import derive_seed, seeded

        with seeded(derive_seed(seed, "weights")):
            encoders = {m: build_encoder(self.encoders[m], self.shapes[m]) for m in self.encoders}
            ordered = {name: encoders[name] for name in sorted(encoders)}
            return MultimodalModel(*build_fusion(self.fusion, ordered, len(self.classes)))


def architecture_of(dataset: DatasetFolder, config: TrainConfig) -> Architecture:
    """The architecture that `config` asks for on `dataset`.

    Raises `UsageError` for an encoder of a modality that the data set does not have.
    """
    for name, encoder in config.encoders.items():
        ENCODERS.check(encoder)
        if name not in dataset.modalities:
            raise UsageError(
                f"the data set has no modality {name!r}: choose one of "
                f"{', '.join(dataset.modalities)}"
            )
    method = METHODS.load(config.method)
    names = method.modalities(tuple(dataset.modalities), config.options)
    return Architecture(
        encoders={m: config.encoders.get(m, dataset.modalities[m].encoder) for m in names},
        shapes={m: dataset.modalities[m].input_shape for m in names},
        fusion=config.fusion,
        classes=tuple(dataset.classes),
    )

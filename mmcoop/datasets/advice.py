"""How a data set is best trained, by what its modalities are: encoders, epochs, learning rate."""

from collections.abc import Mapping
from typing import Any

from mmcoop.datasets.modality import Modality

#: The encoder that each kind of modality trains with, unless a recipe or a user says otherwise.
ENCODERS = {
    "frames": "resnet18",
    "image": "resnet18",
    "flow": "resnet18",
    "spectrogram": "resnet18",
    "series": "conv1d",
    "vector": "mlp",
}

# Small encoders learn well at a rate that is too high for the paper's ResNet18s.
_SMALL = {"lr": 1e-3, "weight_decay": 0.0}


def training_advice(
    modalities: Mapping[str, Modality],
    *,
    epochs: int = 40,
    warmup: int = 5,
    enhance_epochs: int = 20,
) -> dict[str, dict[str, Any]]:
    """The settings to train and to enhance a model with, where they are not the paper's.

    They follow from the modalities alone, whatever recipe they come from: the paper's settings, the
    defaults of `TrainConfig`, where any of them is encoded by a ResNet18; else a higher learning
    rate over fewer epochs.

    Args:
        modalities: Those of the data set, by name.
        epochs: How long to train small encoders.
        warmup: How many of these epochs are ordinary ones.
        enhance_epochs: How long to enhance them.

    Returns:
        Fields of `TrainConfig` under "train" and "enhance"; empty for the paper's settings.
    """
    if any(modality.encoder == "resnet18" for modality in modalities.values()):
        return {}
    return {
        "train": {"epochs": epochs, **_SMALL, "warmup": warmup},
        "enhance": {"epochs": enhance_epochs, **_SMALL},
    }

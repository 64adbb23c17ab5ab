"""Recommended encoders and training settings, by the kinds of a dataset's modalities."""

from collections.abc import Mapping
from typing import Any

from mmcoop.datasets.modality import Modality

#: The default encoder of each kind of modality.
ENCODERS = {
    "frames": "resnet18",
    "image": "resnet18",
    "flow": "resnet18",
    "spectrogram": "resnet18",
    "series": "conv1d",
    "vector": "mlp",
}

# Small encoders tolerate a learning rate that is too high for the paper's ResNet18.
_SMALL = {"lr": 1e-3, "weight_decay": 0.0}


def training_advice(
    modalities: Mapping[str, Modality],
    *,
    epochs: int = 40,
    warmup: int = 5,
    enhance_epochs: int = 20,
) -> dict[str, dict[str, Any]]:
    """Recommend settings for training and enhancement that differ from the paper's.

    If any modality has a ResNet18, the paper's settings, which are the defaults of `TrainConfig`,
    are recommended; otherwise a higher learning rate and fewer epochs.

    Args:
        modalities: The dataset's modalities by name.
        epochs: Epochs of training for small encoders.
        warmup: How many of these are warm-up epochs.
        enhance_epochs: Epochs of enhancement for small encoders.

    Returns:
        Fields of `TrainConfig` under "train" and "enhance"; empty for the paper's settings.
    """
    if any(modality.encoder == "resnet18" for modality in modalities.values()):
        return {}
    return {
        "train": {"epochs": epochs, **_SMALL, "warmup": warmup},
        "enhance": {"epochs": enhance_epochs, **_SMALL},
    }

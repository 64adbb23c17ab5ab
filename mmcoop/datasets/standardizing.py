"""How vectors and series are normalised and stored, for all recipes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcoop.datasets.advice import ENCODERS
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.precision import Spread
from mmcoop.datasets.rejects import FIRST
from mmcoop.errors import DataError, setting

#: Help text of the recipes' option for it.
STANDARDIZE = "Normalise features by their training mean and deviation"


def array_modality(
    shape: tuple[int, ...],
    training: Iterable[np.ndarray],
    *,
    standardize: bool,
    what: str,
    features: Sequence[str] = (),
) -> tuple[Modality, list[str]]:
    """Describe a modality of vectors or series, and find constant features.

    Each feature of a vector, or channel of a series, is normalised by its mean and standard
    deviation; constant ones are only centred.

    Args:
        shape: Shape of one sample, `(features,)` or `(time steps, channels)`.
        training: The training samples, as arrays `(samples, *shape)` of finite numbers.
        standardize: Whether to normalise at all.
        what: Where the numbers are, for the message.
        features: Names of the features or channels.

    Returns:
        A modality of float32, or of float64 if float32 cannot resolve the differences between
        numbers; and the names of features or channels that are constant in the training samples.

    Raises:
        DataError: float32 cannot resolve the differences, and `standardize` is off.
    """
    kind = "vector" if len(shape) == 1 else "series"
    encoder = ENCODERS[kind]
    spread = Spread()
    for part in training:
        spread.add(part.reshape(-1, shape[-1]))
    names = list(features) or [f"channel {i}" for i in range(shape[-1])]
    if not len(spread.mean):  # no training samples: the build fails later
        return Modality(kind, shape, "float32", encoder), []
    constant = [names[i] for i in np.flatnonzero(spread.std == 0)]
    if not standardize:
        if lost := spread.too_close(names):
            raise DataError(
                f"{what}, {lost}, in which models compute: turn {setting('standardize')} on, "
                "or subtract "
                "an offset"
            )
        return Modality(kind, shape, "float32", encoder), constant
    dtype = "float64" if (spread.lost | spread.off_centre).any() else "float32"
    scale = np.where(spread.std > 0, spread.std, 1.0)
    mean, std = (tuple(x.tolist()) for x in (spread.mean, scale))
    return Modality(kind, shape, dtype, encoder, mean=mean, std=std), constant


def constant_features(by_modality: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Report features that carry no information: their number, and the first names.

    Args:
        by_modality: Constant features of each modality, from `array_modality`.

    Returns:
        Two entries of a dataset's report; empty without constant features.
    """
    found = {name: constant for name, constant in by_modality.items() if constant}
    if not found:
        return {}
    return {
        "constant_features": {name: len(constant) for name, constant in found.items()},
        "first_constant_features": {name: constant[:FIRST] for name, constant in found.items()},
    }

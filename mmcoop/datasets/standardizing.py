"""How vectors and series are normalised and stored, whatever recipe reads them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcoop.datasets.advice import ENCODERS
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.precision import Spread
from mmcoop.datasets.rejects import FIRST
from mmcoop.errors import DataError, setting

#: The option by which a recipe leaves it to the user, in words.
STANDARDIZE = "Normalise features by their training mean and deviation"


def array_modality(
    shape: tuple[int, ...],
    training: Iterable[np.ndarray],
    *,
    standardize: bool,
    what: str,
    features: Sequence[str] = (),
) -> tuple[Modality, list[str]]:
    """Describe vectors or series, and find the features that are constant.

    Every feature of a vector, and every channel of a series, is normalised by its mean and standard
    deviation; a constant one is only centred.

    Args:
        shape: That of one sample, (features,) or (time steps, channels).
        training: The training samples, in arrays `(samples, *shape)` of finite numbers.
        standardize: Whether they are normalised at all.
        what: What has the numbers, for the message.
        features: What the features or channels are called there.

    Returns:
        A modality of float32, or of float64 where float32 cannot hold what tells numbers apart;
        and the names of the features or channels that have one value in all training samples.

    Raises:
        DataError: They are not normalised, and float32 cannot hold what tells them apart.
    """
    kind = "vector" if len(shape) == 1 else "series"
    encoder = ENCODERS[kind]
    spread = Spread()
    for part in training:
        spread.add(part.reshape(-1, shape[-1]))
    names = list(features) or [f"channel {i}" for i in range(shape[-1])]
    if not len(spread.mean):  # without a training sample nothing is built
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
    """A report on features that carry no information: how many, and the first names.

    Args:
        by_modality: The constant features of each modality, as `array_modality` finds them.

    Returns:
        Two entries of a dataset's report; empty where no modality has a constant feature.
    """
    found = {name: constant for name, constant in by_modality.items() if constant}
    if not found:
        return {}
    return {
        "constant_features": {name: len(constant) for name, constant in found.items()},
        "first_constant_features": {name: constant[:FIRST] for name, constant in found.items()},
    }

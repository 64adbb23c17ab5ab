"""How vectors and series are normalised and stored, whatever recipe reads them."""

from collections.abc import Iterable, Sequence

import numpy as np

from mmcoop.datasets.advice import ENCODERS
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.precision import Spread
from mmcoop.errors import DataError

#: The option by which a recipe leaves it to the user, in words.
STANDARDIZE = "normalise every feature or channel by its training mean and standard deviation"


def array_modality(
    shape: tuple[int, ...],
    training: Iterable[np.ndarray],
    *,
    standardize: bool,
    what: str,
    features: Sequence[str] = (),
) -> Modality:
    """What is recorded of vectors or series: every feature of a vector, and every channel of a
    series, is normalised by its mean and standard deviation; one that is constant is only centred.

    Args:
        shape: That of one sample, (features,) or (time steps, channels).
        training: The training samples, in arrays `(samples, *shape)` of finite numbers.
        standardize: Whether they are normalised at all.
        what: What has the numbers, for the message.
        features: What the features or channels are called there.

    Returns:
        A modality of float32, or of float64 where float32 cannot hold what tells numbers apart.

    Raises:
        DataError: They are not normalised, and float32 cannot hold what tells them apart.
    """
    kind = "vector" if len(shape) == 1 else "series"
    encoder = ENCODERS[kind]
    spread = Spread()
    for part in training:
        spread.add(part.reshape(-1, shape[-1]))
    if not standardize:
        if lost := spread.too_close(features or [f"channel {i}" for i in range(shape[-1])]):
            raise DataError(
                f"{what}, {lost}, in which models compute: leave out --no-standardize, or subtract "
                "an offset"
            )
        return Modality(kind, shape, "float32", encoder)
    if not len(spread.mean):  # without a training sample nothing is built
        return Modality(kind, shape, "float32", encoder)
    dtype = "float64" if (spread.lost | spread.off_centre).any() else "float32"
    scale = np.where(spread.std > 0, spread.std, 1.0)
    mean, std = (tuple(x.tolist()) for x in (spread.mean, scale))
    return Modality(kind, shape, dtype, encoder, mean=mean, std=std)

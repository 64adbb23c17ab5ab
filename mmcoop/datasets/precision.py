"""Which numbers lose precision in float32, in which models compute.

Timestamps in seconds since 1970, for example, may differ from row to row by less than float32
resolves at that magnitude. Such numbers stay in float64 until their mean has been subtracted.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mmcoop.errors import DataError

#: The largest acceptable rounding error, in standard deviations.
TOLERANCE = 1e-4


class Spread:
    """Mean, standard deviation and float32 rounding errors of numbers, computed in parts.

    Parts are arrays `(rows, channels)` of finite numbers; results are float64 `(channels,)`. Parts
    are merged following Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
    variance". The first row is subtracted from all rows first, so that a large offset costs no
    digits and equal numbers have a deviation of exactly 0.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._offset = self._mean = self._squares = np.zeros(0)
        self._error = np.zeros(0)

    def add(self, numbers: np.ndarray) -> None:
        """Add a part, which may be empty."""
        if not len(numbers):
            return
        x = np.asarray(numbers, np.float64)
        if not self._rows:
            self._offset = x[0]
            self._mean, self._squares, self._error = np.zeros((3, x.shape[1]))
        self._error = np.maximum(self._error, np.abs(x.astype(np.float32) - x).max(axis=0))
        x = x - self._offset
        mean, rows = x.mean(axis=0), self._rows + len(x)
        step = mean - self._mean
        self._squares += ((x - mean) ** 2).sum(axis=0)
        self._squares += step**2 * (self._rows * len(x) / rows)
        self._mean = self._mean + step * (len(x) / rows)
        self._rows = rows

    @property
    def mean(self) -> np.ndarray:
        """Means."""
        return self._offset + self._mean

    @property
    def std(self) -> np.ndarray:
        """Population standard deviations; 0 where numbers differ in their last bits only."""
        std = np.sqrt(self._squares / max(self._rows, 1))
        return np.where(std > 8 * np.finfo(np.float64).eps * np.abs(self.mean), std, 0.0)

    @property
    def lost(self) -> np.ndarray:
        """Whether float32 rounds numbers by more than `TOLERANCE` deviations, bool `(channels,)`.

        False for constant channels.
        """
        return self._matters(self._error)

    @property
    def off_centre(self) -> np.ndarray:
        """Whether float32 rounds the mean by that much, which would leave numbers uncentred."""
        return self._matters(np.abs(self.mean.astype(np.float32) - self.mean))

    def too_close(self, names: Sequence[str]) -> str:
        """Describe the first channel that loses precision in float32; empty if none does.

        Args:
            names: Names of the channels.
        """
        if not self.lost.any():
            return ""
        i = int(self.lost.argmax())
        return (
            f"{names[i]}: numbers about {self.mean[i]:.6g} that differ by about {self.std[i]:.3g} "
            "are too close together for float32"
        )

    def _matters(self, error: np.ndarray) -> np.ndarray:
        std = self.std
        matters: np.ndarray = (std > 0) & (error > TOLERANCE * std)
        return matters


def check_float64(rounded: np.ndarray, exact: Callable[[], Sequence[Any]], where: str) -> None:
    """Check that float64 rounds no number by more than `TOLERANCE` standard deviations.

    It may do so for integers above 2⁵³ that are close together, such as nanoseconds since 1970.

    Args:
        rounded: The numbers as float64, finite, or NaN for missing ones.
        exact: Returns the exact integers or decimals; called only if needed.
        where: Where the numbers are, for the message.

    Raises:
        DataError: float64 cannot resolve the differences between the numbers.
    """
    if not np.nanmax(np.abs(rounded), initial=0) > 2**53:
        return
    numbers = [Fraction(x) for x in exact()]
    low = min(numbers)
    # subtract before rounding
    spread = np.std([float(x - low) for x in numbers])
    if max(abs(Fraction(float(x)) - x) for x in numbers) > TOLERANCE * spread:
        raise DataError(
            f"{where} has numbers so large against their differences that float64 cannot hold "
            "them: subtract the smallest one from all of them"
        )

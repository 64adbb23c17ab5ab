"""What of numbers survives in float32, in which models compute.

A clock in seconds since 1970 differs from row to row by less than float32 can tell apart at that
size. Such numbers are kept in float64 until their mean has been taken off.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mmcoop.errors import DataError

#: By how much of its standard deviation rounding may move a number.
TOLERANCE = 1e-4


class Spread:
    """Mean, standard deviation and rounding errors of numbers that come in parts.

    Parts are arrays `(rows, channels)` of finite numbers; what is found of them is float64
    `(channels,)`. Parts are merged as by Chan, Golub and LeVeque (1983), "Algorithms for computing
    the sample variance", after the first row has been taken off all of them, so that a large
    offset costs no digits and numbers that are all equal have a deviation of exactly 0.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._offset = self._mean = self._squares = np.zeros(0)
        self._error = np.zeros(0)

    def add(self, numbers: np.ndarray) -> None:
        """Count a part in, which may be empty."""
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
        return self._offset + self._mean

    @property
    def std(self) -> np.ndarray:
        """Standard deviations of a population; 0 where numbers differ by their last bits alone."""
        std = np.sqrt(self._squares / max(self._rows, 1))
        return np.where(std > 8 * np.finfo(np.float64).eps * np.abs(self.mean), std, 0.0)

    @property
    def lost(self) -> np.ndarray:
        """Whether float32 rounds numbers by more than `TOLERANCE` deviations, bool `(channels,)`.

        Of numbers that are all equal nothing is lost.
        """
        return self._matters(self._error)

    @property
    def off_centre(self) -> np.ndarray:
        """The same of the mean, which would leave numbers uncentred when it is taken off."""
        return self._matters(np.abs(self.mean.astype(np.float32) - self.mean))

    def too_close(self, names: Sequence[str]) -> str:
        """What float32 would lose, in words, of the channels called `names`; empty if nothing."""
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
    """Check that float64 has moved no number by more than `TOLERANCE` of their deviations.

    It does so to counts above 2⁵³, such as nanoseconds since 1970, that differ by little.

    Args:
        rounded: The finite numbers as float64, or NaN for missing ones.
        exact: Gives the numbers themselves, whole ones or decimals; asked where it matters alone.
        where: What has them, for the message.

    Raises:
        DataError: float64 cannot hold what tells the numbers apart.
    """
    if not np.nanmax(np.abs(rounded), initial=0) > 2**53:
        return
    numbers = [Fraction(x) for x in exact()]
    low = min(numbers)
    # differences are taken before numbers are rounded
    spread = np.std([float(x - low) for x in numbers])
    if max(abs(Fraction(float(x)) - x) for x in numbers) > TOLERANCE * spread:
        raise DataError(
            f"{where} has numbers so large against their differences that float64 cannot hold "
            "them: subtract the smallest one from all of them"
        )

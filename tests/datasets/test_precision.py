"""What float32 and float64 lose, against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from mmcoop.datasets.precision import TOLERANCE, Spread, check_float64
from mmcoop.errors import DataError

OFFSETS = [0.0, 3e4, 1e6, 1.7e9, 1.7e12, -1e10]


def spread(numbers: np.ndarray, parts: int = 1) -> Spread:
    found = Spread()
    for part in np.array_split(numbers, parts):
        found.add(part)
    return found


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("parts", [1, 3, 50])
def test_mean_and_deviation_are_those_of_exact_arithmetic(offset, parts):
    numbers = offset + np.random.default_rng(0).normal(0, 20, (40, 2)).round(3)
    found = spread(numbers, parts)
    for channel, column in enumerate(numbers.T):
        exact = [Fraction(float(x)) for x in column]
        mean = sum(exact) / len(exact)
        variance = sum((x - mean) ** 2 for x in exact) / len(exact)
        assert found.mean[channel] == pytest.approx(float(mean), rel=1e-15)
        assert found.std[channel] == pytest.approx(float(variance) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("number", [0.1, 1.7e12 + 1 / 3, 1e-300])
def test_numbers_that_are_all_equal_have_no_deviation_and_lose_nothing(number):
    numbers = np.full((1000, 1), number)
    found = spread(numbers, 7)
    assert (found.std[0], found.lost[0], found.off_centre[0]) == (0, False, False)


def test_last_bits_alone_are_no_deviation():
    assert spread(np.array([[0.1 + 0.2], [0.3]])).std == [0]


@pytest.mark.parametrize("offset", OFFSETS)
def test_what_is_lost_is_what_float32_moves_by_more_than_the_tolerance(offset):
    numbers = offset + np.random.default_rng(1).normal(0, [0.01, 1, 1000], (500, 3))
    moved = np.abs(numbers.astype(np.float32).astype(np.float64) - numbers).max(0)
    np.testing.assert_array_equal(spread(numbers, 4).lost, moved > TOLERANCE * numbers.std(0))


def test_whole_numbers_that_float32_holds_lose_nothing_but_their_centre():
    numbers = 2.0**24 - np.arange(5.0)[:, None] % 2
    found = spread(numbers)
    assert (found.lost[0], found.off_centre[0]) == (False, True)
    assert not spread(np.arange(100.0)[:, None]).off_centre[0]


@pytest.mark.parametrize(
    ("step", "fits"), [(1, False), (100, False), (10**4, False), (10**7, True), (10**9, True)]
)
def test_counts_beyond_float64_are_refused_where_they_differ_by_little(step, fits):
    counts = 1_700_000_000_000_000_000 + step * np.arange(50)
    rounded = counts.astype(np.float64)
    if fits:
        check_float64(rounded, counts.tolist, "here")
    else:
        with pytest.raises(DataError, match="here has numbers so large"):
            check_float64(rounded, counts.tolist, "here")


def test_counts_that_float64_holds_are_not_asked_for():
    check_float64(np.array([2.0**53, np.nan]), lambda: pytest.fail("asked"), "here")
    check_float64(np.array([np.nan]), lambda: pytest.fail("asked"), "here")

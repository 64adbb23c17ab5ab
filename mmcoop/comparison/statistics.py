"""The significance of a difference between two methods, over seeds and over test samples."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

#: Two-sided significance level of every mark, and 1 − it the level of every interval.
LEVEL = 0.05

#: Pairs of runs that a test over seeds needs: the differences of two accuracies, which come in
#: steps, are equal too often.
LEAST_SEEDS = 3

# Up to this many clusters of different sizes the distribution of the sign test is worked out.
_EXACT = 1000

# A p value is never 0: this is the smallest number that is one.
_LEAST_P = float(np.finfo(float).tiny)

# Differences below this are rounding errors of accuracies.
_ROUNDING = 1e-12


def mean_interval(numbers: Sequence[float], step: float = 0.0) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval (Student's t).

    Args:
        numbers: one per seed.
        step: the distance of the numbers that can occur, as 1/n of accuracies on n samples; 0
            where there is none. Numbers in steps look equal more often than they are: their
            standard deviation counts as step/√12 at least, that of rounding (Sheppard).

    Returns:
        The mean and half the width, NaN for fewer than two numbers.
    """
    found = np.asarray(numbers, dtype=float)
    if len(found) < 2:
        return (float(found.mean()) if len(found) else math.nan), math.nan
    quantile = stats.t.ppf(1 - LEVEL / 2, len(found) - 1)
    return float(found.mean()), float(quantile * _standard_error(found, step))


def paired_t(ours: Sequence[float], theirs: Sequence[float], step: float = 0.0) -> float:
    """Two-sided p of the paired t-test over seeds.

    Args:
        ours: one number per seed.
        theirs: those of the same seeds.
        step: as in `mean_interval`.

    Returns:
        p, above 0; 1 where the numbers are the same. NaN, no test, for fewer than `LEAST_SEEDS`
        pairs, and for differences that are all equal where no `step` says how much that means.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if len(differences) < LEAST_SEEDS:
        return math.nan
    if np.abs(differences).max() < _ROUNDING:
        return 1.0
    error = _standard_error(differences, step)
    if error < _ROUNDING:
        return math.nan
    t = abs(differences.mean()) / error
    return max(_LEAST_P, float(2 * stats.t.sf(t, len(differences) - 1)))


def _standard_error(numbers: np.ndarray, step: float) -> float:
    return float(max(numbers.std(ddof=1), step / math.sqrt(12)) / math.sqrt(len(numbers)))


def mcnemar(
    ours: np.ndarray, theirs: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> float:
    """Two-sided p of McNemar's test over test samples, exact, for clusters.

    A sample's predictions with several seeds are not independent, and neither are samples of one
    group, as windows of one video are. So a cluster, a group or else a sample, counts once: d is
    the sum of ours − theirs over all of it. Where nothing differs, d is as likely as −d, and p is
    the chance of a sum of ±d as far from 0 as that of all d. Of one seed and no groups this is
    McNemar's exact test; of many clusters it comes to (Σ d)² / Σ d², χ² with one degree of freedom
    (Durkalski et al., Statistics in Medicine 2003).

    Args:
        ours: whether each prediction is right, `(seeds, samples)`: 1, 0, or ½ for an undecided one.
        theirs: the same of the other method.
        groups: the group of each sample, `(samples,)`; None where samples are independent.

    Returns:
        p in 0…1, above 0; 1 where the two never disagree.
    """
    differences = (np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)).sum(0)
    if groups is not None:
        _, cluster = np.unique(np.asarray(groups), return_inverse=True)
        differences = np.bincount(cluster, weights=differences)
    halves = np.rint(2 * differences).astype(np.int64)
    return max(_LEAST_P, min(1.0, _sign_test(halves[halves != 0])))


def _sign_test(differences: np.ndarray) -> float:
    """The chance of a sum as far from 0 if each of these whole numbers had a sign at random."""
    if not len(differences):
        return 1.0
    differences = differences // np.gcd.reduce(differences)
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    if len(sizes) > 1 and len(differences) > _EXACT:
        statistic = differences.sum() ** 2 / (differences**2).sum()
        return float(stats.chi2.sf(statistic, 1))
    chances = np.ones(1)  # of the sum of what is positive, 0, 1, …
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, own)
    total = len(chances) - 1
    sums = 2 * np.arange(total + 1) - total
    return float(chances[np.abs(sums) >= abs(differences.sum())].sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of tests made together, corrected (Holm, 1979), in their order; NaN is no test."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(known) - rank) * p_values[i]))
        corrected[i] = least
    return corrected

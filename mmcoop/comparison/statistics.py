"""What a difference between two methods is worth, over seeds and over test samples."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

#: Two-sided significance level of every mark, and 1 − it the level of every interval.
LEVEL = 0.05


def mean_interval(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval (Student's t).

    The width is NaN for fewer than two numbers.
    """
    found = np.asarray(numbers, dtype=float)
    if len(found) < 2:
        return (float(found.mean()) if len(found) else math.nan), math.nan
    half = stats.t.ppf(1 - LEVEL / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean()), float(half)


def paired_t(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of the paired t-test over seeds; NaN for fewer than two pairs.

    Differences that are all the same leave no doubt: p is 1 where they are zero, 0 elsewhere.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p of McNemar's test over test samples; `ours`, `theirs`: bool `(seeds, samples)`,
    whether each prediction is right.

    With one seed the exact test: right and wrong are as likely among the samples on which the two
    disagree. With several seeds a sample is a cluster of predictions, which are not independent:
    d_k is the sum over seeds of ours − theirs, and (Σ d_k)² / Σ d_k² is χ² with one degree of
    freedom (Durkalski et al., Statistics in Medicine 2003), which is McNemar's own statistic for
    one seed. 1 where the two never disagree.
    """
    differences = (ours.astype(int) - theirs.astype(int)).sum(0)
    if not differences.any():
        return 1.0
    if len(ours) == 1:
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        return float(stats.binomtest(wins, wins + losses).pvalue)
    statistic = differences.sum() ** 2 / (differences**2).sum()
    return float(stats.chi2.sf(statistic, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of tests made together, corrected (Holm, 1979), in their order; NaN is no test."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(known) - rank) * p_values[i]))
        corrected[i] = least
    return corrected

"""What a difference is worth: against scipy, by hand, and where nothing differs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmcoop.comparison.statistics import holm, mcnemar, mean_interval, paired_t

ACCURACIES = [0.91, 0.94, 0.92, 0.95, 0.90]
OTHERS = [0.90, 0.92, 0.93, 0.91, 0.88]


# --- intervals and the t-test


def test_the_interval_is_students():
    mean, half = mean_interval(ACCURACIES)
    low, high = stats.t.interval(0.95, 4, np.mean(ACCURACIES), stats.sem(ACCURACIES))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_the_interval_by_hand():
    # mean 2, standard deviation 1, t(0.975, 2 degrees of freedom) = 4.3027
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 4.3027 / math.sqrt(3)), rel=1e-4)


def test_one_number_has_a_mean_and_no_interval_and_none_has_neither():
    assert mean_interval([0.5]) == (0.5, pytest.approx(math.nan, nan_ok=True))
    assert all(map(math.isnan, mean_interval([])))


def test_the_paired_test_is_scipys():
    assert paired_t(ACCURACIES, OTHERS) == pytest.approx(stats.ttest_rel(ACCURACIES, OTHERS).pvalue)


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [([0.5, 0.6], [0.5, 0.6], 1.0), ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], 0.0)],
)
def test_differences_that_are_all_the_same_leave_no_doubt(ours, theirs, p):
    assert paired_t(ours, theirs) == p


def test_one_pair_is_no_test():
    assert math.isnan(paired_t([0.9], [0.8]))


# --- McNemar's test


def table(both: int, ours: int, theirs: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits `(1, samples)` of two models that agree and disagree so often."""
    a = [True] * (both + ours) + [False] * (theirs + neither)
    b = [True] * both + [False] * ours + [True] * theirs + [False] * neither
    return np.array([a]), np.array([b])


def test_one_seed_is_the_exact_test_on_the_samples_on_which_two_models_disagree():
    # 10 against 2: 2 · (1 + 12 + 66) / 2¹²
    assert mcnemar(*table(70, 10, 2, 18)) == pytest.approx(158 / 4096)
    assert mcnemar(*table(0, 10, 2, 1000)) == pytest.approx(158 / 4096)
    assert mcnemar(*table(70, 2, 10, 18)) == pytest.approx(158 / 4096)


def test_models_that_never_disagree_do_not_differ():
    ours, theirs = table(70, 0, 0, 30)
    assert mcnemar(ours, theirs) == 1.0
    assert mcnemar(ours.repeat(3, 0), theirs.repeat(3, 0)) == 1.0


@pytest.mark.parametrize("seeds", [2, 5])
def test_seeds_that_are_copies_of_each_other_add_nothing(seeds):
    ours, theirs = (hits.repeat(seeds, 0) for hits in table(70, 10, 2, 18))
    assert mcnemar(ours, theirs) == pytest.approx(stats.chi2.sf((10 - 2) ** 2 / (10 + 2), 1))


def test_several_seeds_are_a_plain_loop_over_the_samples():
    chance = np.random.default_rng(0)
    ours, theirs = chance.random((3, 50)) < 0.9, chance.random((3, 50)) < 0.7
    total = squares = 0
    for k in range(50):
        d = sum(int(ours[s, k]) - int(theirs[s, k]) for s in range(3))
        total += d
        squares += d * d
    assert mcnemar(ours, theirs) == pytest.approx(math.erfc(math.sqrt(total**2 / squares / 2)))


@pytest.mark.parametrize("seeds", [1, 5])
def test_where_nothing_differs_one_test_in_twenty_says_so(seeds):
    # samples differ in difficulty, so that the predictions of several seeds are not independent
    chance = np.random.default_rng(seeds)
    found = []
    for _ in range(1500):
        difficulty = chance.beta(2, 1, 300)
        ours, theirs = (chance.random((seeds, 300)) < difficulty for _ in range(2))
        found.append(mcnemar(ours, theirs) < 0.05)
    assert 0.03 < np.mean(found) < 0.07


# --- correction


def test_the_correction_by_hand():
    # in order: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 not below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_is_no_test_is_not_counted():
    corrected = holm([0.02, math.nan, 0.01])
    assert corrected[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(corrected[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrected_values_are_no_smaller_keep_their_order_and_are_at_most_1(p_values):
    corrected = holm(p_values)
    for i, p in enumerate(p_values):
        assert p <= corrected[i] <= 1
        for j, other in enumerate(p_values):
            if p < other:
                assert corrected[i] <= corrected[j]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_what_is_rejected_is_what_stepping_down_rejects(p_values, level):
    rejected: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] * (len(p_values) - rank) > level:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected

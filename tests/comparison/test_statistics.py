"""What a difference is worth: against scipy, by hand, and where nothing differs."""

import math
from collections import defaultdict
from itertools import product

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


@pytest.mark.parametrize("seeds", [3, 5])
def test_what_never_differs_has_p_1(seeds):
    assert paired_t(ACCURACIES[:seeds], ACCURACIES[:seeds]) == 1
    assert paired_t(ACCURACIES[:seeds], ACCURACIES[:seeds], 1 / 500) == 1


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_fewer_than_three_pairs_are_no_test(seeds):
    # two seeds, +0.4 points both times: one such coincidence in twelve if nothing differs
    assert math.isnan(paired_t([0.936, 0.940][:seeds], [0.932, 0.936][:seeds], 1 / 500))


def test_equal_differences_are_as_sure_as_their_steps_allow():
    ours, theirs = [0.936, 0.940, 0.930], [0.932, 0.936, 0.926]
    # a difference of 2 steps, a standard deviation of 1/√12 steps, 2 degrees of freedom
    expected = 2 * stats.t.sf(2 * math.sqrt(12) * math.sqrt(3), 2)
    assert paired_t(ours, theirs, 1 / 500) == pytest.approx(expected)
    assert math.isnan(paired_t(ours, theirs))
    mean, half = mean_interval([0.004] * 3, 1 / 500)
    assert (mean, half) == pytest.approx((0.004, 4.3027 / 500 / math.sqrt(12 * 3)), rel=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("samples", [30, 100, 500])
def test_where_accuracies_do_not_differ_the_test_over_seeds_is_not_sure(seeds, samples):
    chance = np.random.default_rng(samples + seeds)
    ours, theirs = chance.binomial(samples, 0.93, (2, 8000, seeds)) / samples
    found = np.array([paired_t(a, b, 1 / samples) for a, b in zip(ours, theirs, strict=True)])
    assert (found > 0).all()
    assert 0.03 < (found < 0.05).mean() < 0.065
    assert (found < 0.001).mean() < 0.002


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
    assert mcnemar(ours, theirs) == pytest.approx(158 / 4096)


def by_all_signs(differences: list[float]) -> float:
    """The share of all ways to set signs whose sum is as far from 0."""
    far = abs(sum(differences))
    sums = [abs(sum(ds)) for ds in product(*((d, -d) for d in differences))]
    return sum(s >= far - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("size", [1, 4])
def test_a_cluster_is_a_plain_loop_over_its_seeds_and_samples(seeds, size):
    chance = np.random.default_rng(seeds + size)
    ours, theirs = (chance.choice([0, 0.5, 1], (seeds, 12 * size)) for _ in range(2))
    groups = [f"video {k % 12}" for k in range(12 * size)]
    sums: dict[str, float] = defaultdict(float)
    for s in range(seeds):
        for k, group in enumerate(groups):
            sums[group] += ours[s, k] - theirs[s, k]
    assert mcnemar(ours, theirs, groups) == pytest.approx(by_all_signs(list(sums.values())))


def test_groups_of_one_sample_and_several_copies_change_nothing():
    ours, theirs = table(70, 10, 2, 18)
    groups = np.arange(100).astype(str)
    assert mcnemar(ours, theirs, groups) == mcnemar(ours, theirs)
    copies = mcnemar(ours.repeat(10, 1), theirs.repeat(10, 1), groups.repeat(10))
    assert copies == pytest.approx(158 / 4096)


def test_many_clusters_come_to_the_chi_square():
    chance = np.random.default_rng(0)
    ours, theirs = chance.random((3, 4000)) < 0.72, chance.random((3, 4000)) < 0.7
    d = ours.sum(0) - theirs.sum(0)
    assert (d != 0).sum() > 1000
    assert mcnemar(ours, theirs) == pytest.approx(stats.chi2.sf(d.sum() ** 2 / (d**2).sum(), 1))
    few, fewer = ours[:, :1500], theirs[:, :1500]  # as near there as where every sum is counted
    d = few.sum(0) - fewer.sum(0)
    near = stats.chi2.sf(d.sum() ** 2 / (d**2).sum(), 1)
    assert mcnemar(few, fewer) == pytest.approx(near, rel=0.05)


def test_p_is_never_0():
    ours, theirs = table(0, 3000, 0, 0)
    assert 0 < mcnemar(ours, theirs) < 1e-300
    assert paired_t([1.0] * 400, [0.0] * 400, 1e-9) > 0


@pytest.mark.parametrize("seeds", [1, 5])
def test_where_nothing_differs_samples_in_groups_of_ten_do_not_say_so(seeds):
    # all of a group are easy or hard for a model, as windows of one video are
    chance = np.random.default_rng(seeds)
    groups = np.arange(30).repeat(10)
    by_group, by_sample = [], []
    for _ in range(900):
        ours, theirs = (
            chance.random((seeds, 300)) < chance.beta(0.6, 0.3, (seeds, 30)).repeat(10, 1)
            for _ in range(2)
        )
        by_group.append(mcnemar(ours, theirs, groups) < 0.05)
        by_sample.append(mcnemar(ours, theirs) < 0.05)
    assert 0.03 < np.mean(by_group) < 0.065
    assert np.mean(by_sample) > 0.2


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

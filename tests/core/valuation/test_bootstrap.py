"""Bootstrap intervals of means: against numpy's own resampling, coverage, and going on."""

import math

import numpy as np
import pytest
import torch

from mmcoop.core.valuation import bootstrap
from mmcoop.core.valuation.bootstrap import REPLICATES, BootstrapMeans


def of(rows, replicates: int = REPLICATES, seed: int = 0, groups=None) -> BootstrapMeans:
    rows = torch.as_tensor(rows)
    means = BootstrapMeans(rows.shape[1], replicates, seed)
    means.add(rows, groups)
    return means


def table(samples: int, seed: int = 0) -> np.ndarray:
    """Columns as valuations have them: numbers, skewed numbers, yes or no."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            rng.normal(3, 2, samples),
            rng.exponential(1, samples),
            (rng.random(samples) < 0.3).astype(float),
        ],
        axis=1,
    )


def test_means_are_those_of_all_rows_of_all_parts():
    rows = table(50)
    means = BootstrapMeans(3, 10)
    for part in np.split(rows, [1, 1, 20]):
        means.add(torch.from_numpy(part))
    assert means.mean.dtype == torch.float64
    np.testing.assert_allclose(means.mean, rows.mean(0), atol=1e-12)


@pytest.mark.parametrize("samples", [200, 1000])
def test_intervals_agree_with_those_of_drawing_with_replacement(samples):
    rows = table(samples)
    rng = np.random.default_rng(1)
    times = rng.multinomial(samples, np.full(samples, 1 / samples), size=10_000)
    expected = np.quantile(times @ rows / samples, [0.025, 0.975], axis=0).T
    found = of(rows, 10_000).interval()
    assert found.shape == (3, 2)
    width = expected[:, 1] - expected[:, 0]
    # ends are quantiles of 10,000 draws, so known to about a hundredth of the width
    np.testing.assert_allclose((found.numpy() - expected) / width[:, None], 0, atol=0.04)


def test_an_interval_narrows_with_its_level():
    means = of(table(300))
    wide, narrow = means.interval(0.99), means.interval(0.5)
    assert (wide[:, 0] < narrow[:, 0]).all()
    assert (narrow[:, 1] < wide[:, 1]).all()
    assert (narrow[:, 0] < means.mean).all()
    assert (means.mean < narrow[:, 1]).all()


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    covered = []
    for trial in range(300):
        rows = table(150, seed=trial)
        low, high = of(rows, 400, seed=trial).interval().T
        covered.append((low <= torch.tensor([3, 1, 0.3])) & (torch.tensor([3, 1, 0.3]) <= high))
    share = torch.stack(covered).double().mean(0)
    # percentile intervals of 150 samples; skewed ones are a little short, as is known of them
    assert (share > 0.9).all()
    assert (share < 0.985).all()


def test_the_interval_of_a_difference_is_that_of_two_resamplings():
    train, validation = table(400), table(150, seed=1) + 0.1
    rng = np.random.default_rng(2)
    drawn = [
        rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), 20_000) @ rows / len(rows)
        for rows in (train, validation)
    ]
    expected = np.quantile(drawn[0] - drawn[1], [0.025, 0.975], axis=0).T
    one, other = of(train, 20_000, seed=0), of(validation, 20_000, seed=1)
    found = one.interval(minus=other)
    width = expected[:, 1] - expected[:, 0]
    np.testing.assert_allclose((found.numpy() - expected) / width[:, None], 0, atol=0.04)
    torch.testing.assert_close(one.interval(0.9, other, 1), one.interval(0.9, other)[1:2])


def test_the_interval_of_one_column_is_its_row():
    means = of(table(80))
    for column in range(3):
        assert torch.equal(means.interval(column=column), means.interval()[column : column + 1])


def test_a_column_that_does_not_vary_has_an_interval_of_no_width():
    assert of(torch.full((30, 1), 2.5)).interval().tolist() == [
        pytest.approx([2.5, 2.5], abs=1e-12)
    ]


# --- samples in groups


def grouped(groups: int, size: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Samples that share most of what they are with their group, whose true mean is 0."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 2, (groups, 1)).repeat(size, 0) + rng.normal(0, 1, (groups * size, 1))
    return rows, [f"video {k // size}" for k in range(groups * size)]


def test_intervals_agree_with_those_of_drawing_whole_groups():
    rows, groups = grouped(200, 10)
    times = np.random.default_rng(1).multinomial(200, np.full(200, 1 / 200), size=10_000)
    expected = np.quantile(times @ rows.reshape(200, 10).mean(1) / 200, [0.025, 0.975])
    found = of(rows, 10_000, groups=groups).interval()[0].numpy()
    np.testing.assert_allclose((found - expected) / np.ptp(expected), 0, atol=0.04)


def test_intervals_of_groups_cover_the_true_mean_and_those_of_their_samples_do_not():
    covered = []
    for trial in range(150):
        rows, groups = grouped(60, 10, trial)
        ends = [of(rows, 200, trial, g).interval()[0].tolist() for g in (groups, None)]
        covered.append([low <= 0 <= high for low, high in ends])
    by_group, by_sample = np.mean(covered, axis=0)
    assert 0.9 < by_group < 0.98
    assert by_sample < 0.6


def test_a_group_counts_the_same_wherever_its_samples_come():
    rows, groups = grouped(40, 5)
    whole = of(rows, groups=groups)
    order = np.random.default_rng(2).permutation(200)
    parts = BootstrapMeans(1)
    for part in np.split(order, [3, 50, 51]):
        parts.add(torch.from_numpy(rows[part]), [groups[k] for k in part])
    torch.testing.assert_close(parts.mean, whole.mean, atol=1e-12, rtol=0)
    torch.testing.assert_close(parts.interval(), whole.interval(), atol=1e-12, rtol=0)
    assert not torch.equal(of(rows, seed=1, groups=groups).interval(), whole.interval())


def test_a_group_whose_samples_are_nan_in_a_column_is_left_out_of_it():
    rows, groups = grouped(50, 4)
    gaps = np.where(np.arange(200) < 100, np.nan, rows[:, 0])
    found = of(np.stack([rows[:, 0], gaps], 1), groups=groups).interval()
    alone = of(rows[100:], groups=groups[100:]).interval()
    torch.testing.assert_close(found[1:], alone, atol=1e-12, rtol=0)


# --- samples that are NaN in a column


def test_a_sample_without_a_number_is_left_out_of_that_column_alone():
    rows = table(300)
    rows[::3, 1] = math.nan
    with_gaps, whole = of(rows), of(table(300))
    there = rows[~np.isnan(rows[:, 1]), 1]
    assert float(with_gaps.mean[1]) == pytest.approx(there.mean(), abs=1e-12)
    for column in (0, 2):
        assert with_gaps.mean[column] == whole.mean[column]
        assert torch.equal(with_gaps.interval(column=column), whole.interval(column=column))
    low, high = with_gaps.interval(column=1)[0].tolist()
    half = 1.96 * there.std() / len(there) ** 0.5
    assert low == pytest.approx(there.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(there.mean() + half, abs=0.2 * half)


def test_a_column_without_any_number_is_nan_and_the_others_are_not():
    rows = table(40)
    rows[:, 2] = math.nan
    means = of(rows)
    assert means.mean.isnan().tolist() == [False, False, True]
    assert means.interval().isnan().tolist() == [[False] * 2, [False] * 2, [True] * 2]


def test_replicates_without_a_single_sample_are_left_out():
    # a lone sample is in 63 % of them; its mean is itself in each
    low, high = of([[4.0]]).interval()[0].tolist()
    assert (low, high) == (4.0, 4.0)


# --- nothing to go by


def test_without_replicates_there_are_means_and_no_intervals():
    rows = table(30)
    means = of(rows, 0)
    np.testing.assert_allclose(means.mean, rows.mean(0), atol=1e-12)
    assert means.interval().isnan().all()
    assert means.interval().shape == (3, 2)
    assert means.interval(column=1).shape == (1, 2)


@pytest.mark.parametrize("parts", [[], [torch.zeros(0, 2)]])
def test_before_the_first_sample_everything_is_nan(parts):
    means = BootstrapMeans(2)
    for part in parts:
        means.add(part)
    assert means.mean.isnan().tolist() == [True, True]
    assert means.interval().isnan().all()
    assert means.interval().shape == (2, 2)


# --- parts, and going on


def test_how_samples_come_in_parts_makes_no_difference_but_of_rounding():
    rows = torch.from_numpy(table(500))
    whole = of(rows)
    for cuts in ([1, 2, 3], [100, 400], list(range(7, 500, 7))):
        parts = BootstrapMeans(3)
        for part in torch.tensor_split(rows, cuts):
            parts.add(part)
        # what is drawn is the same to the bit, sums are not
        assert torch.equal(parts._counts, whole._counts)
        torch.testing.assert_close(parts.mean, whole.mean, atol=1e-13, rtol=0)
        torch.testing.assert_close(parts.interval(), whole.interval(), atol=1e-12, rtol=0)


def test_a_large_part_is_taken_in_piece_by_piece(monkeypatch):
    rows = torch.from_numpy(table(500))
    expected = of(rows).interval()
    sizes = []
    poisson = torch.poisson
    monkeypatch.setattr(bootstrap, "_AT_A_TIME", 64 * REPLICATES)
    monkeypatch.setattr(
        torch, "poisson", lambda rate, **more: sizes.append(len(rate)) or poisson(rate, **more)
    )
    torch.testing.assert_close(of(rows).interval(), expected, atol=1e-12, rtol=0)
    assert sizes == [64] * 7 + [52]


def test_the_seed_decides_what_is_drawn():
    rows = table(60)
    assert torch.equal(of(rows, seed=3).interval(), of(rows, seed=3).interval())
    assert not torch.equal(of(rows, seed=3).interval(), of(rows, seed=4).interval())

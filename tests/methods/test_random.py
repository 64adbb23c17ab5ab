"""The control of sample-level enhancement."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from mmcoop.core.resampling import sample_level_examples
from mmcoop.methods.random import Random


def task_of(make_world, phi: torch.Tensor, *, warmup: int = 0, seed: int = 0):
    """A task of samples with these contributions, and what was asked to be valued."""
    asked: list[torch.Tensor | None] = []

    def value(samples):
        asked.append(samples)
        return phi

    task = replace(
        make_world(n=phi.shape[1]).task,
        n_samples=len(phi),
        value=value,
        warmup=warmup,
        seed=seed,
    )
    return task, asked


def some_contributions(samples: int, n: int = 2) -> torch.Tensor:
    steps = torch.randint(-1, 4, (samples, n), generator=torch.Generator().manual_seed(samples))
    return steps.double() / 2


def pairs(rows) -> Counter:
    return Counter(
        (int(sample), tuple(present))
        for sample, present in zip(rows.sample, rows.present.tolist(), strict=True)
    )


@pytest.mark.parametrize(("samples", "n"), [(1, 2), (40, 2), (41, 3), (200, 2)])
def test_as_many_rows_are_added_as_sample_level_enhancement_would_add(make_world, samples, n):
    phi = some_contributions(samples, n)
    task, asked = task_of(make_world, phi)
    rows, expected = Random(task).epoch_samples(1), sample_level_examples(phi)
    assert len(rows) == len(expected)
    assert int(rows.present.sum()) == int(expected.present.sum())
    assert asked == [None]
    # every sample whole, once, and then rows of one modality alone
    assert rows.sample[:samples].tolist() == list(range(samples))
    assert rows.present[:samples].all()
    assert (rows.present[samples:].sum(1) == 1).all()


@pytest.mark.parametrize(("samples", "n", "most"), [(40, 2, 1), (200, 3, 2), (31, 3, 50)])
def test_as_many_rows_as_sample_level_enhancement_under_the_same_limit(
    make_world, samples, n, most
):
    phi = some_contributions(samples, n)
    task = replace(task_of(make_world, phi)[0], max_extra=most)
    rows = Random(task).epoch_samples(1)
    assert len(rows) == len(sample_level_examples(phi, most))
    assert (rows.present[samples:].sum(1) == 1).all()
    assert torch.bincount(rows.sample[samples:], minlength=samples).max() <= most


def test_a_limit_that_every_sample_uses_up_draws_every_sample_as_often(make_world):
    phi = torch.full((30, 3), -1.0).double()
    task = replace(task_of(make_world, phi)[0], max_extra=2)
    assert torch.bincount(Random(task).epoch_samples(1).sample).tolist() == [3] * 30


def test_nothing_is_added_where_every_modality_contributes_its_share(make_world):
    task, _ = task_of(make_world, torch.ones(20, 2).double())
    assert len(Random(task).epoch_samples(1)) == 20


def test_the_extra_rows_are_of_any_sample_and_any_modality_alike(make_world):
    # only the first modality of the first half would be added by sample-level enhancement
    phi = torch.ones(1000, 2).double()
    phi[:500, 0] = -0.5
    task, _ = task_of(make_world, phi)
    extra = Random(task).epoch_samples(1)
    sample, present = extra.sample[1000:], extra.present[1000:]
    assert len(sample) == 1500
    spread = 4 * (1500 / 4) ** 0.5  # four standard deviations of a fair coin
    assert abs(int(present[:, 0].sum()) - 750) < spread
    assert abs(int((sample < 500).sum()) - 750) < spread
    assert sample.min() < 20
    assert sample.max() > 980
    both = int((present[:, 0] & (sample < 500)).sum())
    assert abs(both - 375) < spread


def test_every_epoch_draws_anew_and_a_seed_draws_the_same(make_world):
    phi = some_contributions(50)
    drawn = {}
    for seed in (0, 1):
        method = Random(task_of(make_world, phi, seed=seed)[0])
        for epoch in (1, 2):
            drawn[seed, epoch] = pairs(method.epoch_samples(epoch))
            assert pairs(method.epoch_samples(epoch)) == drawn[seed, epoch]
    keys = list(drawn)
    assert all(drawn[a] != drawn[b] for k, a in enumerate(keys) for b in keys[:k])


@pytest.mark.parametrize("warmup", [0, 2])
def test_in_the_warm_up_nothing_is_valued_and_nothing_added(make_world, warmup):
    task, asked = task_of(make_world, some_contributions(30), warmup=warmup)
    method = Random(task)
    for epoch in range(1, warmup + 1):
        assert len(method.epoch_samples(epoch)) == 30
    assert asked == []
    assert len(method.epoch_samples(warmup + 1)) > 30
    assert Random.has_warmup

"""Samples without ids are known by their positions in the loader's data set, in whatever order."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from mmcoop import valuate
from mmcoop.core.imputers.sample_order import SampleOrder
from mmcoop.errors import UsageError

N = 11
# the first modality of sample k holds k
DATA = TensorDataset(torch.arange(N).float().unsqueeze(1), torch.zeros(N, 1), torch.arange(N) % 2)


def ids_of(batches) -> list[str]:
    """Ids of a valuation; checked against what the samples hold."""
    seen = []

    def model(inputs, present):
        if present.all():
            seen.extend(str(int(k)) for k in inputs["a"].squeeze(1))
        return torch.cat([inputs["a"], 5 - inputs["a"]], 1)

    valuation = valuate(model, batches, modalities=["a", "b"], max_batch=4)
    assert valuation.details["ids"] == "positions"
    assert valuation.ids == seen
    return valuation.ids


class Backwards(Sampler):
    def __iter__(self):
        return iter(torch.arange(N).flip(0).numpy())  # NumPy's numbers

    def __len__(self) -> int:
        return N


class Renamed(DataLoader):
    """A subclass that leaves iterating to torch."""


@pytest.mark.parametrize(
    "how",
    [
        {"batch_size": 4},
        {"batch_size": 4, "shuffle": True},
        {"batch_size": 4, "shuffle": True, "drop_last": True},
        {"batch_size": 3, "shuffle": True, "num_workers": 2},
        {"batch_size": 4, "sampler": SubsetRandomSampler([7, 2, 9])},
        {"batch_size": 4, "sampler": WeightedRandomSampler([1.0] * N, 8)},
        {"batch_size": 4, "sampler": Backwards()},
        {"batch_sampler": BatchSampler(RandomSampler(DATA), 3, drop_last=False)},
        {"batch_sampler": [[5, 1], [0], [10, 2, 3]]},
    ],
    ids=lambda how: " ".join(f"{name}={value}"[:24] for name, value in how.items()),
)
@pytest.mark.parametrize("kind", [DataLoader, Renamed])
def test_a_loaders_samples_have_the_indices_that_it_draws(kind, how):
    torch.manual_seed(3)
    ids = ids_of(kind(DATA, **how))
    if not how.get("shuffle") and how.get("batch_size") == 4 and "sampler" not in how:
        assert ids == [str(k) for k in range(N)]


def test_the_loader_itself_is_left_as_it_was():
    loader = DataLoader(DATA, batch_size=4, shuffle=True)
    sampler = loader.batch_sampler
    torch.manual_seed(5)
    drawn = [batch[0].flatten().tolist() for batch in loader]
    torch.manual_seed(5)
    assert [float(k) for k in ids_of(loader)] == [k for batch in drawn for k in batch]
    assert loader.batch_sampler is sampler


def test_positions_of_a_subset_are_counted_in_it():
    loader = DataLoader(Subset(DATA, [4, 8, 6]), batch_size=2)
    found = valuate(
        lambda inputs, present: torch.ones(len(present), 2), loader, modalities=["a", "b"]
    )
    assert found.ids == ["0", "1", "2"]


class Own(DataLoader):
    """A loader that iterates by itself."""

    def __iter__(self):
        for k in torch.randperm(N).split(4):
            yield DATA[k]


class Bar:
    """As progress bars do."""

    def __init__(self, iterable) -> None:
        self.iterable = iterable

    def __iter__(self):
        return iter(self.iterable)


class Batches(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, k):
        return DATA[4 * k : 4 * k + 4]


UNSEEN = [
    lambda: Own(DATA, batch_size=4, shuffle=True),
    lambda: Bar(DataLoader(DATA, batch_size=4, shuffle=True)),
    lambda: DataLoader(Batches(), batch_size=None, shuffle=True),
    lambda: DataLoader(DATA, batch_size=4, shuffle=True, collate_fn=lambda rows: DATA[:2]),
]


@pytest.mark.parametrize("make", UNSEEN)
def test_an_order_that_cannot_be_seen_is_refused(make):
    with pytest.raises(UsageError, match=r"^the loader shuffles, and its batches have no ids"):
        ids_of(make())


class Stream(IterableDataset):
    def __iter__(self):
        return (DATA[k] for k in range(N))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Batches(), batch_size=None),
        lambda: Bar(DataLoader(DATA, batch_size=4)),
        lambda: DataLoader(Stream(), batch_size=4),
        lambda: [DATA[:7], DATA[7:]],
        lambda: (DATA[k : k + 1] for k in range(N)),
        lambda: DataLoader(DATA, batch_size=4, sampler=SequentialSampler(DATA)),
    ],
)
def test_all_else_is_counted_from_0(make):
    assert ids_of(make()) == [str(k) for k in range(N)]


@pytest.mark.parametrize("make", UNSEEN[:2])
def test_ids_of_the_batches_come_first(make):
    order = SampleOrder(make())
    for batch in order:
        order.positions(len(batch[0]), needed=False)


def test_draws_of_coalitions_do_not_depend_on_the_order():
    def model(inputs, present):
        x = inputs["a"] * present[:, :1] + present[:, 1:] * present[:, 2:3]
        return torch.cat([x, 1 - x], 1)

    data = TensorDataset(*[torch.randn(N, 1) for _ in range(4)], torch.arange(N) % 2)
    names, how = ["a", "b", "c", "d"], {"value": "margin", "estimator": "permutation", "budget": 42}
    found = []
    for shuffle in (False, True):
        loader = DataLoader(data, batch_size=4, shuffle=shuffle)
        valuation = valuate(model, loader, modalities=names, **how)
        frame = valuation.to_frame().set_index(valuation.to_frame()["id"].astype(int)).sort_index()
        found.append(torch.from_numpy(frame.filter(like="contribution").to_numpy()))
    torch.testing.assert_close(*found)

"""Rows of a split → batches: in order, reproducible, and never more than is present."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcoop.core.batch import Batch
from mmcoop.core.resampling import TrainingExamples, complete_examples
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, Split, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError, UsageError

NAMES = ("features", "motion", "picture")


@pytest.fixture
def split(tiny_dataset: Path) -> Split:
    return open_dataset(tiny_dataset).split("train")


@pytest.fixture(scope="module")
def clips(tmp_path_factory, jpeg) -> Path:
    """Six clips with a vector each; the frames of the odd ones cannot be decoded."""
    folder = tmp_path_factory.mktemp("clips") / "clips"
    header = Header(
        name="clips",
        recipe="tests",
        options={},
        classes=["0", "1"],
        modalities={
            "clip": Modality("frames", (2, 3, 16, 16), "uint8", "conv", size=8),
            "table": Modality("vector", (3,), "float32", "mlp"),
        },
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for name in SPLITS:
            for k in range(6):
                frames = [b"no picture"] * 2
                if k % 2 == 0:
                    frames = [jpeg(np.full((16, 16, 3), 40 * k, np.uint8))] * 2
                key = f"{name}-{k}"
                writer.add(
                    name, id=key, label=k % 2, group=key, clip=frames, table=[k, k + 1, k + 2]
                )
    return folder


def some_rows(split: Split, count: int, seed: int = 0) -> TrainingExamples:
    """Samples in random order, some more than once, each with random modalities."""
    draw = torch.Generator().manual_seed(seed)
    sample = torch.randint(0, len(split), (count,), generator=draw)
    return TrainingExamples(sample, torch.rand(count, len(NAMES), generator=draw) < 0.6)


def expected_input(split: Split, name: str, sample: Tensor) -> np.ndarray:
    """Normalised straight from the Arrow column, one sample after the other."""
    spec = split.dataset.modalities[name]
    column = split.table[name]
    stored = np.array([column[i].as_py() for i in sample.tolist()], np.float64)
    return ((stored - spec.mean) / spec.std).reshape(len(sample), *spec.shape)


def assert_same_batches(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.inputs.keys() == other.inputs.keys()
        for name in one.inputs:
            assert torch.equal(one.inputs[name], other.inputs[name])
        assert torch.equal(one.present, other.present)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.sample, other.sample)
        assert one.ids == other.ids


@pytest.mark.parametrize("batch_size", [1, 7, 36, 100])
def test_without_rows_every_sample_comes_once_whole_and_in_order(split, batch_size):
    batches = list(load_batches(split, batch_size=batch_size))
    full, rest = divmod(36, batch_size)
    assert [len(batch.labels) for batch in batches] == [batch_size] * full + [rest] * (rest > 0)
    sample = torch.cat([batch.sample for batch in batches])
    assert torch.equal(sample, torch.arange(36))
    assert torch.cat([batch.present for batch in batches]).all()
    labels = torch.cat([batch.labels for batch in batches])
    assert labels.dtype == torch.int64
    assert labels.tolist() == split.table["label"].to_pylist()
    for batch in batches:
        assert tuple(batch.inputs) == NAMES
        for name, x in batch.inputs.items():
            assert x.dtype == torch.float32
            expected = expected_input(split, name, batch.sample)
            np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_batches_follow_the_order_of_the_rows_and_hold_zeros_where_absent(split):
    rows = some_rows(split, 50)
    batches = list(load_batches(split, rows, batch_size=8, with_ids=True))
    assert torch.equal(torch.cat([batch.sample for batch in batches]), rows.sample)
    assert torch.equal(torch.cat([batch.present for batch in batches]), rows.present)
    ids, labels = split.table["id"].to_pylist(), split.table["label"].to_pylist()
    for batch in batches:
        assert batch.ids == [ids[i] for i in batch.sample.tolist()]
        assert batch.labels.tolist() == [labels[i] for i in batch.sample.tolist()]
        for column, name in enumerate(NAMES):
            here = batch.present[:, column]
            expected = expected_input(split, name, batch.sample)
            expected[~here.numpy()] = 0
            np.testing.assert_allclose(batch.inputs[name], expected, rtol=1e-5, atol=1e-6)


def test_batches_have_the_ids_of_their_samples_unless_these_are_not_wanted(split):
    rows = TrainingExamples(torch.tensor([5, 0, 7]), torch.ones(3, len(NAMES), dtype=torch.bool))
    (batch,) = load_batches(split, rows, batch_size=20)
    assert batch.ids == ["sample-05", "sample-00", "sample-07"]
    plain = load_batches(split, batch_size=20, with_ids=False)
    assert all(batch.ids is None for batch in plain)


@pytest.mark.parametrize("given", ["train", {"train": 1}, None])
def test_what_is_no_split_is_refused(given):
    with pytest.raises(UsageError, match="^split is a .*: give what mmcoop.open_dataset"):
        load_batches(given, batch_size=4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("picture", "^modalities are a list of names"),
        (["picture", "smell"], "^the data set has no modality 'smell': choose of features, motion"),
    ],
)
def test_modalities_that_are_none_of_the_data_sets_are_refused(split, names, message):
    with pytest.raises(UsageError, match=message):
        load_batches(split, modalities=names, batch_size=4)


def test_no_rows_are_no_batches(split):
    rows = complete_examples(0, len(NAMES))
    assert list(load_batches(split, rows, batch_size=4)) == []


@pytest.mark.parametrize("names", [("picture",), ("picture", "features"), ("motion", "picture")])
def test_columns_of_present_are_the_modalities_asked_for_in_that_order(split, names):
    present = torch.tensor([[k % (m + 2) == 0 for m in range(len(names))] for k in range(12)])
    rows = TrainingExamples(torch.arange(12), present)
    (batch,) = load_batches(split, rows, modalities=names, batch_size=12)
    assert tuple(batch.inputs) == names
    for column, name in enumerate(names):
        expected = expected_input(split, name, batch.sample)
        expected[~present[:, column].numpy()] = 0
        np.testing.assert_allclose(batch.inputs[name], expected, rtol=1e-5, atol=1e-6)


def test_a_modality_absent_from_a_whole_batch_has_no_entry_in_it(split):
    present = torch.ones(12, 3, dtype=torch.bool)
    present[4:8, 1] = False
    present[8:, :] = False
    batches = list(load_batches(split, TrainingExamples(torch.arange(12), present), batch_size=4))
    assert [tuple(batch.inputs) for batch in batches] == [NAMES, ("features", "picture"), ()]
    assert torch.equal(batches[2].sample, torch.arange(8, 12))


@pytest.mark.parametrize("seed", [None, 3])
def test_only_present_samples_are_read(split, monkeypatch, seed):
    asked: list[tuple[str, list[int]]] = []
    read = Split.read

    def counted(self: Split, modality: str, index: np.ndarray):
        asked.append((modality, index.tolist()))
        return read(self, modality, index)

    monkeypatch.setattr(Split, "read", counted)
    rows = some_rows(split, 50)
    rows.present[16:24, 2] = False
    list(load_batches(split, rows, batch_size=8, seed=seed))
    wanted = [
        (name, rows.sample[start : start + 8][rows.present[start : start + 8, column]].tolist())
        for start in range(0, 50, 8)
        for column, name in enumerate(NAMES)
    ]
    assert asked == [(name, samples) for name, samples in wanted if samples]
    assert sum(len(samples) for _, samples in asked) == int(rows.present.sum())


@pytest.mark.parametrize("seed", [None, 3])
def test_frames_are_decoded_only_where_present(clips, seed):
    split = open_dataset(clips).split("train")
    present = torch.tensor([[k % 2 == 0, True] for k in range(6)])
    (batch,) = load_batches(
        split, TrainingExamples(torch.arange(6), present), batch_size=6, seed=seed
    )
    assert batch.inputs["clip"].shape == (6, 2, 3, 8, 8)
    for k, x in enumerate(batch.inputs["clip"]):
        grey = 40 * k / 255 if k % 2 == 0 else 0
        torch.testing.assert_close(x, torch.full_like(x, grey), rtol=0, atol=2 / 255)
    with pytest.raises(DataError, match="a stored picture cannot be decoded"):
        list(load_batches(split, batch_size=6, seed=seed))


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_are_the_same_for_any_number_of_workers(split, seed):
    rows = some_rows(split, 50)
    options = {"batch_size": 8, "seed": seed, "with_ids": True}
    alone = list(load_batches(split, rows, workers=0, **options))
    assert_same_batches(alone, list(load_batches(split, rows, workers=2, **options)))


@pytest.mark.parametrize("seed", [None, 3])
def test_what_workers_are_sent_gives_the_same_batches_and_holds_no_samples(split, seed):
    """As where processes are not forked: what they work with goes through pickle."""
    rows = some_rows(split, 50)
    loader = load_batches(split, rows, batch_size=8, seed=seed, with_ids=True)
    alone = list(loader)  # the shards are mapped now
    sent = pickle.dumps(loader.dataset)
    assert len(sent) < 20_000
    source = pickle.loads(sent)
    assert_same_batches(alone, [source[k] for k in range(len(source))])


def test_workers_decode_frames_as_the_main_process_does(clips):
    split = open_dataset(clips).split("train")
    rows = TrainingExamples(torch.tensor([4, 0, 2, 2, 4]), torch.ones(5, 2, dtype=torch.bool))
    options = {"batch_size": 2, "seed": 1}
    alone = list(load_batches(split, rows, workers=0, **options))
    assert_same_batches(alone, list(load_batches(split, rows, workers=2, **options)))


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_turns_the_training_transform_on(split, name):
    (evaluated,) = load_batches(split, batch_size=36)
    (trained,) = load_batches(split, batch_size=36, seed=0)
    assert not torch.equal(evaluated.inputs[name], trained.inputs[name])
    assert torch.equal(evaluated.labels, trained.labels)


def test_random_changes_depend_on_the_seed_and_the_batch_alone(split):
    rows = some_rows(split, 40)
    torch.manual_seed(1)
    first = list(load_batches(split, rows, batch_size=8, seed=7))
    torch.manual_seed(2)
    torch.rand(3)
    assert_same_batches(first, list(load_batches(split, rows, batch_size=8, seed=7)))

    later = TrainingExamples(rows.sample.clone(), rows.present.clone())
    later.sample[:16], later.present[:16] = 0, False
    changed_before = list(load_batches(split, later, batch_size=8, seed=7))
    assert_same_batches(first[2:], changed_before[2:])


def test_another_seed_and_another_batch_give_other_changes(split):
    rows = TrainingExamples(torch.arange(8).repeat(2), torch.ones(16, 3, dtype=torch.bool))
    first, second = load_batches(split, rows, batch_size=8, seed=7)
    (other, _) = load_batches(split, rows, batch_size=8, seed=8)
    for name in NAMES:
        assert not torch.equal(first.inputs[name], second.inputs[name])
        assert not torch.equal(first.inputs[name], other.inputs[name])


def test_evaluation_is_the_same_whatever_chance_did_before(split):
    torch.manual_seed(1)
    first = list(load_batches(split, batch_size=10))
    torch.manual_seed(2)
    assert_same_batches(first, list(load_batches(split, batch_size=10)))


@pytest.mark.parametrize("seed", [None, 3])
def test_loading_takes_nothing_from_torchs_own_chance(split, seed):
    torch.manual_seed(1)
    batches = iter(load_batches(split, batch_size=10, seed=seed))
    before = torch.random.get_rng_state()  # asking for the loader draws a seed for its workers
    list(batches)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_each_modality_of_the_tiny_data_set_tells_the_class(tiny_dataset, name):
    """What the other tests train on can be learned: the nearest class mean is right."""
    opened = open_dataset(tiny_dataset)
    assert opened.rows == {"train": 36, "validation": 12, "test": 12}
    (train,) = load_batches(opened.split("train"), batch_size=36)
    (test,) = load_batches(opened.split("test"), batch_size=12)
    x = train.inputs[name].flatten(1)
    means = torch.stack([x[train.labels == label].mean(0) for label in range(3)])
    nearest = torch.cdist(test.inputs[name].flatten(1), means).argmin(1)
    assert torch.equal(nearest, test.labels)
    groups = [g for s in SPLITS for g in opened.split(s).table["group"].to_pylist()]
    assert len(set(groups)) == 60


@pytest.mark.parametrize(
    ("given", "named"),
    [({"batch_size": 0}, "batch_size is 0"), ({"batch_size": "32"}, "batch_size is '32'"),
     ({"batch_size": 4, "workers": -1}, "workers is -1")],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_refused_at_once(tiny_dataset, given, named):
    with pytest.raises(UsageError, match=f"^{named}: "):
        load_batches(open_dataset(tiny_dataset).split("train"), **given)

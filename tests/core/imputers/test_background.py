"""What is put in place of an absent modality: the mean of a background, or samples of it."""

import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmcoop.core.batch import Batch
from mmcoop.core.imputers.background import background_inputs, drawn_samples, equally_long, mean_of
from mmcoop.core.pytree import batch_size, take
from mmcoop.errors import DataError

NAMES = ("a", "b")


def inputs_of(samples: int, start: int = 0) -> dict:
    numbers = torch.arange(start, start + samples)
    return {"a": numbers.float().unsqueeze(1), "b": {"ids": numbers, "same": [numbers.double()]}}


def in_batches(inputs: dict, *sizes: int) -> list[dict]:
    return [take(inputs, rows) for rows in torch.arange(sum(sizes)).split(sizes)]


# reading


def test_a_background_is_batches_or_the_inputs_of_one_of_whatever_form():
    one = inputs_of(3)
    batch = Batch(one, torch.ones(3, 2).bool(), torch.zeros(3).long(), torch.arange(3))
    forms = [one, {"inputs": one, "labels": None}, SimpleNamespace(inputs=one), batch]
    for form in forms:
        (alone,) = background_inputs(form, NAMES)
        (listed, again) = background_inputs(iter([form, form]), NAMES)
        for found in (alone, listed, again):
            assert found.keys() == {"a", "b"}
            assert found["a"] is one["a"]


def test_a_modality_may_be_called_inputs():
    background = {"inputs": torch.ones(2, 1), "a": torch.zeros(2, 1)}
    (found,) = background_inputs(background, ["inputs", "a"])
    assert found["inputs"] is background["inputs"]


def test_only_the_modalities_are_taken():
    (found,) = background_inputs({**inputs_of(2), "unused": "text"}, ["b"])
    assert list(found) == ["b"]


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ([{"a": torch.ones(1)}], "^the background has no input for the modality 'b'; it has: a$"),
        ([{}], "no input for the modality 'a'; it has: none$"),
        ([torch.zeros(2, 1)], "^a batch of the background must be inputs by modality"),
        ({"inputs": torch.zeros(2)}, "or have `inputs`, or be a tuple of the inputs in the order"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "tensors of one batch have 2, 3 rows"),
    ],
)
def test_a_background_that_is_none_is_refused(background, message):
    with pytest.raises(DataError, match=message):
        list(background_inputs(background, NAMES))


# the mean


def test_the_mean_is_over_samples_however_they_are_batched():
    values = torch.randn(11, 3, 2, generator=torch.Generator().manual_seed(0))
    expected = values.numpy().astype(np.float64).mean(0, keepdims=True)
    for sizes in ([11], [4, 0, 7], [1] * 11):
        batches = in_batches({"a": {"x": values}, "b": [values.double()]}, *sizes)
        mean = mean_of((batch_size(batch), batch) for batch in batches)
        assert mean["a"]["x"].dtype == torch.float32
        assert mean["b"][0].dtype == torch.float64
        np.testing.assert_allclose(mean["a"]["x"], expected, rtol=1e-6)
        np.testing.assert_allclose(mean["b"][0], expected, rtol=1e-12)


def test_the_mean_of_half_precision_does_not_overflow():
    values = torch.full((4, 1), 60000.0, dtype=torch.float16)
    assert mean_of([(4, {"a": values})])["a"].tolist() == [[60000.0]]


@pytest.mark.parametrize(
    "read", [lambda s: mean_of((2, x) for x in s), lambda s: drawn_samples(s, 1, 0)]
)
def test_no_more_than_one_batch_is_held(read):
    given = []

    def stream():
        for k in range(6):
            batch = torch.full((2, 1), float(k))
            given.append(weakref.ref(batch))
            yield {"a": batch}
            del batch
            assert sum(tensor() is not None for tensor in given) <= 1

    read(stream())
    assert len(given) == 6


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_have_no_mean(dtype):
    inputs = {"a": torch.zeros(2, 1), "text": {"ids": torch.ones(2, 4, dtype=dtype)}}
    with pytest.raises(
        DataError,
        match=rf"^the modality 'text' holds {dtype}, of which there is no mean: choose "
        "absent='zero' or absent='marginal'$",
    ):
        mean_of([(2, inputs)])


def test_samples_of_varying_length_have_no_mean():
    batches = [(2, {"a": torch.zeros(2, 5, 3)}), (2, {"a": torch.zeros(2, 4, 3)})]
    with pytest.raises(
        DataError,
        match=r"^samples of the modality 'a' have shapes \(5, 3\) and \(4, 3\) in the background, "
        "of which there is no mean",
    ):
        mean_of(batches)


@pytest.mark.parametrize("held", [float("nan"), float("inf")])
def test_a_mean_that_is_no_number_is_refused(held):
    with pytest.raises(DataError, match="^the mean of the modality 'a' is not a number"):
        mean_of([(2, {"a": torch.tensor([[0.0], [held]])})])


@pytest.mark.parametrize("batches", [[], [(0, {"a": torch.zeros(0, 2)})]])
def test_nothing_has_no_mean(batches):
    with pytest.raises(DataError, match="^the background has no sample$"):
        mean_of(batches)


# draws


def test_draws_depend_on_the_seed_and_not_on_the_batches():
    inputs = inputs_of(20)
    drawn = drawn_samples([inputs], 6, seed=3)
    for sizes in ([20], [7, 0, 13], [1] * 20):
        again = drawn_samples(in_batches(inputs, *sizes), 6, seed=3)
        assert torch.equal(again["b"]["ids"], drawn["b"]["ids"])
    assert not torch.equal(drawn_samples([inputs], 6, seed=4)["b"]["ids"], drawn["b"]["ids"])


def test_a_drawn_sample_is_whole():
    drawn = drawn_samples([inputs_of(20), inputs_of(20, start=20)], 6, seed=0)
    ids = drawn["b"]["ids"]
    assert torch.equal(drawn["a"], ids.float().unsqueeze(1))
    assert torch.equal(drawn["b"]["same"][0], ids.double())


def test_no_sample_is_drawn_twice_and_all_are_if_there_are_too_few():
    inputs = inputs_of(9)
    assert len(set(drawn_samples([inputs], 8, seed=0)["b"]["ids"].tolist())) == 8
    assert sorted(drawn_samples([inputs], 50, seed=0)["b"]["ids"].tolist()) == list(range(9))


def test_every_sample_is_drawn_equally_often():
    batches = in_batches(inputs_of(10), 3, 7)
    seeds = 1500
    times = Counter(
        i for seed in range(seeds) for i in drawn_samples(batches, 3, seed)["b"]["ids"].tolist()
    )
    # 450 of each expected; one standard deviation is 18
    assert all(abs(times[i] - 3 * seeds / 10) < 80 for i in range(10))


def test_drawn_samples_of_varying_length_are_padded_with_zeros_at_their_ends():
    short = {"a": {"x": torch.ones(1, 2, 1), "mask": torch.ones(1, 2).bool()}}
    long = {"a": {"x": torch.full((1, 3, 1), 7.0), "mask": torch.ones(1, 3).bool()}}
    drawn = drawn_samples([short, long], 2, seed=0)["a"]
    by_length = dict(
        zip(drawn["mask"].sum(1).tolist(), drawn["x"].squeeze(2).tolist(), strict=True)
    )
    assert by_length == {2: [1, 1, 0], 3: [7, 7, 7]}
    assert drawn["mask"].dtype == torch.bool


@pytest.mark.parametrize("batches", [[], [inputs_of(0)]])
def test_nothing_can_be_drawn_from_nothing(batches):
    with pytest.raises(DataError, match="^the background has no sample$"):
        drawn_samples(batches, 2, seed=0)


# lengths


def test_equally_long_tensors_are_left_alone():
    x, y = torch.ones(2, 3, 4), torch.zeros(5, 3, 4)
    same = equally_long(x, y)
    assert same[0] is x
    assert same[1] is y


def test_every_dimension_after_the_first_is_padded():
    x, y = equally_long(torch.ones(1, 1, 3), torch.full((2, 2, 2), 5))
    assert x.tolist() == [[[1, 1, 1], [0, 0, 0]]]
    assert y.tolist() == [[[5, 5, 0], [5, 5, 0]]] * 2


def test_tensors_of_different_dimensions_cannot_be_equally_long():
    with pytest.raises(DataError, match=r"^samples of shapes \(2,\) and \(2, 1\) cannot be padded"):
        equally_long(torch.zeros(3, 2), torch.zeros(3, 2, 1))

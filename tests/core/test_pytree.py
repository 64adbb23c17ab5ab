"""Batch structures: tensors in dicts, lists and tuples."""

from collections import OrderedDict, UserDict
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import BatchEncoding
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmcoop.core.pytree import batch_size, take, to_device, tree_map
from mmcoop.errors import DataError


class Series(NamedTuple):
    values: torch.Tensor
    mask: torch.Tensor


def nested(rows: int = 3) -> dict:
    return {
        "audio": torch.arange(2 * rows).reshape(rows, 2),
        "text": [torch.arange(rows), (torch.ones(rows, 1, 2), None)],
        "series": Series(torch.zeros(rows, 4), torch.ones(rows, 4, dtype=torch.bool)),
        "scale": 2.5,
    }


def test_the_batch_size_is_the_leading_size_of_all_tensors():
    assert batch_size(torch.zeros(5, 2)) == 5
    assert batch_size(nested(3)) == 3
    assert batch_size({"empty": torch.zeros(0, 7)}) == 0


def test_taken_rows_are_those_at_the_positions_in_their_order():
    taken = take(nested(3), torch.tensor([2, 0, 2, 2]))
    assert taken["audio"].tolist() == [[4, 5], [0, 1], [4, 5], [4, 5]]
    assert taken["text"][0].tolist() == [2, 0, 2, 2]
    assert taken["text"][1][0].shape == (4, 1, 2)
    assert taken["series"].mask.dtype == torch.bool
    assert batch_size(taken) == 4


def test_what_is_not_a_tensor_stays_as_it_is():
    taken = take(nested(3), torch.tensor([1]))
    assert taken["text"][1][1] is None
    assert taken["scale"] == 2.5


def test_taken_rows_are_a_copy():
    batch = nested(3)
    take(batch, torch.arange(3))["audio"].zero_()
    assert torch.equal(batch["audio"], nested(3)["audio"])


def test_tensors_move_to_the_device():
    moved = to_device(nested(3), "meta")
    for tensor in (moved["audio"], moved["text"][1][0], moved["series"].mask):
        assert tensor.device.type == "meta"


def test_types_and_order_are_kept_and_the_original_untouched():
    for kind in (OrderedDict, UserDict):
        batch = kind(b=torch.ones(2), a=torch.ones(2))
        doubled = tree_map(lambda x: 2 * x, batch)
        assert type(doubled) is kind
        assert list(doubled) == ["b", "a"]
        assert doubled["a"].tolist() == [2, 2]
        assert batch["a"].tolist() == [1, 1]
    assert type(tree_map(torch.clone, nested())["series"]) is Series
    assert type(tree_map(torch.clone, nested())["text"]) is list
    assert tree_map(torch.neg, MappingProxyType({"a": torch.ones(1)})) == {
        "a": torch.tensor([-1.0])
    }


def test_an_output_of_a_transformers_model_is_changed_by_attribute_too():
    output = BaseModelOutputWithPooling(
        last_hidden_state=torch.ones(2, 3, 4), pooler_output=torch.ones(2, 4)
    )
    doubled = tree_map(lambda x: 2 * x, output)
    assert type(doubled) is BaseModelOutputWithPooling
    assert (doubled.last_hidden_state == 2).all()
    assert (doubled[1] == 2).all()
    assert (output.pooler_output == 1).all()


def test_an_encoding_of_a_tokenizer_stays_one():
    encoding = BatchEncoding({"input_ids": torch.tensor([[5, 6], [7, 8]])})
    taken = take(encoding, torch.tensor([1]))
    assert type(taken) is BatchEncoding
    assert taken["input_ids"].tolist() == [[7, 8]]
    assert encoding["input_ids"].tolist() == [[5, 6], [7, 8]]
    assert batch_size({"text": encoding}) == 2


def test_several_structures_are_mapped_together():
    sums = tree_map(lambda x, y, z: x + y + z, *({"a": [torch.full((2,), k)]} for k in (1, 2, 4)))
    assert sums["a"][0].tolist() == [7, 7]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": (torch.ones(1), None)}, "^batch structures differ: one has a, b, another has not$"),
        (torch.ones(1), "one has a, b, another has not"),
        ({"a": (torch.ones(1),), "b": None}, "one has 2 items, another has not"),
        ({"a": torch.ones(1), "b": None}, "one has 2 items, another has not"),
        ({"a": (None, None), "b": None}, "where one has a tensor, another has none"),
    ],
)
def test_structures_that_differ_are_refused(other, message):
    one = {"a": (torch.ones(1), None), "b": None}
    with pytest.raises(DataError, match=message):
        tree_map(torch.add, one, other)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"a": torch.zeros(3), "b": (torch.zeros(2, 3),)}, "^tensors of one batch have 2, 3 rows"),
        ([torch.zeros(5, 2), torch.zeros(7, 2)], "pad what varies in length"),
        ({}, "^the batch holds no tensor$"),
        ({"a": None, "b": [3, True]}, "^the batch holds no tensor$"),
        ({"a": torch.tensor(1.0)}, "^a tensor of the batch has no dimension: samples come first$"),
        (np.zeros((3, 2)), "^the batch holds a ndarray: give tensors"),
        ({"a": torch.zeros(2), "text": ["one", "two"]}, "^the batch holds a str: give tensors"),
    ],
)
def test_batches_that_are_none_are_refused(batch, message):
    with pytest.raises(DataError, match=message):
        batch_size(batch)

"""A user's batch in any of the usual forms."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mmcoop.core.imputers.user_batch import read_batch
from mmcoop.errors import DataError

NAMES = ("sound", "sight")
SOUND, SIGHT, LABELS = torch.rand(3, 4), torch.rand(3, 2, 2), torch.tensor([0, 1, 1])
INPUTS = {"sight": SIGHT, "unused": torch.zeros(9), "sound": SOUND}
Triple = namedtuple("Triple", ["inputs", "labels", "ids"])
Pair = namedtuple("Pair", ["sound", "sight", "target"])


@pytest.mark.parametrize(
    "batch",
    [
        {"inputs": INPUTS, "labels": LABELS},
        SimpleNamespace(inputs=INPUTS, labels=LABELS),
        (INPUTS, LABELS),
        [INPUTS, LABELS],
        (SOUND, SIGHT, LABELS),
        [SOUND, SIGHT, LABELS],
        Pair(SOUND, SIGHT, LABELS),
        Triple(INPUTS, LABELS, None),
    ],
    ids=["keys", "attributes", "pair", "list pair", "tuple", "list", "named", "named pair"],
)
def test_inputs_and_labels_are_found_in_every_form(batch):
    found = read_batch(batch, NAMES)
    assert list(found.inputs) == ["sound", "sight"]
    assert found.inputs["sound"] is SOUND
    assert found.inputs["sight"] is SIGHT
    assert found.labels is LABELS
    assert found.ids is None
    assert found.samples == 3


@pytest.mark.parametrize(
    "batch",
    [{"inputs": INPUTS}, {"inputs": INPUTS, "labels": None, "ids": None}, (INPUTS, None)],
)
def test_labels_and_ids_may_be_left_out(batch):
    found = read_batch(batch, NAMES)
    assert (found.labels, found.ids, found.samples) == (None, None, 3)


@pytest.mark.parametrize(
    "labels", [[0, 1, 1], (0, 1, 1), np.array([0, 1, 1]), torch.tensor([0, 1, 1])]
)
def test_labels_become_a_tensor(labels):
    assert read_batch({"inputs": INPUTS, "labels": labels}, NAMES).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "ids", [[7, 8, 9], ("7", "8", "9"), np.array([7, 8, 9]), torch.tensor([7, 8, 9])]
)
def test_ids_become_text(ids):
    for batch in ({"inputs": INPUTS, "labels": LABELS, "ids": ids}, Triple(INPUTS, LABELS, ids)):
        assert read_batch(batch, NAMES).ids == ["7", "8", "9"]


def test_a_modality_may_be_several_tensors():
    padded = {"values": torch.rand(3, 5, 2), "mask": torch.ones(3, 5, dtype=torch.bool)}
    pictures = [SIGHT, (SIGHT, None)]
    for batch in (
        {"inputs": {"sound": padded, "sight": pictures}, "labels": LABELS},
        (padded, pictures, LABELS),
    ):
        found = read_batch(batch, NAMES)
        assert all(found.inputs["sound"][name] is x for name, x in padded.items())
        assert found.inputs["sight"][0] is found.inputs["sight"][1][0] is SIGHT
        assert found.samples == 3


def test_one_modality_comes_as_a_pair_of_itself_and_the_labels():
    found = read_batch((SOUND, LABELS), ["sound"])
    assert found.inputs == {"sound": SOUND}
    assert found.labels is LABELS


# --- what is no batch


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"labels": LABELS}, "it has none"),
        ({"inputs": SOUND, "labels": LABELS}, "it has none"),
        ({"inputs": [SOUND, SIGHT], "labels": LABELS}, "it has none"),
        (SimpleNamespace(labels=LABELS), "it has none"),
        ((SOUND,), "got 1 items"),
        ((SOUND, SIGHT, SIGHT, LABELS), "got 4 items"),
        ((), "got 0 items"),
        (SOUND, "it has none"),
        (None, "it has none"),
    ],
)
def test_what_has_no_inputs_by_modality_is_refused(batch, got):
    with pytest.raises(DataError) as error:
        read_batch(batch, NAMES)
    assert str(error.value) == (
        "a batch must have `inputs` (tensors by modality) and `labels`, or be a tuple of the "
        f"inputs, in the order of the 2 modalities, and the labels: {got}"
    )


def test_a_tuple_of_as_many_inputs_as_modalities_has_no_labels():
    batch = read_batch((SOUND, SIGHT), NAMES)
    assert list(batch.inputs) == list(NAMES)
    assert batch.inputs[NAMES[1]] is SIGHT
    assert batch.labels is None


@pytest.mark.parametrize(
    ("inputs", "told"), [({"sight": SIGHT, "smell": SIGHT}, "sight, smell"), ({}, "none")]
)
def test_a_modality_without_input_is_refused_by_name(inputs, told):
    with pytest.raises(
        DataError, match=f"^the batch has no input for the modality 'sound'; it has: {told}$"
    ):
        read_batch({"inputs": inputs, "labels": LABELS}, NAMES)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"labels": LABELS[:2]}, "sound 3, sight 3, labels 2"),
        ({"labels": torch.tensor(1)}, "sound 3, sight 3, labels 0"),
        ({"ids": ["a"]}, "sound 3, sight 3, ids 1"),
        ({"inputs": {**INPUTS, "sight": SIGHT[:1]}}, "sound 3, sight 1, labels 3"),
    ],
)
def test_parts_of_different_length_are_refused(more, told):
    batch = {"inputs": INPUTS, **({} if "ids" in more else {"labels": LABELS}), **more}
    with pytest.raises(
        DataError, match=f"^inputs, labels and ids of a batch are of different length: {told}$"
    ):
        read_batch(batch, NAMES)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(["cat", "dog", "cat"], "list"), (np.array(["cat", "dog", "b"]), "ndarray")],
)
def test_labels_that_are_names_are_refused(labels, kind):
    message = f"^labels: a {kind} that holds text, and not numbers alone: give class numbers"
    with pytest.raises(DataError, match=message):
        read_batch({"inputs": INPUTS, "labels": labels}, NAMES)


# --- arrays and tables


def test_arrays_and_tables_become_tensors_row_by_row():
    index = [103, 101, 102]
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}, index=index)
    labels = pd.Series([2, 0, 1], index=index)
    inputs = {"sound": table, "sight": {"values": np.arange(3, dtype=np.uint16), "scale": 2}}
    for given in (labels, labels.to_frame("label"), labels.astype("Int64"), labels.to_numpy()):
        found = read_batch({"inputs": inputs, "labels": given}, NAMES)
        assert found.inputs["sound"].tolist() == table.to_numpy().tolist()
        assert found.inputs["sight"]["values"].dtype == torch.uint16
        assert found.inputs["sight"]["scale"] == 2
        assert found.labels.tolist() == [2, 0, 1]


def test_tables_whose_index_says_another_order_are_refused():
    labels = pd.Series([0, 1, 1], index=[1, 0, 2])
    inputs = {"sound": pd.DataFrame({"a": [1.0, 2.0, 3.0]}), "sight": SIGHT}
    with pytest.raises(DataError, match="^sound and labels of a batch have different indices"):
        read_batch({"inputs": inputs, "labels": labels}, NAMES)


@pytest.mark.parametrize(
    ("sound", "named"),
    [
        (None, "the modality 'sound' is None"),
        ([torch.ones(4), None, torch.ones(4)], "the modality 'sound' is a list in which entry 1"),
        ([torch.ones(3)] * 3, "the modality 'sound' is a list of 3 tensors"),
        (SOUND.to_sparse(), "the modality 'sound': a sparse tensor"),
        ({"values": SOUND.to_sparse_csr()}, "the modality 'sound': a sparse tensor"),
        (np.array(["a", "b", "c"]), "the modality 'sound': a ndarray that holds text"),
    ],
)
def test_inputs_of_other_kinds_are_refused_by_name(sound, named):
    with pytest.raises(DataError, match=f"^{named}"):
        read_batch({"inputs": {**INPUTS, "sound": sound}, "labels": LABELS}, NAMES)


def test_several_tensors_in_a_list_are_taken_where_they_cannot_be_entries():
    for sound in ([torch.ones(3)] * 2, ([torch.ones(3)] * 3, 1), (torch.ones(3),) * 3):
        assert read_batch({"inputs": {**INPUTS, "sound": sound}}, NAMES).samples == 3

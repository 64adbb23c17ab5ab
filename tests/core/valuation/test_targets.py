"""What samples are asked, by their labels and by what a model puts out."""

import pytest
import torch

from mmcoop.core.valuation.targets import targets_of
from mmcoop.core.valuation.value_functions import CLASSES, LABELS, NUMBERS, value_function
from mmcoop.errors import DataError

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])  # predicts 1, 0
MULTI = torch.tensor([[1, 0, 1], [0, 0, 1]])


def own(outputs, targets, sizes):
    return outputs.sum(-1)


def asked(value, labels, outputs=LOGITS):
    return targets_of(value_function(value), labels, outputs)


@pytest.mark.parametrize(
    "value",
    ["paper", "correct", "probability", "log-likelihood", "margin", "negative-loss", own],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_whole_numbers_are_class_labels(value, dtype):
    question = asked(value, torch.tensor([1, 2], dtype=dtype))
    assert question.kind == CLASSES
    for told in (question.targets, question.labels):
        assert told.dtype == torch.int64
        assert told.tolist() == [1, 2]
    assert question.choices(LOGITS).tolist() == [1, 0]


def test_a_class_is_predicted_of_every_output_and_none_where_a_logit_is_not_a_number():
    outputs = torch.stack([LOGITS, -LOGITS, torch.full_like(LOGITS, torch.nan)], dim=1)
    choices = asked("paper", torch.tensor([1, 2])).choices(outputs)
    assert choices.tolist() == [[1, 0, -1], [0, 1, -1]]


@pytest.mark.parametrize("labels", [None, torch.tensor([2, 2])])
def test_of_the_class_predicted_from_all_modalities_labels_are_told_but_not_asked(labels):
    question = asked("predicted-probability", labels)
    assert question.kind == CLASSES
    assert question.targets.tolist() == [1, 0]
    assert question.labels is labels or question.labels.tolist() == [2, 2]


def test_a_function_of_ones_own_is_of_the_predicted_classes_where_there_are_no_labels():
    question = asked(own, None)
    assert (question.kind, question.targets.tolist(), question.labels) == (CLASSES, [1, 0], None)


@pytest.mark.parametrize("value", ["label-probability", "negative-loss", own])
def test_several_whole_numbers_a_sample_are_0_or_1_labels(value):
    question = asked(value, MULTI)
    assert question.kind == LABELS
    assert torch.equal(question.targets, MULTI)
    assert torch.equal(question.labels, MULTI)
    assert question.choices(LOGITS - 1).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("value", ["label-probability", "negative-loss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_0_or_1_labels_may_be_of_any_type_where_nothing_else_is_meant(value, dtype):
    # binary cross-entropy takes them as float32: so do many data sets have them
    question = asked(value, MULTI.to(dtype))
    assert question.kind == LABELS
    assert question.labels.dtype == torch.int64
    assert torch.equal(question.targets, MULTI)


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (torch.tensor([1.5, 2.0]), torch.tensor([1.0, 4.0])),
        (torch.tensor([1, 2]), torch.tensor([1.0, 4.0])),
        (torch.tensor([[1.5, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 4.0], [2.0, 2.0]])),
    ],
    ids=["one a sample", "whole", "two a sample"],
)
def test_a_regressions_numbers_are_compared_as_they_are(labels, outputs):
    question = asked("negative-squared-error", labels, outputs)
    assert question.kind == NUMBERS
    for told in (question.targets, question.labels):
        assert told.dtype == torch.float64
        assert torch.equal(told, labels.double())
    assert question.choices(outputs).dtype == torch.float64
    assert torch.equal(question.choices(outputs), outputs.double())


def test_one_number_a_sample_may_be_predicted_as_a_column_and_is_told_like_the_label():
    labels, outputs = torch.tensor([1.5, 2.0]), torch.tensor([[1.0], [4.0]])
    question = asked("negative-squared-error", labels, outputs)
    assert question.targets.tolist() == [[1.5], [2.0]]
    assert question.labels.tolist() == [1.5, 2.0]
    assert question.choices(outputs).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (torch.tensor([1.5, 2.0]), torch.tensor([[1.0], [4.0]])),
        (torch.tensor([1.5, 2.0]), LOGITS),  # such as a mean and a spread
        (torch.rand(2, 3), LOGITS),  # such as the classes of another model
    ],
)
def test_a_function_of_ones_own_gets_numbers_in_the_shape_they_have(labels, outputs):
    question = asked(own, labels, outputs)
    assert question.kind == NUMBERS
    assert torch.equal(question.targets, labels.double())
    if labels.numel() != outputs.numel():
        assert torch.equal(question.choices(outputs), outputs.double())


# --- what does not fit


@pytest.mark.parametrize("value", ["paper", "negative-loss", "label-probability"])
def test_a_function_of_labels_is_refused_where_there_are_none(value):
    message = (
        f"^value function '{value}' needs `labels`, and the batch has none: "
        "'predicted-probability' does without$"
    )
    with pytest.raises(DataError, match=message):
        asked(value, None)
    with pytest.raises(DataError, match="^value function 'negative-squared-error' needs `labels`"):
        asked("negative-squared-error", None, torch.zeros(2))


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2)),
        (torch.zeros(2), torch.zeros(2, 2)),
        (torch.zeros(2, 1), torch.zeros(2)),
    ],
)
def test_numbers_that_are_not_one_for_each_prediction_are_refused(labels, outputs):
    with pytest.raises(DataError) as error:
        asked("negative-squared-error", labels, outputs)
    assert str(error.value) == (
        f"labels of shape {tuple(labels.shape)} for predictions of shape {tuple(outputs.shape)}: "
        "value function 'negative-squared-error' needs a number for each"
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [("paper", "classes"), ("predicted-probability", "classes"), ("label-probability", "labels")],
)
def test_outputs_that_are_not_logits_by_class_or_label_are_refused(value, what):
    with pytest.raises(DataError) as error:
        asked(value, torch.zeros(2).long(), torch.zeros(2, 3, 4))
    assert str(error.value) == (
        f"the model gave outputs of shape (2, 3, 4) for 2 samples: expected (samples, {what})"
    )


@pytest.mark.parametrize("value", ["label-probability", "negative-loss"])
@pytest.mark.parametrize("labels", [MULTI[:, :2], MULTI + 1, MULTI * 0.5])
def test_several_labels_that_are_not_0_or_1_for_each_logit_are_refused(value, labels):
    with pytest.raises(DataError) as error:
        asked(value, labels)
    assert str(error.value) == (
        f"labels of shape {tuple(labels.shape)} for logits of shape (2, 3): value function "
        f"'{value}' needs a 0 or 1 for each"
    )


def test_class_labels_where_there_should_be_several_are_refused():
    with pytest.raises(DataError, match=r"^labels of shape \(2,\) for logits of shape \(2, 3\): v"):
        asked("label-probability", torch.tensor([0, 1]))


@pytest.mark.parametrize("value", ["paper", "negative-loss", "predicted-probability"])
@pytest.mark.parametrize(
    "labels", [torch.tensor([0.0, 1.0]), torch.zeros(2, dtype=torch.complex64)]
)
def test_labels_that_are_not_whole_numbers_are_refused(value, labels):
    message = (
        rf"^labels of type {labels.dtype} and shape \(2,\): class labels are whole numbers, one a "
        "sample$"
    )
    with pytest.raises(DataError, match=message):
        asked(value, labels)


@pytest.mark.parametrize("value", ["paper", "predicted-probability"])
def test_several_labels_where_there_should_be_one_class_are_refused(value):
    message = r"^labels of type torch.int64 and shape \(2, 3\): class labels are whole numbers, one"
    with pytest.raises(DataError, match=message):
        asked(value, MULTI)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_without_a_class_is_refused(wrong):
    with pytest.raises(
        DataError, match=f"^label {wrong} has no class: the model has 3 classes, 0 to 2$"
    ):
        asked("correct", torch.tensor([1, wrong]))


def test_where_no_class_is_predicted_it_cannot_be_asked_for():
    outputs = LOGITS.clone()
    outputs[1, 2] = torch.nan
    message = "^the model's logits from all modalities hold NaN: no class is predicted$"
    with pytest.raises(DataError, match=message):
        asked("predicted-probability", None, outputs)
    with pytest.raises(DataError, match=message):
        asked(own, None, outputs)


@pytest.mark.parametrize("outputs", [LOGITS, LOGITS[:, :1], LOGITS[:, 0]])
def test_outputs_that_are_not_one_per_class_are_refused_by_their_size(outputs):
    size = outputs.shape[1] if outputs.dim() == 2 else 1
    with pytest.raises(DataError, match=f"size {size} per sample, and there are 10 classes"):
        targets_of(value_function("paper"), torch.tensor([1, 0]), outputs, n_classes=10)

"""Which part of a model's output its predictions are, and on which scale."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, log_softmax
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from mmcoop import replace_features, replace_inputs, valuate
from mmcoop.core.imputers.outputs import OutputReader, class_logits, label_logits
from mmcoop.errors import DataError, UsageError

ROWS, CLASSES = 5, 3
Z = torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(0))
HIDDEN = torch.zeros(ROWS, 16)
SEQUENCE = torch.zeros(ROWS, 7, 16)
LOSS = torch.tensor(0.3)
Named = namedtuple("Named", "loss logits")


@dataclass
class Answer:
    features: torch.Tensor
    scores: torch.Tensor


class Attributes:
    def __init__(self) -> None:
        self.features, self.logits = HIDDEN, Z


# --- which item


@pytest.mark.parametrize(
    "given",
    [
        Z,
        Z.numpy(),
        pd.DataFrame(Z.numpy(), index=range(100, 100 + ROWS)),
        Z.tolist(),
        {"logits": Z, "features": HIDDEN},
        SequenceClassifierOutput(loss=LOSS, logits=Z, hidden_states=(HIDDEN, HIDDEN)),
        Named(LOSS, Z),
        SimpleNamespace(logits=Z, features=HIDDEN),
        Attributes(),
        (Z,),
        [Z.numpy(), None],
        (LOSS, Z),
        (SEQUENCE, Z),  # hidden states, step by step
        {"prediction": Z, "loss": LOSS, "attention": SEQUENCE},
        (LOSS, SequenceClassifierOutput(logits=Z)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_predictions_are_found_where_nothing_else_can_be_meant(given):
    found = OutputReader()(given, ROWS)
    torch.testing.assert_close(found, Z, check_dtype=False)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ((HIDDEN, HIDDEN, Z), 2),
        ((HIDDEN, HIDDEN, Z), -1),
        ({"logits": HIDDEN, "fused": Z}, "fused"),
        ({"logits": HIDDEN, "fused": Z}, 1),
        ({0: HIDDEN, 1: Z}, 1),
        (Answer(HIDDEN, Z), "scores"),
        (Attributes(), "logits"),
        (SequenceClassifierOutput(loss=LOSS, logits=HIDDEN, hidden_states=Z), "hidden_states"),
        ({"probabilities": Z, "logits": HIDDEN}, "probabilities"),
        ((HIDDEN, {"logits": Z}), 1),
    ],
)
def test_an_item_is_taken_by_name_or_position(given, output):
    assert torch.equal(OutputReader(output)(given, ROWS), Z)


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ((HIDDEN, HIDDEN, Z), "0: (5, 16), 1: (5, 16), 2: (5, 3)"),
        ((0 * Z, 0 * Z, Z), "0: (5, 3), 1: (5, 3), 2: (5, 3)"),
        (Answer(HIDDEN, Z), "'features': (5, 16), 'scores': (5, 3)"),
        ({"fused": Z, "audio": Z, "loss": LOSS}, "'fused': (5, 3), 'audio': (5, 3), 'loss': ()"),
        (SequenceClassifierOutput(loss=LOSS, hidden_states=(Z, Z)), "'hidden_states': tuple"),
        ({"loss": LOSS}, "'loss': ()"),
        ((), "nothing"),
    ],
)
def test_several_items_or_none_are_refused_and_listed_with_the_choice(given, listed):
    with pytest.raises(DataError) as error:
        OutputReader()(given, ROWS)
    assert listed in str(error.value)
    assert "output=" in str(error.value)


@pytest.mark.parametrize(
    ("given", "output", "named"),
    [
        ((Z, Z), 2, "2"),
        ({"a": Z}, "b", "'b'"),
        (Z, 1, "1"),
        (Z, "scores", "'scores'"),
        (None, None, "NoneType"),
        ("left", None, "str"),
        (np.array(["cat"] * ROWS), None, "text"),
        (torch.nested.nested_tensor([torch.ones(2)] * ROWS), None, "nested"),
        (nn.Identity(), None, "makes a Identity"),
        (LOSS, None, r"\(\)"),
        (Z[:2], None, r"\(2, 3\) for 5 rows"),
    ],
)
def test_what_has_no_predictions_is_refused_by_name(given, output, named):
    with pytest.raises(DataError, match=named):
        OutputReader(output)(given, ROWS)


@pytest.mark.parametrize("output", [True, 1.5, ["logits"]])
def test_an_output_is_named_by_a_name_or_a_position(output):
    with pytest.raises(UsageError, match="^output="):
        OutputReader(output)


def test_what_was_found_once_is_taken_from_then_on():
    reader = OutputReader()
    prototypes = torch.zeros(4, 16)
    assert torch.equal(reader((Z, prototypes), ROWS), Z)
    # by their shapes, either could be meant now
    assert torch.equal(reader((Z[:4], prototypes), 4), Z[:4])


def test_arrays_and_lists_keep_double_precision():
    third = 1 / 3
    for given in (np.array([[third]]), [[third]], pd.DataFrame([[third]])):
        assert OutputReader()(given, 1).item() == third


# --- which scale


def test_one_logit_is_that_of_the_second_of_two_classes():
    p = expit(Z[:, :1].double().numpy())
    found = class_logits(Z[:, :1]).double().softmax(1).numpy()
    np.testing.assert_allclose(found, np.hstack([1 - p, p]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_logarithms_of_probabilities_are_logits(dtype):
    p = Z.to(dtype).softmax(1)
    found = class_logits(p, probabilities=True).log_softmax(1)
    np.testing.assert_allclose(found, log_softmax(Z.double().numpy(), 1), atol=5e-3)
    single = class_logits(p[:, 1:2], probabilities=True).softmax(1)[:, 1]
    np.testing.assert_allclose(single, p[:, 1].double(), rtol=1e-6)
    labels = label_logits(torch.sigmoid(Z.to(dtype)), probabilities=True)
    np.testing.assert_allclose(labels, Z.double(), atol=1e-2)


def test_certainty_is_a_probability_too():
    p = torch.tensor([[0.0], [1.0]])
    assert class_logits(p, probabilities=True).softmax(1).tolist() == [[1, 0], [0, 1]]
    assert class_logits(torch.eye(2), probabilities=True).softmax(1).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("wrong", [Z, Z.softmax(1) / 2, 2 * torch.sigmoid(Z[:, :1]) + 1])
def test_what_is_called_probabilities_and_is_none_is_refused(wrong):
    with pytest.raises(DataError, match="^output='probabilities', but"):
        class_logits(wrong, probabilities=True)
    with pytest.raises(DataError, match="^output='probabilities', but"):
        label_logits(Z, probabilities=True)


def test_predicted_classes_are_no_logits():
    with pytest.raises(DataError, match="a predicted class, where logits are expected"):
        class_logits(torch.ones(ROWS, 1, dtype=torch.int64))


# --- in a valuation

NAMES = ["audio", "visual"]
G = torch.Generator().manual_seed(1)
LABELS = torch.arange(30) % CLASSES
INPUTS = {m: torch.eye(CLASSES)[LABELS] + torch.randn(30, CLASSES, generator=G) for m in NAMES}


def logits_of(inputs):
    return 3 * inputs["audio"] + inputs["visual"]


def phi(model, labels=LABELS, value="probability", **options):
    absence = {k: options.pop(k) for k in ("absent", "background", "task") if k in options}
    wrapped = replace_inputs(model, NAMES, **absence, **options)
    batches = [
        {"inputs": {m: x[rows] for m, x in INPUTS.items()}, "labels": labels[rows]}
        for rows in torch.arange(30).split(12)
    ]
    return valuate(wrapped, batches, modalities=NAMES, value=value).contributions


GRADED = ["probability", "log-likelihood", "margin", "predicted-probability"]


@pytest.mark.parametrize("value", GRADED)
def test_probabilities_are_refused_until_the_user_says_what_they_are(value):
    def softmax(inputs):
        return logits_of(inputs).softmax(1)

    with pytest.raises(DataError, match="look like probabilities .* output='probabilities'"):
        phi(softmax, value=value)
    expected = phi(logits_of, value=value)
    found = phi(softmax, value=value, output="probabilities")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # the user's word counts, whatever they look like
    assert not torch.allclose(phi(softmax, value=value, output="logits"), expected, atol=0.01)


@pytest.mark.parametrize("value", ["paper", "correct"])
def test_of_probabilities_the_highest_is_the_same_class(value):
    found = phi(lambda inputs: logits_of(inputs).softmax(1), value=value)
    assert torch.equal(found, phi(logits_of, value=value))


def test_averages_over_draws_are_of_probabilities_either_way():
    how = {"absent": "marginal", "background": INPUTS}

    def softmax(inputs):
        return logits_of(inputs).softmax(1)

    with pytest.raises(DataError, match=r"look like probabilities .*averaging over draws"):
        phi(softmax, value="paper", **how)
    torch.testing.assert_close(phi(softmax, output="probabilities", **how), phi(logits_of, **how))


def first_two(inputs):
    """Logits of two classes, the first of which is 0."""
    z = logits_of(inputs)[:, :1] - 1
    return torch.cat([torch.zeros_like(z), z], 1)


BINARY = (LABELS == 0).long()


@pytest.mark.parametrize("value", ["paper", "correct", *GRADED, "negative-loss"])
@pytest.mark.parametrize("labels", [BINARY, BINARY.float(), BINARY * 0], ids=["int", "float", "0"])
@pytest.mark.parametrize("absent", ["zero", "marginal"])
def test_one_logit_gives_what_two_logits_give(value, labels, absent):
    how = {"value": value, "absent": absent, "background": INPUTS, "task": "classification"}
    expected = phi(first_two, labels.long(), **how)
    torch.testing.assert_close(phi(lambda i: first_two(i)[:, 1:], labels, **how), expected)
    torch.testing.assert_close(phi(lambda i: first_two(i)[:, 1], labels, **how), expected)


def test_one_probability_must_be_called_so():
    def sigmoid(inputs):
        return first_two(inputs)[:, 1].sigmoid()

    with pytest.raises(DataError, match="are all from 0 to 1"):
        phi(sigmoid, BINARY, value="paper")
    found = phi(sigmoid, BINARY, output="probabilities", task="classification")
    torch.testing.assert_close(found, phi(first_two, BINARY), atol=1e-6, rtol=1e-5)


def test_predictions_in_place_of_logits_are_refused():
    with pytest.raises(DataError, match="predicted class"):
        phi(lambda inputs: first_two(inputs).argmax(1), BINARY, value="paper")
    with pytest.raises(DataError, match="label 2 has no class: the model has 2 classes"):
        phi(lambda inputs: first_two(inputs)[:, 1])


def test_one_output_averaged_over_draws_needs_its_task():
    with pytest.raises(DataError, match="task='classification'"):
        phi(lambda i: first_two(i)[:, 1:], BINARY, absent="marginal", background=INPUTS)


def test_sigmoid_probabilities_of_several_labels_must_be_called_so():
    labels = torch.stack([LABELS == 0, LABELS > 0, LABELS == 2], 1).long()
    expected = phi(logits_of, labels, value="label-probability", task="multi-label")

    def sigmoid(inputs):
        return logits_of(inputs).sigmoid()

    with pytest.raises(DataError, match="look like probabilities"):
        phi(sigmoid, labels, value="label-probability", task="multi-label")
    found = phi(
        sigmoid, labels, value="label-probability", task="multi-label", output="probabilities"
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_output_works_for_models_that_take_present_and_for_features():
    def model(inputs, present):
        here = present.float()
        scores = sum(here[:, k : k + 1] * INPUTS_SCALE[k] * inputs[m] for k, m in enumerate(NAMES))
        return inputs["audio"], scores

    batch = {"inputs": INPUTS, "labels": LABELS}
    with pytest.raises(DataError, match="output=1"):
        valuate(model, [batch], modalities=NAMES)
    found = valuate(model, [batch], modalities=NAMES, value="probability", output=1)
    torch.testing.assert_close(found.contributions, phi(logits_of), atol=1e-6, rtol=1e-5)
    assert found.details["output"] == 1

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ear, self.eye = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)

        def forward(self, audio, visual):
            a, v = self.ear(audio), self.eye(visual)
            return a, v, a + v

    places = {"audio": "ear", "visual": "eye"}
    wrapped = replace_features(Two(), places, output=2)
    found = valuate(wrapped, [batch], modalities=NAMES)
    (a, v, both) = wrapped.model(**INPUTS)
    assert torch.equal(found.predictions, both.argmax(1))
    assert torch.equal(found.values[:, 1:3], torch.stack([a, v], 1).argmax(2).eq(LABELS[:, None]))
    with pytest.raises(UsageError, match="replace_inputs or replace_features"):
        valuate(wrapped, [batch], modalities=NAMES, output=2)


INPUTS_SCALE = (3.0, 1.0)


def test_a_value_function_of_the_users_gets_the_outputs_as_they_are():
    seen = []

    def own(outputs, targets, sizes):
        seen.append(outputs.shape[1:])
        return outputs.fill_(1.0).flatten(1).sum(1)

    phi(lambda i: first_two(i)[:, 1:], BINARY, value=own)
    assert set(seen) == {(1,)}

"""How a model is called, and where its logits are."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from mmcoop.core.calling import logits_of, way_of_calling
from mmcoop.errors import DataError

INPUTS = {"audio": torch.ones(2, 3), "visual": torch.zeros(2, 4)}


class ByName(nn.Module):
    def forward(self, visual, audio, scale=1.0):
        return ("by name", audio, visual)


class AllTogether(nn.Module):
    def forward(self, inputs):
        return ("together", inputs["audio"], inputs["visual"])


def keywords(*, audio, visual):
    return ("by name", audio, visual)


def only_one(audio, other=None):
    return ("together", audio["audio"], audio["visual"])


def by_position(audio, visual=None, /):
    return ("together", audio["audio"], audio["visual"])


def anything(inputs, **more):
    return ("together", inputs["audio"], inputs["visual"])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ByName(), "by name"),
        (keywords, "by name"),
        (AllTogether(), "together"),
        (only_one, "together"),
        (by_position, "together"),
        (anything, "together"),
    ],
)
def test_inputs_go_to_parameters_of_their_names_or_together(model, expected):
    way, audio, visual = way_of_calling(model, ["audio", "visual"])(model, INPUTS)
    assert way == expected
    assert audio is INPUTS["audio"]
    assert visual is INPUTS["visual"]


def test_a_callable_without_a_signature_gets_the_inputs_together():
    assert way_of_calling(dict, ["audio", "visual"])(dict, INPUTS) == INPUTS


LOGITS = torch.tensor([[1.0, 2.0]])


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"logits": LOGITS, "loss": None},
        SimpleNamespace(logits=LOGITS),
        SequenceClassifierOutput(loss=torch.tensor(0.0), logits=LOGITS),
        (LOGITS, torch.zeros(3)),
        [LOGITS],
        namedtuple("Output", "loss logits")(torch.tensor(0.0), LOGITS),
        LOGITS.numpy(),
        (LOGITS.numpy(), None),
    ],
)
def test_logits_are_found(output):
    assert torch.equal(logits_of(output), LOGITS)


def test_arrays_keep_their_precision():
    assert logits_of(np.zeros((1, 2))).dtype == torch.float64


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (None, "NoneType"),
        ({"scores": LOGITS}, "dict"),
        ((), "tuple"),
        (("text", LOGITS), "tuple"),
        (SimpleNamespace(logits=None), "SimpleNamespace"),
    ],
)
def test_an_output_without_logits_is_refused(output, kind):
    with pytest.raises(DataError, match=f"^the model gave a {kind}: expected logits, as a tensor"):
        logits_of(output)

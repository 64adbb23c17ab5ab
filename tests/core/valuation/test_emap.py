"""EMAP and its gap, against plain loops, scikit-learn and hand-worked numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import nn

from mmcoop.core.models.encoders.mlp import MLPEncoder
from mmcoop.core.models.fusions.concat import Concat
from mmcoop.core.models.fusions.film import FiLM
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.emap import cross_logits, emap, emap_gap
from mmcoop.errors import DataError, UsageError

properties = settings(deadline=None, max_examples=40)


def crossed(*classes) -> torch.Tensor:
    return torch.tensor(classes, dtype=torch.float64).permute(1, 2, 0)


def test_emap_by_hand():
    assert emap(crossed([[2, 0], [0, 2]])).tolist() == [[1], [1]]
    assert emap(crossed([[3, 2], [1, 0]])).tolist() == [[3], [0]]


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_emap_agrees_with_a_plain_loop(samples):
    logits = np.random.default_rng(samples).normal(size=(samples, samples, 3))
    expected = [
        [
            np.mean([logits[i, j, c] for j in range(samples)])
            + np.mean([logits[j, i, c] for j in range(samples)])
            - np.mean(logits[:, :, c])
            for c in range(3)
        ]
        for i in range(samples)
    ]
    np.testing.assert_allclose(emap(torch.from_numpy(logits)), expected, atol=1e-14)


@properties
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_emap_leaves_an_additive_model_as_it_is_and_projects_once(samples, seed):
    rng = np.random.default_rng(seed)
    of_a, of_v = rng.normal(size=(2, samples, 4))
    additive = torch.from_numpy(of_a[:, None] + of_v[None])
    np.testing.assert_allclose(emap(additive), of_a + of_v, atol=1e-12)
    labels = rng.integers(0, 4, size=samples)
    assert emap_gap(additive, torch.from_numpy(labels)) == 0


def test_the_gap_is_what_the_interaction_is_worth():
    # a = (0, 0, 1, 1), v = (0, 1, 0, 1), label a XOR v: the model is right, its EMAP undecided
    a, v = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    right = (a[:, None] ^ v[None]).double()
    logits = torch.stack([1 - right, right], dim=2)
    assert torch.equal(emap(logits), torch.full((4, 2), 0.5, dtype=torch.float64))
    # F1 of the model 1; of a tie ½: of each class 1 right, 2 predicted and 2 there
    assert emap_gap(logits, a ^ v) == pytest.approx(1 / 2, abs=1e-15)
    # a model that is wrong by its interaction: the sign is kept
    assert emap_gap(1 - logits, a ^ v) == pytest.approx(-1 / 2, abs=1e-15)


def test_the_gap_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 30, 4)), rng.integers(0, 3, size=30)
    own = [logits[i, i].argmax() for i in range(30)]
    additive = (logits.mean(1) + logits.mean(0) - logits.mean((0, 1))).argmax(1)
    one, other = (
        f1_score(labels, predicted, labels=range(4), average="macro", zero_division=0)
        for predicted in (own, additive)
    )
    assert one != other
    found = emap_gap(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found == pytest.approx(one - other, abs=1e-14)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3, 4), (2, 2, 0), (2, 2, 2, 2)])
def test_logits_that_are_not_those_of_all_pairs_are_refused(shape):
    for function in (emap, lambda logits: emap_gap(logits, torch.zeros(2))):
        with pytest.raises(DataError, match=r"all pairs, \(samples, samples, classes\)$") as e:
            function(torch.zeros(shape))
        assert str(e.value).startswith(f"logits of shape {shape}: ")


def test_emap_refuses_no_samples_and_logits_that_are_not_finite():
    with pytest.raises(DataError, match="^EMAP of no samples is undefined: give one at least$"):
        emap(torch.zeros(0, 0, 3))
    with pytest.raises(DataError, match="^logits hold NaN or infinity: EMAP is undefined$"):
        emap(torch.full((2, 2, 3), math.nan))
    with pytest.raises(DataError, match="^label 3 has no class: expected classes 0 to 2$"):
        emap_gap(torch.zeros(2, 2, 3), torch.tensor([0, 3]))


# all pairs


def product(inputs, present):
    """A model of interaction alone, whose logits tell which rows it was asked about."""
    assert present.dtype == torch.bool
    assert present.all()
    assert present.shape == (len(inputs["a"]), 2)
    return torch.stack([inputs["a"][:, 0] * inputs["v"][:, 0, 0], inputs["a"][:, 0]], dim=1)


@pytest.mark.parametrize("max_rows", [1, 4, 25, 1000])
def test_every_pair_is_asked_for_in_calls_of_bounded_size(max_rows):
    inputs = {
        "v": torch.arange(1.0, 6.0).reshape(5, 1, 1),
        "a": torch.arange(1.0, 6.0).reshape(5, 1),
        "other": torch.zeros(2),
    }
    sizes = []

    def counting(given, present):
        sizes.append(len(present))
        return product(given, present)

    found = cross_logits(counting, inputs, ["a", "v"], max_rows)
    assert found.shape == (5, 5, 2)
    assert found[:, :, 0].tolist() == [[i * j for j in range(1, 6)] for i in range(1, 6)]
    assert found[:, :, 1].tolist() == [[i] * 5 for i in range(1, 6)]
    assert max(sizes) <= max_rows
    assert sum(sizes) == 25
    turned = cross_logits(product, inputs, ["v", "a"], max_rows)
    assert torch.equal(turned, found.transpose(0, 1))


class Encoded(nn.Module):
    """A model of one's own with `encode` and `fuse`, which counts the rows it encodes."""

    def __init__(self, modalities=("a", "v")):
        super().__init__()
        self.modalities = modalities
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.rows = 0

    def encode(self, inputs, present):
        assert present.shape == (len(inputs["a"]), 2)
        assert not self.training
        self.rows += len(inputs["a"])
        return {m: self.weight * x for m, x in inputs.items()}

    def fuse(self, features, present):
        return features["a"] * features["v"]


def test_a_model_with_encode_and_fuse_encodes_every_sample_once():
    inputs = {"a": torch.arange(7.0)[:, None], "v": torch.arange(7.0)[:, None] + 1}
    model = Encoded().train()
    found = cross_logits(model, inputs, ["a", "v"], max_rows=3)
    assert model.rows == 7
    assert model.training
    # one output: the logits of two classes, of which the first is 0
    assert found[:, :, 1].tolist() == [[4 * i * (j + 1) for j in range(7)] for i in range(7)]
    assert not found.is_inference()


@pytest.mark.parametrize("fusion", [Concat, FiLM])
def test_all_pairs_of_mmcoops_own_models_are_their_logits_of_each_pair(fusion):
    torch.manual_seed(0)
    encoders = {"a": MLPEncoder((4,)), "v": MLPEncoder((3,))}
    model = MultimodalModel(encoders, fusion({m: e.width for m, e in encoders.items()}, 3)).eval()
    inputs = {"a": torch.randn(6, 4), "v": torch.randn(6, 3)}
    found = cross_logits(model, inputs, ["a", "v"], max_rows=5)
    with torch.inference_mode():
        for i in range(6):
            for j in range(6):
                own = model({"a": inputs["a"][i : i + 1], "v": inputs["v"][j : j + 1]})[0]
                torch.testing.assert_close(found[i, j], own, atol=1e-5, rtol=0)
    if fusion is Concat:  # an additive fusion has nothing that EMAP could take away
        np.testing.assert_allclose(emap(found), found.diagonal().T, rtol=0, atol=1e-5)


INPUTS = {"a": torch.zeros(2, 1), "v": torch.zeros(2, 1, 1)}


@pytest.mark.parametrize("modalities", [["a"], ["a", "v", "t"]])
def test_emap_is_refused_unless_there_are_two_modalities(modalities):
    message = f"^EMAP is defined for two modalities, not for {len(modalities)}: a"
    with pytest.raises(UsageError, match=message):
        cross_logits(product, INPUTS, modalities)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"a": torch.zeros(2, 1)}, "^the batch has no input for the modality 'v'; it has: a$"),
        ({}, "^the batch has no input for the modality 'a'; it has: none$"),
        ({"a": torch.zeros(2, 1), "v": torch.zeros(3, 1)}, "^a has 2 samples and v 3: EMAP pairs"),
        ({"a": torch.zeros(0, 1), "v": torch.zeros(0, 1)}, "^EMAP of no samples is undefined: "),
    ],
)
def test_inputs_that_cannot_be_paired_are_refused(inputs, message):
    with pytest.raises(DataError, match=message):
        cross_logits(product, inputs, ["a", "v"])


@pytest.mark.parametrize(
    "model",
    [
        lambda inputs, present: torch.zeros(len(present), 3, 1),
        lambda inputs, present: torch.zeros(len(present) + 1, 3),
        lambda inputs, present: torch.zeros(len(present), len(present)),
    ],
    ids=["no classes", "a row too many", "other classes in each call"],
)
def test_logits_of_another_shape_are_refused(model):
    with pytest.raises(DataError, match=r"^the model gave (logits|outputs) of shape .* expected"):
        cross_logits(model, INPUTS, ["a", "v"], max_rows=3)


def test_a_model_of_other_modalities_is_refused():
    with pytest.raises(UsageError, match="^the model's modalities are a, t, v, not a, v$"):
        cross_logits(Encoded(("a", "t", "v")), INPUTS, ["a", "v"])


def test_a_call_has_a_row_at_least():
    with pytest.raises(UsageError, match="^max_rows is 0: it must be at least 1$"):
        cross_logits(product, INPUTS, ["a", "v"], max_rows=0)


# MM-SHAP

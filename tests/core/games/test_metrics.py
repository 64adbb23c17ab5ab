"""The field's summaries: the numbers worked by hand, plain loops, scikit-learn, known answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import nn

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.metrics import (
    cross_logits,
    emap,
    emap_gap,
    intershap,
    macro_f1,
    macro_f1_by_coalition,
    modality_shares,
    shape_cooperation,
)
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.models.encoders.mlp import MLPEncoder
from mmcoop.core.models.fusions.concat import Concat
from mmcoop.core.models.fusions.film import FiLM
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import DataError, UsageError

# METHODS.md, section 5: accuracies of ∅, a, v, av and of ∅, a, v, av, t, at, vt, avt
TWO = [0.17, 0.55, 0.30, 0.65]
THREE = [0.2, 0.5, 0.3, 0.6, 0.6, 0.75, 0.65, 0.8]
# METHODS_2025.md, section C: two samples of InterSHAP
A = [0.5, 0.5, 0.5, 1.0]
B = [0.5, 0.7, 0.7, 0.6]

properties = settings(deadline=None, max_examples=40)


# InterSHAP


def test_intershap_of_two_samples_by_hand():
    found = intershap([A, B])
    # A: φ₁₂ = .25, φᵢᵢ = 0; B: φ₁₂ = −.15, φᵢᵢ = .2; means .05 and .1
    np.testing.assert_allclose(found.matrix, [[0.1, 0.05], [0.05, 0.1]], atol=1e-15)
    assert found.score == pytest.approx(1 / 3, abs=1e-14)
    assert found.shares.tolist() == pytest.approx([1 / 3, 1 / 3], abs=1e-14)
    assert found.local.tolist() == pytest.approx([1, 0.428571], abs=1e-6)
    assert found.local_mean == pytest.approx(0.714286, abs=1e-6)


def test_intershap_counts_a_pair_twice_as_the_paper_does():
    # (.25, .5, .5, 1): φ₁₂ = .125, φᵢᵢ = .25; counted once it would be .2
    assert intershap([[0.25, 0.5, 0.5, 1.0]]).score == pytest.approx(1 / 3, abs=1e-15)


def test_intershap_of_three_modalities_by_hand():
    found = intershap([THREE])
    expected = [[0.3, 0, 0.075], [0, 0.1, 0.025], [0.075, 0.025, 0.4]]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-15)
    assert found.score == pytest.approx(0.2, abs=1e-14)
    assert found.shares.tolist() == pytest.approx([0.3, 0.1, 0.4], abs=1e-14)
    assert found.local.tolist() == pytest.approx([0.2], abs=1e-14)


def phi_by_loop(values: list[float], n: int) -> np.ndarray:
    phi = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for s in range(2**n):
                if i == j or s >> i & 1 or s >> j & 1:
                    continue
                size = s.bit_count()
                weight = math.factorial(size) * math.factorial(n - size - 2)
                weight /= 2 * math.factorial(n - 1)
                both, one, other = s | 1 << i | 1 << j, s | 1 << i, s | 1 << j
                phi[i, j] += weight * (values[both] - values[one] - values[other] + values[s])
    contributions = shapley_values([values])[0].numpy()
    return phi + np.diag(contributions - phi.sum(1))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_intershap_agrees_with_a_plain_loop(n):
    values = np.random.default_rng(n).normal(size=(7, 2**n))
    found = intershap(values)
    phi = np.array([phi_by_loop(game, n) for game in values.tolist()])
    matrix = np.abs(phi.mean(0))
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-13)
    np.testing.assert_allclose(found.score, 1 - np.trace(matrix) / matrix.sum(), atol=1e-12)
    np.testing.assert_allclose(found.shares, np.diag(matrix) / matrix.sum(), atol=1e-12)
    size = np.abs(phi)
    local = 1 - np.trace(size, axis1=1, axis2=2) / size.sum((1, 2))
    np.testing.assert_allclose(found.local, local, atol=1e-12)
    assert found.local_mean == pytest.approx(local.mean(), abs=1e-12)


@properties
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_intershap_and_its_shares_sum_to_one_and_lie_between_0_and_1(n, seed):
    found = intershap(np.random.default_rng(seed).normal(size=(3, 2**n)))
    assert found.score + float(found.shares.sum()) == pytest.approx(1, abs=1e-12)
    for numbers in (found.shares, found.local, torch.tensor(found.score)):
        assert (numbers >= 0).all()
        assert (numbers <= 1 + 1e-12).all()


@pytest.mark.parametrize("n", range(2, 13))
def test_intershap_of_known_games(n):
    members = coalition_matrix(n).double()
    own = torch.linspace(0.1, 0.5, n, dtype=torch.float64)
    additive = intershap((0.3 + members @ own).unsqueeze(0))
    assert additive.score == pytest.approx(0, abs=1e-11)
    np.testing.assert_allclose(additive.shares, own / own.sum(), atol=1e-11)
    # the first two tell nothing unless both are there: φ₁₂ = ½, φᵢᵢ = ½ − ½ = 0
    xor = intershap((members[:, 0] * members[:, 1]).unsqueeze(0))
    assert xor.score == pytest.approx(1, abs=1e-12)
    assert xor.local_mean == pytest.approx(1, abs=1e-12)


def test_opposite_interactions_cancel_in_the_global_score_only():
    # φ₁₂ = .25 and −.25, φᵢᵢ = .25 in both
    found = intershap([[0, 0.25, 0.25, 1.0], [0, 0.25, 0.25, 0.0]])
    assert found.score == 0
    assert found.local.tolist() == [0.5, 0.5]
    assert found.local_mean == 0.5


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_a_sample_that_nothing_changes_has_no_intershap_and_no_part_in_the_mean(n):
    values = torch.full((2, 2**n), 0.3, dtype=torch.float64)
    alike = intershap(values)
    assert torch.equal(alike.matrix, torch.zeros(n, n, dtype=torch.float64))
    assert math.isnan(alike.score)
    assert math.isnan(alike.local_mean)
    assert alike.shares.isnan().all()
    assert alike.local.isnan().all()
    values[1, -1] = 0.9
    found = intershap(values)
    assert found.local.isnan().tolist() == [True, False]
    assert found.local_mean == float(found.local[1])
    assert found.score == pytest.approx(found.local_mean, abs=1e-12)


def test_rounding_errors_around_a_matrix_of_zeros_are_no_interaction():
    # x for one modality, −x for two, 0 for three: all φ_ij are 0, though the values are not
    game = torch.tensor([0.7, 0.8, 0.6, 0.7], dtype=torch.float64)[coalition_matrix(3).sum(1)]
    found = intershap(game.unsqueeze(0))
    assert 0 < found.matrix.abs().max() < 1e-15
    assert math.isnan(found.score)
    assert math.isnan(found.local_mean)


def test_intershap_of_no_samples_is_refused():
    with pytest.raises(
        DataError, match="^InterSHAP of no samples is undefined: give one at least$"
    ):
        intershap(torch.zeros(0, 4))


# SHAPE


@pytest.mark.parametrize(("values", "cooperation"), [(TWO, -0.03), (THREE, -0.2)])
def test_shapes_cooperation_by_hand(values, cooperation):
    assert shape_cooperation(values) == pytest.approx(cooperation, abs=1e-15)


@pytest.mark.parametrize("n", range(1, 13))
def test_shapes_cooperation_agrees_with_a_plain_sum(n):
    values = np.random.default_rng(n).normal(size=2**n).tolist()
    expected = values[-1] - values[0] - sum(values[2**m] - values[0] for m in range(n))
    assert shape_cooperation(torch.tensor(values)) == pytest.approx(expected, abs=1e-5)
    assert shape_cooperation(values) == pytest.approx(expected, abs=1e-13)
    if n == 1:
        assert shape_cooperation(values) == 0


@pytest.mark.parametrize("shape", [(), (1, 4), (2, 2, 2)])
def test_shape_takes_one_value_a_coalition(shape):
    with pytest.raises(DataError, match=r": SHAPE takes one value a coalition, \(2\*\*n,\)$") as e:
        shape_cooperation(torch.zeros(shape))
    assert str(e.value).startswith(f"values of shape {shape}: ")


def test_shape_refuses_what_is_no_table_of_coalitions_and_no_numbers():
    with pytest.raises(DataError, match=r"^coalition values of shape \(1, 3\): expected"):
        shape_cooperation([0, 1, 2])
    with pytest.raises(DataError, match="hold NaN or infinity: SHAPE's values are undefined$"):
        shape_cooperation([0, 1, 2, math.nan])


# macro-F1


def test_macro_f1_by_hand():
    # METHODS.md, section 5: y = 0012, predicted 0111: .388889 over three classes
    predictions = torch.tensor([[9, 0], [9, 1], [9, 1], [9, 1]]) % 9
    found = macro_f1_by_coalition(predictions, torch.tensor([0, 0, 1, 2]), 3)
    assert float(found[1]) == pytest.approx(0.388889, abs=1e-6)
    # class 0 for all: precision ½, recall 1, F1 ⅔, and 0 for the others
    assert float(found[0]) == pytest.approx(2 / 9, abs=1e-15)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_macro_f1_of_every_coalition_is_that_of_scikit_learn(n, n_classes):
    rng = np.random.default_rng(10 * n + n_classes)
    labels = rng.integers(0, max(2, n_classes - 1), size=40)  # a class that is not there
    predictions = rng.integers(-1, n_classes, size=(40, 2**n))
    predictions[:, -1] = np.where(rng.random(40) < 0.8, labels, predictions[:, -1])
    found = macro_f1_by_coalition(
        torch.from_numpy(predictions), torch.from_numpy(labels), n_classes
    )
    predictions[:, 0] = np.bincount(labels).argmax()
    expected = [
        f1_score(labels, column, labels=range(n_classes), average="macro", zero_division=0)
        for column in predictions.T
    ]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_what_the_empty_coalition_predicted_does_not_matter():
    predictions = torch.tensor([[0, 1], [1, 1], [-1, 0]])
    other = torch.tensor([[1, 1], [0, 1], [1, 0]])
    labels = torch.tensor([1, 1, 0])
    assert torch.equal(
        macro_f1_by_coalition(predictions, labels, 2), macro_f1_by_coalition(other, labels, 2)
    )


def test_shapes_cooperation_of_predictions_by_hand():
    # labels 0011; each modality alone tells half of them, both all: F1 of ∅ ⅓, of the rest below
    labels = torch.tensor([0, 0, 1, 1])
    predictions = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]])
    f1 = macro_f1_by_coalition(predictions, labels, 2)
    # first: predicted 0001, F1 (⅘ + ⅔) / 2; second: 0111, (⅔ + ⅘) / 2; both: all right
    assert f1.tolist() == pytest.approx([1 / 3, 11 / 15, 11 / 15, 1], abs=1e-15)
    assert shape_cooperation(f1) == pytest.approx(1 + 1 / 3 - 22 / 15, abs=1e-15)


def test_macro_f1_of_counts_needs_no_predictions_in_memory():
    # class 1 was neither there nor predicted
    found = macro_f1(torch.tensor([[1, 0, 2]]), torch.tensor([[2, 0, 3]]), torch.tensor([2, 0, 3]))
    assert found.tolist() == pytest.approx([(2 / 4 + 0 + 4 / 6) / 3], abs=1e-15)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (
            torch.zeros(3, 3),
            torch.zeros(3),
            r"^predictions of shape \(3, 3\): expected \(samples, ",
        ),
        (torch.zeros(3, 2), torch.zeros(2), r"^labels of shape \(2,\) for 3 samples$"),
        (torch.zeros(0, 2), torch.zeros(0), "^macro-F1 of no samples is undefined: give one at le"),
        (torch.zeros(1, 2), torch.tensor([2]), "^label 2 has no class: expected classes 0 to 1$"),
        (torch.zeros(1, 2), torch.tensor([-1]), "^label -1 has no class: expected classes 0 to 1$"),
        (torch.tensor([[-2, 1]]), torch.tensor([1]), "^predictions go from -2 to 1: expected clas"),
        (torch.tensor([[0, 2]]), torch.tensor([1]), "^predictions go from 0 to 2: expected classe"),
    ],
)
def test_predictions_and_labels_that_do_not_fit_are_refused(predictions, labels, message):
    with pytest.raises(DataError, match=message):
        macro_f1_by_coalition(predictions.long(), labels.long(), 2)


# EMAP


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


def test_shares_by_hand():
    # METHODS.md, section 5: contributions of a and v to the accuracy
    found = modality_shares(shapley_values([TWO]))
    assert found.shares.tolist() == pytest.approx([0.760417, 0.239583], abs=1e-6)
    assert found.local[0].tolist() == pytest.approx([0.760417, 0.239583], abs=1e-6)
    # whichever way a modality moves the prediction
    found = modality_shares([[0.3, -0.3], [1.5, 0.5], [-0.1, 0.3]])
    np.testing.assert_allclose(found.local, [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], atol=1e-15)
    np.testing.assert_allclose(found.local_mean, [0.5, 0.5], atol=1e-15)
    # means 1.7/3 and .5/3
    np.testing.assert_allclose(found.shares, [17 / 22, 5 / 22], atol=1e-15)


@properties
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_shares_sum_to_one_and_do_not_depend_on_the_scale(n, seed):
    phi = np.random.default_rng(seed).normal(size=(4, n))
    found, scaled = modality_shares(phi), modality_shares(-250 * phi)
    for one, other in (
        (found.shares, scaled.shares),
        (found.local, scaled.local),
        (found.local_mean, scaled.local_mean),
    ):
        np.testing.assert_allclose(one.sum(-1), 1, atol=1e-12)
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert (one >= 0).all()


def test_a_sample_without_contributions_has_no_shares_and_no_part_in_the_mean():
    # rounding errors are no contribution
    found = modality_shares([[0.0, 0.0], [3e-17, -1e-17], [1.0, 3.0]])
    assert found.local.isnan().tolist() == [[True, True], [True, True], [False, False]]
    assert found.local_mean.tolist() == [0.25, 0.75]
    assert found.shares.tolist() == pytest.approx([0.25, 0.75], abs=1e-15)
    nothing = modality_shares([[1.0, -2.0], [-1.0, 2.0]])
    assert nothing.shares.isnan().all()
    np.testing.assert_allclose(nothing.local_mean, [1 / 3, 2 / 3], atol=1e-15)
    assert modality_shares([[0.0, 0.0]]).local_mean.isnan().all()


@pytest.mark.parametrize("shape", [(), (2,), (2, 0), (2, 2, 2)])
def test_contributions_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r": expected \(samples, modalities\)$") as e:
        modality_shares(torch.zeros(shape))
    assert str(e.value).startswith(f"contributions of shape {shape}")


def test_shares_of_nothing_and_of_nan_are_refused():
    with pytest.raises(DataError, match="^MM-SHAP's share of no samples is undefined: give one"):
        modality_shares(torch.zeros(0, 2))
    with pytest.raises(DataError, match="^contributions hold NaN or infinity: shares are undef"):
        modality_shares([[1.0, math.inf]])

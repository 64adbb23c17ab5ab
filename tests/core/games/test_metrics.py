"""The field's summaries: the numbers worked by hand, plain loops, scikit-learn, known answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.metrics import (
    intershap,
    macro_f1,
    macro_f1_by_coalition,
    modality_shares,
    shape_cooperation,
)
from mmcoop.core.games.shapley import shapley_values
from mmcoop.errors import DataError

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

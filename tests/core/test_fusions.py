"""Fusions: the features of the present modalities → class logits."""

import pytest
import torch
from torch import nn

from mmcoop.core.coalitions import coalition_matrix
from mmcoop.core.fusions import FUSIONS, build_fusion
from mmcoop.core.fusions.base import AdditiveFusion, Features, Fusion
from mmcoop.core.fusions.concat import Concat
from mmcoop.core.fusions.late import Late
from mmcoop.core.fusions.sum import Sum
from mmcoop.errors import UsageError

WIDTHS = {"audio": 2, "text": 4, "visual": 3}
BATCH, CLASSES = 5, 4


class Product(Fusion):
    """A fusion that is no sum of parts: 1 plus each present modality's part, multiplied."""

    def __init__(self, widths, n_classes):
        super().__init__()
        self.heads = nn.ModuleDict({m: nn.Linear(w, n_classes) for m, w in widths.items()})
        self.calls = 0

    def forward(self, features: Features, present):
        self.calls += 1
        logits = 1
        for position, (modality, z) in enumerate(features.items()):
            here = present[:, position, None]
            logits = logits * torch.where(here, 1 + self.heads[modality](z), 1)
        return logits


def with_random_weights(fusion: Fusion) -> Fusion:
    """The fusion in double precision, all its parameters random, biases too."""
    fusion = fusion.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in fusion.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return fusion


def some_features(widths=WIDTHS, batch: int = BATCH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        m: torch.randn(batch, width, generator=generator, dtype=torch.float64)
        for m, width in widths.items()
    }


ALL = [*(FUSIONS.load(name) for name in FUSIONS), Product]


def all_fusions(function):
    return pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)(function)


# by hand

COALITIONS = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
BY_HAND = {"a": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([[3.0]])}


def test_concatenation_by_hand():
    # METHODS.md, section 2: W_a z_a = (1, 2), W_v z_v = (6, 3), b = (0.4, −0.2)
    fusion = Concat({"a": 2, "v": 1}, 2)
    fusion.head.weight.data = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    fusion.head.bias.data = torch.tensor([0.4, -0.2])
    expected = torch.tensor([[0.4, -0.2], [1.4, 1.8], [6.4, 2.8], [7.4, 4.8]])
    torch.testing.assert_close(fusion.coalition_logits(BY_HAND, COALITIONS)[0], expected)
    for present, logits in zip(COALITIONS, expected, strict=True):
        torch.testing.assert_close(fusion(BY_HAND, present[None])[0], logits)


def test_sum_by_hand():
    # an absent modality's bias stays: only the sum of the biases is ever seen
    fusion = Sum({"a": 2, "v": 1}, 2)
    fusion.heads["a"].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fusion.heads["v"].weight.data = torch.tensor([[2.0], [1.0]])
    fusion.bias.data = torch.tensor([0.4, -0.2])
    expected = torch.tensor([[0.4, -0.2], [1.4, 1.8], [6.4, 2.8], [7.4, 4.8]])
    torch.testing.assert_close(fusion.coalition_logits(BY_HAND, COALITIONS)[0], expected)
    for present, logits in zip(COALITIONS, expected, strict=True):
        torch.testing.assert_close(fusion(BY_HAND, present[None])[0], logits)


def test_late_fusion_by_hand():
    # u_a = (1, 2) + (0.5, 0), u_v = (6, 3) + (0, −1); the mean of those present
    fusion = Late({"a": 2, "v": 1}, 2)
    fusion.heads["a"].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fusion.heads["a"].bias.data = torch.tensor([0.5, 0.0])
    fusion.heads["v"].weight.data = torch.tensor([[2.0], [1.0]])
    fusion.heads["v"].bias.data = torch.tensor([0.0, -1.0])
    expected = torch.tensor([[0.0, 0.0], [1.5, 2.0], [6.0, 2.0], [3.75, 2.0]])
    torch.testing.assert_close(fusion.coalition_logits(BY_HAND, COALITIONS)[0], expected)
    for present, logits in zip(COALITIONS, expected, strict=True):
        torch.testing.assert_close(fusion(BY_HAND, present[None])[0], logits)


def test_concatenation_is_the_plain_linear_layer_on_features_with_absent_ones_zeroed():
    fusion = with_random_weights(Concat(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    for column, row in enumerate(coalition_matrix(3).tolist()):
        side_by_side = torch.cat(
            [z * member for z, member in zip(features.values(), row, strict=True)], dim=1
        )
        torch.testing.assert_close(found[:, column], fusion.head(side_by_side))


def test_sum_is_the_sum_of_linear_heads_on_features_with_absent_ones_zeroed():
    fusion = with_random_weights(Sum(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    for column, row in enumerate(coalition_matrix(3).tolist()):
        expected = fusion.bias.expand(BATCH, -1)
        for (modality, z), member in zip(features.items(), row, strict=True):
            expected = expected + z * member @ fusion.heads[modality].weight.T
        torch.testing.assert_close(found[:, column], expected)


def test_late_fusion_is_the_mean_of_the_present_heads_logits():
    fusion = with_random_weights(Late(WIDTHS, CLASSES))
    features = some_features()
    found = fusion.coalition_logits(features, coalition_matrix(3))
    assert (found[:, 0] == 0).all()
    for column, row in list(enumerate(coalition_matrix(3).tolist()))[1:]:
        logits = [
            fusion.heads[m](features[m]) for m, member in zip(WIDTHS, row, strict=True) if member
        ]
        torch.testing.assert_close(found[:, column], sum(logits) / len(logits))


# properties of all of them


@all_fusions
def test_coalition_logits_are_forward_run_once_a_coalition(kind):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features()
    coalitions = coalition_matrix(3)
    found = fusion.coalition_logits(features, coalitions)
    assert found.shape == (BATCH, 8, CLASSES)
    for column, row in enumerate(coalitions):
        torch.testing.assert_close(found[:, column], fusion(features, row.expand(BATCH, -1)))
    # and all coalitions differ, so a mix-up of columns cannot pass
    for column in range(7):
        assert (found[:, column] - found[:, column + 1]).abs().max() > 0.01


@all_fusions
def test_the_general_form_of_coalition_logits_gives_the_same(kind):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features()
    coalitions = coalition_matrix(3)
    torch.testing.assert_close(
        Fusion.coalition_logits(fusion, features, coalitions),
        fusion.coalition_logits(features, coalitions),
    )


def test_the_general_form_runs_the_fusion_once_for_all_coalitions():
    fusion = with_random_weights(Product(WIDTHS, CLASSES))
    fusion.coalition_logits(some_features(), coalition_matrix(3))
    assert fusion.calls == 1


@all_fusions
def test_coalitions_are_answered_in_the_order_asked_for(kind):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features()
    everything = fusion.coalition_logits(features, coalition_matrix(3))
    order = [6, 1, 1, 4]
    torch.testing.assert_close(
        fusion.coalition_logits(features, coalition_matrix(3)[order]), everything[:, order]
    )


@all_fusions
def test_rows_with_different_modalities_share_a_batch(kind):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features(batch=8)
    present = coalition_matrix(3)
    together = fusion(features, present)
    for i in range(8):
        alone = fusion({m: z[i : i + 1] for m, z in features.items()}, present[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


ABSENT = torch.tensor([[True, False, True]])
HELD = [float("nan"), float("inf"), 1e30]


@all_fusions
@pytest.mark.parametrize("held", HELD)
def test_what_an_absent_modalitys_features_hold_does_not_matter(kind, held):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features()
    present = ABSENT.expand(BATCH, -1)
    expected = fusion(features, present)
    features["text"] = torch.full_like(features["text"], held)
    assert torch.equal(fusion(features, present), expected)


def assert_coalitions_without_text_are_the_same(fusion: Fusion, held: float):
    features = some_features()
    without = coalition_matrix(3)[~coalition_matrix(3)[:, 1]]
    expected = fusion.coalition_logits(features, without)
    features["text"] = torch.full_like(features["text"], held)
    torch.testing.assert_close(fusion.coalition_logits(features, without), expected)


@all_fusions
def test_a_modalitys_huge_features_do_not_matter_to_the_coalitions_without_it(kind):
    assert_coalitions_without_text_are_the_same(with_random_weights(kind(WIDTHS, CLASSES)), 1e30)


@pytest.mark.parametrize("held", [float("nan"), float("inf")])
def test_features_that_are_not_finite_do_not_matter_to_other_coalitions_in_the_general_form(held):
    assert_coalitions_without_text_are_the_same(with_random_weights(Product(WIDTHS, CLASSES)), held)


@pytest.mark.parametrize("held", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", FUSIONS)
def test_features_that_are_not_finite_do_not_matter_to_the_coalitions_without_them(name, held):
    fusion = with_random_weights(build_fusion(name, WIDTHS, CLASSES))
    assert_coalitions_without_text_are_the_same(fusion, held)


@pytest.mark.parametrize("name", FUSIONS)
def test_what_an_absent_modalitys_features_hold_does_not_reach_the_gradients(name):
    fusion, features = with_random_weights(build_fusion(name, WIDTHS, CLASSES)), some_features()
    features["text"] = torch.full_like(features["text"], float("nan"))
    fusion(features, ABSENT.expand(BATCH, -1)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_those_of_the_present_modalities_alone(name):
    fusion, features = with_random_weights(build_fusion(name, WIDTHS, CLASSES)), some_features()
    for z in features.values():
        z.requires_grad_()
    fusion(features, ABSENT.expand(BATCH, -1)).sum().backward()
    assert (features["text"].grad == 0).all()
    assert (features["audio"].grad != 0).any()
    assert (features["visual"].grad != 0).any()


@all_fusions
def test_a_batch_of_no_samples_has_no_logits(kind):
    fusion, features = with_random_weights(kind(WIDTHS, CLASSES)), some_features(batch=0)
    assert fusion(features, torch.zeros(0, 3, dtype=torch.bool)).shape == (0, CLASSES)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_batch_of_no_samples_has_no_coalition_logits(name):
    fusion, features = build_fusion(name, WIDTHS, CLASSES).double(), some_features(batch=0)
    assert fusion.coalition_logits(features, coalition_matrix(3)).shape == (0, 8, CLASSES)


def test_a_batch_of_no_samples_has_no_coalition_logits_in_the_general_form():
    fusion, features = with_random_weights(Product(WIDTHS, CLASSES)), some_features(batch=0)
    assert fusion.coalition_logits(features, coalition_matrix(3)).shape == (0, 8, CLASSES)


def test_a_single_modality_can_be_fused():
    widths = {"audio": 3}
    z = some_features(widths)
    for name in FUSIONS:
        fusion = with_random_weights(build_fusion(name, widths, CLASSES))
        found = fusion.coalition_logits(z, coalition_matrix(1))
        torch.testing.assert_close(found[:, 1], fusion(z, torch.ones(BATCH, 1, dtype=torch.bool)))


def test_an_additive_fusion_without_a_join_is_the_sum_of_its_parts():
    class Plain(AdditiveFusion):
        def parts(self, features):
            return torch.stack(list(features.values()), dim=1)

    features = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[10.0, 20.0]])}
    found = Plain().coalition_logits(features, coalition_matrix(2))
    assert found.tolist() == [[[0, 0], [1, 2], [10, 20], [11, 22]]]
    assert Plain()(features, torch.tensor([[False, True]])).tolist() == [[10, 20]]


# by name


@pytest.mark.parametrize(("name", "kind"), [("concat", Concat), ("sum", Sum), ("late", Late)])
def test_a_fusion_is_built_by_its_name(name, kind):
    fusion = build_fusion(name, {"audio": 2, "visual": 3}, 7)
    assert type(fusion) is kind
    features = {"audio": torch.ones(1, 2), "visual": torch.ones(1, 3)}
    assert fusion(features, torch.ones(1, 2, dtype=torch.bool)).shape == (1, 7)


def test_an_unknown_fusion_is_refused_with_the_legal_names():
    with pytest.raises(
        UsageError, match="^unknown fusion 'film': choose one of concat, sum, late$"
    ):
        build_fusion("film", {"audio": 2}, 2)

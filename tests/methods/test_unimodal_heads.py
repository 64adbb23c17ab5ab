"""What each modality says by itself, for the methods that ask."""

import math

import pytest
import torch

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.resampling import TrainingExamples
from mmcoop.errors import UsageError
from mmcoop.methods.unimodal_heads import UnimodalHeads, scores, unimodal_losses

OWN = ["concat", "sum", "late", "mmtm", "mmtm-2x"]  # fusions with unimodal logits of their own


def test_scores_by_hand():
    # METHODS.md, 3.1
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])
    found = scores(logits, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([1.761594, 0.768941], abs=5e-7)


def test_scores_have_no_gradient():
    logits = torch.zeros(2, 3, 4, requires_grad=True)
    assert not scores(logits, torch.tensor([0, 3])).requires_grad


def test_unimodal_losses_are_means_over_the_rows_that_have_the_modality():
    logits = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 4, 2, 2, 1, 0, 3, 4])
    present = coalition_matrix(3)
    found = unimodal_losses(logits, labels, present)
    for m in range(3):
        each = []
        for i in range(8):
            if present[i, m]:
                row = logits[i, m].tolist()
                each.append(math.log(sum(map(math.exp, row))) - row[labels[i]])
        assert len(each) == 4
        assert float(found[m]) == pytest.approx(sum(each) / 4, abs=1e-12)


def test_the_loss_of_a_modality_that_no_row_has_is_zero():
    logits = torch.randn(3, 2, 5, requires_grad=True)
    present = torch.tensor([[True, False]] * 3)
    losses = unimodal_losses(logits, torch.tensor([0, 1, 2]), present)
    assert losses[0] > 0
    assert losses[1] == 0
    losses.sum().backward()
    assert (logits.grad[:, 0] != 0).any()
    assert (logits.grad[:, 1] == 0).all()


@pytest.mark.parametrize("fusion", OWN)
def test_logits_are_the_fusions_own_where_it_has_them(make_world, fusion):
    world = make_world(fusion)
    heads = UnimodalHeads(world.model, 3, "any")
    assert list(heads.parameters()) == []
    assert heads.state_dict() == {}
    batch = world.batch(rows=TrainingExamples(torch.arange(4), coalition_matrix(2)))
    features = world.model.encode(batch.inputs, batch.present)
    expected = world.model.fusion.unimodal_logits(features, batch.present)
    assert torch.equal(heads(features, batch.present), expected)


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name not in (*OWN, "bottleneck")])
def test_other_fusions_get_a_linear_head_a_modality(make_world, fusion):
    world = make_world(fusion)
    heads = UnimodalHeads(world.model, 3, "any").double()
    assert len(list(heads.parameters())) == 4
    own = {id(p) for p in world.model.parameters()}
    assert not own & {id(p) for p in heads.parameters()}
    batch = world.batch()
    features = world.model.encode(batch.inputs, batch.present)
    logits = heads(features, batch.present)
    assert logits.shape == (10, 2, 3)
    for column, (m, z) in enumerate(features.items()):
        head = heads.own[m]
        torch.testing.assert_close(logits[:, column], z @ head.weight.T + head.bias)


def test_a_fusion_that_takes_no_vectors_and_has_no_unimodal_logits_is_refused(make_world):
    with pytest.raises(
        UsageError,
        match="^method 'uniform' needs feature vectors or unimodal logits, which fusion Bottleneck "
        "does not have: choose another fusion$",
    ):
        UnimodalHeads(make_world("bottleneck").model, 3, "uniform")

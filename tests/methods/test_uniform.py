"""The control with every modality's own loss."""

import math

import pytest
import torch

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.resampling import TrainingExamples
from mmcoop.errors import UsageError
from mmcoop.methods.uniform import Uniform

FUSIONS = ["concat", "late", "gated", "mmtm"]


def plain(world, method, batch, by_hand, weight):
    """CE(o) + weight · Σ_m CE(u_m), of rows that have all modalities."""
    model = world.model
    features = model.encode(batch.inputs, batch.present)
    u = method.heads(features, batch.present)
    own = sum(by_hand(u[:, m], batch.labels) for m in range(u.shape[1]))
    return by_hand(model(batch.inputs, batch.present), batch.labels) + weight * own


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_is_the_joint_one_and_a_share_of_each_modalitys_own(
    make_world, by_hand, slopes, fusion, n, weight
):
    world = make_world(fusion, n)
    method = Uniform(world.task, weight=weight).double()
    batch = world.batch()
    loss = method.loss(batch)
    torch.testing.assert_close(loss, plain(world, method, batch, by_hand, weight))
    loss.backward()
    parameters = [*world.model.parameters(), *method.parameters()]
    assert len(parameters) == len(list(world.model.parameters())) + (
        2 * n if fusion == "gated" else 0
    )
    for rise, said in slopes(lambda: plain(world, method, batch, by_hand, weight), parameters):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)


def test_where_a_modality_is_absent_its_own_loss_is_left_out(make_world, by_hand):
    world = make_world("concat")
    method = Uniform(world.task)
    rows = TrainingExamples(torch.arange(4), coalition_matrix(2)[[1, 3, 3, 2]])
    batch = world.batch(rows=rows)
    model = world.model
    features = model.encode(batch.inputs, batch.present)
    u = model.fusion.unimodal_logits(features, batch.present)
    expected = (
        by_hand(model.fuse(features, batch.present), batch.labels)
        + by_hand(u[:3, 0], batch.labels[:3])
        + by_hand(u[1:, 1], batch.labels[1:])
    )
    torch.testing.assert_close(method.loss(batch), expected)


def test_the_weight_is_1_unless_given(make_world):
    assert Uniform(make_world().task).weight == 1.0


@pytest.mark.parametrize("weight", [-0.5, math.nan, math.inf])
def test_a_weight_that_is_negative_or_no_number_is_refused(make_world, weight):
    with pytest.raises(
        UsageError, match=f"^weight is {weight}: it must be a number that is not negative$"
    ):
        Uniform(make_world().task, weight=weight)

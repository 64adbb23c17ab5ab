"""Unimodal models side by side."""

import copy

import pytest
import torch
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.models.fusions.late import Late
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import UsageError
from mmcoop.methods.ensemble import Ensemble


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("encoder", ["mlp", "conv1d"])
def test_the_loss_is_the_sum_of_the_unimodal_ones(make_world, by_hand, slopes, n, encoder):
    world = make_world("late", n, encoder)
    method, batch = Ensemble(world.task), world.batch()

    def plain():
        return sum(
            by_hand(
                world.model.fusion.heads[m](world.model.encoders[m](batch.inputs[m])), batch.labels
            )
            for m in world.model.modalities
        )

    loss = method.loss(batch)
    torch.testing.assert_close(loss, plain())
    loss.backward()
    for rise, said in slopes(plain, world.model.parameters()):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)


def unimodal(model: MultimodalModel, modality: str) -> MultimodalModel:
    """A copy of one modality's part of a model with late fusion."""
    fusion = Late({modality: model.encoders[modality].width}, 3).double()
    fusion.heads[modality].load_state_dict(model.fusion.heads[modality].state_dict())
    return MultimodalModel({modality: copy.deepcopy(model.encoders[modality])}, fusion)


@pytest.mark.parametrize("encoder", ["mlp", "conv1d", "conv"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_it_trains_the_weights_that_unimodal_training_on_the_same_batches_trains(
    make_world, encoder, kind
):
    world = make_world("late", 2, encoder)
    model = world.model.train()
    parts = {m: unimodal(model, m).train() for m in model.modalities}
    method, optimizer = Ensemble(world.task), kind(model.parameters(), lr=0.01)
    optimizers = {m: kind(part.parameters(), lr=0.01) for m, part in parts.items()}
    start = copy.deepcopy(model.state_dict())
    for _ in range(2):
        for batch in world.task.batches("train", None, 1):
            method.update(batch, optimizer)
            for m, part in parts.items():
                alone = Batch(
                    {m: batch.inputs[m]}, batch.present[:, :1], batch.labels, batch.sample
                )
                optimizers[m].zero_grad()
                F.cross_entropy(part(alone.inputs, alone.present), alone.labels).backward()
                optimizers[m].step()
    for m, part in parts.items():
        for key, weight in part.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], weight, atol=1e-9, rtol=1e-9)
            if key.endswith(("weight", "bias")):
                assert not torch.equal(weight, start[key])
        inputs = world.inputs["validation"]
        only = torch.tensor([[m == other for other in parts]] * 6)
        torch.testing.assert_close(
            model.eval()(inputs, only), part.eval()({m: inputs[m]}), atol=1e-9, rtol=1e-9
        )


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "late"])
def test_a_fusion_in_which_modalities_meet_is_refused(make_world, fusion):
    with pytest.raises(
        UsageError, match="^method 'ensemble' averages unimodal models: give fusion='late'$"
    ):
        Ensemble(make_world(fusion).task)

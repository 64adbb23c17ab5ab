"""G-Blending: losses weighted by how they generalise."""

import copy
import math
import shutil
from dataclasses import replace

import pytest
import torch

from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import UsageError
from mmcoop.methods.g_blending import GBlending, blend, branch_losses
from mmcoop.training.config import make_config
from mmcoop.training.train import train

# Lt₀, Lv₀ and Lt₁, Lv₁ of audio, visual and joint: METHODS.md, 3.4
BEFORE = torch.tensor([[1.9, 2.0, 2.0], [2.0, 2.0, 2.0]])
AFTER = torch.tensor([[0.9, 1.2, 0.5], [1.2, 1.6, 1.0]])


def test_weights_by_hand():
    found = blend(BEFORE, AFTER)
    assert found.tolist() == pytest.approx([0.754717, 0.094340, 0.150943], abs=1e-6)
    assert float(found.sum()) == pytest.approx(1)


def test_a_branch_whose_validation_loss_rises_gets_nothing():
    after = AFTER.clone()
    after[1, 0] = 2.3
    # 2.5 and 4 are left
    assert blend(BEFORE, after).tolist() == pytest.approx([0, 2.5 / 6.5, 4 / 6.5], abs=1e-6)


def test_where_nothing_was_learnt_all_weights_are_the_same():
    after = AFTER.clone()
    after[1] = 2.0
    assert blend(BEFORE, after).tolist() == pytest.approx([1 / 3] * 3)


def test_a_branch_that_did_not_overfit_at_all_has_a_weight_that_is_a_number():
    before, after = torch.full((2, 2), 2.0), torch.tensor([[1.0, 0.5], [1.0, 1.0]])
    found = blend(before, after)
    # 1 / 10⁻⁸ beside 1 / 0.25
    assert found.tolist() == pytest.approx([1, 4e-8], rel=1e-5)


def test_losses_that_are_no_numbers_give_the_same_weights():
    assert blend(BEFORE, torch.full((2, 3), torch.nan)).tolist() == pytest.approx([1 / 3] * 3)


# the losses


@pytest.mark.parametrize("fusion", ["concat", "late", "bilinear", "mmtm"])
@pytest.mark.parametrize("n", [2, 3])
def test_branches_are_the_modalities_and_last_the_joint_prediction(make_world, by_hand, fusion, n):
    world = make_world(fusion, n)
    method, batch = GBlending(world.task).double(), world.batch()
    features = world.model.encode(batch.inputs, batch.present)
    u = method.heads(features, batch.present)
    found = branch_losses(world.model, method.heads, batch)
    assert found.shape == (n + 1,)
    for m in range(n):
        torch.testing.assert_close(found[m], by_hand(u[:, m], batch.labels))
    joint = by_hand(world.model(batch.inputs), batch.labels)
    torch.testing.assert_close(found[n], joint)


@pytest.mark.parametrize("fusion", ["concat", "bilinear"])
def test_the_loss_is_the_weighted_sum_and_its_gradient_has_the_weights_fixed(
    make_world, by_hand, slopes, fusion
):
    world = make_world(fusion)
    method, batch = GBlending(world.task).double(), world.batch()
    weights = [0.7, 0.1, 0.2]
    method.weights.copy_(torch.tensor(weights))

    def plain():
        losses = branch_losses(world.model, method.heads, batch)
        return sum(w * loss for w, loss in zip(weights, losses, strict=True))

    loss = method.loss(batch)
    torch.testing.assert_close(loss, plain(), atol=1e-7, rtol=1e-7)
    loss.backward()
    for rise, said in slopes(plain, [*world.model.parameters(), *method.parameters()]):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)
    assert method.coefficients() == {
        "weight_m0": pytest.approx(0.7),
        "weight_m1": pytest.approx(0.1),
        "weight_joint": pytest.approx(0.2),
    }


# the estimate


def mean_losses(model, heads, world, by_hand) -> list[list[float]]:
    """Losses of all branches on training and validation samples, in evaluation mode."""
    model, heads = copy.deepcopy(model).eval(), copy.deepcopy(heads).eval()
    found = []
    for split in ("train", "validation"):
        batch = world.batch(split)
        features = model.encode(batch.inputs, batch.present)
        u = [*heads(features, batch.present).unbind(1), model.fuse(features, batch.present)]
        found.append([by_hand(x, batch.labels).item() for x in u])
    return found


@pytest.mark.parametrize(
    ("fusion", "n", "encoder", "epochs", "lr"),
    [
        ("concat", 2, "mlp", 2, 0.02),
        ("late", 3, "conv1d", 2, 0.02),
        ("gated", 2, "mlp", 2, 0.02),
        ("mmtm", 2, "conv", 8, 0.2),
    ],
)
def test_the_weights_are_those_of_training_a_copy_of_each_branch_alone(
    make_world, by_hand, fusion, n, encoder, epochs, lr
):
    world = make_world(fusion, n, encoder)
    world.lr = lr
    if fusion == "mmtm":  # it takes many samples to learn anything that holds for others
        world.inputs["validation"] = {m: x[:6] for m, x in world.inputs["train"].items()}
        world.labels["validation"] = world.labels["train"][:6]
    model = world.model.train()
    method = GBlending(world.task, estimate=epochs).double()
    weights = copy.deepcopy(model.state_dict()), copy.deepcopy(method.heads.state_dict())
    method.on_epoch_start(1)
    rows = method.epoch_samples(1)
    assert len(rows) == 10
    assert rows.present.all()
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, weights[0][key]), key
    for key, weight in method.heads.state_dict().items():
        assert torch.equal(weight, weights[1][key]), key
    assert all(module.training for module in model.modules())

    # the same, from the batches that were asked for to be trained on, in the order of the branches
    trained = [
        (rows, batches)
        for (split, rows, seed), batches in zip(world.asked, world.given, strict=True)
        if seed is not None
    ]
    assert len(trained) == epochs * (n + 1)
    before = mean_losses(model, method.heads, world, by_hand)
    ratios = []
    for branch in range(n + 1):
        m, h = copy.deepcopy(model), copy.deepcopy(method.heads)
        h.__dict__["fusion"] = m.fusion
        parameters = [*m.parameters(), *h.parameters()]
        for rows, batches in trained[epochs * branch : epochs * (branch + 1)]:
            assert sorted(rows.sample.tolist()) == list(range(10))
            members = [branch in (k, n) for k in range(n)]
            assert rows.present.tolist() == [members] * 10
            for batch in batches:
                features = m.encode(batch.inputs, batch.present)
                if branch == n:
                    logits = m.fuse(features, batch.present)
                else:
                    logits = h(features, batch.present)[:, branch]
                loss = by_hand(logits, batch.labels)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                with torch.no_grad():
                    for p, gradient in zip(parameters, gradients, strict=True):
                        p -= lr * (0 if gradient is None else gradient)
        after = mean_losses(m, h, world, by_hand)
        (t0, v0), (t1, v1) = ((x[0][branch], x[1][branch]) for x in (before, after))
        ratios.append(max(v0 - v1, 0) / (((v1 - t1) - (v0 - t0)) ** 2 + 1e-8))
    assert sum(ratio > 0 for ratio in ratios) >= 2
    expected = [ratio / sum(ratios) for ratio in ratios]
    assert method.weights.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_the_copies_are_trained_on_batches_in_new_orders_with_the_training_transform(make_world):
    world = make_world()
    GBlending(world.task, estimate=3).on_epoch_start(1)
    trained = [(rows, seed) for _, rows, seed in world.asked if seed is not None]
    assert len(trained) == 9
    assert len({seed for _, seed in trained}) == 9
    assert len({tuple(rows.sample.tolist()) for rows, _ in trained}) >= 8


def test_test_samples_are_never_asked_for(make_world):
    world = make_world()
    GBlending(world.task, estimate=2).on_epoch_start(1)
    asked = [(split, seed is not None) for split, _, seed in world.asked]
    look = [("train", False), ("validation", False)]
    assert asked == look + 3 * ([("train", True)] * 2 + look)


@pytest.mark.parametrize(
    ("every", "estimated"), [(0, [1]), (1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [1, 4])]
)
def test_the_weights_are_estimated_before_training_and_anew_so_often(make_world, every, estimated):
    world = make_world()
    method = GBlending(world.task, estimate=1, every=every)
    found = []
    for epoch in range(1, 6):
        world.asked.clear()
        method.on_epoch_start(epoch)
        if world.asked:
            found.append(epoch)
    assert found == estimated
    assert set(method.state_dict()) == {"weights"}


def test_a_later_estimate_starts_from_the_weights_of_the_time(make_world):
    world = make_world()
    method = GBlending(world.task, estimate=1, every=1)
    method.on_epoch_start(1)
    first = method.weights.clone()
    for batch in world.task.batches("train", None, 0):
        method.update(batch, torch.optim.SGD(world.model.parameters(), lr=0.3))
    method.on_epoch_start(2)
    assert not torch.allclose(method.weights, first)


def test_the_estimate_is_decided_by_the_seed(make_world):
    found = []
    for seed in (0, 0, 1):
        world = make_world()
        method = GBlending(replace(world.task, seed=seed), estimate=1)
        method.on_epoch_start(1)
        found.append((method.weights.tolist(), [s for _, _, s in world.asked]))
    assert found[0] == found[1]
    assert found[0] != found[2]


# in a run


def config_of(**changes):
    settings = {"method": "g-blending", "epochs": 3, "batch_size": 16, "lr": 1e-2, "warmup": 0}
    return make_config(settings, changes)


def test_the_estimates_rows_are_counted_as_cost(senses, tmp_path):
    config = config_of(options={"estimate": 2, "every": 2})
    metrics = train(tmp_path / "run", senses, config).metrics
    assert metrics["rows"].tolist() == [50] * 3
    # two branches of 50 rows of one modality, one of 50 rows of two; two epochs each
    estimate = 2 * (50 + 50 + 2 * 50)
    assert metrics["rows_encoded"].tolist() == [100 + estimate, 100, 100 + estimate]
    # 50 training and 12 validation samples of two modalities, once before and after each branch
    looks = 4 * (50 + 12) * 2
    assert metrics["rows_valued"].tolist() == [looks, 0, looks]
    assert (metrics.filter(like="method_weight_").sum(axis=1) - 1).abs().max() < 1e-6
    assert list(metrics.filter(like="method_")) == [
        "method_weight_ear",
        "method_weight_eye",
        "method_weight_joint",
    ]


def test_the_test_split_is_not_read(senses, tmp_path):
    folder = shutil.copytree(senses.folder, tmp_path / "data")
    (shard,) = folder.glob("test-*.arrow")
    config = config_of(epochs=1, options={"estimate": 1})
    expected = train(tmp_path / "whole", open_dataset(folder), config).weights_hash
    dataset = open_dataset(folder)
    shard.write_bytes(b"")
    assert train(tmp_path / "harmed", dataset, config).weights_hash == expected


# defaults and refusals


def test_the_defaults_are_those_of_the_documents(make_world):
    method = GBlending(make_world().task)
    assert (method.estimate, method.every) == (10, 0)
    assert method.weights.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(("estimate", "every"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_of_epochs_that_cannot_be_meant_are_refused(make_world, estimate, every):
    with pytest.raises(
        UsageError, match=f"^estimate {estimate}, every {every}: at least 1 and at least 0$"
    ):
        GBlending(make_world().task, estimate=estimate, every=every)


def test_a_fusion_without_vectors_and_unimodal_logits_is_refused(make_world):
    with pytest.raises(UsageError, match="^method 'g-blending' needs feature vectors or unimodal"):
        GBlending(make_world("bottleneck").task)
    assert math.isfinite(float(GBlending(make_world("mmtm").task).weights.sum()))

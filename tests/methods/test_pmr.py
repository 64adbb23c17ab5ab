"""PMR: modalities that are behind are pulled to the prototypes of their classes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.resampling import TrainingExamples
from mmcoop.errors import UsageError
from mmcoop.methods.pmr import PMR, class_means, similarity, strengths

LEGAL = [name for name in FUSIONS if name not in ("bottleneck", "mmtm", "mmtm-2x")]

# METHODS.md, 3.3
PROTOTYPES = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
KNOWN = torch.tensor([True, True])


def test_similarities_by_hand():
    z = torch.tensor([[1.0, 0.0], [1.5, 2.0]])
    found = similarity(z, PROTOTYPES, KNOWN)
    assert found[0].tolist() == pytest.approx([-1, -4.472136], abs=1e-6)
    assert found[1].tolist() == pytest.approx([-2.5, -2.5], abs=1e-6)
    scores = found.softmax(1)[:, 0]
    assert scores.tolist() == pytest.approx([0.969884, 0.5], abs=1e-6)


def test_at_a_prototype_the_gradient_is_a_number():
    z = PROTOTYPES.clone().requires_grad_()
    found = similarity(z, PROTOTYPES, KNOWN)
    assert found[0, 0].item() == pytest.approx(0, abs=2e-6)
    found.sum().backward()
    assert z.grad.isfinite().all()


def test_a_class_without_a_prototype_has_no_share_of_the_probability():
    z = torch.tensor([[1.0, 0.0]], requires_grad=True)
    found = similarity(z, PROTOTYPES, torch.tensor([True, False]))
    assert found.tolist() == [[pytest.approx(-1), -math.inf]]
    assert found.softmax(1).tolist() == [[1, 0]]
    found[0, 0].backward()
    assert z.grad.isfinite().all()


def test_strengths_by_hand():
    s = torch.tensor([0.969884, 0.5])
    assert strengths(s, "clip").tolist() == pytest.approx([0, 0.939768], abs=1e-6)
    assert strengths(s, "switch").tolist() == [0, 1]
    assert strengths(s.flip(0), "clip").tolist() == pytest.approx([0.939768, 0], abs=1e-6)
    assert strengths(s.flip(0), "switch").tolist() == [1, 0]


def test_of_three_all_but_the_best_count_at_most_1():
    s = torch.tensor([6.0, 5.0, 1.0])
    assert strengths(s, "clip").tolist() == pytest.approx([0, 0.2, 1])
    assert strengths(s, "switch").tolist() == [0, 1, 1]


@pytest.mark.parametrize("rule", ["clip", "switch"])
@pytest.mark.parametrize(
    ("s", "expected"), [((2.0, 2.0), [0, 0]), ((3.0, 0.0), [0, 1]), ((0.0, 0.0), [0, 0])]
)
def test_ties_and_scores_of_nothing_have_strengths_too(rule, s, expected):
    assert strengths(torch.tensor(s), rule).tolist() == expected


def test_class_means_are_plain_means_of_all_batches_and_0_for_a_class_without_a_sample():
    features = [torch.randn(3, 2), torch.randn(4, 2)]
    labels = torch.tensor([0, 3, 0, 1, 3, 3, 0])
    found = class_means(features, labels, 4)
    rows = torch.cat(features).tolist()
    for k in range(4):
        mine = [row for row, y in zip(rows, labels.tolist(), strict=True) if y == k]
        for d in range(2):
            expected = sum(row[d] for row in mine) / len(mine) if mine else 0.0
            assert float(found[k, d]) == pytest.approx(expected, abs=1e-6)


# in training


@pytest.mark.parametrize(("rule", "added"), [("switch", 0.693147), ("clip", 0.651398)])
def test_the_loss_by_hand(world_of_features, by_hand, rule, added):
    # one sample of each class is the prototype, at (0, 0) and (3, 4); the third has none
    corners = [[0.0, 0.0], [3.0, 4.0]]
    world = world_of_features({"a": corners, "v": corners}, [0, 1])
    method = PMR(world.task, rule=rule, fraction=1.0)
    method.on_epoch_start(1)
    assert method.known.tolist() == [True, True, False]
    world.inputs["train"] = {
        "a": torch.tensor([[1.0, 0.0]]).double(),
        "v": torch.tensor([[1.5, 2.0]]).double(),
    }
    world.labels["train"] = torch.tensor([0])
    batch = world.batch()
    joint = by_hand(world.model(batch.inputs), batch.labels)
    assert (method.loss(batch) - joint).item() == pytest.approx(added, abs=1e-6)
    strength = 1 if rule == "switch" else 0.939768
    assert method.coefficients() == {
        "strength_a": 0,
        "strength_v": pytest.approx(strength, abs=1e-5),
    }


def test_new_prototypes_are_averaged_with_the_old_ones_by_the_momentum(world_of_features):
    # METHODS.md, 3.3: momentum .2, old (1, 1), new (2, 0) → (1.8, .2)
    world = world_of_features({"a": [[1.0, 1.0]], "v": [[5.0]]}, [0])
    method = PMR(world.task, fraction=1.0)
    method.on_epoch_start(1)
    # the first ones are taken as they are
    assert method.prototypes_a[0].tolist() == [1, 1]
    assert method.prototypes_v[0].tolist() == [5]
    world.inputs["train"]["a"] = torch.tensor([[2.0, 0.0]]).double()
    method.on_epoch_start(2)
    assert method.prototypes_a[0].tolist() == pytest.approx([1.8, 0.2])
    assert method.prototypes_v[0].tolist() == pytest.approx([5])
    assert set(method.state_dict()) == {"prototypes_a", "prototypes_v", "known"}


def test_a_class_without_a_sample_keeps_its_prototype(world_of_features):
    world = world_of_features({"a": [[1.0], [3.0]], "v": [[1.0], [3.0]]}, [0, 1])
    method = PMR(world.task, fraction=1.0, momentum=0.5)
    method.on_epoch_start(1)
    world.labels["train"] = torch.tensor([0, 2])
    method.on_epoch_start(2)
    assert method.known.tolist() == [True, True, True]
    # class 1 is not among the samples of the second epoch, and class 2 is new
    assert method.prototypes_a.flatten().tolist() == [1, 3, 3]
    world.labels["train"] = torch.tensor([1, 1])
    method.on_epoch_start(3)
    assert method.prototypes_a.flatten().tolist() == [1, 2.5, 3]


def test_samples_of_a_class_without_a_prototype_are_left_out_of_the_prototype_loss(
    world_of_features, by_hand
):
    world = world_of_features(
        {"a": [[0.0], [3.0]], "v": [[0.0], [0.5]]},
        [0, 1],
    )
    method = PMR(world.task, fraction=1.0)
    method.on_epoch_start(1)
    world.inputs["train"] = {m: torch.tensor([[0.2], [2.0], [9.0]]).double() for m in "av"}
    world.labels["train"] = torch.tensor([0, 1, 2])
    batch = world.batch()
    loss = method.loss(batch)
    assert loss.isfinite()
    sims = {
        "a": torch.tensor([[-0.2, -2.8], [-2.0, -1.0]]).double(),
        "v": torch.tensor([[-0.2, -0.3], [-2.0, -1.5]]).double(),
    }
    labels = torch.tensor([0, 1])
    s = {m: float(x.softmax(1)[[0, 1], labels].sum()) for m, x in sims.items()}
    assert s["a"] > s["v"]
    expected = by_hand(world.model(batch.inputs), batch.labels) + min(
        s["a"] / s["v"] - 1, 1
    ) * by_hand(sims["v"], labels)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in world.model.parameters())


def test_a_batch_of_classes_without_prototypes_has_the_joint_loss(world_of_features, by_hand):
    world = world_of_features({"a": [[0.0], [3.0]], "v": [[0.0], [0.5]]}, [0, 1])
    method = PMR(world.task, fraction=1.0)
    method.on_epoch_start(1)
    world.labels["train"] = torch.tensor([2, 2])
    batch = world.batch()
    joint = by_hand(world.model(batch.inputs), batch.labels)
    torch.testing.assert_close(method.loss(batch), joint)
    assert method.coefficients() == {"strength_a": 0, "strength_v": 0}


@pytest.mark.parametrize("fusion", LEGAL)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("rule", ["clip", "switch"])
def test_gradients_are_those_of_the_joint_loss_and_the_prototype_losses(
    make_world, by_hand, slopes, fusion, n, rule
):
    world = make_world(fusion, n)
    method = PMR(world.task, alpha=0.6, fraction=1.0, rule=rule).double()
    method.on_epoch_start(1)
    batch = world.batch()
    labels = batch.labels.tolist()

    def sims() -> list[torch.Tensor]:
        features = world.model.encode(batch.inputs, batch.present)
        return [
            torch.stack(
                [
                    torch.stack([-torch.linalg.vector_norm(z - c) for c in prototypes])
                    for z in features[m]
                ]
            )
            for m in world.model.modalities
            for prototypes in [getattr(method, f"prototypes_{m}")]
        ]

    s = [sum(x.softmax(1)[i, y].item() for i, y in enumerate(labels)) for x in sims()]
    weights = [min(max(s) / x - 1, 1) if rule == "clip" else float(x < max(s)) for x in s]
    assert sorted(weights)[0] == 0
    assert sorted(weights)[1] > 1e-3

    def plain() -> torch.Tensor:
        """The loss with the strengths as they are now."""
        pulls = sum(w * by_hand(x, batch.labels) for w, x in zip(weights, sims(), strict=True))
        return by_hand(world.model(batch.inputs), batch.labels) + 0.6 * pulls

    loss = method.loss(batch)
    torch.testing.assert_close(loss, plain(), atol=1e-9, rtol=1e-9)
    loss.backward()
    for rise, said in slopes(plain, world.model.parameters()):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)


# prototypes: of what, and when


@pytest.mark.parametrize(
    ("n_samples", "fraction", "size"), [(10, 0.1, 1), (10, 0.35, 4), (3, 1.0, 3)]
)
def test_prototypes_come_from_a_part_of_the_training_samples_in_the_evaluation_transform(
    make_world, n_samples, fraction, size
):
    world = make_world()
    PMR(replace(world.task, n_samples=n_samples), fraction=fraction).on_epoch_start(1)
    ((split, rows, seed),) = world.asked
    assert (split, seed) == ("train", None)
    assert len(rows) == len(set(rows.sample.tolist())) == size
    assert rows.sample.tolist() == sorted(rows.sample.tolist())
    assert 0 <= rows.sample.min() <= rows.sample.max() < n_samples
    assert rows.present.all()


def test_every_epoch_takes_another_part_and_a_seed_the_same(make_world):
    taken = {}
    for seed in (0, 1):
        world = make_world()
        method = PMR(replace(world.task, seed=seed), fraction=0.5)
        for epoch in (1, 2, 1):
            method.on_epoch_start(epoch)
        parts = [tuple(rows.sample.tolist()) for _, rows, _ in world.asked]
        assert parts[0] == parts[2]
        taken[seed] = parts[:2]
    assert len({*taken[0], *taken[1]}) == 4


def test_prototypes_are_the_mean_features_of_each_class_in_evaluation_mode(make_world):
    world = make_world("concat", 2, "conv1d")  # with batch normalisation
    model = world.model.train()
    statistics = {k: b.clone() for k, b in model.named_buffers()}
    method = PMR(world.task, fraction=0.8).double()
    method.on_epoch_start(1)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(b, statistics[k]) for k, b in model.named_buffers())
    chosen = world.asked[0][1].sample
    labels = world.labels["train"][chosen]
    model.eval()
    for m in model.modalities:
        z = model.encoders[m](world.inputs["train"][m][chosen])
        for k in range(3):
            expected = z[labels == k].mean(0)
            torch.testing.assert_close(getattr(method, f"prototypes_{m}")[k], expected)
    assert not any(p.requires_grad for p in method.buffers())


@pytest.mark.parametrize(("options", "epoch"), [({"until": 2}, 3), ({"alpha": 0.0}, 1)])
def test_without_strength_or_after_its_last_epoch_it_is_joint_training(
    make_world, by_hand, options, epoch
):
    world = make_world()
    method = PMR(world.task, **options, fraction=1.0)
    method.on_epoch_start(epoch)
    rows = method.epoch_samples(epoch)
    assert torch.equal(rows.sample, torch.arange(10))
    assert world.asked == []
    batch = world.batch()
    joint = by_hand(world.model(batch.inputs), batch.labels)
    torch.testing.assert_close(method.loss(batch), joint)
    assert method.coefficients() == {"strength_m0": 0, "strength_m1": 0}


def test_until_its_last_epoch_it_renews_the_prototypes_before_each(make_world):
    world = make_world()
    method = PMR(world.task, until=2)
    for epoch in (1, 2, 3):
        method.on_epoch_start(epoch)
        assert isinstance(method.epoch_samples(epoch), TrainingExamples)
    assert len(world.asked) == 2


def test_its_coefficients_are_means_over_the_batches_of_an_epoch(make_world):
    world = make_world()
    method = PMR(world.task, fraction=1.0)
    batches = list(world.task.batches("train", None, 0))
    method.on_epoch_start(1)
    each = []
    for batch in batches:
        once = PMR(world.task, fraction=1.0)
        once.on_epoch_start(1)
        once.loss(batch)
        each.append(once.coefficients())
        method.loss(batch)
    assert len({k["strength_m1"] for k in each}) > 1
    for name in ("strength_m0", "strength_m1"):
        mean = sum(k[name] for k in each) / 3
        assert method.coefficients()[name] == pytest.approx(mean, abs=1e-6)
    method.on_epoch_start(2)
    method.loss(batches[0])
    assert method.coefficients()["strength_m1"] != pytest.approx(mean)


# defaults and refusals


def test_the_defaults_are_those_of_the_documents(make_world):
    method = PMR(make_world().task)
    assert (method.alpha, method.momentum, method.fraction) == (1.0, 0.2, 0.1)
    assert (method.rule, method.until) == ("clip", 101)
    assert isinstance(method, nn.Module)


@pytest.mark.parametrize("fusion", ["bottleneck", "mmtm", "mmtm-2x"])
def test_a_fusion_that_takes_no_vectors_is_refused(make_world, fusion):
    world = make_world(fusion)
    with pytest.raises(UsageError) as error:
        PMR(world.task)
    assert str(error.value) == (
        "method 'pmr' needs feature vectors, which fusion "
        f"{type(world.model.fusion).__name__} does not take: choose another fusion"
    )


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_an_alpha_that_cannot_be_meant_is_refused(make_world, alpha):
    with pytest.raises(
        UsageError, match=f"^alpha is {alpha}: it must be a number that is not negative$"
    ):
        PMR(make_world().task, alpha=alpha)


@pytest.mark.parametrize(
    ("momentum", "fraction"), [(-0.1, 0.5), (1.0, 0.5), (math.nan, 0.5), (0.2, 0.0), (0.2, 1.1)]
)
def test_a_momentum_or_fraction_that_cannot_be_meant_is_refused(make_world, momentum, fraction):
    with pytest.raises(UsageError) as error:
        PMR(make_world().task, momentum=momentum, fraction=fraction)
    assert str(error.value) == (
        f"momentum {momentum}, fraction {fraction}: momentum is in [0, 1), fraction in (0, 1]"
    )


def test_an_unknown_rule_is_refused_with_the_legal_ones(make_world):
    with pytest.raises(UsageError, match="^unknown rule 'dice': choose one of clip, switch$"):
        PMR(make_world().task, rule="dice")

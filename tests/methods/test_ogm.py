"""OGM and OGM-GE: gradients of the encoder that is ahead are scaled down."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.models.fusions.concat import Concat
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import UsageError
from mmcoop.methods.ogm import OGM, OGMGE, discrepancy, modulation

# METHODS.md, 3.1
S_BY_HAND = torch.tensor([1.761594, 0.768941])


def test_discrepancies_of_two_by_hand():
    assert discrepancy(S_BY_HAND).tolist() == pytest.approx([2.290934, 1 / 2.290934], rel=1e-6)


def test_discrepancies_of_three_are_to_the_mean_of_the_others():
    found = discrepancy(torch.tensor([6.0, 3.0, 1.0]))
    assert found.tolist() == pytest.approx([3, 6 / 7, 2 / 9], rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "factor"), [(0.0, 1.0), (0.1, 0.774832), (0.3, 0.403768), (0.5, 0.183753)]
)
def test_factors_by_hand(alpha, factor):
    assert modulation(S_BY_HAND, alpha).tolist() == pytest.approx([factor, 1], abs=1e-6)
    assert modulation(S_BY_HAND.flip(0), alpha).tolist() == pytest.approx([1, factor], abs=1e-6)


def test_of_three_only_those_above_the_mean_of_the_others_are_scaled():
    found = modulation(torch.tensor([6.0, 3.0, 1.0]), 0.3)
    assert found.tolist() == pytest.approx([1 - math.tanh(0.9), 1, 1], abs=1e-6)
    found = modulation(torch.tensor([5.0, 5.0, 2.0]), 0.3)
    ahead = 1 - math.tanh(0.3 * 5 / 3.5)
    assert found.tolist() == pytest.approx([ahead, ahead, 1], abs=1e-6)


def test_on_a_tie_nothing_is_scaled():
    assert modulation(torch.tensor([2.5, 2.5]), 0.3).tolist() == [1, 1]


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("s", [(5.0, 0.0), (0.0, 0.0), (64.0, 1e-12)])
def test_scores_of_nothing_give_factors_that_are_numbers(alpha, s):
    found = modulation(torch.tensor(s), alpha)
    assert found.tolist() == [1 if alpha == 0 or s[0] == 0 else 0, 1]


# in training

LEGAL = ["concat", "sum", "late", "mmtm", "mmtm-2x"]


def factors_by_hand(world, batch, alpha: float) -> dict[str, float]:
    """k_m from the softmax of what each modality says by itself, sample by sample."""
    model = world.model
    features = model.encode(batch.inputs, batch.present)
    u = model.fusion.unimodal_logits(features, batch.present)
    s = []
    for m in range(len(model.modalities)):
        s.append(0.0)
        for row, y in zip(u[:, m], batch.labels.tolist(), strict=True):
            odds = [math.exp(x) for x in row.tolist()]
            s[m] += odds[y] / sum(odds)
    k = {}
    for m, name in enumerate(model.modalities):
        others = [x for j, x in enumerate(s) if j != m]
        rho = s[m] / (sum(others) / len(others))
        k[name] = 1 - math.tanh(alpha * rho) if rho > 1 else 1.0
    return k


def of_encoder(name: str) -> str | None:
    """The modality whose encoder a parameter belongs to, later stages too; None of the rest."""
    parts = name.split(".")
    if parts[0] == "encoders":
        return parts[1]
    return parts[2] if parts[:2] == ["fusion", "late"] else None


@pytest.mark.parametrize("fusion", LEGAL)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("encoder", ["mlp", "conv1d"])
def test_gradients_are_those_of_joint_training_times_k_on_weights_of_encoders(
    make_world, fusion, n, encoder
):
    world = make_world(fusion, n, encoder)
    method, batch = OGM(world.task, alpha=0.4), world.batch()
    k = factors_by_hand(world, batch, 0.4)
    assert min(k.values()) < 0.9
    assert max(k.values()) == 1
    model = world.model
    plain = F.cross_entropy(model(batch.inputs, batch.present), batch.labels)
    expected = torch.autograd.grad(plain, list(model.parameters()))
    method.on_epoch_start(1)
    loss = method.loss(batch)
    torch.testing.assert_close(loss, plain)
    loss.backward()
    method.after_backward(batch)
    scaled = set()
    for (name, p), gradient in zip(model.named_parameters(), expected, strict=True):
        modality = of_encoder(name) if p.dim() >= 2 else None
        torch.testing.assert_close(p.grad, gradient * k.get(modality, 1.0))
        scaled.add(modality)
    assert scaled == {None, *model.modalities}
    assert method.coefficients() == {
        f"k_{m}": pytest.approx(factor, abs=1e-6) for m, factor in k.items()
    }


@pytest.mark.parametrize("kind", [OGM, OGMGE])
def test_one_update_with_sgd_is_one_step_down_the_scaled_gradient(make_world, kind):
    world = make_world()
    method = kind(world.task, **({"noise": 0.0} if kind is OGMGE else {}))
    batch, model = world.batch(), world.model
    k = factors_by_hand(world, batch, 0.3)
    loss = F.cross_entropy(model(batch.inputs, batch.present), batch.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    method.on_epoch_start(1)
    method.update(batch, torch.optim.SGD(model.parameters(), lr=0.1))
    for (name, p), start, gradient in zip(model.named_parameters(), before, gradients, strict=True):
        factor = k[of_encoder(name)] if of_encoder(name) and p.dim() >= 2 else 1.0
        torch.testing.assert_close(p.detach(), start - 0.1 * factor * gradient)


def test_weights_without_a_gradient_are_left_alone(make_world):
    world = make_world()
    frozen = world.model.encoders["m0"].layers[0].weight.requires_grad_(False)
    method, batch = OGMGE(world.task), world.batch()
    method.on_epoch_start(1)
    method.update(batch, torch.optim.SGD(world.model.parameters(), lr=0.1))
    assert frozen.grad is None


@pytest.mark.parametrize(("epoch", "active"), [(1, True), (3, True), (4, False), (9, False)])
def test_after_its_last_epoch_it_is_joint_training(make_world, random_rows, epoch, active):
    world = make_world()
    method, batch = OGMGE(world.task, until=3), world.batch()
    method.on_epoch_start(epoch)
    method.loss(batch).backward()
    before = [p.grad.clone() for p in world.model.parameters()]
    method.after_backward(batch)
    same = [
        torch.equal(p.grad, old) for p, old in zip(world.model.parameters(), before, strict=True)
    ]
    assert all(same) != active
    assert (method.coefficients() == {"k_m0": 1.0, "k_m1": 1.0}) != active


def test_its_coefficients_are_means_over_the_batches_of_an_epoch(make_world):
    world = make_world()
    method = OGM(world.task)
    batches = list(world.task.batches("train", None, 0))
    for epoch in (1, 2):
        method.on_epoch_start(epoch)
        for batch in batches[epoch - 1 :]:
            method.loss(batch).backward()
            method.after_backward(batch)
        expected = [factors_by_hand(world, batch, 0.3) for batch in batches[epoch - 1 :]]
        assert method.coefficients() == {
            f"k_{m}": pytest.approx(sum(k[m] for k in expected) / len(expected))
            for m in ("m0", "m1")
        }


# noise


def after_noise(world, noise: float, **options) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Gradients of zero mean before and after, by parameter of the encoders."""
    method, batch = OGMGE(world.task, noise=noise, **options), world.batch()
    method.on_epoch_start(1)
    method.loss(batch).backward()
    chance = torch.Generator().manual_seed(5)
    before = {}
    for k, (name, p) in enumerate(world.model.named_parameters()):
        g = torch.randn(p.shape, generator=chance, dtype=torch.float64) * (k + 1)
        p.grad = g - g.mean() if p.dim() >= 2 else g
        before[name] = p.grad.clone()
    method.after_backward(batch)
    return {n: (before[n], p.grad) for n, p in world.model.named_parameters()}


def test_the_noise_has_the_deviation_of_the_gradient_before_it_is_scaled(make_world, random_rows):
    world = make_world()
    k = factors_by_hand(world, world.batch(), 0.3)
    noises = {}
    for name, (before, after) in after_noise(world, 1.0).items():
        modality = of_encoder(name)
        if modality is None or before.dim() < 2:
            assert torch.equal(after, before)
        elif before.numel() == 128 * 128:
            noise = after - k[modality] * before
            # 16,384 numbers: four standard errors are 2.2 % of the deviation, 3.1 % of the mean
            assert float(noise.std() / before.std()) == pytest.approx(1, abs=0.022)
            assert abs(float(noise.mean() / before.std())) < 0.031
            assert abs(float((noise * before).mean() / before.var())) < 0.031
            ratio = float(after.std() / before.std())
            assert ratio == pytest.approx(math.sqrt(1 + k[modality] ** 2), abs=0.03)
            noises[modality] = noise / noise.std()
        else:
            assert not torch.equal(after, k[modality] * before)
    # both encoders get noise, the one that is not ahead too, and not the same
    assert len(noises) == 2
    assert abs(float((noises["m0"] * noises["m1"]).mean())) < 0.04
    assert sorted(k.values())[1] == 1


def test_noise_is_as_strong_as_asked_for(make_world, random_rows):
    world = make_world()
    k = factors_by_hand(world, world.batch(), 0.3)
    name = "encoders.m0.layers.3.weight"
    before, after = after_noise(world, 0.25)[name]
    noise = after - k["m0"] * before
    assert float(noise.std() / before.std()) == pytest.approx(0.25, rel=0.022)
    before, after = after_noise(world, 0.0)[name]
    torch.testing.assert_close(after, k["m0"] * before)


def test_the_deviation_of_the_noise_is_that_of_a_sample(world_of_features, random_rows):
    """Of two numbers it is √2 of that of a population."""
    world = world_of_features({"a": [[1.0], [2.0]], "b": [[0.5], [1.0]]}, [0, 1])
    method, batch = OGMGE(world.task, alpha=0.0), world.batch()
    gradient = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    found = []
    for encoder in world.model.encoders.values():
        encoder.pair = nn.Parameter(torch.zeros_like(gradient))
    method.on_epoch_start(1)
    method.loss(batch)
    torch.manual_seed(0)
    for _ in range(400):
        for encoder in world.model.encoders.values():
            encoder.pair.grad = gradient
        method.after_backward(batch)
        found += [encoder.pair.grad - gradient for encoder in world.model.encoders.values()]
    # 1,600 numbers: three standard errors are 5.3 %
    assert float(torch.cat(found).square().mean().sqrt()) == pytest.approx(2**0.5, rel=0.053)


def test_a_gradient_of_one_element_gets_no_noise(world_of_features, random_rows):
    world = world_of_features({"a": [[1.0], [2.0]], "b": [[0.5], [1.0]]}, [0, 1])
    for encoder in world.model.encoders.values():
        encoder.scale = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    method, batch = OGMGE(world.task, alpha=0.0), world.batch()
    method.on_epoch_start(1)
    method.loss(batch).backward()
    before = {m: e.scale.grad.clone() for m, e in world.model.encoders.items()}
    method.after_backward(batch)
    for m, encoder in world.model.encoders.items():
        torch.testing.assert_close(encoder.scale.grad, before[m], atol=1e-6, rtol=0)


def test_the_noise_is_decided_by_torchs_generator(make_world):
    found = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found.append(after_noise(make_world(), 1.0)["encoders.m1.layers.0.weight"][1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


# defaults and refusals


def test_the_defaults_are_those_of_the_documents(make_world):
    method = OGMGE(make_world().task)
    assert (method.alpha, method.until, method.noise) == (0.3, 51, 1.0)
    assert OGM(make_world().task).noise == 0


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name not in LEGAL])
@pytest.mark.parametrize(("kind", "name"), [(OGM, "ogm"), (OGMGE, "ogm-ge")])
def test_a_fusion_without_unimodal_logits_is_refused(make_world, fusion, kind, name):
    world = make_world(fusion)
    with pytest.raises(UsageError) as error:
        kind(world.task)
    assert str(error.value) == (
        f"method '{name}' needs a fusion with unimodal logits, as concat, sum, late and mmtm have: "
        f"choose another fusion than {type(world.model.fusion).__name__}"
    )


@pytest.mark.parametrize(("kind", "name"), [(OGM, "ogm"), (OGMGE, "ogm-ge")])
def test_one_modality_is_refused(make_world, kind, name):
    with pytest.raises(UsageError, match=f"^method '{name}' needs two modalities or more$"):
        kind(make_world(n=1).task)


@pytest.mark.parametrize("number", [-0.1, math.nan, math.inf])
def test_numbers_that_cannot_be_meant_are_refused(make_world, number):
    task = make_world().task
    message = f" is {number}: it must be a number that is not negative$"
    with pytest.raises(UsageError, match=f"^alpha{message}"):
        OGM(task, alpha=number)
    with pytest.raises(UsageError, match=f"^alpha{message}"):
        OGMGE(task, alpha=number)
    with pytest.raises(UsageError, match=f"^noise{message}"):
        OGMGE(task, noise=number)


def test_the_models_own_names_do_not_matter(make_world):
    # parameters are taken from the encoders, not picked by a word in their names
    world = make_world(n=2)
    renamed = MultimodalModel(
        dict(zip(("audio", "visual_audio"), world.model.encoders.values(), strict=True)),
        Concat({"audio": 128, "visual_audio": 128}, 3).double(),
    )
    method = OGM(replace(world.task, model=renamed))
    groups = {m: {id(p) for p in method.encoder_parameters(m)} for m in renamed.modalities}
    assert all(len(ids) == 8 for ids in groups.values())
    assert not groups["audio"] & groups["visual_audio"]

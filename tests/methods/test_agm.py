"""AGM: the gradient of each modality's share of the logits is scaled."""

import itertools
import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import UsageError
from mmcoop.methods.agm import AGM, ratio, shares

# METHODS.md, 3.5: f(a), f(v), f(av); label 0
F_BY_HAND = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])


def test_shares_of_two_by_hand():
    assert shares(F_BY_HAND).tolist() == [[[1.5, -0.5], [-0.5, 0.5]]]


def test_shares_of_three_are_those_of_the_formula():
    f = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, v, av, t, at, vt, avt = f.unbind(1)
    q = shares(f)
    torch.testing.assert_close(q[:, 0], (avt - vt + a) / 3 + (at - t + av - v) / 6)
    torch.testing.assert_close(q[:, 1], (avt - at + v) / 3 + (vt - t + av - a) / 6)
    torch.testing.assert_close(q[:, 2], (avt - av + t) / 3 + (at - a + vt - v) / 6)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_shares_sum_to_the_joint_logits_and_are_means_over_orders_of_arrival(n):
    f = torch.randn(3, 2**n - 1, 2, generator=torch.Generator().manual_seed(n)).double()
    q = shares(f)
    torch.testing.assert_close(q.sum(1), f[:, -1])
    expected = torch.zeros_like(q)
    for order in itertools.permutations(range(n)):
        there, before = 0, torch.zeros_like(f[:, 0])
        for m in order:
            there |= 1 << m
            expected[:, m] += (f[:, there - 1] - before) / math.factorial(n)
            before = f[:, there - 1]
    torch.testing.assert_close(q, expected)


def test_ratios_by_hand():
    found = ratio(torch.tensor([0.126928, 1.313262]))
    assert found.tolist() == pytest.approx([3.275052, 0.305339], rel=1e-5)
    found = ratio(torch.tensor([0.2, 0.5, 1.1]))
    assert found.tolist() == pytest.approx([1.822119, 1.161834, 0.472367], rel=1e-5)


def test_factors_by_hand_slow_the_modality_that_is_ahead(make_world):
    method = AGM(make_world().task)
    kappa = method.kappa(shares(F_BY_HAND), torch.tensor([0]))
    assert kappa.tolist() == pytest.approx([0.102792, 2.003031], rel=1e-5)


def cross_entropies(q: Tensor, labels: Tensor) -> list[float]:
    """c_m, with the probability floored, by plain loops."""
    found = []
    for m in range(q.shape[1]):
        total = 0.0
        for row, y in zip(q[:, m].tolist(), labels.tolist(), strict=True):
            p = math.exp(row[y]) / sum(math.exp(x) for x in row)
            total -= math.log(max(p, 1e-8))
        found.append(total / len(labels))
    return found


def ratios(c: list[float]) -> list[float]:
    n = len(c)
    return [math.exp(sum(c[j] - c[m] for j in range(n) if j != m) / (n - 1)) for m in range(n)]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(("alpha", "cap"), [(1.0, 10.0), (0.4, 10.0), (1.0, 0.1), (1.0, math.inf)])
def test_a_modality_is_compared_with_how_far_ahead_it_usually_is(make_world, n, alpha, cap):
    method = AGM(make_world(n=n).task, alpha=alpha, cap=cap)
    chance = torch.Generator().manual_seed(n)
    history: list[list[float]] = []
    capped = 0
    for _ in range(6):
        q = torch.randn(5, n, 3, generator=chance).double()
        labels = torch.randint(3, (5,), generator=chance)
        c = cross_entropies(q, labels)
        # the mean of all batches before this one; nothing is usual at first
        usual = [sum(x) / len(history) for x in zip(*history, strict=True)] if history else [0] * n
        gaps = [tau - r for tau, r in zip(ratios(usual), ratios(c), strict=True)]
        capped += sum(gap > cap for gap in gaps)
        expected = [math.exp(alpha * min(gap, cap)) for gap in gaps]
        assert method.kappa(q, labels).tolist() == pytest.approx(expected, rel=1e-4)
        history.append(c)
    assert (capped > 0) == (cap == 0.1)
    # what is usual goes on in the checkpoints
    assert set(method.state_dict()) == {"usual", "steps"}
    assert int(method.steps) == 6
    after = [sum(x) / 6 for x in zip(*history, strict=True)]
    assert method.usual.tolist() == pytest.approx(after, rel=1e-5)


def test_probabilities_are_floored(make_world):
    method = AGM(make_world().task, alpha=0.0)
    q = torch.tensor([[[-100.0, 0.0], [0.0, 0.0]]])
    assert method.kappa(q, torch.tensor([0])).tolist() == [1, 1]
    assert method.usual.tolist() == pytest.approx([-math.log(1e-8), math.log(2)], rel=1e-6)


# in training


def asked_one_by_one(world, batch) -> Tensor:
    """Joint logits of every coalition but the empty one, by one pass each."""
    rows = len(batch.labels)
    return torch.stack(
        [
            world.model(batch.inputs, members.expand(rows, -1))
            for members in coalition_matrix(len(world.model.modalities))[1:]
        ],
        dim=1,
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("n", [2, 3])
def test_the_loss_is_that_of_joint_training_and_each_shares_gradient_is_scaled(
    make_world, slopes, by_hand, fusion, n
):
    world = make_world(fusion, n)
    method, batch = AGM(world.task, alpha=0.7), world.batch()
    loss = method.loss(batch)
    joint = by_hand(world.model(batch.inputs, batch.present), batch.labels)
    torch.testing.assert_close(loss, joint)
    loss.backward()

    start = shares(asked_one_by_one(world, batch)).detach()
    c = cross_entropies(start, batch.labels)
    kappa = [math.exp(0.7 * (1 - r)) for r in ratios(c)]
    assert max(kappa) - min(kappa) > 1e-3
    assert method.coefficients() == {
        f"kappa_{m}": pytest.approx(k, rel=1e-4)
        for m, k in zip(world.model.modalities, kappa, strict=True)
    }

    def surrogate() -> Tensor:
        """The loss were each share κ times as steep, about where it was."""
        q = shares(asked_one_by_one(world, batch))
        steep = start + torch.tensor(kappa).double().view(1, -1, 1) * (q - start)
        return by_hand(steep.sum(1), batch.labels)

    for rise, said in slopes(surrogate, world.model.parameters()):
        assert said == pytest.approx(rise, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("fusion", ["gated", "mmtm", "late"])
def test_for_two_modalities_it_is_the_combination_of_three_passes(make_world, fusion):
    world = make_world(fusion)
    method, batch = AGM(world.task), world.batch()
    method.loss(batch).backward()
    ka, kv = method.coefficients().values()
    a, v, av = asked_one_by_one(world, batch).unbind(1)
    logits = av.detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, batch.labels), logits)
    combined = (ka + kv) / 2 * av + (ka - kv) / 2 * (a - v)
    parameters = dict(world.model.named_parameters())
    expected = torch.autograd.grad(combined, list(parameters.values()), slope, allow_unused=True)
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("encoder", ["mlp", "conv1d"])
def test_of_a_linear_head_on_concatenated_features_w_m_gets_exactly_its_factor(
    make_world, n, encoder
):
    world = make_world("concat", n, encoder)
    method, batch = AGM(world.task), world.batch()
    model = world.model
    plain = F.cross_entropy(model(batch.inputs, batch.present), batch.labels)
    expected = dict(
        zip(
            dict(model.named_parameters()),
            torch.autograd.grad(plain, list(model.parameters())),
            strict=True,
        )
    )
    method.loss(batch).backward()
    kappa = method.coefficients()
    columns = model.fusion.head.weight.grad.split(model.fusion.widths, dim=1)
    plain_columns = expected["fusion.head.weight"].split(model.fusion.widths, dim=1)
    for m, found, gradient in zip(model.modalities, columns, plain_columns, strict=True):
        torch.testing.assert_close(found, kappa[f"kappa_{m}"] * gradient, atol=1e-7, rtol=1e-5)
        for name, p in model.encoders[m].named_parameters():
            gradient = expected[f"encoders.{m}.{name}"]
            torch.testing.assert_close(p.grad, kappa[f"kappa_{m}"] * gradient, atol=1e-7, rtol=1e-5)
    bias = sum(kappa.values()) / n * expected["fusion.head.bias"]
    torch.testing.assert_close(model.fusion.head.bias.grad, bias, atol=1e-7, rtol=1e-5)


def gradients(model) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("steep", "clip", "clipped"),
    [
        (1e3, 1.0, True),
        (1e3, 0.25, True),
        (1e3, 0.0, False),
        (1e-3, 1.0, False),
        (1e-3, 0.25, False),
    ],
)
def test_gradients_are_clipped_where_one_of_the_heads_is_above_1(make_world, steep, clip, clipped):
    world = make_world()
    method, batch = AGM(world.task, clip=clip), world.batch()
    (method.loss(batch) * steep).backward()
    before = gradients(world.model)
    assert (before["fusion.head.weight"].abs().max() > 1) == (steep > 1)
    method.after_backward(batch)
    after = gradients(world.model)
    norm = math.sqrt(sum(float(g.square().sum()) for g in before.values()))
    factor = clip / norm if clipped else 1.0
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient * factor, atol=1e-9, rtol=1e-5)


def test_an_encoders_gradient_above_1_alone_clips_nothing(make_world):
    world = make_world()
    method, batch = AGM(world.task), world.batch()
    (method.loss(batch) * 1e-3).backward()
    world.model.encoders["m0"].layers[0].weight.grad += 50
    before = gradients(world.model)
    method.after_backward(batch)
    assert all(torch.equal(g, before[name]) for name, g in gradients(world.model).items())


@pytest.mark.parametrize("fusion", ["concat", "mmtm", "transformer", "film"])
def test_a_gradient_of_the_fusion_above_1_outside_the_heads_weight_clips_nothing(
    make_world, fusion
):
    world = make_world(fusion)
    method, batch = AGM(world.task), world.batch()
    (method.loss(batch) * 1e-3).backward()
    parameters = dict(world.model.fusion.named_parameters())
    outside = {n: p for n, p in parameters.items() if not re.search(r"^heads?\b.*weight$", n)}
    assert 0 < len(outside) < len(parameters)
    for p in outside.values():
        p.grad += 50
    before = gradients(world.model)
    method.after_backward(batch)
    assert all(torch.equal(g, before[name]) for name, g in gradients(world.model).items())


def test_a_fusion_without_a_head_to_look_at_is_refused_unless_nothing_is_clipped(make_world):
    world = make_world()
    del world.model.fusion.head
    with pytest.raises(UsageError, match="Concat has neither `head` nor `heads`"):
        AGM(world.task)
    AGM(world.task, clip=0.0)


@pytest.mark.parametrize("fusion", ["concat", "late", "mmtm"])
def test_a_negative_gradient_of_a_heads_weight_below_minus_1_clips_too(make_world, fusion):
    world = make_world(fusion)
    method, batch = AGM(world.task), world.batch()
    (method.loss(batch) * 1e-3).backward()
    world.model.fusion.head_weights()[-1].grad[0, 0] = -3
    method.after_backward(batch)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients(world.model).values()))
    assert norm == pytest.approx(1, abs=1e-3)


def test_after_its_last_epoch_it_is_joint_training_that_clips(make_world):
    world = make_world()
    method = AGM(world.task, until=2)
    batches = world.task.batches("train", None, 0)
    for epoch, modulated, batch in zip((1, 2, 3), (True, True, False), batches, strict=True):
        joint = F.cross_entropy(world.model(batch.inputs, batch.present), batch.labels)
        expected = torch.autograd.grad(joint, list(world.model.parameters()))
        method.on_epoch_start(epoch)
        world.model.zero_grad()
        usual = method.usual.clone()
        method.loss(batch).backward()
        found = [p.grad for p in world.model.parameters()]
        same = all(torch.allclose(g, e) for g, e in zip(found, expected, strict=True))
        assert same != modulated
        assert torch.equal(usual, method.usual) != modulated
        assert (method.coefficients() == {"kappa_m0": 1.0, "kappa_m1": 1.0}) != modulated
    world.model.fusion.head.weight.grad[0, 0] = 7
    method.after_backward(batch)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients(world.model).values()))
    assert norm == pytest.approx(1, abs=1e-3)


def test_its_coefficients_are_means_over_the_batches_of_an_epoch(make_world):
    world = make_world()
    method, once = AGM(world.task), AGM(world.task)
    batches = list(world.task.batches("train", None, 0))
    each = []
    for batch in batches:
        method.loss(batch)
        once.loss(batch)
        each.append(once.coefficients())
    assert len({k["kappa_m0"] for k in each}) == 3
    assert method.coefficients() == {
        name: pytest.approx(sum(k[name] for k in each) / 3) for name in ("kappa_m0", "kappa_m1")
    }
    method.loss(batches[0])
    assert method.coefficients() != each[0]  # of the new epoch, with what is usual by now


def test_encoders_run_once_for_all_coalitions(make_world):
    world = make_world("transformer", 3)
    calls = []
    for encoder in world.model.encoders.values():
        encoder.register_forward_hook(lambda _, inputs, out: calls.append(len(out)))
    AGM(world.task).loss(world.batch())
    assert calls == [10, 10, 10]


# defaults and refusals


def test_the_defaults_are_those_of_the_documents(make_world):
    method = AGM(make_world().task)
    assert (method.alpha, method.cap, method.clip, method.until) == (1.0, 10.0, 1.0, 21)


def test_one_modality_is_refused(make_world):
    with pytest.raises(UsageError, match="^method 'agm' needs two modalities or more$"):
        AGM(make_world(n=1).task)


@pytest.mark.parametrize("name", ["alpha", "clip"])
@pytest.mark.parametrize("number", [-0.1, math.nan, math.inf])
def test_numbers_that_cannot_be_meant_are_refused(make_world, name, number):
    with pytest.raises(
        UsageError, match=f"^{name} is {number}: it must be a number that is not negative$"
    ):
        AGM(make_world().task, **{name: number})


@pytest.mark.parametrize("cap", [-1.0, math.nan])
def test_a_cap_that_cannot_be_meant_is_refused(make_world, cap):
    with pytest.raises(UsageError, match=f"^cap is {cap}: it cannot be negative; inf is none$"):
        AGM(make_world().task, cap=cap)

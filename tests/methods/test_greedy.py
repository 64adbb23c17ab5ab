"""Greedy: the branch that leans on the other learns by itself for a while."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmcoop.core.models.fusions import FUSIONS
from mmcoop.core.valuation.utilisation import branch_accuracies, utilisation_difference
from mmcoop.datasets.loading import load_batches
from mmcoop.errors import UsageError
from mmcoop.methods.greedy import Greedy, learning_speed
from mmcoop.training.config import make_config
from mmcoop.training.evaluation import evaluate_run
from mmcoop.training.train import train


def test_speeds_by_hand():
    # METHODS.md, 3.2: (‖gradient‖², ‖weights‖²) of the bypasses (.4, 4), (.2, 4), of the mains
    # (.1, 10) each
    found = learning_speed(torch.tensor([0.4 / 4, 0.2 / 4]), torch.tensor([0.1 / 10, 0.1 / 10]))
    assert found.tolist() == pytest.approx([1, 0.698970], abs=1e-6)
    assert float(found[0] - found[1]) == pytest.approx(0.301030, abs=1e-6)


@pytest.mark.parametrize(("bypass", "main"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_a_branch_without_gradients_has_speed_0(bypass, main):
    found = learning_speed(torch.tensor([bypass, 1.0]), torch.tensor([main, 0.1]))
    assert found.tolist() == pytest.approx([0, 1])


def set_norms(parameters, gradients: float, weights: float) -> None:
    """Give the parameters such sums of squares, of their gradients and of themselves."""
    parameters = list(parameters)
    size = sum(p.numel() for p in parameters)
    for p in parameters:
        p.data.fill_(math.sqrt(weights / size))
        p.grad = torch.full_like(p, math.sqrt(gradients / size))


def test_the_ratios_are_of_sums_over_all_that_lets_a_branch_see_and_over_the_branch(make_world):
    # the shared squeeze counts for both branches, every exchange is in it
    world = make_world("mmtm")
    model, fusion = world.model, world.model.fusion
    method = Greedy(world.task)
    method.on_epoch_start(1)
    for exchange in fusion.exchanges:
        set_norms(exchange.squeeze.parameters(), 0.05, 1.0)
        set_norms(exchange.excite["m0"].parameters(), 0.15, 1.0)
        set_norms(exchange.excite["m1"].parameters(), 0.05, 1.0)
    for m in model.modalities:
        set_norms(model.encoders[m].parameters(), 0.02, 3.0)
        set_norms(fusion.late[m].parameters(), 0.05, 5.0)
        set_norms(fusion.heads[m].parameters(), 0.03, 2.0)
    method.after_backward(world.batch())
    # two exchanges: (.4, 4) and (.2, 4) for the bypasses, (.1, 10) for the mains
    assert method.bypass.tolist() == pytest.approx([0.1, 0.05])
    assert method.main.tolist() == pytest.approx([0.01, 0.01])
    assert method.coefficients() == {
        "speed_m0": pytest.approx(1),
        "speed_m1": pytest.approx(0.698970, abs=1e-6),
        "rebalancing_steps": 0,
    }
    # not yet in the first epoch; in the second one, the first modality is cared for
    assert (int(method.cared_for), int(method.left)) == (-1, 0)
    method.on_epoch_start(2)
    method.after_backward(world.batch())
    assert (int(method.cared_for), int(method.left)) == (0, 5)


def squares(parameters) -> tuple[float, float]:
    parameters = list(parameters)
    return (
        sum(float(p.grad.square().sum()) for p in parameters),
        sum(float(p.detach().square().sum()) for p in parameters),
    )


@pytest.mark.parametrize("n", [2, 3])
def test_ratios_add_up_from_the_first_step_on_but_for_the_steps_of_rebalancing(make_world, n):
    world = make_world("mmtm", n)
    fusion = world.model.fusion
    method = Greedy(world.task, steps=2, epsilon=0.0)
    optimizer = torch.optim.SGD(world.model.parameters(), lr=0.05)
    bypass, main = [0.0] * n, [0.0] * n
    cared, left = None, 0
    who: list[int | None] = []
    for epoch in (1, 2, 3):
        method.on_epoch_start(epoch)
        rebalanced = 0
        for batch in world.task.batches("train", None, 0):
            assert (int(method.cared_for), int(method.left)) == (
                -1 if cared is None else cared,
                left,
            )
            optimizer.zero_grad()
            method.loss(batch).backward()
            who.append(cared)
            method.after_backward(batch)
            if left:
                rebalanced += 1
                left -= 1
                cared = cared if left else None
            else:
                for k, m in enumerate(world.model.modalities):
                    g = w = 0.0
                    for exchange in fusion.exchanges:
                        for part in (exchange.squeeze, exchange.excite[m]):
                            dg, dw = squares(part.parameters())
                            g, w = g + dg, w + dw
                    bypass[k] += g / w
                    g, w = squares(
                        [
                            *world.model.encoders[m].parameters(),
                            *fusion.late[m].parameters(),
                            *fusion.heads[m].parameters(),
                        ]
                    )
                    main[k] += g / w
                speeds = [math.log10(b / a) for b, a in zip(bypass, main, strict=True)]
                if epoch > 1:
                    cared, left = speeds.index(max(speeds)), 2
            assert method.bypass.tolist() == pytest.approx(bypass, rel=1e-9)
            assert method.main.tolist() == pytest.approx(main, rel=1e-9)
            optimizer.step()
        assert method.coefficients() == {
            **{
                f"speed_{m}": pytest.approx(s, rel=1e-9)
                for m, s in zip(world.model.modalities, speeds, strict=True)
            },
            "rebalancing_steps": rebalanced,
        }
    # three measured, then in turns one measured and two of caring; over the ends of epochs too
    assert [w is None for w in who] == [True] * 4 + [False, False, True, False, False]


@pytest.mark.parametrize(
    ("options", "epoch", "active"),
    [
        ({}, 1, False),
        ({}, 2, True),
        ({"start": 0}, 1, True),
        ({"start": 2}, 2, False),
        ({"start": 2}, 3, True),
        ({"steps": 0}, 2, False),
        ({"epsilon": 100.0}, 2, False),
    ],
)
def test_it_cares_for_a_branch_only_where_it_is_to(make_world, options, epoch, active):
    world = make_world("mmtm")
    method, batch = Greedy(world.task, **options), world.batch()
    method.on_epoch_start(epoch)
    method.loss(batch).backward()
    method.after_backward(batch)
    assert (int(method.left) > 0) == active
    assert (int(method.cared_for) >= 0) == active


def test_where_no_branch_is_ahead_by_more_than_epsilon_none_is_cared_for(make_world):
    for epsilon, active in ((0.301, True), (0.3011, False)):
        world = make_world("mmtm")
        method = Greedy(world.task, epsilon=epsilon, start=0)
        method.on_epoch_start(1)
        fusion = world.model.fusion
        for exchange in fusion.exchanges:
            set_norms(exchange.squeeze.parameters(), 0.05, 1.0)
            set_norms(exchange.excite["m0"].parameters(), 0.15, 1.0)
            set_norms(exchange.excite["m1"].parameters(), 0.05, 1.0)
        for m in world.model.modalities:
            set_norms(world.model.encoders[m].parameters(), 0.02, 3.0)
            set_norms(fusion.branch_parameters(m), 0.08, 7.0)
        method.after_backward(world.batch())
        assert (int(method.left) > 0) == active


# the loss


def test_the_loss_is_the_sum_of_the_branches(make_world, by_hand, slopes):
    world = make_world("mmtm", 3)
    method, batch = Greedy(world.task), world.batch()

    def plain() -> Tensor:
        features = world.model.encode(batch.inputs, batch.present)
        u = world.model.fusion.unimodal_logits(features, batch.present)
        return sum(by_hand(u[:, m], batch.labels) for m in range(3))

    loss = method.loss(batch)
    loss.backward()
    method.eval()  # or it would count on
    torch.testing.assert_close(loss, plain())
    for rise, said in slopes(plain, world.model.parameters()):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)


# the gates


def set_gates(world, gates: dict[str, float]) -> None:
    """Make every exchange give one gate a modality, whatever it sees."""
    for exchange in world.model.fusion.exchanges:
        for m, gate in gates.items():
            nn.init.zeros_(exchange.excite[m].weight)
            nn.init.constant_(exchange.excite[m].bias, math.log(gate / (1 - gate)))


def means(method, modality: str) -> set[float]:
    """The running means of a modality's gates, over exchanges and channels, rounded."""
    return {
        round(x, 6)
        for name, buffer in method.named_buffers()
        if name.startswith("gates_") and name.endswith(modality)
        for x in buffer.tolist()
    }


def test_the_running_means_of_the_gates_by_hand(make_world):
    # METHODS.md, 3.2: .2, .6, .7 → .2, .4, .5, and each modality its own
    world = make_world("mmtm")
    method = Greedy(world.task).double()
    batch = world.batch()
    for gate, mean, other in ((0.2, 0.2, 0.9), (0.6, 0.4, 0.8), (0.7, 0.5, 0.7)):
        set_gates(world, {"m0": gate, "m1": {0.2: 0.9, 0.6: 0.7, 0.7: 0.5}[gate]})
        method.loss(batch)
        assert means(method, "m0") == {mean}
        assert means(method, "m1") == {other}
    assert int(method.batches) == 3
    sizes = {name: len(b) for name, b in method.named_buffers() if name.startswith("gates_")}
    assert sizes == {"gates_0_m0": 32, "gates_0_m1": 32, "gates_1_m0": 64, "gates_1_m1": 64}


def test_running_means_are_of_the_batchs_mean_gates_at_every_exchange(make_world):
    world = make_world("mmtm")
    seen: list[dict[str, Tensor]] = []
    for exchange in world.model.fusion.exchanges:  # before greedy's own look at them
        exchange.register_forward_hook(lambda _, x, gates: seen.append(dict(gates)))
    method = Greedy(world.task).double()
    for batch in world.task.batches("train", None, 0):
        method.loss(batch)
    assert len(seen) == 6
    for k in range(2):
        for m in ("m0", "m1"):
            expected = torch.stack([gates[m].mean(0) for gates in seen[k::2]]).mean(0)
            found = getattr(method, f"gates_{k}_{m}")
            torch.testing.assert_close(found, expected)
            assert not found.requires_grad


def test_evaluation_changes_neither_means_nor_gates(make_world):
    world = make_world("mmtm")
    method, batch = Greedy(world.task).double(), world.batch()
    method.loss(batch)
    expected = world.model.eval()(batch.inputs)
    before = {name: b.clone() for name, b in method.named_buffers()}
    method.cared_for.fill_(0)
    method.left.fill_(3)
    assert torch.equal(world.model(batch.inputs), expected)
    world.model.train()
    method.eval()
    assert torch.equal(world.model(batch.inputs), expected)
    for name, b in method.named_buffers():
        if name not in ("cared_for", "left"):
            assert torch.equal(b, before[name])


def branches(method, world, batch) -> Tensor:
    features = world.model.encode(batch.inputs, batch.present)
    return world.model.fusion.unimodal_logits(features, batch.present)


def cared_for(make_world, k: int, n: int = 2):
    """A world whose branch k is cared for, after so many batches that one more changes no mean."""
    world = make_world("mmtm", n)
    method = Greedy(world.task).double()
    for exchange in world.model.fusion.exchanges:  # so that branches do see each other
        for layer in (exchange.squeeze, *exchange.excite.values()):
            layer.weight.data *= 10
    method.loss(world.batch())
    method.cared_for.fill_(k)
    method.left.fill_(5)
    method.batches.fill_(10**9)
    return method, world


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("k", [0, 1])
def test_the_branch_that_is_cared_for_sees_no_sample_of_another_modality(make_world, n, k):
    method, world = cared_for(make_world, k, n)
    batch = world.batch()
    for x in batch.inputs.values():
        x.requires_grad_()
    others = [m for j, m in enumerate(world.model.modalities) if j != k]
    u = branches(method, world, batch)
    u[:, k].square().sum().backward()
    for j, m in enumerate(world.model.modalities):
        gradient = batch.inputs[m].grad
        assert (gradient is None or not gradient.any()) == (j != k)
        parameters = [*world.model.encoders[m].parameters()]
        assert all(p.grad is None or not p.grad.any() for p in parameters) == (j != k)
    for exchange in world.model.fusion.exchanges:
        assert all(p.grad is None or not p.grad.any() for p in exchange.parameters())
    # whatever the other modalities hold makes no difference to it
    again, other = cared_for(make_world, k, n)
    something = other.batch()
    for m in others:
        something.inputs[m] = 3 - something.inputs[m].flip(0)
    found = branches(again, other, something)
    torch.testing.assert_close(found[:, k], u[:, k])
    # a branch that is not cared for still sees it
    again, other = cared_for(make_world, k, n)
    something = other.batch()
    mine = world.model.modalities[k]
    something.inputs[mine] = 3 - something.inputs[mine].flip(0)
    loose = 1 if k == 0 else 0
    assert (branches(again, other, something)[:, loose] - u[:, loose]).abs().max() > 1e-4


@pytest.mark.parametrize("k", [0, 1])
def test_gradients_while_a_branch_is_cared_for_are_those_with_its_gates_constant(
    make_world, slopes, by_hand, k
):
    method, world = cared_for(make_world, k)
    batch = world.batch()
    loss = method.loss(batch)
    loss.backward()
    method.eval()
    fixed = [getattr(method, f"gates_{e}_m{k}").clone() for e in range(2)]
    for exchange, gates in zip(world.model.fusion.exchanges, fixed, strict=True):
        exchange.register_forward_hook(
            lambda _, x, found, gates=gates: {
                **found,
                f"m{k}": gates.expand_as(found[f"m{k}"]),
            }
        )

    def plain() -> Tensor:
        u = branches(method, world, batch)
        return sum(by_hand(u[:, m], batch.labels) for m in range(2))

    torch.testing.assert_close(loss, plain())
    for rise, said in slopes(plain, world.model.parameters()):
        assert said == pytest.approx(rise, rel=1e-4, abs=1e-5)


def test_all_it_needs_to_go_on_is_in_its_state(make_world):
    one, other = make_world("mmtm"), make_world("mmtm")
    before, after = Greedy(one.task, steps=3), Greedy(other.task, steps=3)
    optimizer = torch.optim.SGD(one.model.parameters(), lr=0.05)
    for epoch in (1, 2):
        before.on_epoch_start(epoch)
        for batch in one.task.batches("train", None, 0):
            before.update(batch, optimizer)
    assert int(before.left) > 0
    other.model.load_state_dict(one.model.state_dict())
    after.load_state_dict(before.state_dict())
    second = torch.optim.SGD(other.model.parameters(), lr=0.05)
    for method, world, stepping in ((before, one, optimizer), (after, other, second)):
        method.on_epoch_start(3)
        for batch in world.task.batches("train", None, 0):
            method.update(batch, stepping)
    for key, weight in one.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[key], weight), key
    for key, number in before.state_dict().items():
        assert torch.equal(after.state_dict()[key], number), key
    assert before.coefficients() == after.coefficients()


# how much each branch of a run uses the other


@pytest.fixture(scope="module")
def greedy_run(tmp_path_factory, pictures):
    settings = {"epochs": 2, "warmup": 0, "batch_size": 4, "lr": 0.003}
    config = make_config(settings, {"method": "greedy", "fusion": "mmtm"})
    return train(tmp_path_factory.mktemp("runs") / "greedy-mmtm", pictures[2], config)


def test_the_evaluation_of_a_run_has_the_rates_of_its_branches(greedy_run, pictures):
    def batches(split):
        return load_batches(pictures[2].split(split), batch_size=3)

    plain = evaluate_run(greedy_run, pictures[2], "validation")
    assert "utilisation" not in plain
    found = evaluate_run(greedy_run, pictures[2], "validation", utilisation=True)
    expected = branch_accuracies(greedy_run.model, batches("train"), batches("validation"))
    assert found == {
        **plain,
        "utilisation": {
            m: {"accuracy": b.together, "alone": b.alone, "rate": b.utilisation}
            for m, b in expected.items()
        },
        "utilisation_difference": utilisation_difference(expected),
    }


def test_evaluate_shows_the_rates_where_they_are_asked_for(greedy_run, pictures, mmcoop):
    words = ["evaluate", "--run", str(greedy_run.folder), "--data", str(pictures[2].folder)]
    folder = greedy_run.folder.parent
    assert "u(eye | ear)" not in mmcoop(folder, *words).stdout
    shown = mmcoop(folder, *words, "--utilisation")
    assert shown.returncode == 0, shown.stderr
    for row in ("branch ear: accuracy, %", "branch eye: without ear, %", "u(eye | ear) − u(ear"):
        assert row in shown.stdout


def test_the_rates_of_a_run_without_branches_are_refused(tmp_path, pictures, greedy_run, mmcoop):
    config = make_config({"epochs": 1, "warmup": 0, "batch_size": 4})
    run = train(tmp_path / "joint", pictures[2], config)
    with pytest.raises(UsageError, match="fusions mmtm and mmtm-2x, not for Concat$"):
        evaluate_run(run, pictures[2], utilisation=True)
    # before the first of several runs is evaluated
    both = ["--run", str(greedy_run.folder), "--run", str(run.folder), "--utilisation"]
    refused = mmcoop(tmp_path, "evaluate", *both, "--data", str(pictures[2].folder))
    assert refused.returncode == 2
    assert "not for Concat" in refused.stderr
    assert "valuing" not in refused.stderr


# defaults and refusals


def test_the_defaults_are_those_of_the_documents(make_world):
    method = Greedy(make_world("mmtm").task)
    assert (method.epsilon, method.steps, method.start) == (0.01, 5, 1)


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if "mmtm" not in name])
def test_a_fusion_without_gates_is_refused(make_world, fusion):
    message = "^method 'greedy' needs the gates of fusion='mmtm' or mmtm-2x$"
    with pytest.raises(UsageError, match=message):
        Greedy(make_world(fusion).task)


def test_one_modality_is_refused(make_world):
    with pytest.raises(UsageError, match="^method 'greedy' needs two modalities or more$"):
        Greedy(make_world("mmtm", 1).task)


@pytest.mark.parametrize(
    ("name", "number"),
    [("epsilon", -0.1), ("epsilon", math.nan), ("steps", -1), ("start", -1)],
)
def test_numbers_that_cannot_be_meant_are_refused(make_world, name, number):
    with pytest.raises(
        UsageError, match=f"^{name} is {number}: it must be a number that is not negative$"
    ):
        Greedy(make_world("mmtm").task, **{name: number})

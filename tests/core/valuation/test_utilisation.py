"""Conditional utilisation rates of the branches of MMTM."""

import pytest
import torch
from torch import Tensor, nn

from mmcoop.core.batch import Batch
from mmcoop.core.models.encoders.conv import ConvEncoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.utilisation import (
    BranchAccuracy,
    branch_accuracies,
    others_fixed,
    squeeze_means,
    utilisation_difference,
)
from mmcoop.errors import UsageError

CLASSES = 3
SHAPES = {"audio": (1, 9, 9), "flow": (2, 2, 8, 8), "visual": (3, 3, 8, 10)}  # the last of frames
TWO = ("audio", "visual")
THREE = ("audio", "flow", "visual")


def make_model(names=TWO, fusion: str = "mmtm") -> MultimodalModel:
    """Small convolutional encoders under MMTM that lean on each other: weights of the exchanges
    are large, biases random too, and no branch prefers a class; in training mode."""
    torch.manual_seed(0)
    encoders = {m: ConvEncoder(SHAPES[m], channels=4 + 2 * k) for k, m in enumerate(names)}
    model = MultimodalModel(*build_fusion(fusion, encoders, CLASSES))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.3)
    if "mmtm" in fusion:
        for exchange in model.fusion.exchanges:
            for layer in (exchange.squeeze, *exchange.excite.values()):
                layer.weight.data *= 8
        (batch,) = make_batches(names, (50,), seed=3)
        model.double()
        with torch.no_grad():
            features = model.encode(batch.inputs, batch.present)
            logits = model.fusion.unimodal_logits(features, batch.present)
            for head, mean in zip(model.fusion.heads.values(), logits.mean(0), strict=True):
                head.bias -= mean
    return model.double()


def make_batches(names=TWO, sizes=(5, 4), seed: int = 1) -> list[Batch]:
    chance = torch.Generator().manual_seed(seed)
    return [
        Batch(
            {m: torch.randn(n, *SHAPES[m], generator=chance).double() for m in names},
            torch.ones(n, len(names), dtype=torch.bool),
            torch.randint(CLASSES, (n,), generator=chance),
            torch.arange(n),
        )
        for n in sizes
    ]


# by hand


def test_rates_by_hand():
    # METHODS.md, 3.2
    audio, visual = BranchAccuracy(0.90, 0.60), BranchAccuracy(0.80, 0.72)
    assert audio.utilisation == pytest.approx(1 / 3)
    assert visual.utilisation == pytest.approx(0.1)
    both = {"audio": audio, "visual": visual}
    assert utilisation_difference(both) == pytest.approx(0.2333, abs=5e-5)


def test_a_branch_that_is_better_alone_has_a_rate_below_0():
    assert BranchAccuracy(0.5, 0.75).utilisation == -0.5


def test_a_branch_that_is_never_right_has_no_rate():
    never = BranchAccuracy(0.0, 0.5)
    assert never.utilisation is None
    assert utilisation_difference({"a": BranchAccuracy(0.5, 0.5), "b": never}) is None
    assert utilisation_difference({"a": never, "b": BranchAccuracy(0.5, 0.5)}) is None


# a plain loop


def through_the_exchanges(model, inputs, i, gates_of):
    """Branch logits of sample i, written out; `gates_of(k, m, squeezed)` gives m's squeezed vectors
    by modality at exchange k, in place of what is squeezed there."""
    fusion, maps = model.fusion, {}
    for m in model.modalities:
        frames = [inputs[m][i]] if inputs[m].dim() == 4 else list(inputs[m][i])
        maps[m] = [model.encoders[m].blocks(frame[None])[0] for frame in frames]
    for k, exchange in enumerate(fusion.exchanges):
        if k:
            maps = {m: [fusion.late[m][k - 1](x[None])[0] for x in xs] for m, xs in maps.items()}
        squeezed = {m: torch.stack(xs).mean((0, 2, 3)) for m, xs in maps.items()}
        gated = {}
        for m, xs in maps.items():
            seen = gates_of(k, m, squeezed)
            joined = torch.cat([seen[other] for other in model.modalities])
            h = (exchange.squeeze.weight @ joined + exchange.squeeze.bias).clamp(min=0)
            excitation = exchange.excite[m].weight @ h + exchange.excite[m].bias
            gate = exchange.scale / (1 + (-excitation).exp())
            gated[m] = [x * gate[:, None, None] for x in xs]
        maps = gated
    return {m: fusion.heads[m](torch.stack(xs).mean((0, 2, 3))) for m, xs in maps.items()}


def by_hand(model, training, batches):
    """Means by exchange and modality, and the two accuracies by branch."""
    seen: dict[tuple[int, str], list[Tensor]] = {}

    def as_it_is(k, m, squeezed):
        seen.setdefault((k, m), []).append(squeezed[m])
        return squeezed

    for batch in training:
        for i in range(len(batch.labels)):
            through_the_exchanges(model, batch.inputs, i, as_it_is)
    means = {place: sum(vectors) / len(vectors) for place, vectors in seen.items()}

    def others_at_their_means(k, m, squeezed):
        return {o: s if o == m else means[k, o] for o, s in squeezed.items()}

    right = {m: [0, 0] for m in model.modalities}
    samples = 0
    for batch in batches:
        for i, label in enumerate(batch.labels.tolist()):
            samples += 1
            for j, how in enumerate((lambda k, m, squeezed: squeezed, others_at_their_means)):
                for m, logits in through_the_exchanges(model, batch.inputs, i, how).items():
                    right[m][j] += int(logits.argmax()) == label
    return means, {m: (a / samples, b / samples) for m, (a, b) in right.items()}


@pytest.mark.parametrize("fusion", ["mmtm", "mmtm-2x"])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_accuracies_are_those_of_a_plain_loop(names, fusion):
    model = make_model(names, fusion)
    training, batches = make_batches(names), make_batches(names, (20, 13), seed=2)
    with torch.no_grad():
        means, expected = by_hand(model, training, batches)
    found = squeeze_means(model, training)
    for k, by_modality in enumerate(found):
        for m, mean in by_modality.items():
            torch.testing.assert_close(mean, means[k, m])
    branches = branch_accuracies(model, training, batches)
    assert list(branches) == list(names)
    for m, branch in branches.items():
        assert (branch.together, branch.alone) == pytest.approx(expected[m])
    assert any(b.together != b.alone for b in branches.values())


@pytest.mark.parametrize("k", [0, 1])
def test_alone_a_branch_sees_nothing_of_the_sample_but_its_own_modality(k):
    model = make_model().eval()
    (batch,) = make_batches(sizes=(6,))
    means = squeeze_means(model, [batch])

    def logits(inputs) -> Tensor:
        features = model.encode(inputs, batch.present)
        return model.fusion.unimodal_logits(features, batch.present)

    other = TWO[1 - k]
    changed = {**batch.inputs, other: batch.inputs[other].flip(0) * 3 - 1}
    with others_fixed(model.fusion, means):
        before, after = logits(batch.inputs), logits(changed)
    torch.testing.assert_close(after[:, k], before[:, k])
    assert (after[:, 1 - k] - before[:, 1 - k]).abs().max() > 1e-4
    # and outside it does see the other
    assert (logits(changed)[:, k] - logits(batch.inputs)[:, k]).abs().max() > 1e-4


def test_branches_without_exchange_use_nothing():
    model = make_model()
    for exchange in model.fusion.exchanges:
        for excite in exchange.excite.values():
            nn.init.zeros_(excite.weight)
    branches = branch_accuracies(model, make_batches(), make_batches(sizes=(30,), seed=2))
    for branch in branches.values():
        assert branch.alone == branch.together > 0
        assert branch.utilisation == 0


def test_of_tied_classes_each_counts_in_parts_and_nan_is_never_right():
    model = make_model()
    for head in model.fusion.heads.values():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    model.fusion.heads["visual"].bias.data[0] = torch.nan
    branches = branch_accuracies(model, make_batches(), make_batches())
    assert branches["audio"] == BranchAccuracy(pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert branches["visual"] == BranchAccuracy(0, 0)


def test_the_model_is_left_as_it_was():
    model = make_model()
    (batch,) = make_batches(sizes=(6,))
    expected = model(batch.inputs)
    branch_accuracies(model, [batch], [batch])
    assert all(module.training for module in model.modules())
    assert torch.equal(model(batch.inputs), expected)


# refusals


@pytest.mark.parametrize("fusion", ["concat", "late"])
def test_a_fusion_without_branches_that_exchange_is_refused(fusion):
    model = make_model(fusion=fusion)
    with pytest.raises(
        UsageError,
        match="^the conditional utilisation rate is defined for fusions mmtm and mmtm-2x, not for "
        f"{type(model.fusion).__name__}$",
    ):
        branch_accuracies(model, make_batches(), make_batches())


def test_one_modality_is_refused():
    model = make_model(("audio",))
    with pytest.raises(UsageError, match="needs two modalities or more$"):
        branch_accuracies(model, make_batches(("audio",)), make_batches(("audio",)))

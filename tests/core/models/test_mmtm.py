"""MMTM: encoders that exchange what they see between their stages."""

import pytest
import torch
from torch import Tensor, nn

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.encoders import build_encoder
from mmcoop.core.models.encoders.conv import ConvEncoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.fusions.mmtm import MMTM, DoubledMMTM, Exchange, FirstStage
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.engine import value_batches
from mmcoop.errors import UsageError

CLASSES = 3
SHAPES = {"audio": (1, 9, 9), "flow": (2, 2, 8, 8), "visual": (3, 3, 8, 10)}  # the last of frames


def make_model(names=tuple(SHAPES), double: bool = True, fusion: str = "mmtm") -> MultimodalModel:
    """Small convolutional encoders of different widths under MMTM that lean on each other: weights
    of the exchanges are large, biases random too."""
    torch.manual_seed(0)
    encoders = {m: ConvEncoder(SHAPES[m], channels=4 + 2 * k) for k, m in enumerate(names)}
    model = MultimodalModel(*build_fusion(fusion, encoders, CLASSES))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.3)
    for exchange in model.fusion.exchanges:
        for layer in (exchange.squeeze, *exchange.excite.values()):
            layer.weight.data *= 8
    return model.double() if double else model


def make_inputs(names=tuple(SHAPES), batch: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        m: torch.randn(batch, *SHAPES[m], generator=generator, dtype=torch.float64) for m in names
    }


def squeezed_at_each_exchange(model: MultimodalModel) -> list[dict[str, Tensor]]:
    """What comes in at the exchanges, in the order in which they are called."""
    seen: list[dict[str, Tensor]] = []
    for exchange in model.fusion.exchanges:
        exchange.register_forward_pre_hook(lambda _, inputs: seen.append(dict(inputs[0])))
    return seen


# the exchange


def test_the_exchange_by_hand():
    # METHODS.md, 3.6: means 1 and 3, W_s = (.5, .5): h = 2; excitation by .5 and −1
    exchange = Exchange({"a": 1, "v": 1})
    exchange.squeeze.weight.data = torch.tensor([[0.5, 0.5]])
    exchange.excite["a"].weight.data = torch.tensor([[0.5]])
    exchange.excite["v"].weight.data = torch.tensor([[-1.0]])
    for layer in (exchange.squeeze, *exchange.excite.values()):
        layer.bias.data.zero_()
    gates = exchange({"a": torch.tensor([[1.0]]), "v": torch.tensor([[3.0]])})
    assert gates["a"].item() == pytest.approx(0.731059, abs=5e-7)
    assert gates["v"].item() == pytest.approx(0.119203, abs=5e-7)
    # h is rectified
    gates = exchange({"a": torch.tensor([[1.0]]), "v": torch.tensor([[-3.0]])})
    assert gates["a"].item() == gates["v"].item() == 0.5


@pytest.mark.parametrize(
    ("channels", "ratio", "width"),
    [({"a": 3, "v": 4}, 4, 3), ({"a": 64, "t": 32, "v": 64}, 4, 80), ({"a": 3, "v": 4}, 2, 7)],
)
def test_the_exchange_is_as_wide_as_twice_all_channels_over_the_ratio(channels, ratio, width):
    exchange = Exchange(channels, ratio)
    assert exchange.squeeze.weight.shape == (width, sum(channels.values()))
    assert {m: e.weight.shape for m, e in exchange.excite.items()} == {
        m: (c, width) for m, c in channels.items()
    }


def test_a_scaled_exchange_by_hand():
    # twice the gates above; an excitation of 0 gives 1, which leaves its channel as it is
    exchange = Exchange({"a": 1, "v": 1}, scale=2.0)
    exchange.squeeze.weight.data = torch.tensor([[0.5, 0.5]])
    exchange.excite["a"].weight.data = torch.tensor([[0.5]])
    exchange.excite["v"].weight.data = torch.tensor([[-1.0]])
    for layer in (exchange.squeeze, *exchange.excite.values()):
        layer.bias.data.zero_()
    gates = exchange({"a": torch.tensor([[1.0]]), "v": torch.tensor([[3.0]])})
    assert gates["a"].item() == pytest.approx(1.462117, abs=5e-7)
    assert gates["v"].item() == pytest.approx(0.238406, abs=5e-7)
    gates = exchange({"a": torch.tensor([[1.0]]), "v": torch.tensor([[-3.0]])})
    assert gates["a"].item() == gates["v"].item() == 1


# the whole of it


def by_hand(
    model: MultimodalModel, inputs: dict[str, Tensor], members: list[bool], i: int, scale: float = 1
):
    """What each branch says of sample i, `{modality: (classes,)}`, written out for one sample."""
    fusion = model.fusion
    here = [m for m, member in zip(model.modalities, members, strict=True) if member]
    frames = {m: [inputs[m][i]] if inputs[m].dim() == 4 else list(inputs[m][i]) for m in here}
    maps = {m: [model.encoders[m].blocks(frame[None])[0] for frame in frames[m]] for m in here}
    for k, exchange in enumerate(fusion.exchanges):
        if k:
            maps = {m: [fusion.late[m][k - 1](x[None])[0] for x in maps[m]] for m in here}
        squeezed = []
        for m in model.modalities:
            channels = exchange.excite[m].out_features
            for c in range(channels):
                numbers = [x for frame in maps.get(m, []) for x in frame[c].flatten().tolist()]
                squeezed.append(sum(numbers) / len(numbers) if numbers else 0.0)
        h = exchange.squeeze.weight @ torch.tensor(squeezed).double() + exchange.squeeze.bias
        h = h.clamp(min=0)
        for m in here:
            gate = scale / (1 + (-(exchange.excite[m].weight @ h + exchange.excite[m].bias)).exp())
            maps[m] = [frame * gate[:, None, None] for frame in maps[m]]
    return {
        m: fusion.heads[m](torch.stack(maps[m]).mean((0, 2, 3))) for m in here
    }  # every frame is as large as the others


@pytest.mark.parametrize(("fusion", "scale"), [("mmtm", 1), ("mmtm-2x", 2)])
@pytest.mark.parametrize("names", [("audio",), ("audio", "visual"), ("audio", "flow", "visual")])
def test_mmtm_is_what_a_plain_loop_over_samples_frames_and_channels_gives(names, fusion, scale):
    model, inputs = make_model(names, fusion=fusion), make_inputs(names, 2)
    features = model.encode(inputs, torch.ones(2, len(names), dtype=torch.bool))
    coalitions = coalition_matrix(len(names))
    found = model.coalition_logits(features, coalitions)
    assert (found[:, 0] == 0).all()
    for s, members in enumerate(coalitions.tolist()):
        present = coalitions[s].expand(2, -1)
        unimodal = model.fusion.unimodal_logits(features, present)
        for i in range(2):
            said = by_hand(model, inputs, members, i, scale)
            for column, m in enumerate(names):
                expected = said.get(m, torch.zeros(CLASSES, dtype=torch.float64))
                torch.testing.assert_close(unimodal[i, column], expected)
            if said:
                torch.testing.assert_close(found[i, s], sum(said.values()) / len(said))


def test_doubled_gates_change_no_weight():
    encoders = {m: build_encoder("conv", (1, 28, 28)) for m in "ab"}
    torch.manual_seed(1)
    _, plain = build_fusion("mmtm", encoders, CLASSES)
    torch.manual_seed(1)
    _, doubled = build_fusion("mmtm-2x", encoders, CLASSES)
    assert (type(plain), type(doubled)) == (MMTM, DoubledMMTM)
    weights = doubled.state_dict()
    assert plain.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[key]) for key, weight in plain.state_dict().items())


def test_an_absent_modality_is_zero_at_every_exchange():
    model, inputs = make_model(), make_inputs()
    seen = squeezed_at_each_exchange(model)
    present = coalition_matrix(3)
    for column, m in enumerate(SHAPES):
        inputs[m][~present[:, column]] = float("nan")
    model(inputs, present)
    assert len(seen) == 2
    for squeezed in seen:
        for column, m in enumerate(SHAPES):
            assert (squeezed[m][~present[:, column]] == 0).all()
            assert (squeezed[m][present[:, column]] != 0).any(1).all()
    # of all coalitions too, where it was present when the features were made
    seen.clear()
    model.coalition_logits(model.encode(make_inputs(), torch.ones_like(present)), present)
    assert len(seen) == 2
    for squeezed in seen:
        for column, m in enumerate(SHAPES):
            assert squeezed[m].shape[0] == 64
            assert (squeezed[m][~present[:, column].repeat(8)] == 0).all()
            assert (squeezed[m][present[:, column].repeat(8)] != 0).any(1).all()


def test_the_first_exchange_sees_the_means_of_the_first_stages_over_all_frames_and_places():
    model, inputs = make_model(), make_inputs(batch=3)
    seen = squeezed_at_each_exchange(model)
    features = model.encode(inputs, torch.ones(3, 3, dtype=torch.bool))
    model.fuse(features, torch.ones(3, 3, dtype=torch.bool))
    assert features["visual"].shape[:3] == (3, 3, 8)
    assert features["audio"].shape[:3] == (3, 1, 4)
    for m in SHAPES:
        torch.testing.assert_close(seen[0][m], features[m].mean((1, 3, 4)))
    frame_by_frame = [model.encoders["visual"](inputs["visual"][:, f]) for f in range(3)]
    torch.testing.assert_close(features["visual"], torch.cat(frame_by_frame, dim=1))


def test_the_order_of_frames_does_not_matter():
    model, inputs = make_model(), make_inputs()
    expected = model(inputs)
    inputs["visual"] = inputs["visual"][:, [2, 0, 1]]
    torch.testing.assert_close(model(inputs), expected)


def test_modalities_do_hear_of_each_other():
    model, inputs = make_model(), make_inputs()
    present = torch.ones(8, 3, dtype=torch.bool)
    features = model.encode(inputs, present)
    together = model.fusion.unimodal_logits(features, present)
    for column in range(3):
        without = present.clone()
        without[:, column] = False
        others = [k for k in range(3) if k != column]
        found = model.fusion.unimodal_logits(features, without)
        assert (found[:, others] - together[:, others]).abs().amax((0, 2)).min() > 1e-4
        assert (found[:, column] == 0).all()


# which stages


@pytest.mark.parametrize(
    ("names", "channels", "late"),
    [
        (("conv", "conv"), [(32, 32), (64, 64)], (1, 1)),
        (("resnet18", "resnet18"), [(128, 128), (256, 256), (512, 512)], (2, 2)),
        (("conv", "resnet18"), [(32, 256), (64, 512)], (1, 1)),
        (("resnet18", "conv"), [(256, 32), (512, 64)], (1, 1)),
    ],
)
def test_stages_are_matched_from_the_last_one_backwards(names, channels, late):
    encoders = {m: build_encoder(name, (1, 32, 32)) for m, name in zip("ab", names, strict=True)}
    before = {id(p) for e in encoders.values() for p in e.parameters()}
    early, fusion = build_fusion("mmtm", encoders, CLASSES)
    assert type(fusion) is MMTM
    assert all(type(stage) is FirstStage for stage in early.values())
    found = [tuple(e.out_features for e in x.excite.values()) for x in fusion.exchanges]
    assert found == channels
    assert tuple(len(blocks) for blocks in fusion.late.values()) == late
    assert tuple(stage.width for stage in early.values()) == channels[0]
    assert tuple(head.in_features for head in fusion.heads.values()) == channels[-1]
    # every weight of the encoders is in one of the parts, and once
    model = MultimodalModel(early, fusion)
    parts = [p for m in "ab" for p in (*early[m].parameters(), *fusion.late[m].parameters())]
    assert len(parts) == len({id(p) for p in parts})
    assert {id(p) for p in parts} == before
    logits = model({m: torch.randn(2, 1, 32, 32) for m in "ab"})
    assert logits.shape == (2, CLASSES)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["conv", "resnet18"])
def test_with_open_gates_a_branch_is_its_encoder_and_a_linear_head(name):
    torch.manual_seed(0)
    encoder = build_encoder(name, (2, 1, 32, 32)).eval()
    x = torch.randn(3, 2, 1, 32, 32)
    features = encoder(x).detach()
    model = MultimodalModel(*build_fusion("mmtm", {"clip": encoder}, CLASSES)).eval()
    for exchange in model.fusion.exchanges:
        nn.init.zeros_(exchange.excite["clip"].weight)
        nn.init.constant_(exchange.excite["clip"].bias, 100.0)
    expected = model.fusion.heads["clip"](features)
    torch.testing.assert_close(model({"clip": x}), expected, atol=1e-5, rtol=1e-5)


def test_the_parameters_of_a_branch_are_its_later_stages_and_its_head():
    fusion = make_model().fusion
    by_branch = {m: {id(p) for p in fusion.branch_parameters(m)} for m in SHAPES}
    assert [len(ids) for ids in by_branch.values()] == [4, 4, 4]  # a convolution and a head
    every = set().union(*by_branch.values())
    assert len(every) == 12
    exchanges = {id(p) for p in fusion.exchanges.parameters()}
    assert every | exchanges == {id(p) for p in fusion.parameters()}
    assert not every & exchanges
    assert id(fusion.heads["flow"].weight) in by_branch["flow"]
    assert id(fusion.late["flow"][0][0].weight) in by_branch["flow"]


# cost


def rows_through(module: nn.Module) -> list[int]:
    """How many images went through a module in each of its calls."""
    rows: list[int] = []
    module.register_forward_hook(lambda _, inputs, output: rows.append(len(inputs[0])))
    return rows


def test_coalitions_share_the_stage_before_the_first_exchange():
    model, inputs = make_model(), make_inputs()
    first = {m: rows_through(model.encoders[m]) for m in SHAPES}
    later = {m: rows_through(model.fusion.late[m][0]) for m in SHAPES}
    batch = {"inputs": inputs, "labels": torch.zeros(8).long()}
    list(value_batches(model, [batch, batch], modalities=list(SHAPES)))
    assert first == {m: [8, 8] for m in SHAPES}
    # of the seven coalitions each modality is in four, and clips have two and three frames
    # with all modalities first, then with the six other coalitions
    assert later == {"audio": [8, 24] * 2, "flow": [16, 48] * 2, "visual": [24, 72] * 2}


def test_the_stages_of_an_absent_modality_are_not_run():
    model, inputs = make_model(), make_inputs()
    first = {m: rows_through(model.encoders[m]) for m in SHAPES}
    later = {m: rows_through(model.fusion.late[m][0]) for m in SHAPES}
    present = coalition_matrix(3)[[1, 1, 5, 4, 1, 0, 5, 1]]
    model({m: inputs[m] for m in ("audio", "visual")}, present)
    assert first == {"audio": [6], "flow": [], "visual": [3]}
    assert later == {"audio": [6], "flow": [], "visual": [9]}


# valuation

PATTERNS = {
    (0, 0, 0): (0.0, 0.0),
    (1, 0, 0): (0.5, -0.5),
    (0, 1, 0): (-0.5, 0.5),
    (1, 1, 0): (0.0, 0.0),
    (0, 0, 1): (1.0, 1.0),
    (1, 0, 1): (1.5, 0.5),
    (0, 1, 1): (0.5, 1.5),
    (1, 1, 1): (1.0, 1.0),
}


@pytest.mark.parametrize("held", [float("nan"), float("inf"), -1e30, 0.0, 5.0])
def test_each_correctness_pattern_of_the_logits_gives_the_papers_contributions(held):
    names = ("audio", "visual")
    model, inputs = make_model(names).eval(), make_inputs(names, 400)
    with torch.no_grad():  # no branch has a class that it names always
        features = model.encode(inputs, torch.ones(400, 2, dtype=torch.bool))
        alone = model.coalition_logits(features, torch.eye(2, dtype=torch.bool))
        for head, logits in zip(model.fusion.heads.values(), alone.unbind(1), strict=True):
            head.bias -= logits.mean(0)
    labels = torch.randint(CLASSES, (400,), generator=torch.Generator().manual_seed(2))
    right = []
    for members in ((True, False), (False, True), (True, True)):
        # what is absent is replaced by something else altogether
        replaced = {
            m: x if member else torch.full_like(x, held)
            for (m, x), member in zip(inputs.items(), members, strict=True)
        }
        with torch.no_grad():
            logits = model(replaced, torch.tensor([members] * 400))
        right.append((logits.argmax(1) == labels).int())
    patterns = [tuple(p) for p in torch.stack(right, dim=1).tolist()]
    assert set(patterns) == set(PATTERNS)
    (valued,) = value_batches(model, [{"inputs": inputs, "labels": labels}], modalities=names)
    assert valued.contributions.tolist() == [list(PATTERNS[p]) for p in patterns]


# batch normalisation in the later stages


@pytest.mark.parametrize("frames", [(), (3,)])
def test_a_lone_row_is_normalised_by_the_running_statistics_in_every_stage(frames):
    torch.manual_seed(0)
    shape = (*frames, 1, 32, 32)
    encoders = {m: build_encoder("resnet18", shape) for m in "ab"}
    model = MultimodalModel(*build_fusion("mmtm", encoders, CLASSES)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    before = {k: b.clone() for k, b in model.named_buffers()}
    x = {m: torch.randn(3, *shape) for m in "ab"}
    present = torch.tensor([[True, True], [True, False], [True, False]])
    model(x, present).sum().backward()
    assert all(module.training for module in model.modules())
    for key, buffer in model.named_buffers():
        moved = not torch.equal(buffer, before[key])
        assert moved == (".b." not in f".{key}"), key
    assert any(".b." in key and key.startswith("fusion") for key in before)


# what it cannot be built over


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [("mlp", (5,), "MLPEncoder"), ("conv1d", (16, 2), "SeriesEncoder")],
)
def test_encoders_without_stages_are_refused_by_name(name, shape, kind):
    encoders = {"ear": build_encoder(name, shape), "eye": build_encoder("conv", (1, 28, 28))}
    with pytest.raises(
        UsageError,
        match=rf"^{kind} has no stages: exchanging between encoders needs convolutional ones "
        r"\(conv, resnet18\)$",
    ):
        build_fusion("mmtm", encoders, CLASSES)

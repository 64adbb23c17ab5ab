"""The model: encoders and a fusion, and which rows reach which encoder."""

import pytest
import torch
from torch import nn

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.encoders import build_encoder
from mmcoop.core.models.encoders.base import Encoder, Stages
from mmcoop.core.models.fusions import FUSIONS, build_fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.errors import DataError, UsageError

CLASSES = 4


class Recording(Encoder):
    """A linear encoder that keeps every input it was given."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(d, width)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.linear(x)


class RecordingFirst(nn.Sequential):
    """The first stage of an encoder, that keeps every input it was given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return super().forward(x)


class RecordingImages(Encoder):
    """The same for images `(d, 3, 3)`, in convolutional stages."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = RecordingFirst(nn.Conv2d(d, 6, 3, padding=1), nn.Tanh())
        self.second = nn.Sequential(nn.Conv2d(6, width, 2), nn.Tanh())

    def stages(self) -> Stages:
        return Stages([self.first, nn.Identity(), self.second], [6, 6, self.width])


SHAPES = {"audio": (5, 2), "text": (3, 4), "visual": (4, 3)}  # inputs, features


def make_model(fusion: str = "concat", order=("visual", "audio", "text")) -> MultimodalModel:
    """A model of recording encoders, handed over in an order that is not sorted."""
    torch.manual_seed(0)
    kind = RecordingImages if "mmtm" in fusion else Recording
    encoders = {m: kind(*SHAPES[m]) for m in order}
    built, joined = build_fusion(fusion, {m: encoders[m] for m in sorted(order)}, CLASSES)
    return MultimodalModel({m: built[m] for m in order}, joined)


def seen(model: MultimodalModel, modality: str) -> list[torch.Tensor]:
    """The inputs that reached an encoder, of whatever the fusion has made of it."""
    (recording,) = (m for m in model.encoders[modality].modules() if hasattr(m, "seen"))
    return recording.seen


def make_inputs(batch: int = 6, fusion: str = "concat") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    places = (3, 3) if "mmtm" in fusion else ()
    return {m: torch.randn(batch, d, *places, generator=generator) for m, (d, _) in SHAPES.items()}


MIXED = torch.tensor(
    [
        [True, True, True],
        [True, False, False],
        [False, False, True],
        [True, False, False],
        [False, False, True],
        [True, False, True],
    ]
)


def test_modalities_are_the_encoders_names_sorted():
    assert make_model().modalities == ("audio", "text", "visual")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_columns_of_present_are_by_sorted_name_whatever_the_order_of_the_inputs(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    only_text = torch.tensor([[False, True, False]]).expand(6, -1)
    upside_down = dict(reversed(inputs.items()))
    expected = model(inputs, only_text)
    assert torch.equal(model(upside_down, only_text), expected)
    assert len(seen(model, "text")) == 2
    assert seen(model, "audio") == seen(model, "visual") == []
    torch.testing.assert_close(model({"text": inputs["text"]}, only_text), expected)


def test_the_order_in_which_encoders_are_handed_over_does_not_matter():
    one, other = make_model(), make_model(order=("text", "audio", "visual"))
    other.load_state_dict(one.state_dict())
    inputs = make_inputs()
    assert list(one.state_dict()) == list(other.state_dict())
    assert torch.equal(one(inputs, MIXED), other(inputs, MIXED))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_the_rows_that_have_a_modality_reach_its_encoder_in_one_call(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    model(inputs, MIXED)
    for position, modality in enumerate(model.modalities):
        (reached,) = seen(model, modality)
        rows = [i for i in range(6) if MIXED[i, position]]
        assert torch.equal(reached, inputs[modality][rows])
    assert [len(seen(model, m)[0]) for m in model.modalities] == [4, 1, 4]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_mixed_batch_gives_what_its_rows_give_one_by_one(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    together = model(inputs, MIXED)
    assert together.shape == (6, CLASSES)
    for i in range(6):
        alone = model({m: x[i : i + 1] for m, x in inputs.items()}, MIXED[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=1e-5)


def test_features_are_the_encoders_where_a_modality_is_present_and_zero_where_it_is_not():
    model, inputs = make_model(), make_inputs()
    features = model.encode(inputs, MIXED)
    assert list(features) == ["audio", "text", "visual"]
    for position, (modality, z) in enumerate(features.items()):
        expected = model.encoders[modality].linear(inputs[modality]) * MIXED[:, position, None]
        torch.testing.assert_close(z, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_forward_is_encode_then_fuse(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    expected = model.fuse(model.encode(inputs, MIXED), MIXED)
    assert torch.equal(model(inputs, MIXED), expected)


def test_all_modalities_are_present_unless_said_otherwise():
    model, inputs = make_model(), make_inputs()
    expected = model(inputs, torch.ones(6, 3, dtype=torch.bool))
    assert torch.equal(model(inputs), expected)
    zeroed = torch.cat([model.encoders[m].linear(inputs[m]) for m in model.modalities], dim=1)
    torch.testing.assert_close(model(inputs), model.fusion.head(zeroed), atol=1e-6, rtol=1e-5)


FEATURES_OF_NOBODY = {
    "bottleneck": (6, 1, 4),
    "mmtm": (6, 1, 6, 1, 1),
    "mmtm-2x": (6, 1, 6, 1, 1),
}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_modality_absent_from_the_whole_batch_needs_no_input(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    present = MIXED.clone()
    present[:, 1] = False
    expected = model(inputs, present)
    del inputs["text"]
    assert torch.equal(model(inputs, present), expected)
    features = model.encode(inputs, present)
    assert features["text"].shape == FEATURES_OF_NOBODY.get(fusion, (6, 4))
    assert (features["text"] == 0).all()
    assert seen(model, "text") == []
    # as if somebody else in the batch had it
    mixed = torch.cat([present, torch.ones(1, 3, dtype=torch.bool)])
    whole = make_inputs(7, fusion)
    for m in ("audio", "visual"):
        whole[m][:6] = inputs[m]
    torch.testing.assert_close(model(whole, mixed)[:6], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("held", [float("nan"), float("inf"), 1e30])
def test_what_an_absent_modalitys_input_holds_does_not_matter(fusion, held):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    expected = model(inputs, MIXED)
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    for position, modality in enumerate(model.modalities):
        inputs[modality][~MIXED[:, position]] = held
    model.zero_grad()
    found = model(inputs, MIXED)
    assert torch.equal(found, expected)
    found.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all()
        assert torch.equal(parameter.grad, gradients[name])


def test_a_row_with_no_modality_at_all_gets_the_bias_and_encodes_nothing():
    model = make_model()
    logits = model({}, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(logits, model.fusion.head.bias.expand(2, -1))
    assert all(seen(model, m) == [] for m in model.modalities)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("idle", range(3))
def test_gradients_reach_only_the_encoders_of_present_modalities(fusion, idle):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    present = torch.ones(6, 3, dtype=torch.bool)
    present[:, idle] = False
    model(inputs, present).square().sum().backward()
    for position, modality in enumerate(model.modalities):
        for parameter in model.encoders[modality].parameters():
            if position == idle:
                assert parameter.grad is None
            else:
                assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_encoder_gradients_of_a_mixed_batch_are_the_sum_over_its_rows(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    model(inputs, MIXED).square().sum().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for i in range(6):
        row = {m: x[i : i + 1] for m, x in inputs.items()}
        model(row, MIXED[i : i + 1]).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_coalition_logits_of_one_encoding_are_forward_run_once_a_coalition(fusion):
    model, inputs = make_model(fusion), make_inputs(fusion=fusion)
    coalitions = coalition_matrix(3)
    features = model.encode(inputs, torch.ones(6, 3, dtype=torch.bool))
    found = model.coalition_logits(features, coalitions)
    assert all(len(seen(model, m)) == 1 for m in model.modalities)
    for column, row in enumerate(coalitions):
        torch.testing.assert_close(
            found[:, column], model(inputs, row.expand(6, -1)), atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_batch_of_no_rows_has_no_logits(fusion):
    assert make_model(fusion)(make_inputs(0, fusion)).shape == (0, CLASSES)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_present_modality_without_input_is_refused(modality):
    model, inputs = make_model(), make_inputs()
    del inputs[modality]
    rest = ", ".join(sorted(inputs))
    message = f"^the batch has no input for the modality '{modality}'; it has: {rest}$"
    with pytest.raises(DataError, match=message):
        model(inputs)
    with pytest.raises(DataError, match=message):
        model(inputs, MIXED)
    with pytest.raises(DataError, match=message):
        model.encode(inputs, MIXED)


def test_a_batch_without_any_input_is_refused():
    with pytest.raises(DataError, match="no input for the modality 'audio'; it has: none$"):
        make_model()({})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no modalities given"),
        (["audio", "a+b"], r"'a\+b' cannot name a modality: use letters"),
    ],
)
def test_a_model_of_refused_modality_names_is_not_built(names, message):
    with pytest.raises(UsageError, match=message):
        MultimodalModel({m: Recording(2, 2) for m in names}, nn.Identity())


@pytest.mark.parametrize("name", ["values", "type"])
def test_a_modality_named_like_an_attribute_of_a_module_is_refused(name):
    with pytest.raises(UsageError, match=f"'{name}' cannot name a modality: torch's modules"):
        MultimodalModel({name: Recording(2, 3)}, nn.Identity())


# a lone row in training


def image_model(name: str, shape: tuple[int, ...]) -> MultimodalModel:
    torch.manual_seed(0)
    encoders = {"features": build_encoder("mlp", (3,)), "picture": build_encoder(name, shape)}
    return MultimodalModel(*build_fusion("concat", encoders, CLASSES))


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", (1, 32, 32)), ("conv1d", (8, 2))], ids=["resnet18", "conv1d"]
)
def test_a_lone_row_passes_through_batch_normalisation_in_training(name, shape):
    model = image_model(name, shape).train()
    encoder = model.encoders["picture"]
    statistics = {k: b.clone() for k, b in encoder.named_buffers()}
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    present = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    logits = model({"features": torch.ones(4, 3), "picture": x}, present)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(module.training for module in model.modules())
    # the running statistics did the normalising, and did not move
    for key, buffer in encoder.named_buffers():
        assert torch.equal(buffer, statistics[key])
    with torch.no_grad():
        lone = model.encode({"features": torch.ones(4, 3), "picture": x}, present)["picture"][:1]
        torch.testing.assert_close(lone, encoder.eval()(x[:1]))


def test_two_rows_in_training_are_normalised_by_their_own_statistics():
    model = image_model("resnet18", (1, 32, 32)).train()
    encoder = model.encoders["picture"]
    before = encoder.layers.bn1.running_mean.clone()
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    found = model.encode({"picture": x}, torch.tensor([[False, True]] * 2))["picture"]
    assert not torch.equal(encoder.layers.bn1.running_mean, before)
    torch.testing.assert_close(found, encoder(x))


def test_a_lone_row_leaves_frozen_modules_frozen():
    model = image_model("resnet18", (1, 32, 32)).train()
    frozen = model.encoders["picture"].layers.bn1.eval()
    x = torch.zeros(1, 1, 32, 32)
    model.encode({"picture": x}, torch.tensor([[False, True]]))
    assert not frozen.training
    assert model.encoders["picture"].layers.conv1.training


def test_the_encoder_is_back_in_training_after_a_lone_row_that_failed():
    model = image_model("resnet18", (1, 32, 32)).train()
    with pytest.raises(RuntimeError, match="channels"):
        model.encode({"picture": torch.zeros(1, 2, 32, 32)}, torch.tensor([[False, True]]))
    assert all(module.training for module in model.modules())

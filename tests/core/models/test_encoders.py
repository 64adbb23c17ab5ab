"""Encoders: one modality's input → one feature vector a sample."""

import pytest
import torch
from torch import nn

from mmcoop.core.models.encoders import ENCODERS, build_encoder
from mmcoop.core.models.encoders.base import defined_statistics
from mmcoop.core.models.encoders.conv import ConvEncoder
from mmcoop.core.models.encoders.conv1d import SeriesEncoder
from mmcoop.core.models.encoders.mlp import MLPEncoder
from mmcoop.errors import UsageError

IMAGE_ENCODERS = ("conv", "resnet18")


def built(name: str, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(name, shape).eval()


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "shape", "width"),
    [
        ("conv", (1, 28, 28), 64),
        ("conv", (2, 40, 32), 64),
        ("conv", (3, 64, 64), 64),
        ("conv", (4, 1, 28, 28), 64),
        ("resnet18", (1, 32, 32), 512),
        ("resnet18", (2, 32, 32), 512),
        ("resnet18", (3, 32, 40), 512),
        ("resnet18", (2, 3, 32, 32), 512),
        ("mlp", (5,), 128),
        ("conv1d", (50, 6), 64),
        ("conv1d", (7, 1), 64),
    ],
)
def test_an_encoder_gives_as_many_features_a_sample_as_its_width_says(name, shape, width):
    encoder = built(name, shape)
    assert encoder.width == width
    with torch.no_grad():
        features = encoder(some(3, *shape))
    assert features.shape == (3, width)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    # three different samples, three different vectors
    assert (features[0] - features[1]).abs().max() > 1e-4
    assert (features[1] - features[2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_features_of_frames_are_the_mean_of_the_features_of_each_frame(name, channels):
    encoder = built(name, (4, channels, 32, 32))
    x = some(2, 4, channels, 32, 32)
    with torch.no_grad():
        features = encoder(x)
        frame_by_frame = torch.stack([encoder(x[:, f]) for f in range(4)])
    torch.testing.assert_close(features, frame_by_frame.mean(0), atol=1e-6, rtol=1e-5)
    assert (frame_by_frame[0] - frame_by_frame[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_the_order_of_frames_does_not_matter(name):
    encoder = built(name, (3, 1, 32, 32))
    x = some(2, 3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), encoder(x[:, [2, 0, 1]]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv", (1, 28, 28)), ("resnet18", (1, 32, 32)), ("mlp", (5,)), ("conv1d", (16, 2))],
)
def test_in_evaluation_a_samples_features_do_not_depend_on_its_batch(name, shape):
    encoder = built(name, shape)
    x = some(4, *shape)
    with torch.no_grad():
        together = encoder(x)
        alone = torch.cat([encoder(row) for row in x.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("conv", (1, 28, 28)), ("mlp", (5,))])
def test_encoders_without_batch_normalisation_keep_samples_apart_in_training_too(name, shape):
    encoder = built(name, shape).train()
    x = some(4, *shape)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv", (2, 28, 28)), ("resnet18", (2, 32, 32)), ("mlp", (5,)), ("conv1d", (16, 2))],
)
def test_every_weight_of_an_encoder_is_trained(name, shape):
    encoder = built(name, shape).train()
    (encoder(some(3, *shape)) * some(3, encoder.width)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_no_samples_give_no_features():
    for name, shape in (("conv", (2, 1, 28, 28)), ("mlp", (5,)), ("conv1d", (16, 2))):
        encoder = built(name, shape)
        assert encoder(torch.zeros(0, *shape)).shape == (0, encoder.width)


# features by place, and parts


@pytest.mark.parametrize(
    ("name", "shape", "tokens"),
    [
        ("conv", (1, 28, 28), 7 * 7),
        ("conv", (2, 30, 33), 7 * 8),
        ("conv", (3, 1, 28, 32), 3 * 7 * 8),
        ("resnet18", (3, 64, 96), 2 * 3),
        ("resnet18", (2, 1, 64, 64), 2 * 2 * 2),
        ("conv1d", (41, 3), 6),
        ("mlp", (5,), 1),
    ],
)
def test_features_are_the_mean_of_the_features_by_place(name, shape, tokens):
    encoder = built(name, shape)
    x = some(3, *shape)
    with torch.no_grad():
        by_place = encoder.tokens(x)
        assert by_place.shape == (3, tokens, encoder.width)
        torch.testing.assert_close(by_place.mean(1), encoder(x), atol=1e-5, rtol=1e-5)
    if tokens > 1:  # places differ, or the mean would say nothing
        assert by_place.std(1).amax() > 1e-3


def test_places_come_frame_by_frame_and_row_by_row():
    encoder = built("conv", (2, 1, 28, 32))
    x = some(1, 2, 1, 28, 32)
    with torch.no_grad():
        by_place = encoder.tokens(x)
        maps = encoder.layers[:8](x[0])  # (frames, C, 7, 8)
    assert maps.shape == (2, 64, 7, 8)
    for frame, row, column in ((0, 0, 0), (0, 6, 7), (1, 2, 5)):
        place = frame * 56 + row * 8 + column
        torch.testing.assert_close(by_place[0, place], maps[frame, :, row, column])


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_stages_one_after_the_other_are_the_encoder_but_for_the_mean_over_places(name):
    encoder = built(name, (2, 64, 64))
    stages = encoder.stages()
    x = some(3, 2, 64, 64)
    with torch.no_grad():
        maps = x
        sizes = []
        for block in stages.blocks:
            maps = block(maps)
            sizes.append(tuple(maps.shape[1:]))
        torch.testing.assert_close(maps.mean((2, 3)), encoder(x), atol=1e-5, rtol=1e-5)
    assert (
        sizes
        == {
            "conv": [(16, 32, 32), (32, 16, 16), (64, 16, 16)],
            "resnet18": [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)],
        }[name]
    )
    assert [size[0] for size in sizes] == list(stages.channels)
    # the encoder's own weights, none of them twice
    parts = [id(p) for block in stages.blocks for p in block.parameters()]
    assert sorted(parts) == sorted(id(p) for p in encoder.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [("mlp", (5,), "MLPEncoder"), ("conv1d", (16, 2), "SeriesEncoder")],
)
def test_an_encoder_that_is_not_convolutional_over_images_has_no_stages(name, shape, kind):
    with pytest.raises(UsageError, match=f"^{kind} has no stages: exchanging between encoders "):
        built(name, shape).stages()


@pytest.mark.parametrize(("name", "shape"), [("conv", (1, 28, 28)), ("mlp", (5,))])
def test_features_of_nobody_are_zeros(name, shape):
    encoder = built(name, shape)
    absent = encoder.absent(4, torch.ones(1, dtype=torch.float64))
    assert absent.shape == (4, encoder.width)
    assert absent.dtype == torch.float64
    assert (absent == 0).all()


def test_statistics_are_frozen_for_a_lone_row_alone_and_only_where_they_moved():
    block = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.ReLU()).train()
    block[1].eval()
    with defined_statistics(block, 2):
        assert [module.training for module in block] == [True, False, True]
    with defined_statistics(block, 1):
        assert [module.training for module in block] == [False] * 3
        assert not block.training
    assert block.training
    assert [module.training for module in block] == [True, False, True]


def test_a_resnet18_of_rgb_images_is_torchvisions_without_its_classifier():
    from torchvision.models import resnet18

    encoder = built("resnet18", (3, 32, 32))
    reference = resnet18(weights=None).eval()
    weights = {name.removeprefix("layers."): w for name, w in encoder.state_dict().items()}
    missing = reference.load_state_dict(weights, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    reference.fc = nn.Identity()
    x = some(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), reference(x), atol=1e-5, rtol=1e-5)


def test_an_mlp_is_two_hidden_layers_with_layer_normalisation():
    encoder = built("mlp", (3,))
    weights = dict(encoder.named_parameters())
    assert [tuple(w.shape) for w in weights.values() if w.dim() == 2] == [(128, 3), (128, 128)]
    x = some(4, 3)
    expected = x
    for layer in (0, 3):
        z = expected @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
        centred = z - z.mean(1, keepdim=True)
        expected = (centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(encoder(x), expected, atol=1e-6, rtol=1e-5)


def test_conv1d_is_three_strided_convolutions_over_time_then_the_mean_over_time():
    encoder = built("conv1d", (41, 2))
    for norm in (block[1] for block in encoder.layers[:3]):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
    x = some(3, 41, 2)
    signal = x.transpose(1, 2)  # (batch, channels, time)
    for conv, norm in (block[:2] for block in encoder.layers[:3]):
        signal = nn.functional.conv1d(signal, conv.weight, stride=2, padding=2)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        signal = (signal - norm.running_mean[:, None]) * scale[:, None] + norm.bias[:, None]
        signal = signal.clamp(min=0)
    assert signal.shape == (3, 64, 6)
    torch.testing.assert_close(encoder(x), signal.mean(2), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "width"),
    [
        (ConvEncoder((1, 28, 28), channels=16), 32),
        (MLPEncoder((4,), hidden=7), 7),
        (SeriesEncoder((9, 2), channels=5), 5),
    ],
)
def test_widths_follow_the_size_asked_for(encoder, width):
    shape = {32: (1, 28, 28), 7: (4,), 5: (9, 2)}[width]
    assert encoder.width == width
    assert encoder(some(2, *shape)).shape == (2, width)


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
@pytest.mark.parametrize("shape", [(), (28,), (28, 28), (1, 2, 3, 28, 28)])
def test_an_image_encoder_refuses_what_is_neither_image_nor_frames(name, shape):
    with pytest.raises(
        UsageError,
        match=rf"^encoder '{name}' takes images \(channels, height, width\) or frames "
        r"\(frames, channels, height, width\), not inputs of shape ",
    ) as error:
        build_encoder(name, shape)
    assert str(error.value).endswith(f"of shape {shape}")


@pytest.mark.parametrize("shape", [(), (3, 4), (1, 28, 28)])
def test_an_mlp_refuses_what_is_not_a_vector(shape):
    with pytest.raises(
        UsageError, match=r"^encoder 'mlp' takes vectors \(d,\), not inputs of shape "
    ) as error:
        build_encoder("mlp", shape)
    assert str(error.value).endswith(f"of shape {shape}")


@pytest.mark.parametrize("shape", [(), (16,), (1, 28, 28)])
def test_conv1d_refuses_what_is_not_a_series(shape):
    with pytest.raises(
        UsageError,
        match=r"^encoder 'conv1d' takes series \(time, channels\), not inputs of shape ",
    ) as error:
        build_encoder("conv1d", shape)
    assert str(error.value).endswith(f"of shape {shape}")


def test_an_unknown_encoder_is_refused_with_the_legal_names():
    assert list(ENCODERS) == ["conv", "resnet18", "mlp", "conv1d"]
    with pytest.raises(
        UsageError,
        match="^unknown encoder 'resnet': choose one of conv, resnet18, mlp, conv1d$",
    ):
        build_encoder("resnet", (3, 32, 32))

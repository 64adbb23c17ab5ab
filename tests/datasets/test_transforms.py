"""What an encoder sees: the fixed evaluation transform and the random training transforms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.transforms import RANDOM, build_transform, flip, noise, shift
from mmcoop.errors import DataError


def offset_of(moved: torch.Tensor, original: torch.Tensor, height: int, width: int):
    """By how many rows and columns `original`, `(…, H, W)`, was moved to give `moved`.

    Tries every move within the bounds on a picture with a border of zeros; None fits none.
    """
    rows, columns = original.shape[-2:]
    framed = torch.zeros(*original.shape[:-2], rows + 2 * height, columns + 2 * width)
    framed[..., height : height + rows, width : width + columns] = original
    found = [
        (height - top, width - left)
        for top in range(2 * height + 1)
        for left in range(2 * width + 1)
        if torch.equal(framed[..., top : top + rows, left : left + columns], moved)
    ]
    assert len(found) <= 1, "the picture must tell its moves apart"
    return found[0] if found else None


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 5, 5), (4, 2, 6, 5)])
@pytest.mark.parametrize(("height", "width"), [(2, 1), (0, 3), (1, 0), (0, 0)])
def test_a_shift_moves_every_sample_within_its_bounds_and_fills_with_zeros(shape, height, width):
    torch.manual_seed(0)
    x = torch.rand(60, *shape) + 1
    moved = shift(x, height, width)
    assert moved.shape == x.shape
    offsets = [offset_of(m, o, height, width) for m, o in zip(moved, x, strict=True)]
    assert None not in offsets
    every = {(d, r) for d in range(-height, height + 1) for r in range(-width, width + 1)}
    assert set(offsets) == every, "each sample draws its own move, and all moves occur"


def test_all_shifts_are_equally_likely():
    torch.manual_seed(0)
    x = torch.zeros(9000, 1, 3, 3)
    x[:, :, 1, 1] = 1
    share = shift(x, 1, 1).mean(0)
    torch.testing.assert_close(share, torch.full((1, 3, 3), 1 / 9), rtol=0, atol=0.015)


def test_a_series_without_channels_shifts_too():
    torch.manual_seed(0)
    x = torch.rand(40, 20, 3) + 1
    offsets = [offset_of(m, o, 2, 0) for m, o in zip(shift(x, 2, 0), x, strict=True)]
    assert set(offsets) == {(d, 0) for d in range(-2, 3)}


@pytest.mark.parametrize("shape", [(6,), (1, 4, 5), (2, 3, 4, 5)])
def test_a_flip_mirrors_about_half_of_the_samples_and_leaves_the_others(shape):
    torch.manual_seed(0)
    x = torch.rand(400, *shape)
    flipped = flip(x)
    mirrored = 0
    for got, original in zip(flipped, x, strict=True):
        other = torch.from_numpy(original.numpy()[..., ::-1].copy())
        assert torch.equal(got, original) or torch.equal(got, other)
        mirrored += torch.equal(got, other)
    assert 150 < mirrored < 250  # 5 standard deviations


def test_a_flipped_flow_points_the_other_way():
    flow = Modality("flow", (1, 2, 4, 4), "float32", "conv", training={"flip": {}})
    to_the_right = np.zeros((60, 1, 2, 4, 4), np.float32)
    to_the_right[:, :, 0] = 1
    torch.manual_seed(0)
    x = build_transform(flow, training=True)(to_the_right)
    assert set(x[:, :, 0].unique().tolist()) == {-1.0, 1.0}
    assert not x[:, :, 1].any()


@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_noise_is_gaussian_of_its_scale_and_independent_everywhere(scale):
    torch.manual_seed(0)
    x = torch.rand(50, 4000)
    added = (noise(x, scale) - x) / scale
    assert abs(added.mean()) < 5 / 200_000**0.5
    assert abs(added.std() - 1) < 5 / 400_000**0.5
    assert abs((added.abs() < 1).double().mean() - 0.6827) < 0.006
    correlation = torch.corrcoef(added)
    assert (correlation - torch.eye(50)).abs().max() < 6 / 4000**0.5


def test_noise_of_scale_zero_changes_nothing():
    x = torch.rand(5, 3)
    assert torch.equal(noise(x, 0.0), x)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("image", (3, 5, 4), "uint8"),
        ("flow", (2, 2, 4, 3), "float16"),
        ("spectrogram", (1, 6, 7), "float16"),
        ("series", (5, 3), "float32"),
        ("vector", (4,), "float32"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_stored_samples_are_normalised_as_float32(kind, shape, dtype, training):
    modality = Modality(kind, shape, dtype, "conv", mean=0.5, std=4.0)
    stored = (np.random.default_rng(0).uniform(0, 200, (7, *shape))).astype(dtype)
    x = build_transform(modality, training=training)(stored)
    assert x.dtype == torch.float32
    assert x.shape == (7, *modality.input_shape)
    np.testing.assert_allclose(x.numpy(), (stored.astype(np.float64) - 0.5) / 4, rtol=1e-6)


def test_normalising_leaves_the_stored_samples_as_they_are():
    stored = np.ones((2, 3), np.float32)
    build_transform(Modality("vector", (3,), "float32", "mlp", mean=1.0), training=False)(stored)
    assert (stored == 1).all()


@pytest.mark.parametrize("name", RANDOM)
def test_random_changes_happen_in_training_alone_and_follow_the_seed(name):
    arguments = {"shift": {"height": 2, "width": 2}, "noise": {"scale": 0.5}}.get(name, {})
    modality = Modality(
        "image", (1, 8, 8), "float32", "conv", mean=1.0, std=2.0, training={name: arguments}
    )
    stored = np.random.default_rng(0).normal(size=(16, 1, 8, 8)).astype(np.float32)
    evaluation = build_transform(modality, training=False)
    np.testing.assert_allclose(evaluation(stored).numpy(), (stored - 1) / 2, rtol=1e-6)

    def trained(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_transform(modality, training=True)(stored)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    torch.manual_seed(1)
    by_hand = RANDOM[name](evaluation(stored), **arguments)
    assert torch.equal(trained(1), by_hand), "changes come after normalising"


def test_random_changes_apply_in_the_order_given():
    both = {"shift": {"height": 2, "width": 2}, "noise": {"scale": 0.5}}
    modality = Modality("image", (1, 8, 8), "float32", "conv", training=both)
    stored = np.ones((4, 1, 8, 8), np.float32)
    torch.manual_seed(5)
    x = build_transform(modality, training=True)(stored)
    torch.manual_seed(5)
    expected = noise(shift(torch.from_numpy(stored), 2, 2), 0.5)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("training", [False, True])
def test_an_unknown_training_transform_is_refused_with_the_known_ones(training):
    modality = Modality(
        "vector", (3,), "float32", "mlp", training={"noise": {"scale": 1}, "blur": {}}
    )
    with pytest.raises(
        DataError, match="unknown training transform 'blur': one of shift, crop, flip, noise"
    ):
        build_transform(modality, training=training)


# Frames


def smooth_picture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture without fine detail, uint8 `(height, width, 3)`: resizing it is well defined."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def test_frames_of_the_right_size_are_the_pictures_that_pillow_decodes(jpeg):
    modality = Modality("frames", (2, 3, 24, 24), "uint8", "resnet18")
    clips = [[jpeg(smooth_picture(24, 24, 2 * k + f)) for f in range(2)] for k in range(3)]
    x = build_transform(modality, training=False)(clips)
    assert x.dtype == torch.float32
    assert x.shape == (3, 2, 3, 24, 24)
    for clip, got in zip(clips, x, strict=True):
        for frame, picture in zip(clip, got, strict=True):
            decoded = np.asarray(Image.open(io.BytesIO(frame)))
            expected = decoded.transpose(2, 0, 1) / 255
            np.testing.assert_allclose(picture.numpy(), expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32), (16, 16)])
def test_evaluation_resizes_whole_frames_to_size(jpeg, height, width):
    modality = Modality("frames", (1, 3, height, width), "uint8", "resnet18", size=20)
    frame = jpeg(smooth_picture(height, width, 0))
    x = build_transform(modality, training=False)([[frame]])
    assert x.shape == (1, *modality.input_shape) == (1, 1, 3, 20, 20)
    resized = Image.open(io.BytesIO(frame)).resize((20, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(resized).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(x[0, 0].numpy(), expected, rtol=0, atol=2.01 / 255)


def test_frames_that_are_not_square_keep_their_shape_without_a_size(jpeg):
    modality = Modality("frames", (1, 3, 24, 32), "uint8", "resnet18")
    x = build_transform(modality, training=False)([[jpeg(smooth_picture(24, 32, 0))]])
    assert x.shape == (1, *modality.input_shape)


def test_evaluation_of_frames_is_deterministic_and_normalised(jpeg):
    clips = [[jpeg(smooth_picture(32, 32, k))] for k in range(3)]
    plain = Modality("frames", (1, 3, 32, 32), "uint8", "resnet18", size=16)
    scaled = Modality("frames", (1, 3, 32, 32), "uint8", "resnet18", size=16, mean=0.4, std=0.2)
    x = build_transform(plain, training=False)(clips)
    assert torch.equal(x, build_transform(plain, training=False)(clips))
    torch.testing.assert_close(
        build_transform(scaled, training=False)(clips), (x - 0.4) / 0.2, rtol=1e-5, atol=1e-6
    )


def test_training_crops_and_mirrors_every_frame_by_itself(jpeg):
    modality = Modality("frames", (3, 3, 40, 40), "uint8", "resnet18", size=24)
    clip = [jpeg(smooth_picture(40, 40, 0))] * 3
    torch.manual_seed(0)
    x = build_transform(modality, training=True)([clip] * 5)
    assert x.shape == (5, 3, 3, 24, 24)
    assert len({frame.numpy().tobytes() for frame in x.flatten(0, 1)}) == 15
    mirrored = Modality("frames", (9, 3, 24, 24), "uint8", "resnet18", training={"flip": {}})
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None] * 10, (24, 24, 3))
    x = build_transform(mirrored, training=True)([[jpeg(ramp)] * 9] * 20)
    ways = (x[..., -4:].mean((2, 3, 4)) > x[..., :4].mean((2, 3, 4))).double()
    assert ((ways.mean(1) > 0) & (ways.mean(1) < 1)).double().mean() > 0.8


def numbered_frames(jpeg, clips: int, frames: int) -> list[list[bytes]]:
    """Grey frames whose level, divided by 10, is their number."""
    levels = [jpeg(np.full((16, 16, 3), 10 * k, np.uint8)) for k in range(frames)]
    return [levels] * clips


@pytest.mark.parametrize(("segments", "each"), [(3, 3), (1, 5), (4, 1), (2, 7)])
@pytest.mark.parametrize("kind", ["frames", "flow"])
def test_a_frame_of_each_segment_is_drawn_in_training_and_the_middle_one_in_evaluation(
    jpeg, segments, each, kind
):
    stored_frames = segments * each
    shape = (stored_frames, 3 if kind == "frames" else 2, 16, 16)
    modality = Modality(kind, shape, "uint8", "conv", segments=segments)
    assert modality.input_shape == (segments, *shape[1:])
    if kind == "frames":
        stored, scale = numbered_frames(jpeg, 400, stored_frames), 25.5
    else:
        numbers = np.arange(stored_frames, dtype=np.uint8)[:, None, None, None]
        stored, scale = np.broadcast_to(numbers, (400, *shape)), 1.0

    def seen(training: bool) -> np.ndarray:
        x = build_transform(modality, training=training)(stored)
        assert x.shape == (400, *modality.input_shape)
        return (x.mean((2, 3, 4)) * scale).round().int().numpy()

    starts = each * np.arange(segments)
    assert (seen(training=False) == starts + each // 2).all()
    torch.manual_seed(0)
    drawn = seen(training=True) - starts
    torch.manual_seed(0)
    np.testing.assert_array_equal(seen(training=True) - starts, drawn)
    for k in range(segments):
        counts = np.bincount(drawn[:, k], minlength=each)
        assert len(counts) == each, "never of another segment"
        assert np.abs(counts - 400 / each).max() < 5 * (400 / each) ** 0.5
    if segments > 1 and each > 1:
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.25, "each by itself"


def test_training_crops_follow_the_seed(jpeg):
    modality = Modality("frames", (1, 3, 40, 40), "uint8", "resnet18", size=24)
    clips = [[jpeg(smooth_picture(40, 40, k))] for k in range(4)]

    def trained(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_transform(modality, training=True)(clips)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_a_training_crop_has_8_to_100_percent_of_the_area_and_an_aspect_of_3_to_4_to_4_to_3(jpeg):
    """Red grows with the column and green with the row, so a crop's colours tell its edges."""
    side, size = 128, 32
    modality = Modality("frames", (1, 3, side, side), "uint8", "resnet18", size=size)
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8) * 2, (side, side))
    frame = jpeg(np.stack([ramp, ramp.T, np.zeros_like(ramp)], axis=-1))
    torch.manual_seed(0)
    x = build_transform(modality, training=True)([[frame]] * 150)[:, 0] * 255 / 2
    inner = slice(4, size - 4)  # away from the edges, where resizing has no neighbours
    steps = size - 9
    width = (x[:, 0, :, size - 5] - x[:, 0, :, 4]).mean(1) / steps * size
    height = (x[:, 1, size - 5, :] - x[:, 1, 4, :]).mean(1) / steps * size
    left, top = x[:, 0, :, inner].mean((1, 2)) - width / 2, x[:, 1, inner].mean((1, 2)) - height / 2
    for start, length in ((left, width), (top, height)):
        assert start.min() > -2
        assert (start + length).max() < side + 2
    area, aspect = width * height / side**2, width / height
    assert area.min() > 0.08 - 0.02
    assert area.max() < 1 + 0.02
    assert area.min() < 0.2
    assert area.max() > 0.8
    assert aspect.min() > 3 / 4 - 0.06
    assert aspect.max() < 4 / 3 + 0.1
    assert aspect.min() < 0.85
    assert aspect.max() > 1.15

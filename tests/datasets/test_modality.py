"""What a modality may be, and what of it is refused."""

import json
from dataclasses import FrozenInstanceError

import pytest

from mmcoop.datasets.modality import KINDS, Modality
from mmcoop.errors import DataError

SHAPES = {
    "frames": (4, 3, 32, 48),
    "image": (1, 28, 28),
    "flow": (5, 2, 16, 16),
    "spectrogram": (1, 40, 32),
    "series": (20, 3),
    "vector": (6,),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_every_kind_and_dtype_survives_json(kind, dtype):
    modality = Modality(
        kind, SHAPES[kind], dtype, "conv", mean=0.25, std=2.0, training={"noise": {"scale": 0.5}}
    )
    assert Modality.from_json(json.loads(json.dumps(modality.to_json()))) == modality


def test_json_holds_every_field_by_name():
    modality = Modality("image", (1, 28, 28), "float16", "conv", training={"flip": {}})
    assert modality.to_json() == {
        "kind": "image",
        "shape": [1, 28, 28],
        "dtype": "float16",
        "encoder": "conv",
        "mean": 0.0,
        "std": 1.0,
        "size": None,
        "training": {"flip": {}},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gets_the_stored_shape_unless_frames_are_resized(kind):
    assert Modality(kind, SHAPES[kind], "uint8", "conv").input_shape == SHAPES[kind]


def test_a_size_makes_frames_square():
    modality = Modality("frames", (4, 3, 32, 48), "uint8", "resnet18", size=24)
    assert modality.input_shape == (4, 3, 24, 24)


def test_segments_are_seen_of_what_is_stored_and_survive_json():
    modality = Modality("frames", (9, 3, 32, 48), "uint8", "resnet18", size=24, segments=3)
    assert modality.input_shape == (3, 3, 24, 24)
    assert Modality.from_json(json.loads(json.dumps(modality.to_json()))) == modality


@pytest.mark.parametrize(
    ("kind", "segments", "message"),
    [
        ("flow", 2, "5 stored frames do not make 2 segments"),
        ("flow", 0, "5 stored frames do not make 0 segments"),
        ("frames", 2, "4 stored frames do not make 2 segments"),  # no frame is in the middle of two
        ("image", 1, "image has no segments"),
    ],
)
def test_segments_without_a_middle_are_refused(kind, segments, message):
    with pytest.raises(DataError, match=message):
        Modality(kind, SHAPES[kind], "uint8", "conv", segments=segments)


def test_a_modality_cannot_be_changed():
    modality = Modality("vector", (6,), "float32", "mlp")
    with pytest.raises(FrozenInstanceError):
        modality.std = 2.0  # type: ignore[misc]


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="unknown kind of modality 'smell': one of frames, image,"):
        Modality("smell", (3,), "float32", "mlp")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["one too few", "one too many", "an empty one"])
def test_a_shape_of_another_kind_is_refused(kind, change):
    shape = {
        "one too few": SHAPES[kind][1:],
        "one too many": (2, *SHAPES[kind]),
        "an empty one": (*SHAPES[kind][:-1], 0),
    }[change]
    with pytest.raises(DataError, match=rf"shape \(.*\) is not that of {kind}: \("):
        Modality(kind, shape, "float32", "conv")


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="unknown dtype 'int8': one of uint8, float16, float32"):
        Modality("vector", (3,), "int8", "mlp")


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_std_that_cannot_divide_is_refused(std):
    with pytest.raises(DataError, match=f"std is {std}: it must be above 0"):
        Modality("vector", (3,), "float32", "mlp", std=std)


def test_a_size_is_refused_for_what_is_not_resized():
    with pytest.raises(DataError, match="size"):
        Modality("image", (1, 28, 28), "float32", "conv", size=14)

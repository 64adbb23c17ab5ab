"""From a data set or a run folder to a model."""

import json

import pytest
import torch

from mmcoop.core.models.encoders.conv import ConvEncoder
from mmcoop.core.models.encoders.conv1d import SeriesEncoder
from mmcoop.core.models.encoders.mlp import MLPEncoder
from mmcoop.core.models.encoders.resnet18 import ResNet18Encoder
from mmcoop.core.models.fusions.late import Late
from mmcoop.core.models.fusions.sum import Sum
from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import UsageError
from mmcoop.training.build import Architecture, architecture_of
from mmcoop.training.config import TrainConfig

SMALL = Architecture(
    encoders={"ear": "mlp", "arm": "conv1d"},
    shapes={"ear": (6,), "arm": (20, 3)},
    fusion="concat",
    classes=("yes", "no"),
)


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_an_architecture_survives_json():
    assert Architecture.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL


def test_json_names_encoder_and_shape_of_each_modality_the_fusion_and_the_classes():
    assert SMALL.to_json() == {
        "modalities": {
            "ear": {"encoder": "mlp", "shape": [6]},
            "arm": {"encoder": "conv1d", "shape": [20, 3]},
        },
        "fusion": "concat",
        "classes": ["yes", "no"],
    }


def test_the_model_of_a_data_set_has_its_modalities_with_their_encoders(tiny_dataset):
    architecture = architecture_of(open_dataset(tiny_dataset), TrainConfig())
    assert architecture == Architecture(
        encoders={"features": "mlp", "motion": "conv1d", "picture": "conv"},
        shapes={"features": (6,), "motion": (20, 3), "picture": (1, 28, 28)},
        fusion="concat",
        classes=("left", "middle", "right"),
    )
    model = architecture.build()
    assert model.modalities == ("features", "motion", "picture")
    assert isinstance(model.encoders["features"], MLPEncoder)
    assert isinstance(model.encoders["motion"], SeriesEncoder)
    assert isinstance(model.encoders["picture"], ConvEncoder)


def test_the_model_takes_inputs_of_the_shapes_and_answers_with_a_logit_a_class():
    model = SMALL.build().eval()
    logits = model({"ear": torch.randn(4, 6), "arm": torch.randn(4, 20, 3)})
    assert logits.shape == (4, 2)


@pytest.mark.parametrize(("fusion", "kind"), [("sum", Sum), ("late", Late)])
def test_the_fusion_is_the_one_of_the_configuration(tiny_dataset, fusion, kind):
    architecture = architecture_of(open_dataset(tiny_dataset), TrainConfig(fusion=fusion))
    assert architecture.fusion == fusion
    assert isinstance(architecture.build().fusion, kind)


def test_the_configuration_may_name_another_encoder_for_a_modality(tiny_dataset):
    config = TrainConfig(encoders={"picture": "resnet18"})
    architecture = architecture_of(open_dataset(tiny_dataset), config)
    assert architecture.encoders == {"features": "mlp", "motion": "conv1d", "picture": "resnet18"}
    assert isinstance(architecture.build().encoders["picture"], ResNet18Encoder)


def test_a_unimodal_model_has_one_encoder_only(tiny_dataset):
    config = TrainConfig(method="unimodal", options={"modality": "motion"})
    architecture = architecture_of(open_dataset(tiny_dataset), config)
    assert architecture.encoders == {"motion": "conv1d"}
    assert architecture.shapes == {"motion": (20, 3)}
    model = architecture.build()
    assert model.modalities == ("motion",)
    assert {key.split(".")[1] for key in model.state_dict() if key.startswith("encoders.")} == {
        "motion"
    }


def test_the_same_seed_draws_the_same_weights_and_another_seed_others():
    assert equal_weights(SMALL.build(3), SMALL.build(3))
    assert not equal_weights(SMALL.build(3), SMALL.build(4))
    first = SMALL.build(3).encoders["ear"].state_dict()["layers.0.weight"]
    second = SMALL.build(4).encoders["ear"].state_dict()["layers.0.weight"]
    assert (first != second).float().mean() > 0.99


def test_building_neither_uses_nor_changes_torchs_own_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = SMALL.build(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal_weights(SMALL.build(3), model)


def test_an_encoder_for_a_modality_that_the_data_set_lacks_is_refused(tiny_dataset):
    expected = "^the data set has no modality 'smell': choose one of features, motion, picture$"
    with pytest.raises(UsageError, match=expected):
        architecture_of(open_dataset(tiny_dataset), TrainConfig(encoders={"smell": "mlp"}))


def test_an_unknown_encoder_is_refused_with_the_legal_ones(tiny_dataset):
    with pytest.raises(UsageError, match="^unknown encoder 'eye': choose one of conv, resnet18"):
        architecture_of(open_dataset(tiny_dataset), TrainConfig(encoders={"picture": "eye"}))


def test_unimodal_training_of_a_modality_that_the_data_set_lacks_is_refused(tiny_dataset):
    config = TrainConfig(method="unimodal", options={"modality": "smell"})
    expected = "^the data set has no modality 'smell': choose one of features, motion, picture$"
    with pytest.raises(UsageError, match=expected):
        architecture_of(open_dataset(tiny_dataset), config)


def test_an_encoder_that_cannot_take_the_shape_is_refused(tiny_dataset):
    architecture = architecture_of(
        open_dataset(tiny_dataset), TrainConfig(encoders={"picture": "mlp"})
    )
    with pytest.raises(UsageError, match=r"encoder 'mlp' takes vectors \(d,\), not inputs of"):
        architecture.build()

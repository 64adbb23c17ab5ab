"""The configuration of training: layers, checks, learning rates."""

import dataclasses
import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

from mmcoop.errors import UsageError
from mmcoop.training.config import (
    OPTIMIZERS,
    SCHEDULES,
    TrainConfig,
    fitting_defaults,
    make_config,
    shrunk_warmup,
)


def by_torch(config: TrainConfig, make_scheduler) -> list[float]:
    """The learning rates of all epochs as a scheduler of torch sets them."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(config.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates_of(config: TrainConfig) -> list[float]:
    return [config.learning_rate(epoch) for epoch in range(1, config.epochs + 1)]


# --- defaults


def test_the_defaults_are_the_papers_training_set_up():
    assert TrainConfig().to_json() == {
        "method": "joint",
        "options": {},
        "warmup": 5,
        "max_extra": 0,
        "value": "paper",
        "fusion": "concat",
        "encoders": {},
        "epochs": 60,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 5e-5,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "step",
        "step_epochs": 30,
        "step_factor": 0.1,
        "lr_warmup": 0,
        "patience": 0,
        "max_seconds": 0.0,
        "seed": 0,
    }


def test_the_papers_learning_rate_drops_to_a_tenth_after_epoch_30():
    assert rates_of(TrainConfig()) == pytest.approx([5e-5] * 30 + [5e-6] * 30, rel=1e-12)


# --- learning rates


@pytest.mark.parametrize(
    ("epochs", "step_epochs", "step_factor"),
    [(10, 3, 0.1), (7, 1, 0.5), (6, 6, 0.1), (5, 9, 0.1), (4, 2, 0.0), (4, 2, 2.0)],
)
def test_the_step_schedule_is_that_of_torch(epochs, step_epochs, step_factor):
    config = TrainConfig(
        schedule="step",
        epochs=epochs,
        lr=0.3,
        step_epochs=step_epochs,
        step_factor=step_factor,
    )
    expected = by_torch(config, lambda optimizer: StepLR(optimizer, step_epochs, step_factor))
    assert rates_of(config) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 61])
def test_the_cosine_schedule_is_that_of_torch(epochs):
    config = TrainConfig(schedule="cosine", epochs=epochs, lr=0.3)
    expected = by_torch(config, lambda optimizer: CosineAnnealingLR(optimizer, epochs))
    assert rates_of(config) == pytest.approx(expected, rel=1e-9)


def test_the_cosine_schedule_starts_at_the_full_rate_halves_it_midway_and_never_reaches_0():
    rates = rates_of(TrainConfig(schedule="cosine", epochs=8, lr=2.0))
    assert rates[0] == 2.0
    assert rates[4] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1 + math.cos(7 * math.pi / 8))
    assert all(after < before for before, after in pairwise(rates))


def test_the_constant_schedule_is_constant():
    assert rates_of(TrainConfig(schedule="constant", epochs=50, lr=0.2)) == [0.2] * 50


@pytest.mark.parametrize("lr_warmup", [1, 2, 5])
def test_the_rate_rises_linearly_over_the_warm_up_epochs_as_with_torch(lr_warmup):
    config = TrainConfig(schedule="constant", epochs=9, lr=0.6, lr_warmup=lr_warmup)
    expected = by_torch(
        config,
        lambda optimizer: LinearLR(optimizer, 1 / (lr_warmup + 1), 1.0, total_iters=lr_warmup),
    )
    assert rates_of(config) == pytest.approx(expected, rel=1e-12)
    assert rates_of(config)[lr_warmup] == pytest.approx(0.6)
    assert rates_of(config)[0] == pytest.approx(0.6 / (lr_warmup + 1))


@given(
    epoch=st.integers(1, 40),
    schedule=st.sampled_from(SCHEDULES),
    lr_warmup=st.integers(0, 10),
    lr=st.floats(1e-6, 10),
)
def test_the_warm_up_multiplies_the_schedule(epoch, schedule, lr_warmup, lr):
    with_warmup = TrainConfig(schedule=schedule, epochs=40, lr=lr, lr_warmup=lr_warmup)
    without = TrainConfig(schedule=schedule, epochs=40, lr=lr)
    share = with_warmup.learning_rate(epoch) / without.learning_rate(epoch)
    assert share == pytest.approx(min(1, epoch / (lr_warmup + 1)), rel=1e-12)


# --- layers


def test_later_layers_go_over_earlier_ones_and_the_rest_stays_at_its_default():
    config = make_config(
        {"epochs": 25, "lr": 1e-3, "warmup": 4},
        {"lr": 2e-3, "seed": 7},
        {},
        {"seed": 8},
    )
    assert config == TrainConfig(epochs=25, lr=2e-3, warmup=4, seed=8)


def test_no_layer_at_all_gives_the_defaults():
    assert make_config() == make_config({}) == TrainConfig()


def test_a_layer_replaces_a_mapping_of_an_earlier_one_whole():
    config = make_config(
        {"method": "modality", "options": {"fraction": 0.5, "alpha": 2.0}},
        {"options": {"rule": "tanh"}, "encoders": {"motion": "conv1d"}},
        {"encoders": {"picture": "conv"}},
    )
    assert config.options == {"fraction": 0.2, "rule": "tanh", "alpha": 1.0}
    assert config.encoders == {"picture": "conv"}


def test_the_layers_themselves_are_left_as_they_were():
    layers = {"lr": 1, "options": {"fraction": "0.5"}, "method": "modality"}
    make_config(layers)
    assert layers == {"lr": 1, "options": {"fraction": "0.5"}, "method": "modality"}


def test_a_whole_number_will_do_for_a_fractional_setting():
    config = make_config({"lr": 1, "weight_decay": 0})
    assert (config.lr, config.weight_decay) == (1.0, 0.0)
    assert isinstance(config.lr, float)
    assert isinstance(config.weight_decay, float)


def test_a_configuration_survives_json():
    config = make_config(
        {"method": "modality", "options": {"rule": "power"}, "encoders": {"picture": "resnet18"}},
        {"lr": 0.1, "optimizer": "sgd", "schedule": "cosine", "patience": 3},
    )
    assert make_config(json.loads(json.dumps(config.to_json()))) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


# --- refusals


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"^unknown setting 'learning_rate': one of ") as error:
        make_config({"epochs": 3}, {"learning_rate": 0.1})
    for field in dataclasses.fields(TrainConfig):
        assert field.name in str(error.value)


@pytest.mark.parametrize(
    ("name", "setting", "expected"),
    [
        ("epochs", "3", "int"),
        ("epochs", 3.0, "int"),
        ("epochs", None, "int"),
        ("lr", "0.1", "float"),
        ("lr", None, "float"),
        ("lr", True, "float"),
        ("fusion", 3, "str"),
        ("method", ["joint"], "str"),
        ("options", ["fraction"], "Mapping"),
        ("encoders", "conv", "Mapping"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused(name, setting, expected):
    with pytest.raises(UsageError) as error:
        make_config({name: setting})
    assert str(error.value) == f"setting {name!r} is {setting!r}: expected {expected}"


def test_a_truth_value_is_no_number_of_epochs():
    with pytest.raises(UsageError, match="setting 'epochs' is True: expected int"):
        make_config({"epochs": True})


@pytest.mark.parametrize(
    ("kind", "legal"), [("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)], ids=str
)
def test_an_unknown_optimizer_or_schedule_is_refused_with_the_legal_ones(kind, legal):
    expected = f"^unknown {kind} 'newton': choose one of {', '.join(legal)}$"
    with pytest.raises(UsageError, match=expected):
        TrainConfig(**{kind: "newton"})


def test_an_unknown_method_is_refused_with_the_legal_ones():
    expected = "^unknown method 'magic': choose one of joint, unimodal, sample, modality"
    with pytest.raises(UsageError, match=expected):
        TrainConfig(method="magic")


def test_an_unknown_fusion_is_refused_with_the_legal_ones():
    with pytest.raises(UsageError, match="^unknown fusion 'glue': choose one of concat, sum, late"):
        TrainConfig(fusion="glue")


@pytest.mark.parametrize("name", ["epochs", "batch_size", "step_epochs"])
@pytest.mark.parametrize("number", [0, -1])
def test_a_count_below_1_is_refused(name, number):
    with pytest.raises(UsageError, match=f"^{name} is {number}: it must be at least 1$"):
        TrainConfig(**{name: number})


@pytest.mark.parametrize("name", ["warmup", "max_extra", "patience", "seed"])
def test_a_negative_count_is_refused_while_0_is_fine(name):
    TrainConfig(**{name: 0})
    with pytest.raises(UsageError, match=f"^{name} is -1: "):
        TrainConfig(**{name: -1})


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "step_factor", "lr_warmup"])
@pytest.mark.parametrize("number", [-0.1, math.nan, math.inf])
def test_a_number_that_is_negative_or_not_finite_is_refused(name, number):
    TrainConfig(**{name: 0.0})
    expected = f"^{name} is {number}: "
    with pytest.raises(UsageError, match=expected):
        TrainConfig(**{name: number})


def test_every_refusal_has_exit_code_2():
    with pytest.raises(UsageError) as error:
        TrainConfig(epochs=0)
    assert error.value.exit_code == 2


# --- options of the method


def test_the_options_of_the_method_are_checked_and_completed():
    assert TrainConfig(method="modality", options={"alpha": "2"}).options == {
        "fraction": 0.2,
        "rule": "linear",
        "alpha": 2.0,
    }
    assert TrainConfig(method="sample").options == {}


def test_an_option_that_the_method_does_not_have_is_refused():
    with pytest.raises(UsageError, match=r"^method 'joint' has no option 'alpha'.*: none$"):
        make_config({"options": {"alpha": 1}})


# --- a warm-up that does not fit


@pytest.mark.parametrize(
    ("defaults", "given", "warmup"),
    [
        ({"epochs": 25, "warmup": 4}, {"epochs": 3}, 1),
        ({"epochs": 25, "warmup": 4}, {"epochs": 1}, 0),
        ({"epochs": 25, "warmup": 4}, {"epochs": 4}, 2),
        ({"epochs": 25, "warmup": 4}, {"epochs": 5}, 4),
        ({"epochs": 25, "warmup": 4}, {}, 4),
        ({}, {"epochs": 5}, 2),
        ({"warmup": 4}, {"epochs": 3, "warmup": 3}, 3),
    ],
)
def test_a_warm_up_is_half_of_the_epochs_where_the_usual_one_does_not_fit_and_none_is_given(
    defaults, given, warmup
):
    config = make_config(fitting_defaults(defaults, given), given, {"method": "sample"})
    assert config.warmup == warmup
    usual = defaults.get("warmup", 5)
    note = shrunk_warmup(config, defaults, given)
    assert (note is None) == (warmup in (usual, given.get("warmup")))
    if note:
        assert f"warm-up of {warmup} of {config.epochs} epochs" in note
    assert shrunk_warmup(replace(config, method="joint"), defaults, given) is None


# --- runs that are the beginning of longer ones


def test_a_shorter_run_is_the_beginning_of_a_longer_one_of_the_same_settings():
    short, long = TrainConfig(epochs=3), TrainConfig(epochs=7)
    assert short.begins(long)
    assert short.begins(short)
    assert short.begins(TrainConfig(epochs=7, max_seconds=60.0))
    assert not long.begins(short)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"lr": 1e-3}, {"method": "uniform"}, {"patience": 2}]
)
def test_a_run_of_other_settings_is_not_the_beginning(changes):
    assert not TrainConfig(epochs=3).begins(TrainConfig(epochs=7, **changes))


@pytest.mark.parametrize(("epochs", "longer"), [(25, 72), (10, 11), (60, 61), (7, 20), (30, 12)])
@pytest.mark.parametrize(
    "schedule",
    [
        {"step_epochs": 30.0},
        {"step_epochs": 5.0, "lr_warmup": 4.0},
        {"step_epochs": 3.0},
    ],
)
def test_a_stretched_schedule_has_the_same_learning_rate_at_the_same_share_of_the_run(
    epochs, longer, schedule
):
    short = TrainConfig(epochs=epochs, lr=1.0, **schedule)
    long = replace(short.stretched(longer / epochs), epochs=longer)
    for k in range(longer):
        # where epoch k of the longer run is in the shorter one, by exact fractions
        steps = Fraction(k * epochs, longer) // Fraction(short.step_epochs)
        rising = min(1.0, (k + 1) / (short.lr_warmup * longer / epochs + 1))
        assert long.learning_rate(k + 1) == pytest.approx(0.1 ** int(steps) * rising)
    assert short.stretched(1.0) == short


@pytest.mark.parametrize(
    ("method", "until"), [("ogm", 51), ("ogm-ge", 51), ("pmr", 101), ("agm", 21)]
)
def test_a_method_that_ends_early_ends_at_the_same_share_of_a_stretched_run(method, until):
    short = TrainConfig(method=method, epochs=25)
    assert short.options["until"] == until
    long = replace(short.stretched(2.4), epochs=60)
    assert long.options == {**short.options, "until": round(until * 2.4)}
    # only where it ends within the shorter run are their first epochs not the same
    assert short.begins(long) == (until >= 25)
    assert not short.begins(replace(long, options={**long.options, "alpha": 9.0}))


def test_what_a_method_begins_with_is_not_stretched():
    assert TrainConfig(method="sample").stretched(3.0).warmup == 5
    assert TrainConfig(method="greedy").stretched(3.0).options["start"] == 1


def test_a_stretched_run_begins_as_the_shorter_one_where_the_learning_rates_agree():
    constant = TrainConfig(epochs=25)  # the step would come at epoch 30
    assert constant.begins(replace(constant.stretched(2.0), epochs=50))
    stepped = TrainConfig(epochs=25, step_epochs=10)
    assert not stepped.begins(replace(stepped.stretched(2.0), epochs=50))
    rising = TrainConfig(epochs=25, lr_warmup=2)
    assert not rising.begins(replace(rising.stretched(2.0), epochs=50))


def test_where_learning_rates_depend_on_the_number_of_epochs_no_run_begins_another():
    assert not TrainConfig(epochs=3, schedule="cosine").begins(
        TrainConfig(epochs=7, schedule="cosine")
    )
    step = {"schedule": "step", "step_epochs": 2}
    assert TrainConfig(epochs=3, **step).begins(TrainConfig(epochs=7, **step))

"""How a model is trained: every choice that decides its weights, and the default of each."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints

from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import UsageError, setting
from mmcoop.methods import METHODS, checked_options
from mmcoop.settings import check_settings, option

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("step", "cosine", "constant")
#: The value functions with a unit: a fair share, or the value of a certain and right prediction.
ENHANCING_VALUES = ("paper", "correct", "probability", "predicted-probability")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. Defaults are the paper's; a dataset's recommended settings override
    them.

    Raises:
        UsageError: An unknown name, or a number out of range.
    """

    method: str = option("joint", "Training method; see --list-methods")
    options: Mapping[str, Any] = field(default_factory=dict)
    warmup: int = option(5, "Joint epochs before enhancement starts", min=0)
    max_extra: int = option(0, "Most extra examples per sample and epoch; 0: no limit", min=0)
    value: str = option(
        "paper",
        f"Value by which samples are enhanced: {', '.join(ENHANCING_VALUES)}",
        choices=ENHANCING_VALUES,
    )
    fusion: str = option("concat", "Fusion; see --list-fusions")
    encoders: Mapping[str, str] = field(default_factory=dict)
    epochs: int = option(60, "Number of epochs", min=1)
    batch_size: int = option(64, "Training examples per step", min=1)
    optimizer: str = option("adam", "adam or sgd", choices=OPTIMIZERS)
    lr: float = option(5e-5, "Learning rate", min=0)
    momentum: float = option(0.9, "Momentum of sgd", min=0)
    weight_decay: float = option(1e-4, "Weight decay", min=0)
    schedule: str = option(
        "step",
        "Learning-rate schedule: step, cosine or constant",
        choices=SCHEDULES,
    )
    step_epochs: float = option(30.0, "Epochs between steps of the learning rate", min=1)
    step_factor: float = option(0.1, "Factor of each step of the learning rate", min=0)
    lr_warmup: float = option(0.0, "Epochs of rising learning rate", min=0)
    patience: int = option(0, "Stop after N epochs without improvement; 0: never", min=0)
    max_seconds: float = option(0.0, "Stop after this many seconds; 0: never", min=0)
    seed: int = option(0, "Random seed of weights, order and everything else", min=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", checked_options(self.method, self.options))
        METHODS.check(self.method)
        FUSIONS.check(self.fusion)
        check_settings(self)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def stretched(self, factor: float) -> "TrainConfig":
        """The configuration with the schedule of a run that is `factor` times as long.

        What depends on how far the run is takes place at the same share of the longer run: steps
        and warm-up of the learning rate, and the last epoch of a method that ends early. What a
        method begins with, such as `warmup`, depends on how much the model has learnt and stays.
        `epochs` is left to the caller.
        """
        ends = {name: round(self.options[name] * factor) for name in self._ends}
        return replace(
            self,
            step_epochs=max(1.0, self.step_epochs * factor),
            lr_warmup=self.lr_warmup * factor,
            options={**self.options, **ends},
        )

    def begins(self, longer: "TrainConfig") -> bool:
        """Whether the first epochs of a run by `longer` are those of a run by this configuration.

        True where they differ in length and schedule alone, and the schedules agree on the epochs
        of the shorter run.
        """
        schedule = ("epochs", "max_seconds", "step_epochs", "lr_warmup")
        alike = replace(self, **{name: getattr(longer, name) for name in schedule})
        if self.method == longer.method:
            ends = {name: longer.options[name] for name in self._ends}
            alike = replace(alike, options={**self.options, **ends})
        return (
            self.epochs <= longer.epochs
            and alike == longer
            and all(self._state(k) == longer._state(k) for k in range(1, self.epochs + 1))
        )

    @property
    def _ends(self) -> tuple[str, ...]:
        ends: tuple[str, ...] = METHODS.load(self.method).ends
        return ends

    def _state(self, epoch: int) -> tuple[float, ...]:
        """What the schedule decides in an epoch."""
        return self.learning_rate(epoch), *(epoch <= self.options[name] for name in self._ends)

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch; epochs count from 1.

        `step` multiplies it by `step_factor` after every `step_epochs` epochs, `cosine` lowers it
        to 0 over the run; over the first `lr_warmup` epochs it rises linearly.
        """
        done = epoch - 1
        steps = math.floor(done / self.step_epochs + 1e-9)
        factor = {
            "step": self.step_factor**steps,
            "cosine": (1 + math.cos(math.pi * done / self.epochs)) / 2,
            "constant": 1.0,
        }[self.schedule]
        rising = min(1.0, epoch / (self.lr_warmup + 1))
        return self.lr * factor * rising


def check_warmup(config: TrainConfig) -> None:
    """Raise `UsageError` where the warm-up leaves no epoch to a method that begins with one."""
    if METHODS.load(config.method).has_warmup and config.warmup >= config.epochs:
        raise UsageError(
            f"the warm-up is {config.warmup} of {config.epochs} epochs, so method "
            f"{config.method!r} would never start: lower {setting('warmup')} or raise "
            f"{setting('epochs')}"
        )


def fitting_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's `defaults`, with a warm-up that fits into the number of epochs.

    Where the settings that are `given` have no warm-up, and the usual one would leave no epoch
    after it, it is half of the epochs, rounded down.
    """
    config = make_config(defaults, {k: v for k, v in given.items() if k in ("epochs", "warmup")})
    if "warmup" in given or config.warmup < config.epochs:
        return dict(defaults)
    return {**defaults, "warmup": config.epochs // 2}


def shrunk_warmup(
    config: TrainConfig, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> str | None:
    """What to report of a warm-up that `fitting_defaults` made shorter, None where it did not."""
    usual = make_config(defaults).warmup
    starts_late = METHODS.load(config.method).has_warmup
    if not starts_late or "warmup" in given or usual < config.epochs:
        return None
    return (
        f"warm-up of {config.warmup} of {config.epochs} epochs: the usual {usual} would leave none "
        f"for method {config.method!r}"
    )


def make_config(*layers: Mapping[str, Any]) -> TrainConfig:
    """A configuration from layers of settings, later ones going over earlier ones.

    Raises `UsageError` for a setting that does not exist or has the wrong type.
    """
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise UsageError(f"settings are {layer!r}: give a dict of them by name")
    settings = {name: setting for layer in layers for name, setting in layer.items()}
    types = get_type_hints(TrainConfig)
    known = {f.name for f in fields(TrainConfig)}
    for name, given in settings.items():
        if name not in known:
            raise UsageError(f"unknown setting {name!r}: one of {', '.join(sorted(known))}")
        expected = types[name]
        if expected is float and type(given) is int:
            settings[name] = float(given)
        elif type(given) is not (dict if get_args(expected) else expected):
            raise UsageError(f"setting {name!r} is {given!r}: expected {expected.__name__}")
    return TrainConfig(**settings)

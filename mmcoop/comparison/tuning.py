"""The trials of `mmcoop compare --tune`: the same number for every case, judged on validation."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from mmcoop.comparison.run_specs import RunSpec, tuned
from mmcoop.core.seeds import generator
from mmcoop.methods import METHODS

#: The learning rate is tried within this factor of the usual one, either way.
LR_FACTOR = 5.0


def trial_spec(case: RunSpec, trial: int, seed: int, lr: float) -> RunSpec:
    """What a trial of the case is trained with. Trial 0 is the defaults.

    Others draw a learning rate, the same one for every case, and each option of the method's
    `search` that was not given, on a logarithmic scale.
    """
    if trial == 0:
        return case
    chosen = lr * LR_FACTOR ** _uniform(seed, "lr", trial, low=-1, high=1)
    search: Mapping[str, tuple[float, float]] = METHODS.load(case.method).search
    options = {
        name: _rounded(
            math.exp(_uniform(seed, name, trial, low=math.log(low), high=math.log(high)))
        )
        for name, (low, high) in search.items()
        if name not in case.options
    }
    return tuned(case, {"lr": _rounded(chosen)}, options)


def best_trial(outcomes: list[dict[str, Any]]) -> int:
    """The trial of highest accuracy on validation, of lowest loss there among equals."""
    ranks = [(o["validation"]["accuracy"], -o["validation"]["loss"]) for o in outcomes]
    return ranks.index(max(ranks))


def _uniform(seed: int, name: str, trial: int, *, low: float, high: float) -> float:
    share = float(torch.rand((), generator=generator(seed, "trial", name, trial)))
    return low + share * (high - low)


def _rounded(number: float) -> float:
    """Three digits are enough of a number that chance has picked."""
    return float(f"{number:.3g}")

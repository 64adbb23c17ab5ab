"""How samples are valued: every choice that decides their contributions, and its default."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from mmcoop.core.choices import ESTIMATORS, SAMPLED
from mmcoop.core.games.coalitions import MAX_EXACT_MODALITIES
from mmcoop.core.games.estimators import check_budget, default_budget
from mmcoop.core.valuation.value_functions import ValueFunction, Worth, value_function
from mmcoop.errors import UsageError


@dataclass(frozen=True)
class ValuationConfig:
    """How samples are valued.

    `value`: a value function, by name or one's own. `estimator`: "exact", from all 2**n coalitions,
    n up to 12; "permutation" or "kernel", from sampled coalitions (`core/games/estimators.py`);
    "auto": exact, unless there are more modalities or `budget` is less than 2**n, then kernel.
    `budget`: coalitions a sample that may be valued where they are drawn, None for the usual number
    of them; `tolerance`: a standard error below which a sample's contributions need not get, which
    ends it before the budget. `max_batch`: rows, a sample and a coalition each, that the model is
    asked for at once; None for as many as fill 4 MiB with inputs or outputs. `seed` decides what
    is drawn.

    Raises `UsageError` for what cannot be meant.
    """

    value: str | ValueFunction | Worth = "paper"
    estimator: str = "auto"
    budget: int | None = None
    tolerance: float | None = None
    max_batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        value_function(self.value)
        if not isinstance(self.estimator, str) or self.estimator not in ESTIMATORS:
            raise UsageError(
                f"unknown estimator {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}"
            )
        for name in ("budget", "max_batch"):
            number = getattr(self, name)
            if number is not None and not isinstance(number, Integral):
                raise UsageError(f"{name} is {number!r}: it must be a whole number")
            if number is not None and number < 1:
                raise UsageError(f"{name} is {number}: it must be at least 1")
        if self.tolerance is not None and not (
            isinstance(self.tolerance, Real)
            and math.isfinite(self.tolerance)
            and self.tolerance > 0
        ):
            raise UsageError(f"tolerance is {self.tolerance}: it must be a number above 0")
        if self.estimator == "exact" and (self.budget or self.tolerance):
            raise UsageError(
                "a budget or a tolerance is for coalitions that are drawn: leave it out, or choose "
                f"an estimator: {', '.join(SAMPLED)}"
            )

    def chosen(self, n_modalities: int) -> tuple[str, int | None]:
        """The estimator for so many modalities and its budget, None for exact.

        Raises `UsageError` where these are too many for an exact valuation, or the budget is too
        small.
        """
        estimator = self.estimator
        if estimator == "auto":
            exact = n_modalities <= MAX_EXACT_MODALITIES and self.tolerance is None
            fits = self.budget is None or self.budget >= 2**n_modalities
            estimator = "exact" if exact and fits else "kernel"
        if estimator == "exact":
            if n_modalities > MAX_EXACT_MODALITIES:
                raise UsageError(
                    f"{n_modalities} modalities: all coalitions are valued for 1 to "
                    f"{MAX_EXACT_MODALITIES} modalities only; choose an estimator that draws them: "
                    f"{', '.join(SAMPLED)}"
                )
            return estimator, None
        budget = self.budget or default_budget(estimator, n_modalities)
        check_budget(estimator, budget, n_modalities)
        return estimator, budget

    def details(self, n_modalities: int) -> dict[str, Any]:
        """What a scores file says of this."""
        function = value_function(self.value)
        estimator, budget = self.chosen(n_modalities)
        drawn = {"budget": budget, "tolerance": self.tolerance}
        return {
            "value": function.name,
            "fair_share": function.fair_share,
            "best": function.best,
            "estimator": estimator,
            **(drawn if budget else {}),
            "seed": self.seed,
        }

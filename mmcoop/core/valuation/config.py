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

    Attributes:
        value: A value function, by name or user-defined.
        estimator: `"exact"`: all `2**n` coalitions, n up to 12. `"permutation"` or `"kernel"`:
            sampled coalitions. `"auto"`: exact, but kernel for more modalities, a tolerance, or a
            budget below `2**n`.
        budget: At most this many coalitions per sample, if they are sampled; None for the default.
        tolerance: Sampling stops for a sample once its standard errors are at most this.
        max_batch: At most this many queries (a sample with a coalition) per call of the model; None
            for as many as fill 4 MiB with inputs or outputs.
        seed: Seed of the sampling.

    Raises:
        UsageError: An unknown name, a number out of range, or options that contradict each other.
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
        """Choose the estimator for this many modalities, and its budget: None for exact.

        Raises:
            UsageError: Too many modalities for an exact valuation, or too small a budget.
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
        """The entries of a scores file that describe this."""
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

"""Contributions → the training examples of the next epoch.

A training example is a sample with the modalities of it that are present. An ordinary epoch has one
example per sample, with all modalities; enhancement adds examples in which a low-contributing
modality is alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcoop.core.arrays import as_numbers
from mmcoop.errors import DataError, UsageError

#: The most extra rows one modality of one sample gets in an epoch (the paper's rule).
MAX_EXTRA_ROWS = 3

#: Contributions are sums of fractions in floating point: a φ closer to a limit than this is at it.
#: Without it, a rounding error below a step of the rule would get one row too many.
ROUNDING = 1e-6

#: Of contributions that take any value, one so little below its fair share is at it: with this
#: slack the rule rounds to the nearest number of rows, where for steps of ½ it would round up.
GRADED_SLACK = 0.25


@dataclass(frozen=True)
class TrainingExamples:
    """What an epoch trains on.

    `sample`: int64 `(rows,)`, positions in the data set. `present`: bool `(rows, n)`.
    """

    sample: Tensor
    present: Tensor

    def __len__(self) -> int:
        return self.sample.shape[0]

    def take(self, order: Tensor) -> "TrainingExamples":
        """The rows at the positions `order`, int64 `(k,)`."""
        return TrainingExamples(self.sample[order], self.present[order])


def join_examples(*parts: TrainingExamples) -> TrainingExamples:
    """All rows of `parts`, in order."""
    return TrainingExamples(
        torch.cat([p.sample for p in parts]), torch.cat([p.present for p in parts])
    )


def complete_examples(n_samples: int, n_modalities: int) -> TrainingExamples:
    """Every sample once, with all modalities."""
    return TrainingExamples(
        torch.arange(n_samples), torch.ones(n_samples, n_modalities, dtype=torch.bool)
    )


def unimodal_examples(times: Tensor) -> TrainingExamples:
    """`times[i, m]` rows of sample i in which only modality m is present.

    `times`: whole numbers ≥ 0, `(samples, n)`. Rows come by sample, then by modality.
    """
    n_modalities = times.shape[1]
    position = torch.arange(times.numel()).repeat_interleave(times.flatten().long())
    modality = position % n_modalities
    return TrainingExamples(
        position // n_modalities,
        torch.nn.functional.one_hot(modality, n_modalities).bool(),
    )


def extra_rows(
    contributions: Tensor, max_extra: int | None = None, slack: float = ROUNDING
) -> Tensor:
    """Sample-level rule: how often modality m of sample i is trained alone in the next epoch.

    k(φ) = ⌈2(1 − φ)⌉ for φ < 1, at most 3, else 0: φ = 0.5 → 1, 0 → 2, −0.5 → 3.

    Args:
        contributions: `(samples, n)`, in units of the fair share.
        max_extra: At most this many additional examples per sample, those of its lowest
            contributions first; None for no limit.
        slack: A contribution this little below a step of the rule counts as on the step.

    Returns:
        int64 `(samples, n)`.

    Raises:
        DataError: Contributions contain NaN.
        UsageError: `max_extra` is below 1.

    Example:
        >>> mmcoop.extra_rows([[1.5, 0.5], [0.0, 0.0]]).tolist()
        [[0, 1], [2, 2]]
    """
    phi = as_numbers(contributions, "contributions")
    if phi.isnan().any():
        raise DataError("contributions hold NaN: value the samples again")
    times = (2 * (1 - slack - phi)).ceil().clamp(0, MAX_EXTRA_ROWS).long()
    return times if max_extra is None else capped(times, phi, max_extra)


def graded_shares(contributions: Tensor, best: float) -> Tensor:
    """Contributions by a graded value in fair shares, for `extra_rows`: 1 − n (φ̄ − φ) / best.

    φ̄, the mean of a sample's contributions, is (v(N) − v(∅)) / n: its own fair share, as a model
    is not equally sure of every sample. What falls short of it counts in parts of best / n, the
    share of a certain and right prediction if the value of the empty coalition is 0. So what the
    model makes of nothing, by a bias or a tie of classes, does not matter.

    Args:
        contributions: `(samples, n)`.
        best: the value of a prediction that is certain and right.

    Returns:
        float64 `(samples, n)`.
    """
    phi = torch.as_tensor(contributions, dtype=torch.float64)
    return 1 + phi.shape[1] * (phi - phi.mean(1, keepdim=True)) / best


def in_fair_shares(contributions: Tensor, fair_share: float | None, best: float | None) -> Tensor:
    """Contributions in the unit of the re-sampling rules, in which 1 is a fair share.

    Args:
        contributions: `(samples, n)`, by any value function.
        fair_share: The fair share of the value function, if it is the same for every sample.
        best: Otherwise the value of a prediction that is certain and right; see `graded_shares`.

    Returns:
        float64 `(samples, n)`.

    Raises:
        UsageError: Neither is known, so that there is no unit.
    """
    phi = torch.as_tensor(contributions, dtype=torch.float64)
    if fair_share is not None:
        return phi / fair_share
    if best is None:
        raise UsageError("the value function has neither a fair share nor a best value")
    return graded_shares(phi, best)


def slack_of(fair_share: float | None) -> float:
    """The slack with which `extra_rows` reads what `in_fair_shares` returns."""
    return GRADED_SLACK if fair_share is None else ROUNDING


def capped(times: Tensor, contributions: Tensor, max_extra: int) -> Tensor:
    """At most `max_extra` of the `times` of each sample, the lowest contributions served first.

    `times`: whole numbers ≥ 0, `(samples, n)`; `contributions`: `(samples, n)`, or `(n,)` for all
    samples. Of equal contributions the earlier modality goes first. Returns int64
    `(samples, n)`. Raises `UsageError` for a `max_extra` below 1.
    """
    if max_extra < 1:
        raise UsageError(f"max_extra is {max_extra}: it must be at least 1, or None for no limit")
    # what differs by rounding alone is equal, else rounding would decide who goes first
    levels = (contributions / ROUNDING).round().expand(times.shape)
    weakest_first = levels.argsort(dim=1, stable=True)
    in_order = times.long().gather(1, weakest_first)
    left = max_extra - (in_order.cumsum(1) - in_order)
    kept = in_order.minimum(left.clamp(min=0))
    return torch.empty_like(kept).scatter_(1, weakest_first, kept)


#: The paper's three functions p(Δ) of the gap |Δ|, before clamping to [0, 1].
PROBABILITY_RULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda gap, alpha: 2 / 3 * alpha * gap,
    "tanh": lambda gap, alpha: torch.tanh(2 / 3 * alpha * gap),
    "power": lambda gap, alpha: alpha * (2 / 3 * gap) ** 1.5,
}


def modality_probability(
    mean_contributions: Tensor, rule: str = "linear", alpha: float = 1.0
) -> Tensor:
    """Modality-level rule: the probability with which a sample is added with modality m alone.

    Args:
        mean_contributions: `(n,)`. The gap Δ of a modality is that to the strongest modality, which
            for n = 2 is the paper's rule, so the strongest gets 0.
        rule: `linear` (⅔αΔ), `tanh` (tanh ⅔αΔ) or `power` (α(⅔Δ)^1.5).
        alpha: The factor α, at least 0.

    Returns:
        float64 `(n,)`, in 0…1.

    Raises:
        UsageError: An unknown rule, or an `alpha` that is negative or infinite.
        DataError: Means that are not finite numbers.
    """
    if rule not in PROBABILITY_RULES:
        raise UsageError(f"unknown rule {rule!r}: choose one of {', '.join(PROBABILITY_RULES)}")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise UsageError(f"alpha is {alpha}: it must be a number that is not negative")
    means = as_numbers(mean_contributions, "mean contributions")
    if not means.isfinite().all():
        raise DataError("mean contributions hold NaN or infinity: value the samples again")
    gap = means.max() - means
    return PROBABILITY_RULES[rule](gap, alpha).clamp(0, 1)


def sample_level_examples(
    contributions: Tensor, max_extra: int | None = None, slack: float = ROUNDING
) -> TrainingExamples:
    """Every sample with all modalities, and `extra_rows` of each modality alone."""
    samples, n_modalities = contributions.shape
    alone = unimodal_examples(extra_rows(contributions, max_extra, slack))
    return join_examples(complete_examples(samples, n_modalities), alone)


def modality_level_examples(
    n_samples: int,
    probability: Tensor,
    generator: torch.Generator,
    max_extra: int | None = None,
    mean_contributions: Tensor | None = None,
) -> TrainingExamples:
    """Every sample with all modalities, and with probability `probability[m]` again with m alone.

    `probability`: `(n,)` in [0, 1]; the draws are independent by sample and modality. Of more than
    `max_extra` draws of a sample those of the lowest `mean_contributions` `(n,)` count, or of the
    highest probabilities where no means are given.
    """
    n_modalities = probability.shape[0]
    draw = torch.rand(n_samples, n_modalities, generator=generator, dtype=torch.float64)
    drawn = draw < probability
    if max_extra is not None:
        order = -probability if mean_contributions is None else mean_contributions
        drawn = capped(drawn, order, max_extra)
    return join_examples(complete_examples(n_samples, n_modalities), unimodal_examples(drawn))


def shuffled(rows: TrainingExamples, generator: torch.Generator) -> TrainingExamples:
    """The same rows in random order."""
    return rows.take(torch.randperm(len(rows), generator=generator))

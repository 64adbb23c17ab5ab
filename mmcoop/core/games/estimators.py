"""Shapley values from a sample of the coalitions, with their standard errors.

Both estimators hold efficiency exactly: the contributions of a sample sum to v(N) − v(∅). What
they draw for a sample follows from its own seed, whatever else is in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmcoop.core.games.coalitions import MAX_EXACT_MODALITIES, anchor_coalitions, table_order
from mmcoop.core.games.shapley import contributions_of
from mmcoop.errors import UsageError

#: `(sample (rows,), present (rows, n)) -> values (rows, q)`, float64: q games a sample at once.
Play = Callable[[Tensor, Tensor], Tensor]

# Coalitions per sample that are valued where the user does not say, unless more are needed.
_USUAL_BUDGET = 512

# Up to this many modalities the coalitions that are always valued are all there are.
_ALL_KNOWN = 3

# Pairs are drawn in rounds, so that few queries are held at once: at most this many per sample, and
# with a tolerance this many pairs at first, doubling their number after that.
_ROUND_ROWS = 4096
_FIRST_PAIRS = 16

# Least squares are worked out for this many samples at a time as have at most this many numbers.
_AT_A_TIME = 2**22


@dataclass(frozen=True)
class Estimate:
    """`contributions` and their standard errors `stderr`: float64 `(samples, n, q)`. `draws`: pairs
    drawn, int64 `(samples,)`; 0 where the contributions are exact.
    """

    contributions: Tensor
    stderr: Tensor
    draws: Tensor


class Needs(NamedTuple):
    """What an estimator needs: uniform numbers that a pair is made of, coalitions that a pair asks
    for, and pairs without which a standard error is not to be trusted.
    """

    uniform: int
    coalitions: int
    pairs: int


class Permutations:
    """Mean marginal contributions over random orders of arrival, drawn in antithetic pairs: an
    order and its reverse (Castro et al., Computers & Operations Research 2009; Mitchell et al.,
    JMLR 2022). There is no bias. Where values jump, as the paper's do, a few dozen orders may miss
    the jumps, and standard errors are too small then; the kernel's are not.
    """

    def __init__(self, known: Tensor, n: int) -> None:
        samples, _, q = known.shape
        self.none, self.every = known[:, :1], known[:, -1:]
        # of each modality: alone, and all but it
        self.alone, self.others = known[:, 1 : n + 1], known[:, n + 1 : -1].flip(1)
        self.draws = torch.zeros(samples, dtype=torch.long)
        self.mean = torch.zeros(samples, n, q, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    @staticmethod
    def needs(n: int) -> Needs:
        return Needs(uniform=n, coalitions=2 * (n - 3), pairs=16)

    def add(self, play: Play, active: Tensor, uniform: Tensor) -> None:
        """Take in a round of pairs for the samples at the positions `active`; `uniform`: `(active,
        pairs, n)` in [0, 1).
        """
        a, p, n = uniform.shape
        place = uniform.argsort(2).argsort(2)
        places = torch.stack([place, n - 1 - place], dim=2)  # (a, p, 2, n): when each one arrives
        arrived = places.unsqueeze(3) < torch.arange(2, n - 1).view(-1, 1)  # (a, p, 2, n − 3, n)
        inner = play(active.repeat_interleave(p * 2 * (n - 3)), arrived.reshape(-1, n))
        inner = inner.view(a, p, 2, n - 3, -1)
        order = places.argsort(3)
        row = active.view(-1, 1, 1)
        first, last = self.alone[row, order[..., 0]], self.others[row, order[..., -1]]
        none, every = (end[row, 0].expand_as(first) for end in (self.none, self.every))
        start, end = torch.stack([none, first], dim=3), torch.stack([last, every], dim=3)
        gains = torch.cat([start, inner, end], dim=3).diff(dim=3)  # by place in the order
        of_pairs = gains.gather(3, places.unsqueeze(-1).expand_as(gains)).mean(2)  # (a, p, n, q)
        # two means and sums of squares put together (Chan, Golub, LeVeque, 1983)
        before = self.draws[active].double().view(-1, 1, 1)
        mean = of_pairs.mean(1)
        shift = mean - self.mean[active]
        self.mean[active] += shift * (p / (before + p))
        self.squares[active] += (of_pairs - mean.unsqueeze(1)).square().sum(1)
        self.squares[active] += shift.square() * (before * p / (before + p))
        self.draws[active] += p

    def estimate(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """Contributions and standard errors `(active, n, q)` so far."""
        count = self.draws[active].double().view(-1, 1, 1)
        return self.mean[active], (self.squares[active] / (count - 1) / count).sqrt()


class Kernel:
    """The additive game that is nearest by the Shapley kernel, under the constraint of efficiency
    (KernelSHAP; Lundberg and Lee, NeurIPS 2017), coalitions drawn in pairs with their complements
    (Covert and Lee, AISTATS 2021).

    The kernel weighs a coalition of size k by μ = (n − 1) / (C(n, k) k (n − k)). Those of sizes 1
    and n − 1, of μ = 1/n each, are known and not drawn; the others are drawn by μ. Contributions β
    minimise Σ μ (v(S) − v(∅) − Σ_{i ∈ S} β_i)². Standard errors are those of least squares with a
    variance of its own for each pair (White, 1980), residuals divided by one less their leverage,
    without which few pairs would look too sure (HC3; MacKinnon and White, Journal of Econometrics
    1985).
    """

    def __init__(self, known: Tensor, n: int) -> None:
        samples, _, q = known.shape
        values = known - known[:, :1]
        self.total = values[:, -1]  # (samples, q)
        rim = anchor_coalitions(n)[1:-1].double()  # sizes 1 and n − 1
        self.rim_gram = rim.T @ rim / n
        self.rim_moment = torch.einsum("kn,skq->snq", rim, values[:, 1:-1]) / n
        sizes = torch.arange(2, n - 1, dtype=torch.float64)
        weights = (n - 1) / (sizes * (n - sizes))
        self.weight = float(weights.sum())
        self.up_to = weights.cumsum(0) / weights.sum()
        self.draws = torch.zeros(samples, dtype=torch.long)
        # the pairs so far: a coalition, and its value less that of its complement
        self.drawn = torch.zeros(samples, 0, n, dtype=torch.bool)
        self.gaps = torch.zeros(samples, 0, q, dtype=torch.float64)

    @staticmethod
    def needs(n: int) -> Needs:
        return Needs(uniform=n + 1, coalitions=2, pairs=2 * n)

    def add(self, play: Play, active: Tensor, uniform: Tensor) -> None:
        """Take in a round; `uniform`: `(active, pairs, n + 1)`, the last of them for the size."""
        a, p, _ = uniform.shape
        n = uniform.shape[2] - 1
        size = 2 + torch.searchsorted(
            self.up_to, uniform[..., -1].double().contiguous(), right=True
        )
        place = uniform[..., :-1].argsort(2).argsort(2)
        drawn = place < size.clamp(max=n - 2).unsqueeze(2)
        both = torch.stack([drawn, ~drawn], dim=2)  # (a, p, 2, n)
        worth = play(active.repeat_interleave(p * 2), both.reshape(-1, n)).view(a, p, 2, -1)
        # all samples are given room, those that are done keep what they have
        self.drawn = torch.cat([self.drawn, self.drawn.new_zeros(len(self.drawn), p, n)], 1)
        self.gaps = torch.cat(
            [self.gaps, self.gaps.new_zeros(len(self.gaps), p, worth.shape[3])], 1
        )
        self.drawn[active, -p:] = drawn
        self.gaps[active, -p:] = worth[:, :, 0] - worth[:, :, 1]
        self.draws[active] += p

    def estimate(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """Contributions and standard errors `(active, n, q)` so far."""
        pairs = int(self.draws[active].max())  # the same for all that are active
        some = torch.split(active, max(1, _AT_A_TIME // (pairs * self.drawn.shape[2])))
        contributions, stderr = zip(*(self._estimate(part, pairs) for part in some), strict=True)
        return torch.cat(contributions), torch.cat(stderr)

    def _estimate(self, some: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
        z = self.drawn[some, :pairs].double()  # (a, p, n)
        gaps = self.gaps[some, :pairs]  # (a, p, q)
        total = self.total[some].unsqueeze(1)
        of_pair = self.weight / (2 * pairs)
        gram = self.rim_gram + of_pair * (z.mT @ z + (1 - z).mT @ (1 - z))
        inverse = torch.linalg.inv(gram)
        column = inverse.sum(2, keepdim=True)  # A⁻¹1
        share = column / column.sum(1, keepdim=True)
        constrained = inverse - column @ share.mT
        # β = C b + Δ A⁻¹1 / 1ᵀA⁻¹1; as C 1 = 0, of a pair the gap alone counts
        pull = z @ constrained
        beta = constrained @ self.rim_moment[some] + of_pair * (pull.mT @ gaps) + share * total
        residual = gaps - 2 * (z @ beta) + total
        leverage = 2 * of_pair * (pull * z).sum(2, keepdim=True)
        residual = residual / (1 - leverage)
        # variance over pairs of pull · residual, what each adds to β
        mean = pull.mT @ residual / pairs
        variance = pull.square().mT @ residual.square() / pairs - mean.square()
        return beta, self.weight / 2 * (variance.clamp(min=0) / (pairs - 1)).sqrt()


#: The ways to draw coalitions.
ESTIMATORS: dict[str, type[Permutations] | type[Kernel]] = {
    "permutation": Permutations,
    "kernel": Kernel,
}


def sampled_values(
    estimator: str,
    play: Play,
    known: Tensor,
    generators: Sequence[torch.Generator],
    *,
    n_modalities: int,
    budget: int,
    tolerance: float | None = None,
) -> Estimate:
    """Contributions of some samples, from coalitions that are drawn.

    `estimator`: "permutation" or "kernel". `known`: float64 `(samples, k, q)`, the values of
    `anchor_coalitions`; up to three modalities these are all, and nothing is drawn. `generators`:
    one per sample. `budget`: most coalitions per sample, including the known ones. With a
    `tolerance` a sample is done when none of its standard errors is above it.

    Raises `UsageError` where the budget is too small to estimate a standard error, or no estimator
    has that name.
    """
    samples, _, q = known.shape
    pairs = check_budget(estimator, budget, n_modalities)
    if n_modalities <= _ALL_KNOWN:
        return _exact(known, n_modalities)
    sampler = ESTIMATORS[estimator](known, n_modalities)
    needs = sampler.needs(n_modalities)
    largest = max(needs.pairs, _ROUND_ROWS // needs.coalitions)
    contributions = torch.zeros(samples, n_modalities, q, dtype=torch.float64)
    stderr = torch.zeros_like(contributions)
    active, done = torch.arange(samples), 0
    while done < pairs and len(active):
        wanted = largest if tolerance is None else done or max(needs.pairs, _FIRST_PAIRS)
        size = min(wanted, largest, pairs - done)
        shape = (size, needs.uniform)
        uniform = torch.stack([torch.rand(shape, generator=generators[i]) for i in active.tolist()])
        sampler.add(play, active, uniform)
        done += size
        if tolerance is not None or done == pairs:
            contributions[active], stderr[active] = sampler.estimate(active)
        if tolerance is not None:
            active = active[(stderr[active] > tolerance).flatten(1).any(1)]
    return Estimate(contributions, stderr, sampler.draws)


def check_budget(estimator: str, budget: int, n_modalities: int) -> int:
    """How many pairs the budget is enough for; `UsageError` where they are too few, or no
    estimator has that name.
    """
    if estimator not in ESTIMATORS:
        raise UsageError(f"unknown estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    fewest = least_budget(estimator, n_modalities)
    if budget < fewest:
        every = f"; without one all {2**n_modalities:,} coalitions are valued"
        without = every if n_modalities <= MAX_EXACT_MODALITIES else ""
        raise UsageError(
            f"a budget of {budget} coalitions a sample is too small for estimator {estimator!r} "
            f"and {n_modalities} modalities: it takes {fewest} at least{without}"
        )
    if n_modalities <= _ALL_KNOWN:
        return 0
    known = len(anchor_coalitions(n_modalities))
    return (budget - known) // ESTIMATORS[estimator].needs(n_modalities).coalitions


def least_budget(estimator: str, n_modalities: int) -> int:
    """The fewest coalitions per sample that the estimator can do with."""
    known = len(anchor_coalitions(n_modalities))
    if n_modalities <= _ALL_KNOWN:
        return known
    needs = ESTIMATORS[estimator].needs(n_modalities)
    return known + needs.pairs * needs.coalitions


def default_budget(estimator: str, n_modalities: int) -> int:
    """Coalitions per sample that are valued where the user does not say."""
    return max(_USUAL_BUDGET, least_budget(estimator, n_modalities))


def _exact(known: Tensor, n: int) -> Estimate:
    """From the values of all coalitions, in the order of `anchor_coalitions`."""
    table = known[:, table_order(anchor_coalitions(n))].transpose(1, 2)
    contributions = contributions_of(table, n).transpose(1, 2)
    return Estimate(
        contributions, torch.zeros_like(contributions), torch.zeros(len(known), dtype=torch.long)
    )

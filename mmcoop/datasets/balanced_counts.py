"""The mixed-integer linear program behind `debiasing.py`: how many samples of each kind to keep.

Samples of equal split, class and contributions are of one kind. Integer variables count the
samples kept of each kind, binary variables select classes. SciPy's HiGHS solves it. With the
paper's value function there are few kinds, regardless of the number of samples.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

#: Up to this many kinds, one exact search is made. With 2,500 it would take minutes.
EXACT_KINDS = 500
#: With more kinds, classes are chosen by the program with continuous sample counts, to within this
#: share of the samples. Its bound also holds for integer counts.
_CLASSES_GAP = 1e-3
#: Then the linear relaxation fixes all kinds but this many, and the others are searched, to within
#: this share. The second number is tried if the first leaves too little choice.
_UNSETTLED = (300, 2000)
_SAMPLES_GAP = 1e-4
#: A search ends after this many branches: with a limit in seconds, results would depend on the
#: machine.
BRANCHES = 2000

#: Fractions of a sample and differences of means below this are rounding errors.
ROUNDING = 1e-9
#: The solver's tolerance for bounds.
_SLACK = 1e-6
#: SciPy's status of a program that is proven to be infeasible.
_INFEASIBLE = 2


class Demands(NamedTuple):
    """What a subset must meet; see `balanced_subset`."""

    tolerance: float
    class_ratio: float
    min_spread: float


@dataclass(frozen=True)
class Kinds:
    """Kinds of samples. All arrays but `before` have one row per kind.

    Attributes:
        split: Split number, from 0, `(kinds,)`.
        label: Class number, from 0, `(kinds,)`.
        contributions: Contributions to one sample, `(kinds, n)`.
        spread: Largest minus smallest contribution, `(kinds,)`.
        samples: Number of samples, `(kinds,)`.
        before: Mean spread of each complete split, `(splits,)`.
    """

    split: np.ndarray
    label: np.ndarray
    contributions: np.ndarray
    spread: np.ndarray
    samples: np.ndarray
    before: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    def where(self, chosen: np.ndarray) -> "Kinds":
        """Select kinds by a bool mask or positions."""
        return Kinds(
            self.split[chosen],
            self.label[chosen],
            self.contributions[chosen],
            self.spread[chosen],
            self.samples[chosen],
            self.before,
        )

    def of_split(self, split: int) -> "Kinds":
        """The kinds of one split, as if it were the only one."""
        part = self.where(self.split == split)
        return replace(part, split=0 * part.split, before=self.before[[split]])

    def class_sizes(self) -> np.ndarray:
        """Number of samples by split and class, int `(splits, classes)`."""
        sizes = np.zeros((len(self.before), int(self.label.max()) + 1), int)
        np.add.at(sizes, (self.split, self.label), self.samples)
        return sizes


@dataclass(frozen=True)
class Counts:
    """The result of a search.

    Attributes:
        keep: Number of samples to keep of each kind, int `(kinds,)`; None if nothing was found.
        bound: Upper bound of the size of subsets that meet the demands; 0 proves there is none.
    """

    keep: np.ndarray | None
    bound: int


def largest_counts(
    kinds: Kinds,
    demands: Demands,
    margin: float = 0.0,
    *,
    exact_kinds: int = EXACT_KINDS,
    branches: int = BRANCHES,
) -> Counts:
    """Compute how many samples of each kind to keep, so that as many as possible are kept.

    Args:
        kinds: All kinds of samples.
        demands: What the subset must meet.
        margin: Safety margin of the constraints, in units of contributions.
        exact_kinds: The most kinds for which a single exact search is made.
        branches: Number of branches after which a search ends with its best result.

    Returns:
        The counts, with a proven upper bound.
    """
    if len(kinds) <= exact_kinds:
        return _Program(kinds, demands, margin).counts(gap=0.0, branches=branches)
    program = _Program(kinds, demands, margin)
    relaxed = program.solve(integral=False, gap=_CLASSES_GAP, branches=branches)
    best = Counts(None, relaxed.bound)
    if relaxed.columns is None:
        return best
    classes = relaxed.columns[program.keep] > 0.5
    for unsettled in _UNSETTLED:
        program = _Program(kinds, demands, margin)
        program.settle_classes(kinds, classes)
        if unsettled < len(kinds):
            program.settle_samples(unsettled)
        found = program.counts(gap=_SAMPLES_GAP, branches=branches).keep
        if found is not None and (best.keep is None or found.sum() > best.keep.sum()):
            best = Counts(found, relaxed.bound)
        near = best.keep is not None and best.keep.sum() >= (1 - _CLASSES_GAP) * best.bound
        if near or unsettled >= len(kinds):
            break
    if best.keep is None:  # other classes may do
        keep = _Program(kinds, demands, margin).counts(gap=_CLASSES_GAP, branches=branches).keep
        return Counts(keep, best.bound)
    return best


class _Solution(NamedTuple):
    columns: np.ndarray | None
    bound: int


class _Program:
    """The program in the form that HiGHS takes: maximise the number of samples kept.

    Its variables (columns) are `take`, samples kept of each kind; `keep`, whether a class is kept;
    `most`, for each split at least the size of its largest class; `size`, samples by split and
    class; `level`, by split and class, whether this class or a smaller one is kept.
    """

    def __init__(self, kinds: Kinds, demands: Demands, margin: float) -> None:
        have = kinds.class_sizes()
        splits, classes = have.shape
        ends = np.cumsum([len(kinds), classes, splits, have.size, have.size])
        self.take, self.keep, self.most, size, level = (
            np.arange(end - length, end)
            for end, length in zip(ends, np.diff(ends, prepend=0), strict=True)
        )
        self.size, self.level = size.reshape(have.shape), level.reshape(have.shape)
        self.lower = np.zeros(ends[-1])
        self.upper = np.ones(ends[-1])
        self.upper[self.take] = kinds.samples
        self.upper[self.keep] = have.min(0) > 0
        self.upper[self.most] = have.max(1)
        self.upper[self.size] = have
        self._rows: list[tuple[np.ndarray, np.ndarray, float, float]] = []
        for split in range(splits):
            self._balance_modalities(split, kinds, demands, margin)
            self._balance_classes(split, kinds, have[split], demands.class_ratio)
        self._row(self.keep, np.ones(classes), low=2)

    def _row(
        self,
        columns: ArrayLike,
        factors: ArrayLike,
        *,
        low: float = -np.inf,
        high: float = np.inf,
    ) -> None:
        self._rows.append((np.asarray(columns), np.asarray(factors, float), low, high))

    def _balance_modalities(
        self, split: int, kinds: Kinds, demands: Demands, margin: float
    ) -> None:
        here = np.flatnonzero(kinds.split == split)
        phi = kinds.contributions[here].T
        for a in range(len(phi)):
            for b in range(len(phi)):
                if a != b:
                    lead = phi[a] - phi[b] - demands.tolerance
                    self._row(self.take[here], lead, high=-margin)
        least = demands.min_spread * kinds.before[split]
        if least > 0:
            self._row(self.take[here], kinds.spread[here] - least, low=margin)

    def _balance_classes(
        self, split: int, kinds: Kinds, have: np.ndarray, class_ratio: float
    ) -> None:
        most, largest = self.most[split], have.max()
        for label, keep in enumerate(self.keep):
            size = self.size[split, label]
            kind = self.take[(kinds.split == split) & (kinds.label == label)]
            self._row([*kind, size], [*np.ones(len(kind)), -1], low=0, high=0)
            self._row([size, most], [1, -1], high=0)
            # a dropped class has no samples; a kept one at least 1, and at least most / class_ratio
            self._row([size, keep], [1, -have[label]], high=0)
            self._row([size, keep], [1, -1], low=0)
            self._row(
                [size, most, keep],
                [1, -1 / class_ratio, -largest / class_ratio],
                low=-largest / class_ratio,
            )
        # Every kept class bounds `most`. One constraint per class is so weak a relaxation that 100
        # classes take seconds; constraints over classes ordered by size (the convex hull of a
        # mixing set) are tight.
        order = np.argsort(have, kind="stable")
        bound = np.minimum(class_ratio * have[order], largest)
        level = self.level[split, order]
        steps = np.diff(bound, append=largest)
        self._row([most, *level], [1, *steps], high=largest)
        for k, label in enumerate(order):
            self._row([level[k], self.keep[label]], [1, -1], low=0)
            if k:
                self._row([level[k], level[k - 1]], [1, -1], low=0)

    def _matrix(self) -> tuple[csr_array, np.ndarray, np.ndarray]:
        columns, factors, low, high = zip(*self._rows, strict=True)
        starts = np.cumsum([0, *map(len, columns)])
        # SciPy before 1.15 passes indices to HiGHS as 32 bits, whatever their type
        column, start = np.concatenate(columns).astype(np.int32), starts.astype(np.int32)
        shape = (len(columns), len(self.upper))
        matrix = csr_array((np.concatenate(factors), column, start), shape=shape)
        return matrix, np.array(low), np.array(high)

    @property
    def _cost(self) -> np.ndarray:
        cost = np.zeros(len(self.upper))
        cost[self.take] = -1
        return cost

    def settle_classes(self, kinds: Kinds, stay: np.ndarray) -> None:
        """Fix the classes to keep: `stay`, bool `(classes,)`."""
        self.lower[self.keep] = self.upper[self.keep] = stay
        self.upper[self.take[~stay[kinds.label]]] = 0

    def settle_samples(self, unsettled: int) -> None:
        """Fix most counts to those of the linear relaxation.

        Kinds with fractional counts stay free, and so do the `unsettled` others with the lowest
        reduced costs.
        """
        matrix, low, high = self._matrix()
        above, below = np.isfinite(low), np.isfinite(high)
        relaxed = linprog(
            self._cost,
            A_ub=vstack([matrix[below], -matrix[above]]),
            b_ub=np.concatenate([high[below], -low[above]]),
            bounds=np.column_stack([self.lower, self.upper]),
        )
        if relaxed.x is None:
            return
        taken = relaxed.x[self.take]
        in_part = np.abs(taken - taken.round()) > ROUNDING
        price = np.abs(relaxed.lower.marginals + relaxed.upper.marginals)[self.take]
        price[in_part] = -1
        price[self.upper[self.take] == 0] = np.inf
        # shuffle, so that among many equal costs every split and class is represented
        shuffled = np.random.default_rng(0).permutation(len(price))
        order = shuffled[np.argsort(price[shuffled].round(9), kind="stable")]
        settled = order[in_part.sum() + unsettled :]
        columns = self.take[settled]
        self.lower[columns] = self.upper[columns] = taken[settled].round()

    def counts(self, *, gap: float, branches: int) -> Counts:
        """Solve for integer counts of all kinds."""
        columns, bound = self.solve(gap=gap, branches=branches)
        keep = None if columns is None else columns[self.take].round().astype(int)
        return Counts(keep, bound)

    def solve(self, *, integral: bool = True, gap: float, branches: int) -> _Solution:
        """Solve the program.

        Args:
            integral: Whether counts must be integers. Selecting classes is always binary.
            gap: Relative gap to the bound at which the search ends.
            branches: Number of branches after which the search ends.

        Returns:
            The best values of the variables, None if none were found, and the bound.
        """
        matrix, low, high = self._matrix()
        whole = np.zeros(len(self.upper))
        whole[self.keep] = 1
        whole[self.take] = integral
        found = milp(
            self._cost,
            integrality=whole,
            bounds=Bounds(self.lower, self.upper),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": gap, "node_limit": branches},
        )
        if found.status == _INFEASIBLE:
            return _Solution(None, 0)
        bound = found.mip_dual_bound
        most = int(self.upper[self.take].sum())
        if bound is None or not np.isfinite(bound):
            return _Solution(found.x, most)
        return _Solution(found.x, min(most, math.floor(-bound + _SLACK)))

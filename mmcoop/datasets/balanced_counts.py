"""How many samples of each kind to keep: the mixed-integer linear program behind `debiasing.py`.

Whole numbers say how many samples of a kind stay, a kind being those of one split, class and row
of contributions, and yes-or-no variables which classes stay. HiGHS solves it, by SciPy. With the
paper's values there are few kinds, whatever the number of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

#: Up to so many kinds the program is solved at once and exactly; with 2,500 that takes minutes.
_EXACT_KINDS = 500
#: Above, classes are chosen with 2**3 averaged kinds a class and split, to within this share,
_HALVINGS = (3, 5)
_CLASSES_GAP = 1e-3
#: and then all kinds but so many are settled by the relaxed program, the others to this share.
#: The second number of each is for where the first leaves too little choice.
_UNSETTLED = (300, 2000)
_SAMPLES_GAP = 1e-4
#: Where demands are next to impossible to meet, the search ends after so many branches: a limit
#: in seconds would give another answer on another machine.
_BRANCHES = 2000

#: A share of a sample below this is a rounding error.
ROUNDING = 1e-9


class Demands(NamedTuple):
    tolerance: float
    class_ratio: float
    min_spread: float


@dataclass(frozen=True)
class Kinds:
    """Kinds of samples; arrays have them first.

    `split`, `label`: whole numbers from 0. `contributions`: `(kinds, n)`. `spread`: that of a
    sample. `samples`: how many there are. `before`: the spread of each split, `(splits,)`.
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
        """The kinds that `chosen`, bool or positions, picks."""
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
        """Number of samples, `(splits, classes)`."""
        sizes = np.zeros((len(self.before), int(self.label.max()) + 1), int)
        np.add.at(sizes, (self.split, self.label), self.samples)
        return sizes

    def in_groups(self, parts: Sequence[np.ndarray]) -> "Kinds":
        """One kind for each of `parts`, which are positions, with the mean of its samples."""
        part_of = np.empty(len(self), int)
        for k, part in enumerate(parts):
            part_of[part] = k
        samples = np.bincount(part_of, self.samples)
        share = self.samples / samples[part_of]
        contributions = np.zeros((len(parts), self.contributions.shape[1]))
        np.add.at(contributions, part_of, share[:, None] * self.contributions)
        first = np.array([part[0] for part in parts])
        spread = np.bincount(part_of, share * self.spread)
        return Kinds(
            self.split[first], self.label[first], contributions, spread, samples, self.before
        )


def largest_counts(kinds: Kinds, demands: Demands, margin: float) -> np.ndarray | None:
    """How many samples of every kind to keep, or None where nothing meets the demands."""
    found = None
    few = len(kinds) <= _EXACT_KINDS
    if not few and (classes := _classes(kinds, demands, margin)) is not None:
        for unsettled in _UNSETTLED:
            program = _Program(kinds, demands, margin)
            program.settle_classes(kinds, classes)
            program.settle_samples(unsettled)
            found = program.solve(gap=_SAMPLES_GAP)
            if found is not None:
                break
    if found is None:
        program = _Program(kinds, demands, margin)
        found = program.solve(gap=0 if few else _CLASSES_GAP)
    return None if found is None else found[program.take].round().astype(int)


def _classes(kinds: Kinds, demands: Demands, margin: float) -> np.ndarray | None:
    """Which classes to keep, bool `(classes,)`; None where averages hide every subset there is."""
    for halvings in _HALVINGS:
        program = _Program(kinds.in_groups(_groups(kinds, halvings)), demands, margin)
        found = program.solve(integral=False, gap=_CLASSES_GAP)
        if found is not None:
            stay: np.ndarray = found[program.keep] > 0.5
            return stay
    return None


def _groups(kinds: Kinds, halvings: int) -> list[np.ndarray]:
    """Kinds with others of their split and class that are near them, as arrays of positions."""
    starts = np.flatnonzero(np.diff(kinds.split) | np.diff(kinds.label)) + 1
    groups = np.split(np.arange(len(kinds)), starts)
    for _ in range(halvings):
        groups = [half for group in groups for half in _halves(group, kinds.contributions[group])]
    return groups


def _halves(group: np.ndarray, contributions: np.ndarray) -> list[np.ndarray]:
    """A group cut in the middle of the modality along which it is widest."""
    if len(group) == 1:
        return [group]
    widest = np.ptp(contributions, axis=0).argmax()
    return np.array_split(group[np.argsort(contributions[:, widest], kind="stable")], 2)


class _Program:
    """The program as HiGHS gets it: maximise the samples that stay.

    Its columns are, by name: `take`, samples kept of every kind; `keep`, whether a class stays;
    `most`, in every split no less than its largest class; `size`, samples of every split and
    class; `level`, of every split and class, whether this class or a smaller one stays.
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
            # a class that goes has no sample; one that stays has one, and most / class_ratio
            self._row([size, keep], [1, -have[label]], high=0)
            self._row([size, keep], [1, -1], low=0)
            self._row(
                [size, most, keep],
                [1, -1 / class_ratio, -largest / class_ratio],
                low=-largest / class_ratio,
            )
        # `most` is bounded by every class that stays. Said of each alone that is so weak a
        # relaxation that 100 classes take seconds; said of them in order of size (the convex hull
        # of a mixing set) it is tight.
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
        # SciPy before 1.15 hands HiGHS 32 bits an index, whatever it is given
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
        """Leave no choice but that the classes `stay`, bool `(classes,)`, stay and others go."""
        self.lower[self.keep] = self.upper[self.keep] = stay
        self.upper[self.take[~stay[kinds.label]]] = 0

    def settle_samples(self, unsettled: int) -> None:
        """Take of every kind what the relaxed program takes, without a choice but for those taken
        in part and `unsettled` others: those that matter least to it.
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
        # many may matter equally little: some of every split and class are to be among the first
        shuffled = np.random.default_rng(0).permutation(len(price))
        order = shuffled[np.argsort(price[shuffled].round(9), kind="stable")]
        settled = order[in_part.sum() + unsettled :]
        columns = self.take[settled]
        self.lower[columns] = self.upper[columns] = taken[settled].round()

    def solve(self, *, integral: bool = True, gap: float = 0.0) -> np.ndarray | None:
        """The best columns to within the share `gap`, or None where there are none.

        Without `integral`, classes stay or go but kinds may be taken in part.
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
            options={"mip_rel_gap": gap, "node_limit": _BRANCHES},
        )
        x: np.ndarray | None = found.x
        return x

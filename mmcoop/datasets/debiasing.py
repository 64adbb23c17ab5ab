"""The largest part of a data set on which every modality contributes about equally on average.

Contributions may differ from sample to sample as before: it is their means that are brought
together, in every split. What to keep is one mixed-integer linear program (HiGHS, by SciPy):
whole numbers say how many samples of a kind stay, a kind being those of one split, class and
row of contributions, and yes-or-no variables which classes stay. With the paper's values there
are few kinds, whatever the number of samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

from mmcoop.core.seeds import derive_seed
from mmcoop.errors import DataError, UsageError

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

#: Sums must keep this distance from their bounds, where the solver's own slack of about 1e-6, or
#: a rounding error of the means, carried a first answer across.
_MARGINS = (0.0, 1e-5, 1e-3)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Balance:
    """How evenly modalities contribute to some samples.

    `means`: the mean contribution by modality. `gap`: the largest of them less the smallest.
    `spread`: the mean over samples of the sample's own largest contribution less its smallest.
    `by_class`: number of samples by label, of the labels that occur.
    """

    samples: int
    means: tuple[float, ...]
    gap: float
    spread: float
    by_class: dict[int, int]

    @property
    def class_ratio(self) -> float:
        """Samples of the largest class by those of the smallest that occurs."""
        return max(self.by_class.values()) / min(self.by_class.values())


def balance(contributions: np.ndarray, labels: np.ndarray) -> Balance:
    """The balance of one split, which has a sample at least.

    `contributions`: float `(samples, n)`, `labels`: int `(samples,)`.
    """
    means = tuple(_mean(column) for column in contributions.T)
    classes, counts = np.unique(labels, return_counts=True)
    return Balance(
        samples=len(labels),
        means=means,
        gap=max(means) - min(means),
        spread=_mean(np.ptp(contributions, axis=1)),
        by_class=dict(zip(classes.tolist(), counts.tolist(), strict=True)),
    )


def check_demands(tolerance: float, class_ratio: float, min_spread: float) -> None:
    """Raise `UsageError` for demands that no subset or every subset would meet."""
    for flag, value, fits, rule in (
        ("--tolerance", tolerance, tolerance > 0, "a number above 0"),
        ("--class-ratio", class_ratio, class_ratio >= 1, "a number, 1 or more"),
        ("--min-spread", min_spread, 0 <= min_spread <= 1, "a share, from 0 to 1"),
    ):
        if not (fits and math.isfinite(value)):
            raise UsageError(f"{flag} {value:g}: it must be {rule}")


def balanced_subset(
    contributions: np.ndarray,
    labels: np.ndarray,
    splits: np.ndarray,
    *,
    tolerance: float,
    class_ratio: float,
    min_spread: float,
    seed: int,
    modalities: Sequence[str] = (),
) -> np.ndarray:
    """Which samples to keep: the largest subset that is balanced in every split, bool `(samples,)`.

    `contributions`: float `(samples, n)`, n ≥ 2; `labels`: int `(samples,)`; `splits`: the name or
    number of each sample's split, `(samples,)`. In every split of the subset

    - the mean contributions of the modalities are at most `tolerance` apart,
    - the largest class has at most `class_ratio` times the samples of the smallest,
    - the spread (see `Balance`) is at least `min_spread` times that of the split as it was.

    Two classes or more stay, the same in every split. `seed` decides which of several samples of
    equal split, class and contributions stay; `modalities` names them in messages.

    Up to 500 different rows of split, class and contributions the subset is the largest there is,
    unless demands are so hard to meet that proving it takes too long. Above, it may lack about one
    sample in a thousand.

    Raises `UsageError` for demands out of range; `DataError` for contributions that are not finite
    or of one modality alone, and where there is no such subset, saying what stands in its way.
    """
    check_demands(tolerance, class_ratio, min_spread)
    contributions = np.asarray(contributions, np.float64)
    if contributions.ndim != 2 or contributions.shape[1] < 2:
        raise DataError("there is one modality: contributions of two or more can be balanced")
    if not np.isfinite(contributions).all():
        raise DataError("contributions hold NaN or infinity: value the samples again")
    demands = _Demands(tolerance, class_ratio, min_spread)
    labels = np.asarray(labels)
    names, split = np.unique(np.asarray(splits), return_inverse=True)
    kinds, kind_of = _kinds(contributions, labels, split)
    for margin in _MARGINS:
        counts = _largest(kinds, demands, margin)
        if counts is None:
            break
        for chosen in (_evened(kinds, counts), counts):
            kept = _draw(kind_of, chosen, derive_seed(seed, "debiased"))
            if _meets(demands, contributions, labels, split, kept):
                return kept
    words = list(modalities) or [f"modality {m}" for m in range(contributions.shape[1])]
    raise DataError(_why_none(kinds, demands, margin, [str(name) for name in names], words))


class _Demands(NamedTuple):
    tolerance: float
    class_ratio: float
    min_spread: float


@dataclass(frozen=True)
class _Kinds:
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

    def where(self, chosen: np.ndarray) -> "_Kinds":
        """The kinds that `chosen`, bool or positions, picks."""
        return _Kinds(
            self.split[chosen],
            self.label[chosen],
            self.contributions[chosen],
            self.spread[chosen],
            self.samples[chosen],
            self.before,
        )

    def of_split(self, split: int) -> "_Kinds":
        """The kinds of one split, as if it were the only one."""
        part = self.where(self.split == split)
        return replace(part, split=0 * part.split, before=self.before[[split]])

    def class_sizes(self) -> np.ndarray:
        """Number of samples, `(splits, classes)`."""
        sizes = np.zeros((len(self.before), int(self.label.max()) + 1), int)
        np.add.at(sizes, (self.split, self.label), self.samples)
        return sizes

    def in_groups(self, parts: Sequence[np.ndarray]) -> "_Kinds":
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
        return _Kinds(
            self.split[first], self.label[first], contributions, spread, samples, self.before
        )


def _kinds(
    contributions: np.ndarray, labels: np.ndarray, split: np.ndarray
) -> tuple[_Kinds, np.ndarray]:
    """The kinds, sorted, and the kind of every sample, int `(samples,)`."""
    label = np.unique(labels, return_inverse=True)[1]
    # contributions that a rounding error keeps apart are equal; + 0 makes -0 a 0
    key = np.column_stack([split, label, contributions.round(9) + 0.0])
    _, first, kind_of, samples = np.unique(
        key, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    spread = np.ptp(contributions, axis=1)
    before = np.array([_mean(spread[split == s]) for s in range(int(split.max()) + 1)])
    kinds = _Kinds(split[first], label[first], contributions[first], spread[first], samples, before)
    return kinds, kind_of.reshape(-1)


def _evened(kinds: _Kinds, counts: np.ndarray) -> np.ndarray:
    """As many samples of each row of contributions as `counts` has, but what goes is taken from the
    classes that are largest by then: the means do not depend on it.
    """
    stays = np.isin(kinds.label, kinds.label[counts > 0])
    evened = np.where(stays, kinds.samples, 0)
    sizes = kinds.class_sizes()
    key = np.column_stack([kinds.split, kinds.contributions.round(9) + 0.0])
    alike_of = np.unique(key, axis=0, return_inverse=True)[1].reshape(-1)
    alike = [np.flatnonzero((alike_of == a) & stays) for a in range(int(alike_of.max()) + 1)]
    # those of one class alone first: there is nothing to choose
    for here in sorted(alike, key=len):
        for _ in range(int(evened[here].sum() - counts[here].sum())):
            left = here[evened[here] > 0]
            size = sizes[kinds.split[left], kinds.label[left]]
            largest = left[size.argmax()]
            evened[largest] -= 1
            sizes[kinds.split[largest], kinds.label[largest]] -= 1
    return evened


def _draw(kind_of: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Take `counts` samples of each kind at random: bool `(samples,)`."""
    order = np.random.default_rng(seed).permutation(len(kind_of))
    order = order[np.argsort(kind_of[order], kind="stable")]
    kind = kind_of[order]
    place_in_kind = np.arange(len(kind)) - np.searchsorted(kind, kind)
    kept = np.zeros(len(kind), bool)
    kept[order[place_in_kind < counts[kind]]] = True
    return kept


def _meets(
    demands: _Demands,
    contributions: np.ndarray,
    labels: np.ndarray,
    split: np.ndarray,
    kept: np.ndarray,
) -> bool:
    """Whether a subset is what was asked for, as measured on its samples."""
    classes = set(labels[kept].tolist())
    if len(classes) < 2:
        return False
    for s in np.unique(split):
        here = split == s
        before = balance(contributions[here], labels[here])
        after = balance(contributions[here & kept], labels[here & kept])
        if not (
            set(after.by_class) == classes
            and after.gap <= demands.tolerance
            and after.class_ratio <= demands.class_ratio
            and after.spread >= demands.min_spread * before.spread * (1 - _ROUNDING)
        ):
            return False
    return True


def _largest(kinds: _Kinds, demands: _Demands, margin: float) -> np.ndarray | None:
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


def _classes(kinds: _Kinds, demands: _Demands, margin: float) -> np.ndarray | None:
    """Which classes to keep, bool `(classes,)`; None where averages hide every subset there is."""
    for halvings in _HALVINGS:
        program = _Program(kinds.in_groups(_groups(kinds, halvings)), demands, margin)
        found = program.solve(integral=False, gap=_CLASSES_GAP)
        if found is not None:
            stay: np.ndarray = found[program.keep] > 0.5
            return stay
    return None


def _groups(kinds: _Kinds, halvings: int) -> list[np.ndarray]:
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

    def __init__(self, kinds: _Kinds, demands: _Demands, margin: float) -> None:
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
        self, split: int, kinds: _Kinds, demands: _Demands, margin: float
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
        self, split: int, kinds: _Kinds, have: np.ndarray, class_ratio: float
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

    def settle_classes(self, kinds: _Kinds, stay: np.ndarray) -> None:
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
        in_part = np.abs(taken - taken.round()) > _ROUNDING
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


def _why_none(
    kinds: _Kinds, demands: _Demands, margin: float, splits: list[str], modalities: list[str]
) -> str:
    """What stands in the way of a balanced subset, and what to loosen."""
    shared: np.ndarray = kinds.class_sizes().min(0) > 0
    if shared.sum() < 2:
        return (
            f"no subset is balanced: classes with samples in every split are {shared.sum()} of "
            f"{len(shared)}, and two at least must stay"
        )
    kinds = kinds.where(shared[kinds.label])
    parts = [kinds.of_split(split) for split in range(len(splits))]
    alone = [k for k, part in enumerate(parts) if _largest(part, demands, margin) is None]
    if alone:
        worst = alone[0]
        stuck, what = parts[worst], f"no part of the {splits[worst]} split"
    else:
        worst = int(np.argmax([np.ptp(_means(part)) for part in parts]))
        stuck, what = kinds, "no subset with the same classes in every split"
    loosened = {
        "--tolerance": demands._replace(tolerance=2 * np.abs(kinds.contributions).max() + 1),
        "--class-ratio": demands._replace(class_ratio=float(kinds.samples.sum())),
        "--min-spread": demands._replace(min_spread=0.0),
    }
    enough = [flag for flag, less in loosened.items() if _largest(stuck, less, margin) is not None]
    advice = " or ".join(enough) or f"more than one of {', '.join(loosened)}"
    order = np.argsort(_means(parts[worst]), kind="stable")
    most, least = order[-1], order[0]
    lead = parts[worst].contributions[:, most] - parts[worst].contributions[:, least]
    samples = parts[worst].samples
    return (
        f"{what} meets --tolerance {demands.tolerance:g}, --class-ratio {demands.class_ratio:g} "
        f"and --min-spread {demands.min_spread:g}: in {splits[worst]}, {modalities[most]} "
        f"contributes more than {modalities[least]} to {samples[lead > _ROUNDING].sum():,} of "
        f"{samples.sum():,} samples and less to {samples[lead < -_ROUNDING].sum():,}; "
        f"loosen {advice}"
    )


def _means(kinds: _Kinds) -> np.ndarray:
    """The mean contributions of the samples, `(n,)`."""
    return np.average(kinds.contributions, axis=0, weights=kinds.samples)


def _mean(numbers: np.ndarray) -> float:
    """The mean without the rounding errors of a long sum."""
    return math.fsum(numbers) / len(numbers)

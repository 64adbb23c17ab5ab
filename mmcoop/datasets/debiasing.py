"""Selecting the largest subset of a dataset to which all modalities contribute about equally.

Only the mean contributions are balanced, in every split; contributions to single samples still
differ. `balanced_counts.py` computes how many samples of each kind to keep.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mmcoop.core.seeds import derive_seed
from mmcoop.datasets.balanced_counts import (
    BRANCHES,
    EXACT_KINDS,
    ROUNDING,
    Counts,
    Demands,
    Kinds,
    largest_counts,
)
from mmcoop.errors import DataError, UsageError, setting

#: Safety margins tried in turn: with 0, the solver's tolerance of about 1e-6 or rounding errors of
#: the means may violate a bound.
_MARGINS = (0.0, 1e-5, 1e-3)


@dataclass(frozen=True)
class Balance:
    """How evenly modalities contribute to some samples.

    Attributes:
        samples: Number of samples.
        means: Mean contribution of each modality.
        gap: Largest minus smallest mean contribution.
        spread: Mean over samples of the largest minus the smallest contribution to a sample.
        by_class: Number of samples by label, for labels that occur.
    """

    samples: int
    means: tuple[float, ...]
    gap: float
    spread: float
    by_class: dict[int, int]

    @property
    def class_ratio(self) -> float:
        """Size of the largest class divided by that of the smallest that occurs."""
        return max(self.by_class.values()) / min(self.by_class.values())


@dataclass(frozen=True)
class BalancedSubset:
    """A balanced subset.

    Attributes:
        kept: Which samples to keep, bool `(samples,)`.
        bound: Proven upper bound of the size of any balanced subset.
    """

    kept: np.ndarray
    bound: int

    @property
    def gap(self) -> float:
        """Share of `bound` missing from the subset, in [0, 1]; 0 if it is proven to be largest."""
        return 1 - int(self.kept.sum()) / self.bound


def balance(contributions: np.ndarray, labels: np.ndarray) -> Balance:
    """Measure the balance of one split, which must have samples.

    Args:
        contributions: float `(samples, n)`.
        labels: int `(samples,)`.
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
    """Raise `UsageError` if an argument of `balanced_subset` is out of range."""
    for name, value, fits, rule in (
        ("tolerance", tolerance, tolerance > 0, "a number above 0"),
        ("class_ratio", class_ratio, class_ratio >= 1, "a number, 1 or more"),
        ("min_spread", min_spread, 0 <= min_spread <= 1, "a share, from 0 to 1"),
    ):
        if not (fits and math.isfinite(value)):
            raise UsageError(f"{setting(name)} {value:g}: it must be {rule}")


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
    exact_kinds: int = EXACT_KINDS,
    branches: int = BRANCHES,
) -> BalancedSubset:
    """Find the largest subset that is balanced in every split.

    In every split of the subset

    - the mean contributions of the modalities differ by at most `tolerance`, to within 1e-9,
    - the largest class has at most `class_ratio` times as many samples as the smallest,
    - the spread (see `Balance`) is at least `min_spread` times that of the complete split.

    At least two classes are kept, the same in every split. Samples of equal split, class and
    contributions are of one kind. With up to `exact_kinds` kinds, the subset is proven to be the
    largest, unless the search reaches its limit. With more, classes are chosen first, then samples;
    the subset is then usually within one or two thousandths of `bound`.

    Args:
        contributions: float `(samples, n)`, n ≥ 2.
        labels: int `(samples,)`.
        splits: Name or number of each sample's split, `(samples,)`.
        tolerance: Largest difference of mean contributions, above 0.
        class_ratio: Largest ratio of class sizes, at least 1.
        min_spread: Share of the spread to keep, 0 to 1.
        seed: Seed for choosing among samples of one kind.
        modalities: Names of the modalities, for messages.
        exact_kinds: The most kinds for which a single exact search is made.
        branches: Number of branches after which a search ends with the best subset so far.

    Returns:
        The subset, and an upper bound of its size.

    Raises:
        UsageError: An argument is out of range.
        DataError: Contributions are not finite or are of a single modality; no such subset exists;
            or the search ended without finding one.
    """
    check_demands(tolerance, class_ratio, min_spread)
    contributions = np.asarray(contributions, np.float64)
    if contributions.ndim != 2 or contributions.shape[1] < 2:
        raise DataError("there is one modality: contributions of two or more can be balanced")
    if not np.isfinite(contributions).all():
        raise DataError("contributions hold NaN or infinity: value the samples again")
    demands = Demands(tolerance, class_ratio, min_spread)
    labels = np.asarray(labels)
    names, split = np.unique(np.asarray(splits), return_inverse=True)
    kinds, kind_of = _kinds(contributions, labels, split)

    def search(among: Kinds, wanted: Demands, margin: float = 0.0) -> Counts:
        return largest_counts(among, wanted, margin, exact_kinds=exact_kinds, branches=branches)

    bound = 0
    for margin in _MARGINS:
        counts = search(kinds, demands, margin)
        bound = bound or counts.bound  # only the bound without a margin holds for every subset
        if counts.keep is None:
            break
        for chosen in (_evened(kinds, counts.keep), counts.keep):
            kept = _draw(kind_of, chosen, derive_seed(seed, "debiased"))
            if _meets(demands, contributions, labels, split, kept):
                return BalancedSubset(kept, bound)
    if counts.bound:
        raise DataError(
            f"no balanced subset was found, but {branches:,} branches of search did not prove that "
            "there is none: raise the tolerance or the class ratio, or lower the spread to keep"
        )
    words = list(modalities) or [f"modality {m}" for m in range(contributions.shape[1])]
    again = partial(search, margin=margin)
    raise DataError(_why_none(kinds, demands, again, [str(name) for name in names], words))


def _kinds(
    contributions: np.ndarray, labels: np.ndarray, split: np.ndarray
) -> tuple[Kinds, np.ndarray]:
    """The kinds, sorted, and the kind of every sample, int `(samples,)`."""
    label = np.unique(labels, return_inverse=True)[1]
    # rounding merges contributions that differ by rounding errors; + 0 turns -0 into 0
    key = np.column_stack([split, label, contributions.round(9) + 0.0])
    _, first, kind_of, samples = np.unique(
        key, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    spread = np.ptp(contributions, axis=1)
    before = np.array([_mean(spread[split == s]) for s in range(int(split.max()) + 1)])
    kinds = Kinds(split[first], label[first], contributions[first], spread[first], samples, before)
    return kinds, kind_of.reshape(-1)


def _evened(kinds: Kinds, counts: np.ndarray) -> np.ndarray:
    """Keep as many samples as `counts` with the same contributions, but of more even classes.

    Samples are removed from the class that is largest at that point. This does not change the mean
    contributions.
    """
    stays = np.isin(kinds.label, kinds.label[counts > 0])
    evened = np.where(stays, kinds.samples, 0)
    sizes = kinds.class_sizes()
    key = np.column_stack([kinds.split, kinds.contributions.round(9) + 0.0])
    alike_of = np.unique(key, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(np.where(stays, alike_of, -1), kind="stable")[np.sum(~stays) :]
    alike = np.split(order, np.flatnonzero(np.diff(alike_of[order])) + 1)
    # kinds without an alternative first
    for here in sorted(alike, key=len):
        if len(here) == 1:
            sizes[kinds.split[here], kinds.label[here]] -= evened[here] - counts[here]
            evened[here] = counts[here]
            continue
        for _ in range(int(evened[here].sum() - counts[here].sum())):
            left = here[evened[here] > 0]
            largest = left[sizes[kinds.split[left], kinds.label[left]].argmax()]
            evened[largest] -= 1
            sizes[kinds.split[largest], kinds.label[largest]] -= 1
    return evened


def _draw(kind_of: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Draw `counts` samples of each kind at random: bool `(samples,)`."""
    order = np.random.default_rng(seed).permutation(len(kind_of))
    order = order[np.argsort(kind_of[order], kind="stable")]
    kind = kind_of[order]
    place_in_kind = np.arange(len(kind)) - np.searchsorted(kind, kind)
    kept = np.zeros(len(kind), bool)
    kept[order[place_in_kind < counts[kind]]] = True
    return kept


def _meets(
    demands: Demands,
    contributions: np.ndarray,
    labels: np.ndarray,
    split: np.ndarray,
    kept: np.ndarray,
) -> bool:
    """Whether a subset meets the demands, as measured on its samples."""
    classes = set(labels[kept].tolist())
    if len(classes) < 2:
        return False
    for s in np.unique(split):
        here = split == s
        before = balance(contributions[here], labels[here])
        after = balance(contributions[here & kept], labels[here & kept])
        if not (
            set(after.by_class) == classes
            and after.gap <= demands.tolerance + ROUNDING
            and after.class_ratio <= demands.class_ratio
            and after.spread >= demands.min_spread * before.spread * (1 - ROUNDING)
        ):
            return False
    return True


def _why_none(
    kinds: Kinds,
    demands: Demands,
    search: Callable[[Kinds, Demands], Counts],
    splits: list[str],
    modalities: list[str],
) -> str:
    """Explain why there is no balanced subset, and which demands to loosen."""
    shared: np.ndarray = kinds.class_sizes().min(0) > 0
    if shared.sum() < 2:
        return (
            f"no subset is balanced: classes with samples in every split are {shared.sum()} of "
            f"{len(shared)}, and two at least must stay"
        )
    kinds = kinds.where(shared[kinds.label])
    parts = [kinds.of_split(split) for split in range(len(splits))]
    alone = [k for k, part in enumerate(parts) if not search(part, demands).bound]
    if alone:
        worst = alone[0]
        stuck, what = parts[worst], f"no part of the {splits[worst]} split"
    else:
        worst = int(np.argmax([np.ptp(_means(part)) for part in parts]))
        stuck, what = kinds, "no subset with the same classes in every split"
    loosened = {
        "tolerance": demands._replace(tolerance=2 * np.abs(kinds.contributions).max() + 1),
        "class_ratio": demands._replace(class_ratio=float(kinds.samples.sum())),
        "min_spread": demands._replace(min_spread=0.0),
    }
    enough = [
        setting(name) for name, less in loosened.items() if search(stuck, less).keep is not None
    ]
    advice = " or ".join(enough) or f"more than one of {', '.join(map(setting, loosened))}"
    order = np.argsort(_means(parts[worst]), kind="stable")
    most, least = order[-1], order[0]
    lead = parts[worst].contributions[:, most] - parts[worst].contributions[:, least]
    samples = parts[worst].samples
    return (
        f"{what} meets {setting('tolerance')} {demands.tolerance:g}, {setting('class_ratio')} "
        f"{demands.class_ratio:g} "
        f"and {setting('min_spread')} {demands.min_spread:g}: in {splits[worst]}, "
        f"{modalities[most]} "
        f"contributes more than {modalities[least]} to {samples[lead > ROUNDING].sum():,} of "
        f"{samples.sum():,} samples and less to {samples[lead < -ROUNDING].sum():,}; "
        f"loosen {advice}"
    )


def _means(kinds: Kinds) -> np.ndarray:
    """The mean contributions of the samples, `(n,)`."""
    return np.average(kinds.contributions, axis=0, weights=kinds.samples)


def _mean(numbers: np.ndarray) -> float:
    """The mean, from an exactly rounded sum."""
    return math.fsum(numbers) / len(numbers)

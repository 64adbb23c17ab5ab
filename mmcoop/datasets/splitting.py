"""Assigning samples to splits and folds, with groups kept together."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from mmcoop.core.seeds import derive_seed
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import normalised

#: Accepted names of the splits.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def split_names(words: Iterable[str | None], where: str = "the split") -> list[str | None]:
    """Normalise names of splits.

    Args:
        words: Names in any case, such as "dev"; None for a sample without a split.
        where: Where they are from, for the message: "the column split of a.csv".

    Returns:
        "train", "validation", "test" or None for each.

    Raises:
        DataError: A name is unknown.
    """
    known = {word: split for split, synonyms in NAMES.items() for word in synonyms}
    found: list[str | None] = []
    for word in words:
        if word is not None and normalised(word).lower() not in known:
            raise DataError(f"{where} says {word!r}: write one of {', '.join(known)}")
        found.append(None if word is None else known[normalised(word).lower()])
    return found


def fill_splits(
    splits: Sequence[str | None],
    groups: Sequence[str],
    labels: Sequence[int],
    validation: float,
    test: float,
    seed: int,
) -> list[str]:
    """Complete the splits: a missing validation or test split is cut from the training samples.

    Given splits do not change. A class with at least three groups that have no other class is in
    train and in every split that is cut.

    Args:
        splits: Split of each sample; None for all samples if there are no splits yet.
        groups: Group of each sample; see `cut_by_group`.
        labels: Class number of each sample.
        validation: Share to cut for validation, above 0: of the given training samples or, without
            splits, of all samples.
        test: Likewise for test.
        seed: Seed of the cuts.

    Returns:
        The split of each sample.

    Raises:
        UsageError: A share is not above 0, or they leave nothing to train on.
        DataError: Only some samples have a split, or none is for training.
    """
    check_shares(validation, test)
    given = {split for split in splits if split is not None}
    without = [i for i, split in enumerate(splits) if split is None]
    if given and without:
        raise DataError(
            f"{len(without)} of {len(splits)} samples have no split, one of them in group "
            f"{groups[without[0]]!r}: give every sample one, or none at all"
        )
    if given and "train" not in given:
        raise DataError(f"the splits are {', '.join(sorted(given))}: no sample is for training")
    filled = [split or "train" for split in splits]
    missing = [split for split in ("test", "validation") if split not in given]
    shares = {"test": test, "validation": validation / (1 - test if len(missing) == 2 else 1)}
    for k, split in enumerate(missing):
        pool = [i for i, name in enumerate(filled) if name == "train"]
        cut = cut_by_group(
            [groups[i] for i in pool],
            [labels[i] for i in pool],
            shares[split],
            seed,
            f"{split} split",
            leave=len(missing) - k,  # one group per remaining cut, and one to train on
        )
        for i, goes in zip(pool, cut, strict=True):
            filled[i] = split if goes else "train"
    return filled


def check_shares(validation: float, test: float) -> None:
    """Raise `UsageError` if a share is not above 0, or they leave nothing to train on."""
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UsageError(
            f"{setting('validation')} {validation} {setting('test')} {test}: both must be "
            "above 0, and together below 1"
        )


def cut_by_group(
    groups: Sequence[str],
    labels: Sequence[int],
    share: float,
    seed: int,
    purpose: str,
    leave: int = 1,
) -> np.ndarray:
    """Cut about the same share of every class, without dividing groups.

    Groups of a class are taken in random order as long as that brings the cut closer to its share,
    which is met to within half a group. At least one group of a class is taken, and at least
    `leave` remain, or all but one if there are not more; a class's only group remains. A group
    with several classes counts for all of them: shares are then met less precisely, and some class
    may have no group that can be taken.

    Args:
        groups: Group of each sample.
        labels: Class number of each sample.
        share: Share of each class to take, between 0 and 1.
        seed: Seed. The cut does not depend on the order of the samples.
        purpose: What the cut is for; different purposes give different cuts.
        leave: How many groups of each class should remain.

    Returns:
        Which samples are taken, bool `(samples,)`.
    """
    sizes = _class_sizes(groups, labels)
    shuffled = sorted(sizes)
    np.random.default_rng(derive_seed(seed, purpose)).shuffle(shuffled)
    of_class: dict[int, list[str]] = defaultdict(list)
    for group in shuffled:
        for label in sizes[group]:
            of_class[label].append(group)
    staying = {label: len(members) for label, members in of_class.items()}
    fewest = {label: max(1, min(leave, n - 1)) for label, n in staying.items()}
    taken: set[str] = set()
    cut: Counter[int] = Counter()
    for label in sorted(of_class):
        target = share * sum(sizes[group][label] for group in of_class[label])
        for group in of_class[label]:
            if group in taken:
                continue
            if cut[label] and cut[label] + sizes[group][label] / 2 > target:
                break
            if all(staying[other] > fewest[other] for other in sizes[group]):
                taken.add(group)
                cut.update(sizes[group])
                for other in sizes[group]:
                    staying[other] -= 1
    return np.array([group in taken for group in groups], dtype=bool)


def folds_by_group(
    groups: Sequence[str], labels: Sequence[int], folds: int, seed: int
) -> np.ndarray:
    """Divide samples into folds of about equal size, without dividing groups.

    Groups are assigned from the largest to the smallest, in random order among equals. Each goes
    to the fold with the fewest samples of its classes and, among equals, the fewest samples. No
    fold is empty.

    Args:
        groups: Group of each sample.
        labels: Class number of each sample.
        folds: Number of folds, at least 2.
        seed: Seed. The folds do not depend on the order of the samples.

    Returns:
        Fold of each sample, from 0, int64 `(samples,)`.

    Raises:
        UsageError: There are fewer than two folds, or more folds than groups.
    """
    sizes = _class_sizes(groups, labels)
    if not 2 <= folds <= len(sizes):
        raise UsageError(
            f"{folds} folds: choose 2 at least, and no more than there are groups of samples that "
            f"belong together, {len(sizes):,}"
        )
    shuffled = sorted(sizes)
    np.random.default_rng(derive_seed(seed, "folds")).shuffle(shuffled)
    filled: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(folds, dtype=np.int64))
    total = np.zeros(folds, dtype=np.int64)
    fold_of: dict[str, int] = {}
    for group in sorted(shuffled, key=lambda group: -sizes[group].total()):
        alike = np.zeros(folds, dtype=np.int64)
        for label, count in sizes[group].items():
            alike += count * filled[label]
        fold = int(np.lexsort((total, alike))[0])
        fold_of[group] = fold
        total[fold] += sizes[group].total()
        for label, count in sizes[group].items():
            filled[label][fold] += count
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def _class_sizes(groups: Sequence[str], labels: Sequence[int]) -> dict[str, Counter[int]]:
    """Number of samples by group and class."""
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        sizes[group][int(label)] += 1
    return sizes

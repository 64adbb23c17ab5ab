"""Who is in which split: what users call splits, and cuts that keep a group on one side."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from mmcoop.core.seeds import derive_seed
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import normalised

#: What users call the splits.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def split_names(words: Iterable[str | None], where: str = "the split") -> list[str | None]:
    """The splits meant by `words`, in any case: train, validation or test.

    None, for a sample without a split, stays None. Raises `DataError` for any other word; `where`
    begins its message ("the column split of a.csv").
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
    """The split of every sample, where users give all three, some, or none (None everywhere).

    What is missing is cut out of the training samples, by `cut_by_group`; where no split is given,
    those are all samples. `validation` and `test` are shares of them. What is given stays as it
    is. A class of three groups or more, all of that class alone, is in train and in every split
    that was cut.

    Raises `UsageError` for shares that are not above 0, or leave nothing to train on, and
    `DataError` where some samples have a split and others none, or none is for training.
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
            leave=len(missing) - k,  # a group for each cut to come, and one to train on
        )
        for i, goes in zip(pool, cut, strict=True):
            filled[i] = split if goes else "train"
    return filled


def check_shares(validation: float, test: float) -> None:
    """Raise `UsageError` for shares that are not above 0 or leave nothing to train on."""
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
    """Which samples are in a cut of about `share` of every class, bool `(N,)`.

    No group is on both sides. A class's groups are taken in random order while that brings the cut
    nearer to its share, which it meets to within half a group. Of a class of two groups or more at
    least one is taken, and at least `leave` stay, or all but one if there are no more; a class's
    only group stays. A group of several classes goes wholly and counts for all of them: shares are
    met less well then, and a class may have no group that can be taken.

    The cut depends on `seed` and `purpose`, and not on the order of the samples.
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
    """The fold of every sample, 0 to `folds` − 1, int64 `(N,)`.

    No group is in two folds. Groups go to folds in random order, the largest first, each to the
    fold that has fewest samples of its classes, and fewest samples in all among equals: classes are
    spread, folds are about as large, and none is empty. The folds depend on `seed`, and not on the
    order of the samples.

    Raises `UsageError` for fewer than two folds, and for more than there are groups.
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
    """How many samples of each class each group has."""
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        sizes[group][int(label)] += 1
    return sizes

"""Splits: what users call them, and cuts and folds of every class that keep a group on one side."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmcoop.datasets.splitting import (
    check_shares,
    cut_by_group,
    fill_splits,
    folds_by_group,
    split_names,
)
from mmcoop.errors import DataError, UsageError

shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32)


@st.composite
def pure_groups(draw) -> tuple[list[str], list[int]]:
    """Groups of samples, each of one class, in any order: the group and the label of every one."""
    rows = []
    for label in range(draw(st.integers(1, 4))):
        for k, size in enumerate(draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))):
            rows += [(f"{k}-{label}", label)] * size
    rows = draw(st.permutations(rows))
    return [group for group, _ in rows], [label for _, label in rows]


@st.composite
def mixed_groups(draw) -> tuple[list[str], list[int]]:
    """Samples of which each is of any group and of any class."""
    group = draw(st.sampled_from([st.sampled_from("abcdef"), st.text(max_size=2)]))
    rows = draw(st.lists(st.tuples(group, st.integers(0, 3)), min_size=1, max_size=40))
    return [group for group, _ in rows], [label for _, label in rows]


def singles(per_class: dict[int, int]) -> tuple[list[str], list[int]]:
    """Samples that are each a group of their own, so many of each class."""
    labels = [label for label, count in per_class.items() for _ in range(count)]
    return [f"s{i}" for i in range(len(labels))], labels


# Names


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"),
        ("training", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("dev", "validation"),
        ("test", "test"),
        ("testing", "test"),
    ],
)
def test_every_usual_word_for_a_split_is_understood_in_any_case(word, split):
    assert split_names([word, word.upper(), word.title(), f" {word} "]) == [split] * 4


def test_a_sample_without_a_split_stays_without_one():
    assert split_names([None, "dev", None]) == [None, "validation", None]
    assert split_names([]) == []


@pytest.mark.parametrize("word", ["tset", "", "0", "trainval", "held-out"])
def test_another_word_is_refused_with_the_legal_ones(word):
    with pytest.raises(DataError) as error:
        split_names(["train", word], "the column fold of a.csv")
    assert str(error.value) == (
        f"the column fold of a.csv says {word!r}: write one of train, training, validation, val, "
        "valid, dev, test, testing"
    )


# Cuts


@given(mixed_groups(), shares, seeds)
def test_no_group_is_on_both_sides(samples, share, seed):
    groups, labels = samples
    cut = cut_by_group(groups, labels, share, seed, "test")
    assert cut.dtype == bool
    assert cut.shape == (len(groups),)
    sides: dict[str, set[bool]] = {}
    for group, side in zip(groups, cut.tolist(), strict=True):
        sides.setdefault(group, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())


@given(mixed_groups(), shares, seeds)
def test_of_every_class_something_stays(samples, share, seed):
    groups, labels = samples
    cut = cut_by_group(groups, labels, share, seed, "test")
    staying = {label for label, side in zip(labels, cut, strict=True) if not side}
    assert staying == set(labels)


@given(pure_groups(), shares, seeds)
def test_of_every_class_of_two_groups_or_more_one_is_cut(samples, share, seed):
    groups, labels = samples
    cut = cut_by_group(groups, labels, share, seed, "test")
    for label in set(labels):
        of_class = {group for group, other in zip(groups, labels, strict=True) if other == label}
        sides = [side for side, other in zip(cut, labels, strict=True) if other == label]
        assert any(sides) == (len(of_class) > 1)


@given(pure_groups(), shares, seeds)
def test_every_class_meets_its_share_to_within_half_a_group(samples, share, seed):
    groups, labels = samples
    cut = np.array(cut_by_group(groups, labels, share, seed, "test"))
    for label in set(labels):
        mine = np.array(labels) == label
        sizes = Counter(np.array(groups)[mine].tolist())
        of_cut = {group for group in sizes if cut[groups.index(group)]}
        if len(of_cut) <= 1 or len(of_cut) == len(sizes) - 1:
            continue  # the least or the most that may be taken
        off = abs((cut & mine).sum() - share * mine.sum())
        assert off <= max(sizes.values()) / 2 + 1e-9


@given(st.dictionaries(st.integers(0, 5), st.integers(2, 60), min_size=1), shares, seeds)
def test_single_samples_are_cut_to_the_nearest_number_of_every_class(per_class, share, seed):
    groups, labels = singles(per_class)
    cut = cut_by_group(groups, labels, share, seed, "test")
    for label, count in per_class.items():
        taken = int(cut[np.array(labels) == label].sum())
        assume(abs(share * count % 1 - 0.5) > 1e-6)
        assert taken == min(max(round(share * count), 1), count - 1)


@given(mixed_groups(), shares, seeds, st.randoms(use_true_random=False))
def test_a_cut_does_not_depend_on_the_order_of_the_samples(samples, share, seed, rng):
    groups, labels = samples
    cut = cut_by_group(groups, labels, share, seed, "test")
    order = list(range(len(groups)))
    rng.shuffle(order)
    again = cut_by_group(
        [groups[i] for i in order], [labels[i] for i in order], share, seed, "test"
    )
    np.testing.assert_array_equal(again, cut[order])


@given(pure_groups(), shares, seeds, st.integers(1, 4))
def test_as_many_groups_of_a_class_stay_as_are_asked_for(samples, share, seed, leave):
    groups, labels = samples
    cut = cut_by_group(groups, labels, share, seed, "test", leave=leave)
    for label in set(labels):
        sides = {
            group: side
            for group, side, other in zip(groups, cut, labels, strict=True)
            if other == label
        }
        staying = sum(not side for side in sides.values())
        assert staying >= min(leave, max(1, len(sides) - 1))


def test_a_group_of_several_classes_counts_for_each_of_them():
    # 10 groups, each with one sample of every class: whole groups alone can be cut
    groups = [f"g{i}" for i in range(10) for _ in range(3)]
    labels = [0, 1, 2] * 10
    cut = cut_by_group(groups, labels, 0.3, 0, "test")
    assert [cut[np.array(labels) == label].sum() for label in range(3)] == [3, 3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_a_group_cut_for_one_class_is_not_counted_again_for_another(seed):
    # 10 groups of both classes, 10 more of the second class alone
    groups = [f"g{i}" for i in range(10)] * 2 + [f"h{i}" for i in range(10)]
    labels = [0] * 10 + [1] * 20
    cut = cut_by_group(groups, labels, 0.3, seed, "test")
    assert cut[:10].sum() >= 3
    assert cut[10:].sum() == 6


@pytest.mark.parametrize("seed", range(20))
def test_groups_cut_for_other_classes_never_take_all_of_a_class(seed):
    # both groups of class 2 are also of another class, for which they may be cut
    groups = ["a", "a", "b", "c", "c", "d"]
    labels = [0, 2, 0, 1, 2, 1]
    cut = cut_by_group(groups, labels, 0.5, seed, "test")
    assert cut[[1, 4]].sum() <= 1
    assert [cut[[0, 2]].sum(), cut[[3, 5]].sum()] == [1, 1]


def test_a_class_of_too_few_groups_to_leave_so_many_is_still_cut():
    cut = cut_by_group(["a", "b", "c", "d", "e", "f"], [0, 0, 1, 1, 1, 2], 0.9, 0, "test", leave=5)
    assert [cut[:2].sum(), cut[2:5].sum(), cut[5:].sum()] == [1, 1, 0]


def test_a_big_group_is_left_alone_where_the_cut_is_nearer_to_its_share_without_it():
    groups = ["a"] + ["b"] + ["c"] * 98
    cuts = [cut_by_group(groups, [0] * 100, 0.3, seed, "test").sum() for seed in range(40)]
    assert set(cuts) == {1, 2, 98}, "98 where the big one comes first, since one must be taken"


def test_seed_and_purpose_decide_the_cut():
    groups, labels = singles({0: 50, 1: 50})
    cuts = [
        cut_by_group(groups, labels, 0.5, seed, purpose).tolist()
        for seed, purpose in [(0, "test"), (0, "test"), (1, "test"), (0, "validation")]
    ]
    assert cuts[0] == cuts[1]
    assert cuts[0] != cuts[2]
    assert cuts[0] != cuts[3]


def test_every_sample_is_cut_as_often_as_any_other():
    groups, labels = singles({0: 10, 1: 20})
    often = sum(cut_by_group(groups, labels, 0.3, s, "test").astype(int) for s in range(1000))
    # 300 times each, give or take 5 standard deviations of a binomial
    assert np.abs(often - 300).max() < 5 * np.sqrt(1000 * 0.3 * 0.7)


# Filling in


def counts(splits: list[str], labels: list[int]) -> dict[str, list[int]]:
    """Samples of every class, by split."""
    return {
        split: [
            sum(s == split and other == label for s, other in zip(splits, labels, strict=True))
            for label in sorted(set(labels))
        ]
        for split in sorted(set(splits))
    }


def test_without_splits_validation_and_test_are_cut_of_all_samples():
    groups, labels = singles({0: 100, 1: 40})
    splits = fill_splits([None] * 140, groups, labels, 0.1, 0.2, 0)
    assert counts(splits, labels) == {"train": [70, 28], "validation": [10, 4], "test": [20, 8]}


def test_with_train_and_test_validation_is_cut_of_train():
    groups, labels = singles({0: 100, 1: 40})
    given = ["test" if i % 2 else "train" for i in range(140)]
    splits = fill_splits(given, groups, labels, 0.1, 0.2, 0)
    assert counts(splits, labels) == {"train": [45, 18], "validation": [5, 2], "test": [50, 20]}
    assert all(new == "test" for old, new in zip(given, splits, strict=True) if old == "test")
    assert all(new != "test" for old, new in zip(given, splits, strict=True) if old != "test")


def test_with_train_and_validation_test_is_cut_of_train():
    groups, labels = singles({0: 100, 1: 40})
    given = ["validation" if i % 2 else "train" for i in range(140)]
    splits = fill_splits(given, groups, labels, 0.1, 0.2, 0)
    assert counts(splits, labels) == {"train": [40, 16], "validation": [50, 20], "test": [10, 4]}
    assert [s == "validation" for s in splits] == [s == "validation" for s in given]


def test_train_alone_is_shared_out_like_no_split_at_all():
    groups, labels = singles({0: 30, 1: 30})
    given = fill_splits(["train"] * 60, groups, labels, 0.1, 0.2, 0)
    assert given == fill_splits([None] * 60, groups, labels, 0.1, 0.2, 0)


@given(
    st.lists(st.sampled_from(["train", "validation", "test"]), min_size=3).filter(
        lambda splits: len(set(splits)) == 3
    )
)
def test_all_three_splits_stay_as_they_are(splits):
    groups = ["the same"] * len(splits)
    assert fill_splits(splits, groups, [0] * len(splits), 0.1, 0.2, 0) == splits


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=8), min_size=1, max_size=4),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    seeds,
)
def test_a_class_of_three_groups_is_in_all_splits_and_no_group_in_two(
    sizes, validation, test, seed
):
    rows = [
        (f"{label}-{k}", label)
        for label, of_class in enumerate(sizes)
        for k, size in enumerate(of_class)
        for _ in range(size)
    ]
    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    splits = fill_splits([None] * len(rows), groups, labels, validation, test, seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert len(set(zip(labels, splits, strict=True))) == 3 * len(sizes)


def test_the_splits_do_not_depend_on_the_order_of_the_samples():
    groups, labels = singles({0: 30, 1: 30, 2: 5})
    splits = dict(zip(groups, fill_splits([None] * 65, groups, labels, 0.1, 0.2, 3), strict=True))
    order = list(range(65))
    random.Random(0).shuffle(order)
    mixed = [groups[i] for i in order]
    again = fill_splits([None] * 65, mixed, [labels[i] for i in order], 0.1, 0.2, 3)
    assert dict(zip(mixed, again, strict=True)) == splits


def test_some_samples_without_a_split_are_refused():
    message = "2 of 4 samples have no split, one of them in group 'b': give every sample one"
    with pytest.raises(DataError, match=message):
        fill_splits(["train", None, "test", None], ["a", "b", "c", "d"], [0] * 4, 0.1, 0.2, 0)


@pytest.mark.parametrize("given", [["test"], ["validation", "test"]])
def test_nothing_to_train_on_is_refused(given):
    message = f"the splits are {', '.join(sorted(given))}: no sample is for training"
    with pytest.raises(DataError, match=message):
        fill_splits(given, ["a", "b"][: len(given)], [0] * len(given), 0.1, 0.2, 0)


@pytest.mark.parametrize(
    ("validation", "test"),
    [(0.0, 0.2), (0.1, 0.0), (-0.1, 0.2), (0.1, 1.0), (0.5, 0.5), (float("nan"), 0.2), (0.1, 7.0)],
)
def test_shares_that_leave_a_split_empty_are_refused(validation, test):
    message = f"validation {validation} test {test}: both must be above 0, and together below 1"
    with pytest.raises(UsageError, match=message):
        check_shares(validation, test)
    with pytest.raises(UsageError, match=message):
        fill_splits([None] * 4, ["a", "b", "c", "d"], [0] * 4, validation, test, 0)


def test_shares_that_fill_every_split_are_accepted():
    check_shares(0.1, 0.2)
    check_shares(0.001, 0.998)


# Folds


@given(mixed_groups(), st.integers(2, 6), seeds)
def test_every_group_is_in_one_fold_and_no_fold_is_empty(samples, folds, seed):
    groups, labels = samples
    assume(len(set(groups)) >= folds)
    found = folds_by_group(groups, labels, folds, seed)
    assert found.dtype == np.int64
    assert set(found.tolist()) == set(range(folds))
    pairs = set(zip(groups, found.tolist(), strict=True))
    assert len(pairs) == len(set(groups))


@given(pure_groups(), st.integers(2, 6), seeds)
def test_folds_have_as_much_of_every_class_to_within_its_largest_group(samples, folds, seed):
    groups, labels = samples
    assume(len(set(groups)) >= folds)
    found = folds_by_group(groups, labels, folds, seed)
    for label in set(labels):
        mine = np.array(labels) == label
        counts = np.bincount(found[mine], minlength=folds)
        largest = max(Counter(np.array(groups)[mine].tolist()).values())
        assert counts.max() - counts.min() <= largest


def test_folds_of_samples_without_groups_are_even_in_every_class_and_in_all():
    groups, labels = singles({0: 50, 1: 33, 2: 17})
    found = folds_by_group(groups, labels, 5, 0)
    for label, count in ((0, 50), (1, 33), (2, 17)):
        counts = np.bincount(found[np.array(labels) == label], minlength=5)
        assert sorted(counts) == sorted(len(part) for part in np.array_split(range(count), 5))
    assert np.bincount(found).tolist() == [20] * 5


def test_the_folds_depend_on_the_seed_and_not_on_the_order_of_the_samples():
    groups, labels = singles({0: 30, 1: 30, 2: 5})
    groups = [f"{group[:-1]}x" for group in groups]  # about ten samples a group, of two classes
    found = dict(zip(groups, folds_by_group(groups, labels, 3, 1).tolist(), strict=True))
    order = list(range(65))
    random.Random(0).shuffle(order)
    mixed = [groups[i] for i in order]
    again = folds_by_group(mixed, [labels[i] for i in order], 3, 1).tolist()
    assert dict(zip(mixed, again, strict=True)) == found
    others = [tuple(folds_by_group(groups, labels, 3, seed).tolist()) for seed in range(20)]
    assert len(set(others)) > 5


def test_as_many_folds_as_groups_are_a_group_each():
    found = folds_by_group(list("aabbc"), [0, 0, 0, 0, 1], 3, 0)
    assert sorted(np.bincount(found).tolist()) == [1, 2, 2]


@pytest.mark.parametrize("folds", [-1, 0, 1, 4])
def test_fewer_than_two_folds_or_more_than_groups_are_refused(folds):
    message = (
        f"^{folds} folds: choose 2 at least, and no more than there are groups of samples that "
        "belong together, 3$"
    )
    with pytest.raises(UsageError, match=message):
        folds_by_group(list("aabbc"), [0, 0, 0, 0, 1], folds, 0)

"""The largest balanced subset: every demand is met, and no larger subset meets them."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from mmcoop.datasets.debiasing import balance, balanced_subset, check_demands
from mmcoop.errors import DataError, UsageError

#: The paper's contributions of two modalities, one row a pattern of right and wrong.
PATTERNS = np.array(
    [[0, 0], [0.5, -0.5], [-0.5, 0.5], [0, 0], [1, 1], [1.5, 0.5], [0.5, 1.5], [1, 1]]
)
SPLITS = ("train", "validation", "test")
USUAL = {"tolerance": 0.02, "class_ratio": 2.0, "min_spread": 0.5, "seed": 0}

Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def subset(table: Table, **changes: Any) -> np.ndarray:
    return balanced_subset(*table, **{**USUAL, **changes}).kept


def unlike(rng: np.random.Generator, samples: int, classes: int, n: int, *, lead: float) -> Table:
    """Samples of which no two are alike; the first modality leads by `lead` and a class's own."""
    labels = rng.integers(0, classes, samples)
    own = rng.normal(0, 0.3, (classes, n))
    own[:, 0] += lead
    contributions = rng.normal(1, 0.7, (samples, n)) + own[labels]
    return contributions, labels, rng.choice(SPLITS, samples, p=[0.6, 0.2, 0.2])


def alike(rng: np.random.Generator, samples: int, classes: int, n: int) -> Table:
    """Samples with the paper's contributions, of which the patterns are not equally frequent."""
    rows = PATTERNS
    if n > 2:
        rows = np.stack([rng.permutation([1.5, 0.5, *[1.0] * (n - 2)]) for _ in range(6)])
        rows[0] = 0
    often = rng.dirichlet(np.full(len(rows), 2.0), classes)
    labels = rng.choice(classes, samples, p=rng.dirichlet(np.full(classes, 4.0)))
    picked = np.array([rng.choice(len(rows), p=often[label]) for label in labels])
    return rows[picked], labels, rng.choice(SPLITS, samples, p=[0.6, 0.2, 0.2])


def small(rng: np.random.Generator, samples: int, splits: int, n: int, *, paper: bool) -> Table:
    """A table of few samples, of the paper's contributions or of any."""
    contributions = rng.choice(PATTERNS, samples) if paper else rng.normal(0, 1, (samples, n))
    labels, split = rng.integers(0, 3, samples), rng.integers(0, splits, samples)
    return contributions, labels, split


def brute_force(table: Table, tolerance: float, class_ratio: float, min_spread: float) -> int:
    """Samples of the largest subset there is, 0 where there is none: all subsets are tried."""
    contributions, labels, splits = table
    chosen = np.array(list(itertools.product([0, 1], repeat=len(labels))))
    fits = np.ones(len(chosen), bool)
    classes = []
    for split in np.unique(splits):
        here = splits == split
        mine, phi = chosen[:, here], contributions[here]
        size = mine.sum(1)
        sums = mine @ phi
        by_class = np.stack([mine @ (labels[here] == label) for label in range(3)], 1)
        smallest = np.where(by_class > 0, by_class, len(labels)).min(1)
        ranges = phi.max(1) - phi.min(1)
        fits &= sums.max(1) - sums.min(1) <= tolerance * size
        fits &= by_class.max(1) <= class_ratio * smallest
        fits &= (mine @ ranges) * len(phi) >= min_spread * ranges.sum() * size - 1e-9
        classes.append(by_class > 0)
    fits &= np.all([found == classes[0] for found in classes], axis=(0, 2))
    fits &= classes[0].sum(1) >= 2
    return int((chosen.sum(1) * fits).max())


def size_found(table: Table, **demands: float) -> int:
    """As `brute_force`, by the code under test."""
    try:
        return int(subset(table, **demands).sum())
    except DataError:
        return 0


def check_balanced(table: Table, kept: np.ndarray, **changes: float) -> None:
    """Every demand, as anyone would measure it with a table of the samples that are kept."""
    demands = {**USUAL, **changes}
    contributions, labels, splits = table
    names = [f"m{m}" for m in range(contributions.shape[1])]
    frame = pd.DataFrame(contributions, columns=names).assign(label=labels, split=splits)
    frame["spread"] = frame[names].max(axis=1) - frame[names].min(axis=1)
    classes = set(frame.label[kept])
    assert len(classes) >= 2
    for split, before in frame.groupby("split"):
        after = frame[kept & (frame.split == split)]
        means = after[names].mean()
        assert means.max() - means.min() <= demands["tolerance"] + 1e-9
        sizes = after.label.value_counts()
        assert set(sizes.index) == classes, f"{split} has other classes"
        assert Fraction(int(sizes.max()), int(sizes.min())) <= Fraction(demands["class_ratio"])
        assert after.spread.mean() >= demands["min_spread"] * before.spread.mean() - 1e-9


# What is found


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # 42 on which the first modality leads, 40 on which the second does: two go
        ([14, 13, 10, 5], [22, 23, 20, 15]),
        # 54 of them: fourteen go
        ([14, 13, 15, 12], [20, 20, 20, 20]),
        # twelve, and none of them of the third class
        ([30, 20, 0, 2], [29, 29, 10, 12]),
    ],
)
def test_what_goes_is_taken_from_the_largest_classes(more, expected):
    rows = [
        (split, label, phi)
        for split in SPLITS
        for label, count in enumerate(more)
        for phi in [(1.5, 0.5)] * count + [(0.5, 1.5)] * 10
    ]
    splits, labels, contributions = map(np.array, zip(*rows, strict=True))
    kept = subset((contributions, labels, splits), tolerance=1e-9, class_ratio=4)
    for split in SPLITS:
        here = kept & (splits == split)
        assert np.bincount(labels[here]).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    samples=st.integers(80, 300),
    classes=st.integers(2, 8),
    n=st.integers(2, 3),
    paper=st.booleans(),
    tolerance=st.sampled_from([0.02, 0.1]),
    class_ratio=st.sampled_from([1.5, 2.0, 4.0]),
    min_spread=st.sampled_from([0.0, 0.5, 0.8]),
)
def test_a_subset_meets_every_demand_in_every_split(
    seed, samples, classes, n, paper, tolerance, class_ratio, min_spread
):
    rng = np.random.default_rng(seed)
    demands = {"tolerance": tolerance, "class_ratio": class_ratio, "min_spread": min_spread}
    if paper:
        table = alike(rng, samples, classes, n)
    else:
        table = unlike(rng, samples, classes, n, lead=rng.uniform(0, 0.5))
    try:
        kept = subset(table, **demands)
    except DataError as error:
        assert "loosen " in str(error) or "two at least must stay" in str(error)
        return
    assert kept.dtype == bool
    assert kept.shape == (samples,)
    check_balanced(table, kept, **demands)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    samples=st.integers(4, 12),
    splits=st.integers(1, 3),
    n=st.integers(2, 3),
    paper=st.booleans(),
    tolerance=st.sampled_from([0.07, 0.23, 0.61]),  # no mean of so few samples is at its bound
    class_ratio=st.sampled_from([1.0, 1.5, 2.0, 9.0]),
    min_spread=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
)
def test_no_subset_is_larger_by_brute_force(
    seed, samples, splits, n, paper, tolerance, class_ratio, min_spread
):
    table = small(np.random.default_rng(seed), samples, splits, n, paper=paper)
    demands = {"tolerance": tolerance, "class_ratio": class_ratio, "min_spread": min_spread}
    assert size_found(table, **demands) == brute_force(table, **demands)


def test_brute_force_finds_something_in_many_of_its_tables():
    tables = [
        small(np.random.default_rng(seed), 12, 1 + seed % 3, 2, paper=True) for seed in range(60)
    ]
    found = [
        brute_force(table, tolerance=0.23, class_ratio=2.0, min_spread=0.5) for table in tables
    ]
    assert 15 < np.count_nonzero(found) < 60


def test_of_a_leading_modality_no_more_samples_go_than_must():
    # in each split audio leads on 60 samples, visual on 40, and neither on 100: 60 − x of them
    # may stay where x is the fewest with 60 − x − 40 ≤ 0.02 (200 − x)
    rows = np.repeat([[1.5, 0.5], [0.5, 1.5], [1.0, 1.0]], [60, 40, 100], axis=0)
    table = np.tile(rows, (3, 1)), np.tile([0, 1], 300), np.repeat(SPLITS, 200)
    kept = subset(table)
    fewest = math.ceil((20 - 0.02 * 200) / (1 - 0.02))
    for split in SPLITS:
        mine = table[0][(table[2] == split) & kept]
        assert len(mine) == 200 - fewest
        assert (mine[:, 0] > mine[:, 1]).sum() == 60 - fewest


def test_a_balanced_table_is_kept_whole():
    rows = np.repeat([[1.5, 0.5], [0.5, 1.5], [1.0, 1.0]], [40, 40, 20], axis=0)
    table = np.tile(rows, (3, 1)), np.tile([0, 1], 150), np.repeat(SPLITS, 100)
    assert subset(table, tolerance=1e-9, class_ratio=1.0, min_spread=1.0).all()


def test_a_balanced_table_loses_what_its_classes_have_too_much():
    sizes = [30, 10, 12]
    labels = np.repeat([4, 7, 9], sizes)
    table = np.ones((156, 3)), np.tile(labels, 3), np.repeat(SPLITS, 52)
    kept = subset(table)
    for split in SPLITS:
        mine = table[1][kept & (table[2] == split)]
        assert np.bincount(mine)[[4, 7, 9]].tolist() == [20, 10, 12]


def test_a_class_goes_altogether_where_that_keeps_more():
    # a third class of one sample would hold the others to two each
    labels = np.repeat([0, 1, 2], [30, 30, 1])
    table = np.ones((183, 2)), np.tile(labels, 3), np.repeat(SPLITS, 61)
    kept = subset(table)
    assert set(table[1][kept]) == {0, 1}
    assert kept.sum() == 180


def test_a_class_that_some_split_lacks_goes():
    labels = np.tile(np.repeat([0, 1, 2], 10), 3)
    splits = np.repeat(SPLITS, 30)
    there = ~((splits == "test") & (labels == 1))
    table = np.ones((there.sum(), 2)), labels[there], splits[there]
    kept = subset(table)
    assert set(table[1][kept]) == {0, 2}
    assert kept.sum() == 60


def test_one_class_leads_by_one_modality_and_makes_up_for_another():
    contributions = np.tile(np.repeat([[1.5, 0.5], [0.5, 1.5]], 20, axis=0), (3, 1))
    table = contributions, np.tile(np.repeat([0, 1], 20), 3), np.repeat(SPLITS, 40)
    assert subset(table, min_spread=1.0).all()


def test_a_mean_exactly_at_the_tolerance_is_within_it():
    contributions = np.array([[1.5, 0.5], [1, 1], [1, 1], [1, 1]])
    table = contributions, np.array([0, 0, 1, 1]), np.zeros(4)
    assert subset(table, tolerance=0.25, min_spread=0).all()
    assert subset(table, tolerance=0.2499, min_spread=0).sum() < 4


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.3])
def test_a_gap_of_exactly_the_tolerance_on_every_sample_is_within_it(tolerance):
    contributions = np.tile([1 + tolerance / 2, 1 - tolerance / 2], (40, 1))
    table = contributions, np.arange(40) % 2, np.zeros(40)
    assert subset(table, tolerance=tolerance).all()


@pytest.mark.parametrize("samples", [50, 100, 150, 250])
def test_no_rounding_error_takes_a_mean_past_the_tolerance(samples):
    # 0.02 × samples is a whole number, and the means of floating point numbers may differ by more
    lead = samples // 2
    contributions = np.repeat([[1.5, 0.5], [1, 1]], [lead, samples - lead], axis=0)
    labels = np.arange(samples) % 2
    table = contributions, labels, np.zeros(samples)
    kept = subset(table, min_spread=0.0, class_ratio=4.0)
    check_balanced(table, kept, min_spread=0.0, class_ratio=4.0)


# Few of many: classes first, then samples


def peer_optimum(table: Table, tolerance: float, class_ratio: float, min_spread: float) -> int:
    """Samples of the largest subset by a plain program: one binary variable per sample and class,
    each demand written down pair by pair.
    """
    contributions, labels, splits = table
    classes, names = np.unique(labels), np.unique(splits)
    samples, n = contributions.shape
    rows: list[np.ndarray] = []
    limits: list[float] = []

    def at_most(limit: float, take: np.ndarray, keep: np.ndarray | float = 0.0) -> None:
        rows.append(np.r_[take, np.broadcast_to(keep, len(classes))])
        limits.append(limit)

    at_most(-2, np.zeros(samples), -1.0)  # two classes stay
    for split in names:
        here = (splits == split).astype(float)
        ranges = np.ptp(contributions, axis=1)
        at_most(0, here * (min_spread * ranges[here > 0].mean() - ranges))
        for a, b in itertools.permutations(range(n), 2):
            at_most(0, here * (contributions[:, a] - contributions[:, b] - tolerance))
        for one, stays in zip(classes, np.eye(len(classes)), strict=True):
            mine = here * (labels == one)
            at_most(0, mine, -mine.sum() * stays)
            at_most(0, -mine, stays)
            for other in classes[classes != one]:
                # the other class has at most `class_ratio` times as many where this one stays
                theirs = here * (labels == other)
                at_most(theirs.sum(), theirs - class_ratio * mine, theirs.sum() * stays)
    found = milp(
        np.r_[-np.ones(samples), np.zeros(len(classes))],
        integrality=np.ones(samples + len(classes)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.array(rows), -np.inf, limits),
        options={"mip_rel_gap": 0},
    )
    assert found.status in (0, 2)
    return 0 if found.x is None else round(-found.fun)


@pytest.mark.parametrize(
    ("seed", "classes", "n", "demands"),
    [
        (0, 3, 2, {"tolerance": 0.02, "class_ratio": 2.0, "min_spread": 0.5}),
        (1, 6, 2, {"tolerance": 0.05, "class_ratio": 1.0, "min_spread": 0.9}),
        (2, 6, 3, {"tolerance": 0.05, "class_ratio": 1.5, "min_spread": 0.0}),
        (3, 10, 2, {"tolerance": 0.01, "class_ratio": 1.0, "min_spread": 0.9}),
        (4, 4, 2, {"tolerance": 0.005, "class_ratio": 3.0, "min_spread": 1.0}),
    ],
)
def test_the_bound_holds_and_the_subset_is_near_it(seed, classes, n, demands):
    table = unlike(np.random.default_rng(seed), 180, classes, n, lead=0.4)
    best = peer_optimum(table, **demands)
    whole = balanced_subset(*table, **demands, seed=0)
    staged = balanced_subset(*table, **demands, seed=0, exact_kinds=0)
    for found in (whole, staged):
        check_balanced(table, found.kept, **demands)
        assert found.kept.sum() <= best <= found.bound
        assert found.gap == pytest.approx(1 - found.kept.sum() / found.bound)
    assert whole.kept.sum() == whole.bound == best
    assert staged.kept.sum() >= best - 3


def test_a_search_that_reaches_its_limit_says_so_and_not_that_there_is_none():
    contributions, labels, _ = unlike(np.random.default_rng(0), 20, 2, 3, lead=0.2)
    table = contributions, labels, np.zeros(20)
    demands = {"tolerance": 1e-4, "class_ratio": 1.0, "min_spread": 1.0}
    with pytest.raises(DataError, match="did not prove"):
        subset(table, **demands, branches=1)
    with pytest.raises(DataError, match="no part of"):
        subset(table, **demands)
    assert peer_optimum(table, **demands) == 0


def test_fifteen_thousand_samples_without_equals_are_no_matter_of_minutes():
    table = unlike(np.random.default_rng(0), 15_000, 10, 2, lead=0.3)
    kept = subset(table)
    check_balanced(table, kept)
    assert kept.sum() > 7500


# Chance


def test_the_same_call_gives_the_same_subset():
    table = alike(np.random.default_rng(5), 300, 4, 2)
    np.testing.assert_array_equal(subset(table, seed=3), subset(table, seed=3))


def test_another_seed_takes_other_samples_of_the_same_kinds():
    contributions, labels, splits = table = alike(np.random.default_rng(5), 300, 4, 2)
    frame = pd.DataFrame(contributions).assign(label=labels, split=splits)
    first, other = (subset(table, seed=seed) for seed in (0, 1))
    assert (first != other).any()
    counts = [frame[kept].value_counts().sort_index() for kept in (first, other)]
    pd.testing.assert_series_equal(*counts)


def test_of_equal_samples_each_is_as_likely_to_stay():
    table = np.ones((40, 2)), np.repeat([0, 1], [30, 10]), np.zeros(40)
    often = np.mean([subset(table, seed=seed) for seed in range(150)], axis=0)
    assert (often[30:] == 1).all()
    assert np.abs(often[:30] - 2 / 3).max() < 4.5 * math.sqrt(2 / 9 / 150)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), paper=st.booleans())
def test_the_order_of_the_samples_does_not_matter_to_how_many_stay(seed, paper):
    rng = np.random.default_rng(seed)
    table = alike(rng, 250, 4, 2) if paper else unlike(rng, 250, 4, 2, lead=0.2)
    order = rng.permutation(250)
    shuffled = tuple(column[order] for column in table)
    demands = {"tolerance": 0.05, "class_ratio": 2.0, "min_spread": 0.3}
    assert size_found(table, **demands) == size_found(shuffled, **demands)


def test_a_rounding_error_in_contributions_makes_no_difference():
    contributions, labels, splits = alike(np.random.default_rng(2), 300, 4, 2)
    noise = np.random.default_rng(3).choice([-1e-15, 0, 1e-15], contributions.shape)
    expected = subset((contributions, labels, splits))
    np.testing.assert_array_equal(subset((contributions + noise, labels, splits)), expected)


def test_splits_may_be_numbers_and_labels_any_numbers():
    contributions, labels, splits = alike(np.random.default_rng(4), 300, 4, 2)
    numbers = pd.Series(splits).map({"test": 0, "train": 1, "validation": 2}).to_numpy()
    expected = subset((contributions, labels, splits))
    np.testing.assert_array_equal(subset((contributions, 7 * labels - 3, numbers)), expected)


# Nothing found


def refusal(table: Table, **changes: Any) -> str:
    with pytest.raises(DataError) as refused:
        subset(table, **changes)
    return str(refused.value)


def repeated(rows: list[list[float]], times: list[int], labels: list[int] | None = None) -> Table:
    """The same rows in every split, by default of two classes in turn."""
    one = np.repeat(np.array(rows, float), times, axis=0)
    classes = np.arange(len(one)) % 2 if labels is None else np.repeat(labels, times)
    return np.tile(one, (3, 1)), np.tile(classes, 3), np.repeat(SPLITS, len(one))


AUDIO, VISUAL, NEITHER = [1.5, 0.5], [0.5, 1.5], [1.0, 1.0]


def test_a_modality_that_always_leads_is_named_with_its_samples():
    contributions, labels, splits = repeated([AUDIO, VISUAL], [1100, 1100])
    contributions[splits == "validation"] = AUDIO
    message = refusal((contributions, labels, splits), modalities=["audio", "visual"])
    assert message == (
        "no part of the validation split meets tolerance 0.02, class_ratio 2 and min_spread "
        "0.5: in validation, audio contributes more than visual to 2,200 of 2,200 samples and less "
        "to 0; loosen tolerance"
    )


def test_modalities_without_names_are_numbered():
    message = refusal(repeated([VISUAL, NEITHER], [8, 2]))
    assert "modality 1 contributes more than modality 0 to 8 of 10 samples and less to 0" in message


@pytest.mark.parametrize(
    ("table", "changes", "advice"),
    [
        (repeated([AUDIO, NEITHER], [30, 10]), {}, "tolerance or min_spread"),
        (
            repeated([AUDIO, [0.75, 1.25]], [10, 20], [0, 1]),
            {"class_ratio": 1.0},
            "tolerance or class_ratio",
        ),
        (
            repeated([AUDIO, NEITHER], [10, 1], [0, 1]),
            {"class_ratio": 1.0, "min_spread": 1.0},
            "more than one of tolerance, class_ratio, min_spread",
        ),
        (
            repeated([AUDIO, VISUAL, NEITHER], [5, 5, 2], [0, 0, 1]),
            {"class_ratio": 1.0, "min_spread": 1.0},
            "class_ratio or min_spread",
        ),
    ],
)
def test_what_to_loosen_is_what_helps(table, changes, advice):
    assert refusal(table, **changes).endswith(f"; loosen {advice}")
    for flag, value in (("tolerance", 9.0), ("class_ratio", 99.0), ("min_spread", 0.0)):
        helps = size_found(table, **{**changes, flag: value}) > 0
        named = not advice.startswith("more than one") and flag in advice
        assert helps == named


def test_splits_that_can_only_keep_different_classes_are_told_apart():
    contributions, labels, splits = repeated([NEITHER] * 4, [10] * 4, [0, 1, 2, 3])
    contributions[(splits == "train") & (labels >= 2)] = AUDIO
    contributions[(splits == "test") & (labels < 2)] = AUDIO
    message = refusal((contributions, labels, splits), min_spread=0.0)
    assert message == (
        "no subset with the same classes in every split meets tolerance 0.02, class_ratio 2 "
        "and min_spread 0: in test, modality 0 contributes more than modality 1 to 20 of 40 "
        "samples and less to 0; loosen tolerance"
    )


def test_of_three_modalities_the_first_and_the_last_are_named():
    rows = [[1.0, 1.2, 0.8], [1.0, 0.7, 1.3]]
    message = refusal(repeated(rows, [9, 1]), modalities=["flow", "rgb", "sound"], min_spread=0.9)
    assert "rgb contributes more than sound to 9 of 10 samples and less to 1;" in message


def test_two_classes_at_least_must_be_in_every_split():
    contributions, labels, splits = repeated([NEITHER] * 3, [5] * 3, [0, 1, 2])
    there = (labels == 1) | ((labels == 0) == (splits == "train"))
    message = refusal((contributions[there], labels[there], splits[there]))
    assert message == (
        "no subset is balanced: classes with samples in every split are 1 of 3, and two at least "
        "must stay"
    )


def test_nothing_is_found_of_many_unlike_samples_of_which_one_modality_leads():
    contributions, labels, splits = unlike(np.random.default_rng(0), 900, 4, 2, lead=0.0)
    contributions[splits == "test", 0] += 9
    message = refusal((contributions, labels, splits))
    assert message.startswith("no part of the test split meets")
    assert message.endswith("and less to 0; loosen tolerance")


# Refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": 0.0}, "tolerance 0: it must be a number above 0"),
        ({"tolerance": -0.1}, "tolerance -0.1: it must be a number above 0"),
        ({"tolerance": math.nan}, "tolerance nan: it must be"),
        ({"tolerance": math.inf}, "tolerance inf: it must be"),
        ({"class_ratio": 0.99}, "class_ratio 0.99: it must be a number, 1 or more"),
        ({"class_ratio": math.nan}, "class_ratio nan: it must be"),
        ({"class_ratio": math.inf}, "class_ratio inf: it must be"),
        ({"min_spread": -0.1}, "min_spread -0.1: it must be a share, from 0 to 1"),
        ({"min_spread": 1.1}, "min_spread 1.1: it must be a share, from 0 to 1"),
        ({"min_spread": math.nan}, "min_spread nan: it must be"),
    ],
)
def test_demands_out_of_range_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        subset(repeated([NEITHER], [4]), **changes)


def test_demands_at_the_ends_of_their_ranges_are_accepted():
    check_demands(1e-12, 1.0, 0.0)
    check_demands(99.0, 1e6, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_contributions_that_are_not_numbers_are_refused(value):
    contributions, labels, splits = repeated([NEITHER], [4])
    contributions[5, 1] = value
    with pytest.raises(DataError, match="contributions hold NaN or infinity: value the samples"):
        subset((contributions, labels, splits))


@pytest.mark.parametrize("contributions", [np.ones((6, 1)), np.ones(6)])
def test_one_modality_is_refused(contributions):
    table = contributions, np.tile([0, 1], 3), np.repeat(SPLITS, 2)
    with pytest.raises(DataError, match="there is one modality: contributions of two or more"):
        subset(table)


# The balance of a split


def test_the_balance_of_a_split_is_what_a_table_says():
    contributions, labels, _ = unlike(np.random.default_rng(6), 90, 5, 3, lead=0.4)
    labels = labels * 2
    frame = pd.DataFrame(contributions)
    found = balance(contributions, labels)
    assert found.samples == 90
    assert found.means == pytest.approx(frame.mean().tolist(), abs=1e-12)
    assert found.gap == pytest.approx(frame.mean().max() - frame.mean().min(), abs=1e-12)
    assert found.spread == pytest.approx((frame.max(axis=1) - frame.min(axis=1)).mean(), abs=1e-12)
    sizes = pd.Series(labels).value_counts()
    assert found.by_class == sizes.to_dict()
    assert found.class_ratio == sizes.max() / sizes.min()

"""Contributions → the rows of the next epoch."""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmcoop
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.resampling import (
    GRADED_SLACK,
    MAX_EXTRA_ROWS,
    PROBABILITY_RULES,
    TrainingExamples,
    capped,
    complete_examples,
    extra_rows,
    graded_shares,
    join_examples,
    modality_level_examples,
    modality_probability,
    sample_level_examples,
    shuffled,
    unimodal_examples,
)
from mmcoop.core.seeds import generator
from mmcoop.errors import DataError, UsageError


def listed(rows: TrainingExamples) -> list[tuple[int, tuple[bool, ...]]]:
    """Rows as (sample, who is present), in order."""
    return list(zip(rows.sample.tolist(), map(tuple, rows.present.tolist()), strict=True))


def only(modality: int, n: int) -> tuple[bool, ...]:
    return tuple(m == modality for m in range(n))


# the sample-level rule


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("contribution", "rows"),
    [
        (1.0, 0),
        (0.999, 1),
        (0.5, 1),
        (0.499, 2),
        (0.4, 2),  # a hole in the published thresholds
        (0.0, 2),
        (-0.001, 3),
        (-0.1, 3),  # the other hole
        (-0.5, 3),
        (-5.0, 3),
        (1.001, 0),
        (1.5, 0),
        (12.0, 0),
        (1 / 3, 2),
        (2 / 3, 1),
        (-1 / 3, 3),
    ],
)
def test_extra_rows_fall_as_the_contribution_rises(contribution, rows, dtype):
    extra = extra_rows(torch.tensor([[contribution]], dtype=dtype))
    assert extra.dtype == torch.int64
    assert extra.tolist() == [[rows]]


@pytest.mark.parametrize(
    ("step", "rows"), [(1.0, 0), (0.5, 1), (0.0, 2)], ids=["at 1", "at 0.5", "at 0"]
)
def test_a_rounding_error_below_a_step_gets_no_row_more(step, rows):
    below = torch.tensor([step - 1e-12, step - 1e-7], dtype=torch.float64)
    assert extra_rows(below).tolist() == [rows, rows]
    just_below = torch.nextafter(torch.tensor(step), torch.tensor(-1.0))  # float32
    assert extra_rows(just_below).item() == rows
    assert extra_rows(torch.tensor(step - 1e-5, dtype=torch.float64)).item() == rows + 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_multiple_of_a_fraction_gets_what_exact_arithmetic_says(n):
    # Shapley values of the paper's value are whole multiples of 1 / n!
    denominator = math.factorial(n)
    phis = [Fraction(k, denominator) for k in range(-2 * denominator, 2 * denominator + 1)]
    expected = [0 if phi >= 1 else min(math.ceil(2 * (1 - phi)), MAX_EXTRA_ROWS) for phi in phis]
    for dtype in (torch.float32, torch.float64):
        assert extra_rows(torch.tensor([float(p) for p in phis], dtype=dtype)).tolist() == expected


def test_the_eight_patterns_get_the_extra_rows_of_the_paper():
    # METHODS.md, 3.7: (φ_a, φ_v) → copies
    contributions = torch.tensor(
        [[1, 1], [1.5, 0.5], [0.5, 1.5], [1, 1], [0, 0], [0.5, -0.5], [-0.5, 0.5], [0, 0]]
    )
    assert extra_rows(contributions).tolist() == [
        [0, 0], [0, 1], [1, 0], [0, 0], [2, 2], [1, 3], [3, 1], [2, 2]
    ]  # fmt: skip


def test_extra_rows_keep_the_shape_and_take_plain_lists_and_whole_numbers():
    assert extra_rows([[1, 0], [0.5, -1], [2, 1]]).tolist() == [[0, 2], [1, 3], [0, 0]]
    assert extra_rows(torch.zeros(0, 3)).shape == (0, 3)


def test_infinite_contributions_are_clamped():
    assert extra_rows(torch.tensor([math.inf, -math.inf])).tolist() == [0, 3]


def test_contributions_with_nan_are_refused():
    with pytest.raises(DataError, match="^contributions hold NaN: value the samples again$"):
        extra_rows(torch.tensor([[0.5, math.nan]]))


# at most so many rows a sample


@pytest.mark.parametrize(
    ("max_extra", "expected"),
    [
        (None, [[2, 3, 1], [3, 1, 0], [2, 2, 2], [0, 0, 0]]),
        (9, [[2, 3, 1], [3, 1, 0], [2, 2, 2], [0, 0, 0]]),
        (5, [[2, 3, 0], [3, 1, 0], [2, 2, 1], [0, 0, 0]]),
        (4, [[1, 3, 0], [3, 1, 0], [2, 2, 0], [0, 0, 0]]),
        (3, [[0, 3, 0], [3, 0, 0], [2, 1, 0], [0, 0, 0]]),
        (1, [[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]),
    ],
)
def test_the_lowest_contributions_get_their_rows_first(max_extra, expected):
    phi = torch.tensor([[0.0, -0.5, 0.5], [-0.5, 0.5, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert extra_rows(phi, max_extra).tolist() == expected
    assert mmcoop.extra_rows(phi, max_extra=max_extra).tolist() == expected


def test_the_eight_patterns_with_two_extra_rows_at_most():
    contributions = torch.tensor(
        [[1, 1], [1.5, 0.5], [0.5, 1.5], [1, 1], [0, 0], [0.5, -0.5], [-0.5, 0.5], [0, 0]]
    )
    assert extra_rows(contributions, 2).tolist() == [
        [0, 0], [0, 1], [1, 0], [0, 0], [2, 0], [0, 2], [2, 0], [2, 0]
    ]  # fmt: skip


def one_by_one(phi: list[Fraction], max_extra: int) -> list[int]:
    """Rows given out one modality after the other, the lowest contribution first."""
    given, left = [0] * len(phi), max_extra
    for m in sorted(range(len(phi)), key=lambda m: (phi[m], m)):
        wants = 0 if phi[m] >= 1 else min(math.ceil(2 * (1 - phi[m])), MAX_EXTRA_ROWS)
        given[m] = min(wants, left)
        left -= given[m]
    return given


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 6), st.integers(1, 20), st.data())
def test_capped_extra_rows_are_those_of_a_plain_loop_whatever_rounding_adds(n, max_extra, data):
    # multiples of 1/60, as Shapley values are, often equal; and errors such as sums of floats have
    whole = st.lists(st.integers(-120, 120), min_size=n, max_size=n)
    samples = data.draw(st.lists(whole, min_size=1, max_size=5))
    error = data.draw(st.lists(st.floats(-1e-12, 1e-12), min_size=n, max_size=n))
    phi = torch.tensor(samples, dtype=torch.float64) / 60 + torch.tensor(error, dtype=torch.float64)
    found = extra_rows(phi, max_extra)
    expected = [one_by_one([Fraction(k, 60) for k in row], max_extra) for row in samples]
    assert found.tolist() == expected
    free = extra_rows(phi)
    assert (found.sum(1) == free.sum(1).clamp(max=max_extra)).all()
    assert (found <= free).all()
    rows = sample_level_examples(phi, max_extra)
    assert listed(rows) == listed(
        join_examples(complete_examples(len(samples), n), unimodal_examples(found))
    )


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_infinite_and_huge_contributions_are_capped_too(data):
    numbers = st.floats(allow_nan=False)
    phi = torch.tensor(data.draw(st.lists(numbers, min_size=3, max_size=3)), dtype=torch.float64)
    found = extra_rows(phi.unsqueeze(0), 4)
    assert found.sum() == extra_rows(phi.unsqueeze(0)).sum().clamp(max=4)
    assert (found >= 0).all()


@pytest.mark.parametrize("max_extra", [0, -1])
def test_a_limit_below_1_is_refused(max_extra):
    expected = f"^max_extra is {max_extra}: it must be at least 1, or None for no limit$"
    with pytest.raises(UsageError, match=expected):
        extra_rows(torch.zeros(2, 2), max_extra)


def test_one_order_of_modalities_may_hold_for_all_samples():
    times = torch.tensor([[2, 2, 2], [0, 3, 1]])
    assert capped(times, torch.tensor([0.5, 0.1, 0.3]), 3).tolist() == [[0, 2, 1], [0, 3, 0]]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_sample_level_rows_are_the_multiset_of_a_plain_loop(n):
    phi = torch.randn(40, n, generator=generator(n)).double() + 0.5
    expected = []
    for i, row in enumerate(phi.tolist()):
        expected.append((i, (True,) * n))
        for m, contribution in enumerate(row):
            if contribution < 1:
                expected += [(i, only(m, n))] * min(math.ceil(2 * (1 - contribution)), 3)
    rows = sample_level_examples(phi)
    assert rows.sample.dtype == torch.int64
    assert rows.present.dtype == torch.bool
    assert rows.present.shape == (len(rows), n)
    assert Counter(listed(rows)) == Counter(expected)


def test_sample_level_rows_of_two_samples_by_hand():
    rows = sample_level_examples(torch.tensor([[1.5, 0.5], [0.0, 1.0]]))
    assert listed(rows) == [
        (0, (True, True)),
        (1, (True, True)),
        (0, (False, True)),
        (1, (True, False)),
        (1, (True, False)),
    ]


def test_samples_that_all_contribute_their_share_get_no_extra_rows():
    assert listed(sample_level_examples(torch.ones(3, 2))) == [(i, (True, True)) for i in range(3)]


def test_sample_level_rows_of_contributions_with_nan_are_refused():
    with pytest.raises(DataError, match="contributions hold NaN"):
        sample_level_examples(torch.tensor([[math.nan, 1.0]]))


# rows


def test_whole_rows_have_every_sample_once_with_all_modalities():
    assert listed(complete_examples(3, 2)) == [
        (0, (True, True)),
        (1, (True, True)),
        (2, (True, True)),
    ]
    assert len(complete_examples(0, 2)) == 0


def test_alone_rows_come_by_sample_then_by_modality():
    rows = unimodal_examples(torch.tensor([[0, 2, 1], [0, 0, 0], [1, 0, 0]]))
    assert listed(rows) == [
        (0, only(1, 3)),
        (0, only(1, 3)),
        (0, only(2, 3)),
        (2, only(0, 3)),
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.data())
def test_alone_rows_have_exactly_one_modality_as_often_as_asked(n, data):
    row = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    times = data.draw(st.lists(row, min_size=1, max_size=6))
    rows = unimodal_examples(torch.tensor(times))
    assert (rows.present.sum(1) == 1).all()
    expected = Counter(
        {(i, only(m, n)): k for i, counts in enumerate(times) for m, k in enumerate(counts) if k}
    )
    assert Counter(listed(rows)) == expected


def test_no_alone_rows_are_asked_for_and_none_come():
    rows = unimodal_examples(torch.zeros(4, 2, dtype=torch.long))
    assert len(rows) == 0
    assert rows.present.shape == (0, 2)


def test_joined_rows_keep_their_order():
    first, second = complete_examples(2, 2), unimodal_examples(torch.tensor([[1, 0], [0, 1]]))
    assert listed(join_examples(first, second, first)) == [
        *listed(first),
        *listed(second),
        *listed(first),
    ]


def test_taken_rows_are_those_at_the_positions_asked_for():
    rows = sample_level_examples(torch.tensor([[1.5, 0.5], [0.0, 1.0]]))
    taken = rows.take(torch.tensor([4, 0, 0, 2]))
    assert listed(taken) == [listed(rows)[k] for k in (4, 0, 0, 2)]


def test_shuffled_rows_are_the_same_rows_in_an_order_the_generator_decides():
    rows = sample_level_examples(torch.randn(50, 2, generator=generator(0)))
    mixed = shuffled(rows, generator(1))
    assert Counter(listed(mixed)) == Counter(listed(rows))
    assert listed(mixed) != listed(rows)
    assert listed(mixed) == listed(shuffled(rows, generator(1)))
    assert listed(mixed) != listed(shuffled(rows, generator(2)))


# the modality-level rule


@pytest.mark.parametrize(
    ("rule", "alpha", "expected"),
    [
        ("linear", 1.0, 0.4),  # METHODS.md, 3.7: ⅔ · (1.1 − 0.5)
        ("linear", 0.5, 0.2),
        ("linear", 0.0, 0.0),
        ("tanh", 1.0, math.tanh(0.4)),
        ("tanh", 2.0, math.tanh(0.8)),
        ("tanh", 0.0, 0.0),
        ("power", 1.0, 0.4**1.5),
        ("power", 2.0, 2 * 0.4**1.5),  # α is outside the power
        ("power", 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("weaker", [0, 1])
def test_the_weaker_of_two_modalities_is_added_with_the_papers_probability(
    rule, alpha, expected, weaker
):
    means = [1.1, 1.1]
    means[weaker] = 0.5
    found = modality_probability(torch.tensor(means, dtype=torch.float64), rule, alpha)
    assert found.dtype == torch.float64
    assert found[weaker].item() == pytest.approx(expected, abs=1e-15)
    assert found[1 - weaker].item() == 0


def test_the_rule_is_linear_with_alpha_1_unless_said_otherwise():
    means = torch.tensor([1.1, 0.5], dtype=torch.float64)
    assert modality_probability(means).tolist() == pytest.approx([0, 0.4], abs=1e-15)


def test_means_in_a_plain_list_keep_double_precision():
    assert modality_probability([1.1, 0.5]).tolist() == pytest.approx([0, 0.4], abs=1e-15)


def test_the_legal_rules_are_the_papers_three():
    assert list(PROBABILITY_RULES) == ["linear", "tanh", "power"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("linear", [0.2, 0.0, 0.6]),
        ("tanh", [math.tanh(0.2), 0.0, math.tanh(0.6)]),
        ("power", [0.2**1.5, 0.0, 0.6**1.5]),
    ],
)
def test_with_three_modalities_each_gap_is_taken_to_the_strongest(rule, expected):
    means = torch.tensor([1.1, 1.4, 0.5], dtype=torch.float64)
    assert modality_probability(means, rule).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("rule", PROBABILITY_RULES)
def test_equal_modalities_and_a_single_one_are_never_added(rule):
    assert modality_probability(torch.full((3,), 0.7), rule).tolist() == [0, 0, 0]
    assert modality_probability(torch.tensor([0.7]), rule).tolist() == [0]


def test_a_probability_above_1_is_clamped():
    means = torch.tensor([2.0, -1.0, 1.9], dtype=torch.float64)
    linear = modality_probability(means)
    assert linear.tolist() == pytest.approx([0, 1, 2 / 30], abs=1e-15)
    assert linear[1].item() == 1
    assert modality_probability(means, "power")[1].item() == 1
    assert modality_probability(means, alpha=1e6).tolist() == [0, 1, 1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-12, 12), min_size=1, max_size=6),
    st.sampled_from(list(PROBABILITY_RULES)),
    st.floats(0, 5),
)
def test_probabilities_are_in_0_to_1_and_grow_with_the_gap(means, rule, alpha):
    found = modality_probability(torch.tensor(means, dtype=torch.float64), rule, alpha)
    assert ((found >= 0) & (found <= 1)).all()
    by_mean = [p for _, p in sorted(zip(means, found.tolist(), strict=True), reverse=True)]
    assert by_mean[0] == 0
    assert all(p <= q for p, q in pairwise(by_mean))


def test_an_unknown_rule_is_refused_with_the_legal_names():
    with pytest.raises(
        UsageError, match="^unknown rule 'cubic': choose one of linear, tanh, power$"
    ):
        modality_probability(torch.tensor([1.0, 0.5]), "cubic")


@pytest.mark.parametrize("alpha", [-0.1, math.inf, -math.inf, math.nan])
def test_an_alpha_that_is_negative_or_not_finite_is_refused(alpha):
    with pytest.raises(
        UsageError, match=f"^alpha is {alpha}: it must be a number that is not negative$"
    ):
        modality_probability(torch.tensor([1.0, 0.5]), alpha=alpha)


def test_mean_contributions_with_nan_are_refused():
    with pytest.raises(DataError, match="^mean contributions hold NaN or infinity: value"):
        modality_probability(torch.tensor([1.0, math.nan]))


# modality-level rows


def test_rows_are_drawn_about_as_often_as_their_probability_says():
    n_samples = 20_000
    probability = torch.tensor([0.4, 0.0, 0.07], dtype=torch.float64)
    rows = modality_level_examples(n_samples, probability, generator(3))
    assert listed(rows)[:n_samples] == [(i, (True,) * 3) for i in range(n_samples)]
    drawn = Counter(listed(rows)[n_samples:])
    assert set(drawn.values()) == {1}  # a sample is added at most once a modality
    assert all(sum(present) == 1 for _, present in drawn)
    counts = rows.present[n_samples:].sum(0).tolist()
    for count, p in zip(counts, probability.tolist(), strict=True):
        assert abs(count - n_samples * p) <= 4 * math.sqrt(n_samples * p * (1 - p))


def test_draws_of_modalities_are_independent():
    n_samples = 20_000
    rows = modality_level_examples(n_samples, torch.tensor([0.5, 0.5]), generator(4))
    times_drawn = Counter(rows.sample[n_samples:].tolist())
    both = sum(k == 2 for k in times_drawn.values())
    assert abs(both - n_samples / 4) <= 4 * math.sqrt(n_samples * 3 / 16)


def test_of_too_many_draws_of_a_sample_those_of_the_weakest_modalities_count():
    probability = torch.tensor([0.6, 0.0, 0.9, 0.6], dtype=torch.float64)
    means = torch.tensor([0.2, 1.4, -0.3, 0.1], dtype=torch.float64)
    weakest_first = [2, 3, 0, 1]
    free = modality_level_examples(300, probability, generator(5))
    for most in (1, 2, 3, 4):
        rows = modality_level_examples(300, probability, generator(5), most, means)
        expected = []
        for i in range(300):
            drawn = [present.index(True) for s, present in listed(free)[300:] if s == i]
            kept = [m for m in weakest_first if m in drawn][:most]
            expected += [(i, only(m, 4)) for m in sorted(kept)]
        assert listed(rows) == listed(free)[:300] + expected


def test_without_means_the_likeliest_modalities_are_the_weakest():
    rows = modality_level_examples(50, torch.tensor([0.5, 1.0, 0.9]), generator(6), 1)
    assert listed(rows)[50:] == [(i, only(1, 3)) for i in range(50)]


def test_modalities_that_are_all_certain_to_be_drawn_are_told_apart_by_their_means():
    certain = torch.ones(3, dtype=torch.float64)
    rows = modality_level_examples(4, certain, generator(7), 2, torch.tensor([0.1, 0.3, 0.2]))
    assert rows.present[4:].sum(0).tolist() == [4, 0, 4]


@pytest.mark.parametrize("seed", range(3))
def test_probability_0_adds_none_and_probability_1_all(seed):
    rows = modality_level_examples(500, torch.tensor([1.0, 0.0]), generator(seed))
    expected = [(i, (True, True)) for i in range(500)] + [(i, (True, False)) for i in range(500)]
    assert listed(rows) == expected


def test_the_generator_decides_which_rows_are_drawn():
    probability = torch.tensor([0.0, 0.4])
    first = listed(modality_level_examples(200, probability, generator(0)))
    assert first == listed(modality_level_examples(200, probability, generator(0)))
    assert first != listed(modality_level_examples(200, probability, generator(1)))


# --- graded values


def rows_of(values: list[list[float]], best: float = 1.0) -> list[list[int]]:
    phi = shapley_values(torch.tensor(values, dtype=torch.float64))
    return extra_rows(graded_shares(phi, best), slack=GRADED_SLACK).tolist()


@pytest.mark.parametrize("nothing", [0.0, 1 / 31, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("sure", [1.0, 0.9998, 0.4])
def test_a_sample_on_which_all_coalitions_agree_gets_no_row(n, nothing, sure):
    noise = 1e-4 * torch.rand(1, 2**n, generator=torch.Generator().manual_seed(n))
    values = (sure - noise).tolist()
    values[0][0] = nothing
    assert rows_of(values) == [[0] * n]


def test_rows_of_graded_values_by_hand():
    # v of nothing, a, b, both; a fair share of a certain prediction is ½
    assert rows_of(
        [
            [0.1, 0.9, 0.1, 0.9],  # b is of no use: φ 0.8 and 0, share 0.4, short by 0.8 of ½
            [0.1, 0.1, 0.9, 0.9],
            [0.5, 0.5, 0.75, 0.75],  # short by a quarter of it, which is still fair
            [0.1, 1.0, 0.0, 0.1],  # b misleads: φ ½ and −½, share 0
            [0.1, 0.6, 0.5, 0.9],  # short by 0.1 of ½
        ]
    ) == [[0, 2], [2, 0], [0, 0], [0, 2], [0, 0]]


@pytest.mark.parametrize("nothing", [0.0, 0.25, 1.0])
def test_what_nothing_is_worth_has_no_say(nothing):
    # by `correct`, of the eight patterns of two modalities
    patterns = [[nothing, a, b, ab] for a in (0.0, 1) for b in (0.0, 1) for ab in (0.0, 1)]
    assert rows_of(patterns) == [[0, 0], [0, 0], [2, 0], [2, 0], [0, 2], [0, 2], [0, 0], [0, 0]]


def test_where_modalities_differ_the_papers_value_and_correct_agree_on_the_rows():
    for a, b in ((1.0, 0.0), (0.0, 1.0)):
        paper = extra_rows(shapley_values(torch.tensor([[0, a, b, 2.0]])))
        assert (paper > 0).tolist() == [[n > 0 for n in rows_of([[0.0, a, b, 1.0]])[0]]]

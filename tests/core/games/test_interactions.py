"""Interactions and dividends: by hand, plain loops, a peer library, games with known answers."""

from fractions import Fraction
from itertools import combinations
from math import comb, factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcoop.core.games import interactions
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.interactions import (
    harsanyi_dividends,
    interaction_indices,
    shapley_interactions,
)
from mmcoop.core.games.shapley import shapley_values

# METHODS.md, section 5: accuracies of ∅, a, v, av, t, at, vt, avt
THREE = [[0.2, 0.5, 0.3, 0.6, 0.6, 0.75, 0.65, 0.8]]


def subsets(coalition: int, n: int) -> list[int]:
    return [s for s in range(2**n) if s & coalition == s]


def dividends_by_loop(values: list[float], n: int) -> list[float]:
    return [
        sum((-1) ** (r.bit_count() - s.bit_count()) * values[s] for s in subsets(r, n))
        for r in range(2**n)
    ]


def interactions_by_loop(values: list[float], n: int) -> list[float]:
    """Weighted mean of the discrete derivative of each coalition T over the coalitions without."""
    found = []
    for t in range(2**n):
        total = 0.0
        for s in subsets(2**n - 1 - t, n):
            weight = Fraction(
                factorial(s.bit_count()) * factorial(n - s.bit_count() - t.bit_count()),
                factorial(n - t.bit_count() + 1),
            )
            derivative = sum(
                (-1) ** (t.bit_count() - part.bit_count()) * values[s | part]
                for part in subsets(t, n)
            )
            total += float(weight) * derivative
        found.append(total)
    return found


def random_games(n: int, samples: int = 3) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(samples, 2**n))


@st.composite
def games(draw, least: int = 1, most: int = 12):
    """(n, table `(2, 2**n)`) with values around 0, some of them whole numbers."""
    n = draw(st.integers(least, most))
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(scale=3, size=(2, 2**n))
    return n, values.round() if draw(st.booleans()) else values


axioms = settings(deadline=None, max_examples=40)


# by hand


@pytest.mark.parametrize(
    ("game", "matrix"),
    [
        # nothing, first, second, both
        ([0.5, 0.5, 0.5, 1.0], [[0.25, 0.5], [0.5, 0.25]]),  # XOR: pure synergy
        ([0.5, 1.0, 1.0, 1.0], [[0.25, -0.5], [-0.5, 0.25]]),  # copies: pure redundancy
        ([0.5, 1.0, 0.5, 1.0], [[0.5, 0.0], [0.0, 0.0]]),  # the second is null
        ([0.0, 0.25, 0.5, 0.75], [[0.25, 0.0], [0.0, 0.5]]),  # each adds its own
    ],
    ids=["XOR", "copies", "null", "additive"],
)
def test_games_of_two_with_known_answers(game, matrix):
    assert shapley_interactions([game]).tolist() == [matrix]
    mean_by_size = game[0] / 3 + (game[1] + game[2]) / 6 + game[3] / 3
    assert interaction_indices([game])[0].tolist() == pytest.approx(
        [mean_by_size, matrix[0][0], matrix[1][1], matrix[0][1]], abs=1e-15
    )


def test_three_modalities_by_hand():
    # METHODS_2025.md: half of each pair is 0 (av), −.075 (at), −.025 (vt)
    expected = [[0.225, 0, -0.15], [0, 0.075, -0.05], [-0.15, -0.05, 0.3]]
    np.testing.assert_allclose(shapley_interactions(THREE)[0], expected, atol=1e-15)
    np.testing.assert_allclose(
        harsanyi_dividends(THREE)[0], [0.2, 0.3, 0.1, 0, 0.4, -0.15, -0.05, 0], atol=1e-15
    )
    # (.2 + (.5 + .3 + .6) / 3 + (.6 + .75 + .65) / 3 + .8) / 4
    mean_by_size = 0.2 / 4 + 1.4 / 12 + 2 / 12 + 0.8 / 4
    np.testing.assert_allclose(
        interaction_indices(THREE)[0],
        [mean_by_size, 0.225, 0.075, 0, 0.3, -0.15, -0.05, 0],
        atol=1e-15,
    )


def test_a_single_modality_has_no_interaction_but_its_own_contribution():
    assert shapley_interactions([[0.25, 1.0]]).tolist() == [[[0.75]]]
    assert harsanyi_dividends([[0.25, 1.0]]).tolist() == [[0.25, 0.75]]
    assert interaction_indices([[0.25, 1.0]]).tolist() == [[0.625, 0.75]]


# plain loops and a peer library


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_interactions_and_dividends_agree_with_plain_loops(n):
    values = random_games(n)
    np.testing.assert_allclose(
        harsanyi_dividends(torch.from_numpy(values)),
        [dividends_by_loop(game, n) for game in values.tolist()],
        atol=1e-12,
    )
    expected = np.array([interactions_by_loop(game, n) for game in values.tolist()])
    np.testing.assert_allclose(interaction_indices(values), expected, atol=1e-12)
    matrices = shapley_interactions(values)
    for i in range(n):
        np.testing.assert_allclose(matrices[:, i, i], expected[:, 1 << i], atol=1e-13)
    for i, j in combinations(range(n), 2):
        pair = expected[:, 1 << i | 1 << j]
        np.testing.assert_allclose(matrices[:, i, j], pair, atol=1e-13)
        np.testing.assert_allclose(matrices[:, j, i], pair, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_interactions_of_all_orders_agree_with_shapiq(n):
    from shapiq import ExactComputer  # seconds to import: only where it is the oracle

    for game in random_games(n, samples=2):

        def worth(coalitions, game=game):
            return game[np.asarray(coalitions).astype(int) @ (1 << np.arange(n))]

        computer = ExactComputer(worth, n_players=n)
        for name, function in (("SII", interaction_indices), ("Moebius", harsanyi_dividends)):
            found = computer(name, order=n)
            expected = [found[tuple(m for m in range(n) if s >> m & 1)] for s in range(2**n)]
            np.testing.assert_allclose(function(game[None])[0], expected, atol=1e-11)


@axioms
@given(games())
def test_pairs_and_contributions_are_those_of_the_indices_of_all_orders(game):
    n, values = game
    matrices, indices = shapley_interactions(values), interaction_indices(values)
    assert torch.equal(matrices, matrices.transpose(1, 2))
    assert torch.equal(matrices.diagonal(dim1=1, dim2=2), shapley_values(values))
    for i in range(n):
        for j in range(n):
            np.testing.assert_allclose(
                matrices[:, i, j], indices[:, 1 << i | 1 << j], rtol=0, atol=1e-10
            )


# sums


@axioms
@given(games())
def test_the_dividends_of_the_parts_of_a_coalition_sum_to_its_value(game):
    n, values = game
    dividends = harsanyi_dividends(values)
    members = coalition_matrix(n)
    for s in {0, 1, 2**n // 3, 2**n - 1}:
        parts = (members <= members[s]).all(1)
        np.testing.assert_allclose(dividends[:, parts].sum(1), values[:, s], atol=1e-8)


@axioms
@given(games())
def test_interactions_of_all_orders_sum_to_the_dividends_by_bernoulli_numbers(game):
    # m(R) = Σ_{T ⊇ R} B_(|T|−|R|) I(T), the inverse of the index (Grabisch 1997)
    n, values = game
    bernoulli: list[Fraction] = []
    for k in range(n + 1):
        rest = sum(comb(k + 1, j) * b for j, b in enumerate(bernoulli))
        bernoulli.append(Fraction(int(k == 0)) - rest / (k + 1))
    indices, dividends = interaction_indices(values), harsanyi_dividends(values)
    members = coalition_matrix(n)
    for r in {0, 1, 2**n // 3, 2**n - 1}:
        above = (members >= members[r]).all(1)
        orders = members[above].sum(1) - members[r].sum()
        weights = torch.tensor([float(b) for b in bernoulli], dtype=torch.float64)[orders]
        np.testing.assert_allclose(indices[:, above] @ weights, dividends[:, r], atol=1e-8)


@axioms
@given(games())
def test_interactions_of_order_one_sum_to_grand_less_empty(game):
    n, values = game
    singles = interaction_indices(values)[:, [1 << m for m in range(n)]]
    np.testing.assert_allclose(singles.sum(1), values[:, -1] - values[:, 0], atol=1e-10)


@axioms
@given(games(least=2))
def test_a_pairs_interaction_is_what_one_gains_by_the_other_being_there(game):
    # I_ij: i's Shapley value in the game of the others with j always there, less that without j
    n, values = game
    i, j = 0, n - 1
    with_j, without_j = values[:, 2 ** (n - 1) :], values[:, : 2 ** (n - 1)]
    gained = shapley_values(with_j)[:, i] - shapley_values(without_j)[:, i]
    np.testing.assert_allclose(shapley_interactions(values)[:, i, j], gained, atol=1e-11)


# axioms


@axioms
@given(games(), st.data(), st.floats(-5, 5))
def test_a_dummy_gets_what_it_adds_and_interacts_with_none(game, data, own):
    n, values = game
    dummy = data.draw(st.integers(0, n - 1))
    coalitions = np.arange(2**n)
    having = (coalitions >> dummy & 1).astype(bool)
    values = values[:, coalitions & ~(1 << dummy)] + own * having
    matrices, indices = shapley_interactions(values), interaction_indices(values)
    expected = np.zeros(n)
    expected[dummy] = own
    np.testing.assert_allclose(matrices[:, dummy], [expected, expected], atol=1e-11)
    np.testing.assert_allclose(indices[:, having & (coalitions != 1 << dummy)], 0, atol=1e-8)


@axioms
@given(games(), st.data())
def test_symmetry_renaming_the_modalities_renames_their_interactions(game, data):
    n, values = game
    rename = data.draw(st.permutations(range(n)))
    columns = [sum(1 << rename[m] for m in range(n) if s >> m & 1) for s in range(2**n)]
    renamed = np.empty_like(values)
    renamed[:, columns] = values
    np.testing.assert_allclose(
        shapley_interactions(renamed)[:, rename][:, :, rename],
        shapley_interactions(values),
        atol=1e-11,
    )
    np.testing.assert_allclose(
        interaction_indices(renamed)[:, columns], interaction_indices(values), atol=1e-8
    )


@axioms
@given(games(), st.floats(-10, 10), st.floats(-10, 10))
def test_linearity_interactions_of_a_mixed_game_are_the_mixed_interactions(game, a, b):
    _, values = game
    mixed = a * values[:1] + b * values[1:]
    for function in (shapley_interactions, harsanyi_dividends, interaction_indices):
        found = function(values)
        np.testing.assert_allclose(function(mixed), a * found[:1] + b * found[1:], atol=1e-7)


# games with known answers


@pytest.mark.parametrize("n", range(1, 13))
def test_an_additive_game_has_no_interactions(n):
    own = torch.arange(n, dtype=torch.float64) - 4.5
    values = (coalition_matrix(n).double() @ own).unsqueeze(0)
    torch.testing.assert_close(shapley_interactions(values)[0], torch.diag(own), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
def test_a_game_that_only_all_of_a_part_win_is_their_synergy_alone(n):
    # the unanimity game of T: one dividend, and I(S) = 1 / (|T|−|S|+1) for S ⊆ T, else 0
    members = coalition_matrix(n)
    part = 2**n - 2 if n > 2 else 3
    wins = (members >= members[part]).all(1)
    values = wins.double().unsqueeze(0)
    dividends = torch.zeros(2**n, dtype=torch.float64)
    dividends[part] = 1
    assert torch.equal(harsanyi_dividends(values)[0], dividends)
    inside = (members <= members[part]).all(1)
    missing = members[part].sum() - members.sum(1)
    expected = torch.where(inside, 1 / (missing + 1).double(), 0)
    torch.testing.assert_close(interaction_indices(values)[0], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", range(2, 13))
def test_the_parity_of_two_is_synergy_of_these_two_and_of_no_others(n):
    # the label is x₀ XOR x₁: only both tell it, whatever else is there
    members = coalition_matrix(n)
    values = 0.5 + 0.5 * (members[:, 0] & members[:, 1]).double().unsqueeze(0)
    expected = torch.zeros(n, n, dtype=torch.float64)
    expected[:2, :2] = torch.tensor([[0.25, 0.5], [0.5, 0.25]])
    torch.testing.assert_close(shapley_interactions(values)[0], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", range(2, 13))
def test_copies_are_redundant_to_each_other(n):
    # any one is enough: v = 1 but for the empty coalition; I_ij = −1/(n−1)
    values = torch.ones(1, 2**n, dtype=torch.float64)
    values[0, 0] = 0
    expected = torch.full((n, n), -1 / (n - 1), dtype=torch.float64).fill_diagonal_(1 / n)
    torch.testing.assert_close(shapley_interactions(values)[0], expected, atol=1e-14, rtol=0)


# many samples


@pytest.mark.parametrize("function", [harsanyi_dividends, interaction_indices])
def test_how_samples_are_cut_into_chunks_does_not_matter(function, monkeypatch):
    values = torch.from_numpy(random_games(5, samples=23))
    whole = function(values)
    for at_a_time in (1, 32, 5 * 32, 23 * 32):
        monkeypatch.setattr(interactions, "_AT_A_TIME", at_a_time)
        assert torch.equal(function(values), whole)


@pytest.mark.parametrize(
    "function", [shapley_interactions, harsanyi_dividends, interaction_indices]
)
@pytest.mark.parametrize("samples", [1, 3])
def test_the_table_given_is_left_as_it_was(function, samples):
    values = torch.from_numpy(random_games(4, samples))
    before = values.clone()
    function(values)
    assert torch.equal(values, before)

"""Shapley values: the paper's table, plain loops, a peer library, and the axioms."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.shapley import (
    _whole_weights,
    contributions_of,
    shapley_matrix,
    shapley_values,
)
from mmcoop.core.valuation.value_functions import paper_value
from mmcoop.errors import DataError, UsageError

# PAPER.md: is the prediction right from modality 1, from 2, from both; φ¹, φ²
EIGHT_PATTERNS = [
    ((0, 0, 0), (0.0, 0.0)),
    ((1, 0, 0), (0.5, -0.5)),
    ((0, 1, 0), (-0.5, 0.5)),
    ((1, 1, 0), (0.0, 0.0)),
    ((0, 0, 1), (1.0, 1.0)),
    ((1, 0, 1), (1.5, 0.5)),
    ((0, 1, 1), (0.5, 1.5)),
    ((1, 1, 1), (1.0, 1.0)),
]


@pytest.mark.parametrize("bias_predicts_the_label", [False, True])
@pytest.mark.parametrize("label", [0, 2])
@pytest.mark.parametrize(("right", "contributions"), EIGHT_PATTERNS)
def test_the_eight_correctness_patterns_give_the_papers_contributions(
    right, contributions, label, bias_predicts_the_label
):
    logits = torch.tensor([[0.3, -0.2, 0.1]]).repeat(1, 4, 1)
    for column, is_right in enumerate((bias_predicts_the_label, *right)):
        logits[0, column, label if is_right else 1] += 2
    values = paper_value(logits[0], torch.tensor([label] * 4), torch.tensor([0, 1, 1, 2]))[None]
    # whole numbers and halves are exact in floating point
    assert shapley_values(values).tolist() == [list(contributions)]


def by_permutations(values: list[float], n: int) -> list[float]:
    """Each player's marginal contribution, averaged over all orders of arrival."""
    totals = [0.0] * n
    orders = list(permutations(range(n)))
    for order in orders:
        present = 0
        for player in order:
            totals[player] += values[present | 1 << player] - values[present]
            present |= 1 << player
    return [total / len(orders) for total in totals]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_values_agree_with_a_plain_loop_over_all_orders_of_arrival(n):
    games = np.random.default_rng(n).normal(size=(3, 2**n))
    expected = [by_permutations(game, n) for game in games.tolist()]
    np.testing.assert_allclose(shapley_values(torch.from_numpy(games)), expected, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_values_agree_with_shapiq_whatever_the_empty_coalition_is_worth(n):
    from shapiq import ExactComputer  # seconds to import: only where it is the oracle

    games = np.random.default_rng(n).normal(size=(3, 2**n))
    games[1, 0] = 0
    games[2, 0] = 100
    for game in games:

        def worth(coalitions, game=game):
            return game[np.asarray(coalitions).astype(int) @ (1 << np.arange(n))]

        found = ExactComputer(worth, n_players=n)("SV", order=1)
        expected = [found[(player,)] for player in range(n)]
        np.testing.assert_allclose(shapley_values(game[None])[0], expected, atol=1e-11)


def test_values_of_three_modalities_by_hand():
    # METHODS.md, section 5: accuracies of ∅, a, v, av, t, at, vt, avt
    values = [[0.2, 0.5, 0.3, 0.6, 0.6, 0.75, 0.65, 0.8]]
    contributions = shapley_values(torch.tensor(values, dtype=torch.float64))
    assert contributions[0].tolist() == pytest.approx([0.225, 0.075, 0.3], abs=1e-15)


def test_fractions_in_a_plain_list_keep_double_precision():
    values = [[0.0, 0.1, 0.2, 0.7]]
    assert shapley_values(values)[0].tolist() == pytest.approx([0.3, 0.4], abs=1e-15)


def test_the_map_for_two_modalities_is_the_closed_form():
    # φ¹ = (v1 + v12 − v2 − v∅) / 2, φ² = (v2 + v12 − v1 − v∅) / 2
    assert shapley_matrix(2).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


def test_a_single_modality_gets_what_it_adds():
    assert shapley_values(torch.tensor([[0.25, 1.0], [1.0, -2.0]])).tolist() == [[0.75], [-3.0]]


@pytest.mark.parametrize("n", range(1, 13))
def test_contributions_share_out_what_all_modalities_add_for_up_to_twelve(n):
    values = torch.randn(4, 2**n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    contributions = shapley_values(values)
    assert contributions.shape == (4, n)
    torch.testing.assert_close(
        contributions.sum(1), values[:, -1] - values[:, 0], atol=1e-12, rtol=0
    )


def test_an_additive_game_of_twelve_gives_each_its_own_worth():
    own = torch.arange(12, dtype=torch.float64) - 4.5
    values = torch.tensor(
        [[sum(own[m].item() for m in range(12) if s >> m & 1) for s in range(2**12)]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(shapley_values(values)[0], own, atol=1e-12, rtol=0)


def games(n_games: int = 1):
    """(n, table `(n_games, 2**n)`) of games of 1 to 5 players with values in −100…100."""
    return st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.just(n),
            arrays(np.float64, (n_games, 2**n), elements=st.floats(-100, 100, width=32)),
        )
    )


@settings(deadline=None, max_examples=60)
@given(games(n_games=3))
def test_efficiency_contributions_sum_to_grand_less_empty(game):
    _, values = game
    np.testing.assert_allclose(
        shapley_values(values).sum(1), values[:, -1] - values[:, 0], atol=1e-11
    )


@settings(deadline=None, max_examples=60)
@given(games(), st.data())
def test_symmetry_renaming_the_modalities_renames_their_contributions(game, data):
    n, values = game
    rename = data.draw(st.permutations(range(n)))
    renamed = np.empty_like(values)
    for s in range(2**n):
        renamed[:, sum(1 << rename[m] for m in range(n) if s >> m & 1)] = values[:, s]
    np.testing.assert_allclose(
        shapley_values(renamed)[:, rename], shapley_values(values), atol=1e-11
    )


@settings(deadline=None, max_examples=60)
@given(games(), st.data())
def test_symmetry_two_interchangeable_modalities_get_the_same(game, data):
    n, values = game
    one, other = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    for s in range(2**n):
        if s >> one & 1 and not s >> other & 1:
            values[:, s ^ 1 << one ^ 1 << other] = values[:, s]
    contributions = shapley_values(values)
    np.testing.assert_allclose(contributions[:, one], contributions[:, other], atol=1e-11)


@settings(deadline=None, max_examples=60)
@given(games(), st.data())
def test_a_null_player_gets_nothing_and_changes_nothing_for_the_others(game, data):
    n, values = game
    null = data.draw(st.integers(0, n - 1))
    others = [m for m in range(n) if m != null]
    for s in range(2**n):
        if s >> null & 1:
            values[:, s] = values[:, s ^ 1 << null]
    contributions = shapley_values(values)
    np.testing.assert_allclose(contributions[:, null], 0, atol=1e-12)
    if others:
        without = values[
            :,
            [sum(1 << m for k, m in enumerate(others) if s >> k & 1) for s in range(2 ** (n - 1))],
        ]
        np.testing.assert_allclose(contributions[:, others], shapley_values(without), atol=1e-11)


@settings(deadline=None, max_examples=60)
@given(games(n_games=2), st.floats(-10, 10), st.floats(-10, 10))
def test_linearity_contributions_of_a_mixed_game_are_the_mixed_contributions(game, a, b):
    _, values = game
    mixed = a * values[:1] + b * values[1:]
    contributions = shapley_values(values)
    np.testing.assert_allclose(
        shapley_values(mixed), a * contributions[:1] + b * contributions[1:], atol=1e-9
    )


@pytest.mark.parametrize(
    "values",
    [
        [[0, 1, 1, 2], [0, 0, 1, 0]],
        np.array([[0, 1, 1, 2], [0, 0, 1, 0]], dtype=np.int32),
        torch.tensor([[0, 1, 1, 2], [0, 0, 1, 0]], dtype=torch.uint8),
        torch.tensor([[0, 1, 1, 2], [0, 0, 1, 0]], dtype=torch.float16),
    ],
    ids=["list", "numpy int", "uint8", "float16"],
)
def test_values_of_any_number_type_become_float64(values):
    contributions = shapley_values(values)
    assert contributions.dtype == torch.float64
    assert contributions.tolist() == [[1, 1], [-0.5, 0.5]]


def test_no_samples_give_no_contributions():
    assert shapley_values(torch.zeros(0, 8)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(4,), (), (3, 1), (3, 0), (3, 6), (2, 2, 4)])
def test_a_table_that_is_not_one_column_a_coalition_is_refused(shape):
    with pytest.raises(DataError, match=r"expected \(samples, 2\*\*n\), one column for each") as e:
        shapley_values(torch.zeros(shape))
    assert f"coalition values of shape {shape}" in str(e.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(
        DataError, match="^coalition values hold NaN or infinity: Shapley values are undefined$"
    ):
        shapley_values([[0, 1, 1, 2], [0, bad, 1, 2]])


def test_thirteen_modalities_are_too_many():
    with pytest.raises(UsageError, match="13 modalities: .* for 1 to 12 modalities only"):
        shapley_values(torch.zeros(1, 2**13))


@pytest.mark.parametrize("n", [0, 13])
def test_the_map_is_refused_for_too_few_or_too_many_modalities(n):
    with pytest.raises(UsageError, match=f"^{n} modalities: "):
        shapley_matrix(n)


@pytest.mark.parametrize("n", range(1, 13))
def test_whole_numbers_have_contributions_without_rounding_errors(n):
    # right from every coalition, as the paper values it: a fair share each, exactly 1
    sizes = coalition_matrix(n).sum(1).double()
    assert shapley_values(sizes.unsqueeze(0)).tolist() == [[1.0] * n]
    # a modality that changes nothing, beside others that do: exactly 0
    without_last = torch.randint(
        -9, 9, (5, 2 ** (n - 1)), generator=torch.Generator().manual_seed(n)
    )
    null = shapley_values(without_last.double().repeat(1, 2))[:, -1]
    assert null.tolist() == [0.0] * 5


def test_after_inference_gradients_can_be_taken():
    _whole_weights.cache_clear()
    with torch.inference_mode():
        contributions_of(torch.zeros(1, 8, dtype=torch.float64), 3)
    table = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    contributions_of(table, 3)[0, 0].backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad[0], shapley_matrix(3)[:, 0])

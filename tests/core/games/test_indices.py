"""Banzhaf, leave-one-out and Owen values: by hand, plain loops, a peer library, the axioms."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcoop.core.games.indices import (
    INDICES,
    banzhaf_values,
    group_values,
    index_values,
    leave_one_out,
    owen_values,
    parse_groups,
    partition,
)
from mmcoop.core.games.shapley import shapley_values
from mmcoop.errors import UsageError

# METHODS.md, section 5: accuracies of ∅, a, v, av, t, at, vt, avt
THREE = [[0.2, 0.5, 0.3, 0.6, 0.6, 0.75, 0.65, 0.8]]
# nothing, first, second, both
XOR = [0.5, 0.5, 0.5, 1.0]
COPIES = [0.5, 1.0, 1.0, 1.0]
NULL = [0.5, 1.0, 0.5, 1.0]


def banzhaf_by_loop(values: list[float], n: int) -> list[float]:
    found = []
    for m in range(n):
        gains = [values[s | 1 << m] - values[s] for s in range(2**n) if not s >> m & 1]
        found.append(sum(gains) / len(gains))
    return found


def owen_by_orders(values: list[float], n: int, groups: list[list[int]]) -> list[float]:
    """Marginal contributions averaged over the orders in which no group is interrupted."""
    totals, count = [0.0] * n, 0
    for order in permutations(range(n)):
        places = [[order.index(m) for m in group] for group in groups]
        if any(max(p) - min(p) != len(p) - 1 for p in places):
            continue
        count += 1
        present = 0
        for m in order:
            totals[m] += values[present | 1 << m] - values[present]
            present |= 1 << m
    return [total / count for total in totals]


def random_games(n: int, samples: int = 3) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(samples, 2**n))


@st.composite
def games(draw, least: int = 1, most: int = 12):
    """(n, table `(2, 2**n)`, a partition of n positions) with values around 0."""
    n = draw(st.integers(least, most))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).normal(scale=3, size=(2, 2**n))
    if draw(st.booleans()):
        values = values.round()  # ties and zeros
    of = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    groups = [[m for m in range(n) if of[m] == g] for g in sorted(set(of))]
    return n, values, groups


axioms = settings(deadline=None, max_examples=40)
ANY_INDEX = pytest.mark.parametrize("index", list(INDICES))


def values_of(index: str, values, groups):
    return index_values(values, index, groups if index == "owen" else ())


# by hand


def test_two_modalities_by_hand():
    games_of_two = [XOR, COPIES, NULL]
    expected = [[0.25, 0.25], [0.25, 0.25], [0.5, 0.0]]
    assert shapley_values(games_of_two).tolist() == expected
    assert banzhaf_values(games_of_two).tolist() == expected  # the same for two
    assert leave_one_out(games_of_two).tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.0]]


def test_three_modalities_by_hand():
    # a: (.3 + .3 + .15 + .15) / 4, v: (.1 + .1 + .05 + .05) / 4, t: (.4 + .25 + .35 + .2) / 4
    assert banzhaf_values(THREE)[0].tolist() == pytest.approx([0.225, 0.075, 0.3], abs=1e-15)
    # .8 − .65, .8 − .75, .8 − .6
    assert leave_one_out(THREE)[0].tolist() == pytest.approx([0.15, 0.05, 0.2], abs=1e-15)
    # Owen's are the same: in this game only pairs interact, and share alike whatever the groups
    # a and v come in a row: orders avt, vat, tav, tva
    # a: (.3 + .3 + .15 + .15) / 4, v: (.1 + .1 + .05 + .05) / 4, t: (.2 + .2 + .4 + .4) / 4
    owen = owen_values(THREE, [[0, 1]])
    assert owen[0].tolist() == pytest.approx([0.225, 0.075, 0.3], abs=1e-15)
    # a and t: orders atv, tav, vat, vta
    # a: (.3 + .15 + .3 + .15) / 4, t: (.25 + .4 + .2 + .35) / 4, v: (.05 + .05 + .1 + .1) / 4
    owen = owen_values(THREE, [[0, 2]])
    assert owen[0].tolist() == pytest.approx([0.225, 0.075, 0.3], abs=1e-15)


def test_a_group_is_valued_as_one_player_and_its_members_bargain_with_it_whole():
    # majority of three, the first two in a group: the third never matters, and either member of
    # the group turns a lost vote of the group around only with the other
    majority = [[0, 0, 0, 1, 0, 1, 1, 1]]
    assert owen_values(majority, [[0, 1]]).tolist() == [[0.5, 0.5, 0.0]]
    assert group_values(majority, [[0, 1]]).tolist() == [[1.0, 0.0]]
    assert shapley_values(majority)[0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert banzhaf_values(majority).tolist() == [[0.5, 0.5, 0.5]]
    assert leave_one_out(majority).tolist() == [[0.0, 0.0, 0.0]]


# plain loops and a peer library


@pytest.mark.parametrize("n", range(1, 8))
def test_banzhaf_values_and_leave_one_out_agree_with_plain_loops(n):
    values = random_games(n)
    expected = [banzhaf_by_loop(game, n) for game in values.tolist()]
    np.testing.assert_allclose(banzhaf_values(values), expected, atol=1e-13)
    everyone = 2**n - 1
    lost = [[game[-1] - game[everyone - 2**m] for m in range(n)] for game in values.tolist()]
    assert leave_one_out(torch.from_numpy(values)).tolist() == lost


@pytest.mark.parametrize(
    ("n", "groups"),
    [
        (1, [[0]]),
        (2, [[0, 1]]),
        (3, [[0, 1], [2]]),
        (3, [[2, 0], [1]]),
        (4, [[0, 3], [1, 2]]),
        (4, [[1], [0, 2, 3]]),
        (5, [[4, 1], [0], [3, 2]]),
        (6, [[0, 1], [2, 3], [4, 5]]),
        (6, [[5, 0, 2], [1, 4], [3]]),
    ],
)
def test_owen_values_average_over_the_orders_in_which_groups_stay_together(n, groups):
    values = random_games(n)
    expected = [owen_by_orders(game, n, groups) for game in values.tolist()]
    np.testing.assert_allclose(owen_values(values, groups), expected, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_banzhaf_values_agree_with_shapiq(n):
    from shapiq import ExactComputer  # seconds to import: only where it is the oracle

    for game in random_games(n):

        def worth(coalitions, game=game):
            return game[np.asarray(coalitions).astype(int) @ (1 << np.arange(n))]

        found = ExactComputer(worth, n_players=n)("BV", order=1)
        expected = [found[(player,)] for player in range(n)]
        np.testing.assert_allclose(banzhaf_values(game[None])[0], expected, atol=1e-12)


# groups


@axioms
@given(games())
def test_the_owen_values_of_a_group_sum_to_the_shapley_value_of_the_group(game):
    _, values, groups = game
    owen = owen_values(values, groups)
    sums = torch.stack([owen[:, group].sum(1) for group in groups], dim=1)
    np.testing.assert_allclose(sums, group_values(values, groups), atol=1e-11)


@axioms
@given(games())
def test_efficiency_owen_values_and_those_of_groups_sum_to_grand_less_empty(game):
    _, values, groups = game
    for found in (owen_values(values, groups), group_values(values, groups)):
        np.testing.assert_allclose(found.sum(1), values[:, -1] - values[:, 0], atol=1e-11)


@axioms
@given(games())
def test_groups_of_one_and_one_group_of_all_leave_the_shapley_values(game):
    n, values, _ = game
    shapley = shapley_values(values)
    for groups in ([], [[m] for m in range(n)], [list(range(n))]):
        np.testing.assert_allclose(owen_values(values, groups), shapley, atol=1e-11)
    np.testing.assert_allclose(group_values(values, []), shapley, atol=1e-11)
    np.testing.assert_allclose(
        group_values(values, [range(n)]), values[:, -1:] - values[:, :1], atol=1e-11
    )


@axioms
@given(games(), st.data())
def test_the_order_of_groups_and_within_them_does_not_matter(game, data):
    n, values, groups = game
    moved = [data.draw(st.permutations(group)) for group in data.draw(st.permutations(groups))]
    np.testing.assert_allclose(
        owen_values(values, moved), owen_values(values, groups), rtol=0, atol=1e-12
    )
    single = [m for m in range(n) if [m] in groups]
    named = [group for group in groups if len(group) > 1]
    np.testing.assert_allclose(
        group_values(values, named),
        group_values(values, named + [[m] for m in single]),
        rtol=0,
        atol=1e-12,
    )


def test_columns_of_groups_come_as_given_and_then_the_rest_by_position():
    # an additive game: modality m is worth 10**m
    values = [[sum(10**m for m in range(4) if s >> m & 1) for s in range(16)]]
    assert group_values(values, [[3, 1]]).tolist()[0] == pytest.approx([1010, 1, 100])
    assert partition([[3, 1]], 4) == [[3, 1], [0], [2]]
    assert partition((range(2), torch.tensor([3])), 4) == [[0, 1], [3], [2]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1], []], "^a group of modalities is empty: leave it out$"),
        ([[0, 1], [1]], "^modality 1 is in a group already: give it once$"),
        ([[0, 0]], "^modality 0 is in a group already: give it once$"),
        ([[0, 3]], r"^group \[0, 3\]: there is no modality 3, only 0 to 2$"),
        ([[-1]], r"^group \[-1\]: there is no modality -1, only 0 to 2$"),
        ([0, 1], "^group 0: give the positions of its modalities, as in"),
        ([["cam1"]], r"^group \['cam1'\]: give the positions of its modalities, as in"),
        (["01"], "^group '01': give the positions of its modalities, as in"),
        ([[0.0]], r"^group \[0\.0\]: give the positions of its modalities, as in"),
    ],
)
@pytest.mark.parametrize("function", [owen_values, group_values])
def test_groups_that_are_no_partition_are_refused(function, groups, message):
    with pytest.raises(UsageError, match=message):
        function(THREE, groups)


# axioms that all of them keep


@ANY_INDEX
@axioms
@given(games())
def test_a_null_player_gets_nothing(index, game):
    _, values, groups = game
    null = groups[0][0]
    without = [s & ~(1 << null) for s in range(values.shape[1])]
    found = values_of(index, values[:, without], groups)
    np.testing.assert_allclose(found[:, null], 0, atol=1e-12)


@ANY_INDEX
@axioms
@given(games(), st.floats(-10, 10), st.floats(-10, 10))
def test_linearity_the_index_of_a_mixed_game_is_the_mixed_index(index, game, a, b):
    _, values, groups = game
    found = values_of(index, values, groups)
    mixed = values_of(index, a * values[:1] + b * values[1:], groups)
    np.testing.assert_allclose(mixed, a * found[:1] + b * found[1:], atol=1e-9)


@ANY_INDEX
@axioms
@given(games(), st.data())
def test_symmetry_renaming_the_modalities_renames_their_values(index, game, data):
    n, values, groups = game
    rename = data.draw(st.permutations(range(n)))
    columns = [sum(1 << rename[m] for m in range(n) if s >> m & 1) for s in range(2**n)]
    renamed = np.empty_like(values)
    renamed[:, columns] = values
    found = values_of(index, renamed, [[rename[m] for m in group] for group in groups])
    np.testing.assert_allclose(found[:, rename], values_of(index, values, groups), atol=1e-11)


@ANY_INDEX
@axioms
@given(games(least=2), st.data())
def test_symmetry_two_interchangeable_modalities_get_the_same(index, game, data):
    n, values, _ = game
    one, other = data.draw(st.permutations(range(n)))[:2]
    swapped = [s ^ 1 << one ^ 1 << other if (s >> one ^ s >> other) & 1 else s for s in range(2**n)]
    values = values + values[:, swapped]
    # interchangeable for Owen's value too: in one group, or each alone
    for groups in ([[one, other]], [list(range(n))]):
        found = values_of(index, values, groups)
        np.testing.assert_allclose(found[:, one], found[:, other], atol=1e-11)


@ANY_INDEX
@axioms
@given(games())
def test_a_constant_added_to_all_values_changes_nothing(index, game):
    _, values, groups = game
    np.testing.assert_allclose(
        values_of(index, values + 7, groups), values_of(index, values, groups), atol=1e-11
    )


@ANY_INDEX
@pytest.mark.parametrize("n", range(1, 13))
def test_an_additive_game_gives_each_its_own_worth(index, n):
    own = torch.arange(n, dtype=torch.float64) - 4.5
    members = torch.arange(2**n).unsqueeze(1).bitwise_right_shift(torch.arange(n)).bitwise_and(1)
    found = values_of(index, (members.double() @ own).unsqueeze(0), [range(n)])
    torch.testing.assert_close(found[0], own, atol=1e-12, rtol=0)


# by name


def test_indices_are_found_by_name():
    assert list(INDICES) == ["shapley", "banzhaf", "leave-one-out", "owen"]
    values = torch.from_numpy(random_games(3))
    assert torch.equal(index_values(values), shapley_values(values))
    assert torch.equal(index_values(values, "banzhaf"), banzhaf_values(values))
    assert torch.equal(index_values(values, "leave-one-out"), leave_one_out(values))
    groups = parse_groups(["ends=c,a"], ["a", "b", "c"])
    assert torch.equal(index_values(values, "owen", groups.values()), owen_values(values, [[0, 2]]))


def test_an_unknown_index_is_refused_with_the_legal_names():
    with pytest.raises(
        UsageError,
        match="^unknown index 'owens': choose one of shapley, banzhaf, leave-one-out, owen$",
    ):
        index_values(THREE, "owens")


def test_owen_values_by_name_need_groups():
    with pytest.raises(UsageError, match="^index 'owen' needs groups of modalities$"):
        index_values(THREE, "owen")


@pytest.mark.parametrize("index", ["shapley", "banzhaf", "leave-one-out"])
def test_groups_are_refused_where_they_would_do_nothing(index):
    message = f"^index '{index}' does not look at groups: choose owen, or give none$"
    with pytest.raises(UsageError, match=message):
        index_values(THREE, index, [[0, 1]])


# groups as text

VIEWS = ["cam1", "cam2", "cam3", "mic"]


def test_texts_become_groups_of_positions_and_the_rest_stands_alone():
    assert parse_groups(["right=cam3,cam1"], VIEWS) == {"right": [2, 0], "cam2": [1], "mic": [3]}
    assert list(parse_groups(["b=mic", "a=cam2, cam1"], VIEWS).items()) == [
        ("b", [3]),
        ("a", [1, 0]),
        ("cam3", [2]),
    ]
    assert parse_groups([], VIEWS) == {"cam1": [0], "cam2": [1], "cam3": [2], "mic": [3]}


@pytest.mark.parametrize(
    "text", ["", "left", "left=", "=cam1", "le ft=cam1", "_l=cam1", "l+r=cam1", "a\n=cam1"]
)
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(UsageError, match="write it as NAME=MODALITY,MODALITY, its name in") as e:
        parse_groups([text], VIEWS)
    assert str(e.value).startswith(f"group {text!r}: ")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["l=cam1,cam9"],
            "group 'l=cam1,cam9': there is no modality 'cam9', only cam1, cam2, cam3",
        ),
        (["l=cam1,"], "group 'l=cam1,': there is no modality '', only cam1, cam2, cam3, mic"),
        (["l=cam1,cam1"], "group 'l=cam1,cam1': 'cam1' is in a group already: groups cannot overl"),
        (["l=cam1", "r=cam1"], "group 'r=cam1': 'cam1' is in a group already: groups cannot over"),
        (["mic=cam1,cam2"], "group 'mic=cam1,cam2': 'mic' is a modality: choose another name"),
        (["l=cam1", "l=cam2"], "group 'l=cam2': there is a group 'l' already"),
    ],
)
def test_texts_that_name_no_partition_are_refused(texts, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        parse_groups(texts, VIEWS)

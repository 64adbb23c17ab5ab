"""Further columns of a valuation: which there are, and that they are of the right modalities."""

import numpy as np
import pytest
import torch

from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix, coalition_names
from mmcoop.core.games.indices import banzhaf_values, group_values, leave_one_out, owen_values
from mmcoop.core.games.interactions import interaction_indices, shapley_interactions
from mmcoop.core.games.metrics import intershap
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.valuation.columns import ExtraColumns
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import UsageError

TWO, THREE, FOUR = ("a", "v"), ("a", "t", "v"), ("a", "b", "c", "d")


def valued(table, coalitions=None, drawn: bool = False) -> ValuedBatch:
    """A batch of which these are the values, with columns in table order or another."""
    table = torch.as_tensor(table, dtype=torch.float64)
    n = table.shape[1].bit_length() - 1
    values = table
    if coalitions is not None:
        values = table[:, (coalitions * 2 ** torch.arange(n)).sum(1)]
    contributions = shapley_values(table) if len(table) else torch.zeros(0, n).double()
    return ValuedBatch(
        ids=None,
        coalitions=coalition_matrix(n) if coalitions is None else coalitions,
        labels=None,
        predictions=torch.zeros(len(table)),
        outputs=torch.zeros(len(table), 0),
        choices=None,
        values=values,
        contributions=contributions,
        stderr=torch.zeros_like(contributions) if drawn else None,
        draws=torch.zeros(len(table), dtype=torch.long) if drawn else None,
    )


def random_table(n: int, samples: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).normal(size=(samples, 2**n)))


def test_two_modalities_by_hand():
    # v of nothing, a, v and both; synergy, redundancy, and a modality that does nothing
    batch = valued([[0.5, 0.5, 0.5, 1.0], [0.5, 1.0, 1.0, 1.0], [0.5, 1.0, 0.5, 1.0]])
    columns = ExtraColumns(TWO, "pairwise", ["banzhaf", "leave-one-out"]).columns(batch)
    found = {name: column.tolist() for name, column in columns.items()}
    assert found["intershap"].pop(1) == pytest.approx(1 / 3, abs=1e-15)
    assert found == {
        "interaction_a+v": [0.5, -0.5, 0.0],
        "intershap": [1.0, 0.0],
        "banzhaf_a": [0.25, 0.25, 0.5],
        "banzhaf_v": [0.25, 0.25, 0.0],
        "leave_one_out_a": [0.5, 0.0, 0.5],
        "leave_one_out_v": [0.5, 0.0, 0.0],
    }


def test_three_modalities_by_hand():
    # METHODS.md, section 5: accuracies of ∅, a, v, av, t, at, vt, avt; InterSHAP score 0.2
    batch = valued([[0.2, 0.5, 0.3, 0.6, 0.6, 0.75, 0.65, 0.8]])
    found = ExtraColumns(("a", "v", "t"), "all").columns(batch)
    # of all three: 0.8 − 0.6 − 0.75 − 0.65 + 0.5 + 0.3 + 0.6 − 0.2
    expected = {
        "interaction_a+v": 0.0,
        "interaction_a+t": -0.15,
        "interaction_v+t": -0.05,
        "interaction_a+v+t": 0.0,
        "intershap": 0.2,
    }
    assert list(found) == list(expected)
    assert {k: float(x[0]) for k, x in found.items()} == pytest.approx(expected, abs=1e-12)


def test_pairwise_interactions_are_one_column_a_pair():
    table = random_table(4)
    found = ExtraColumns(FOUR, "pairwise").columns(valued(table))
    matrix = shapley_interactions(table)
    pairs = [(i, j) for j in range(4) for i in range(j)]
    assert list(found) == [*(f"interaction_{FOUR[i]}+{FOUR[j]}" for i, j in pairs), "intershap"]
    for i, j in pairs:
        assert torch.equal(found[f"interaction_{FOUR[i]}+{FOUR[j]}"], matrix[:, i, j])
    assert torch.equal(found["intershap"], intershap(table).local)


def test_interactions_of_all_orders_are_one_column_a_coalition_of_two_or_more():
    table = random_table(4)
    found = ExtraColumns(FOUR, "all").columns(valued(table))
    indices = interaction_indices(table)
    names = coalition_names(FOUR)
    wanted = [k for k in range(16) if k.bit_count() > 1]
    assert list(found) == [*(f"interaction_{names[k]}" for k in wanted), "intershap"]
    for k in wanted:
        assert torch.equal(found[f"interaction_{names[k]}"], indices[:, k])
    pairs = ExtraColumns(FOUR, "pairwise").columns(valued(table))
    for name, column in pairs.items():
        torch.testing.assert_close(found[name], column, atol=1e-12, rtol=0)


def test_indices_are_one_column_a_modality_and_groups_one_each():
    table = random_table(4)
    groups = {"left": [0, 2], "right": [3], "b": [1]}
    chosen = ["leave-one-out", "owen", "banzhaf"]
    found = ExtraColumns(FOUR, indices=chosen, groups=groups).columns(valued(table))
    expected = {
        "leave_one_out": leave_one_out(table),
        "owen": owen_values(table, groups.values()),
        "banzhaf": banzhaf_values(table),
    }
    for name, numbers in expected.items():
        for k, m in enumerate(FOUR):
            assert torch.equal(found[f"{name}_{m}"], numbers[:, k]), name
    whole = group_values(table, groups.values())
    for k, group in enumerate(groups):
        assert torch.equal(found[f"group_{group}"], whole[:, k])
    assert len(found) == 3 * 4 + 3
    # a group's members share out what the group is worth
    shared = found["owen_a"] + found["owen_c"]
    torch.testing.assert_close(shared, found["group_left"], atol=1e-12, rtol=0)


def test_columns_do_not_depend_on_the_order_in_which_coalitions_are_told():
    table = random_table(3)
    request = ExtraColumns(THREE, "all", ["banzhaf", "leave-one-out"])
    expected = request.columns(valued(table))
    shuffled = coalition_matrix(3)[torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    for coalitions in (anchor_coalitions(3), shuffled):
        found = request.columns(valued(table, coalitions))
        assert list(found) == list(expected)
        for name, column in expected.items():
            assert torch.equal(found[name], column), name


def test_up_to_three_modalities_have_the_values_of_all_coalitions_however_they_were_valued():
    table = random_table(3)
    request = ExtraColumns(THREE, "pairwise", ["banzhaf"])
    found = request.columns(valued(table, anchor_coalitions(3), drawn=True))
    for name, column in request.columns(valued(table)).items():
        assert torch.equal(found[name], column), name


def test_where_only_some_coalitions_were_valued_there_are_no_further_columns():
    coalitions = anchor_coalitions(4)
    batch = valued(random_table(4), coalitions, drawn=True)
    message = (
        "^interactions and further indices need the values of all coalitions: leave them out, or "
        "value with estimator='exact'$"
    )
    for request in (ExtraColumns(FOUR, "pairwise"), ExtraColumns(FOUR, indices=["banzhaf"])):
        with pytest.raises(UsageError, match=message):
            request.columns(batch)
    assert ExtraColumns(FOUR).columns(batch) == {}


def test_nothing_asked_for_is_nothing():
    assert not ExtraColumns(THREE)
    assert ExtraColumns(THREE).columns(valued(random_table(3))) == {}
    assert ExtraColumns(THREE, "all")
    assert ExtraColumns(THREE, indices=["banzhaf"])


def test_an_empty_batch_has_the_same_columns_and_no_rows():
    request = ExtraColumns(
        THREE, "all", ["banzhaf", "leave-one-out", "owen"], {"left": [0, 1], "v": [2]}
    )
    found = request.columns(valued(torch.zeros(0, 8)))
    assert list(found) == list(request.columns(valued(random_table(3))))
    assert all(column.shape == (0,) for column in found.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"interactions": "triple"},
            "^unknown interactions 'triple': choose one of none, pairwise, all$",
        ),
        (
            {"indices": ["banzhaf", "core"]},
            "^unknown index 'core': choose one of banzhaf, leave-one-out, owen$",
        ),
        ({"indices": ["owen"]}, r"^index 'owen' needs groups of modalities \(groups\)$"),
        (
            {"indices": ["banzhaf"], "groups": {"left": [0, 1]}},
            "^groups of modalities are for index 'owen': choose it, or give none$",
        ),
        (
            {"modalities": ("a",), "interactions": "pairwise"},
            "^one modality has none to interact with: leave interactions out$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_valued(options, message):
    with pytest.raises(UsageError, match=message):
        ExtraColumns(**{"modalities": THREE, **options})

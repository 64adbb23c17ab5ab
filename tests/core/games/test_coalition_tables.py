"""What a table over coalitions must be, whatever is worked out of it."""

import pytest
import torch

from mmcoop.core.games.coalition_tables import coalition_members, coalition_values
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.indices import banzhaf_values, group_values, leave_one_out, owen_values
from mmcoop.core.games.interactions import (
    harsanyi_dividends,
    interaction_indices,
    shapley_interactions,
)
from mmcoop.core.games.metrics import intershap
from mmcoop.core.games.shapley import shapley_values
from mmcoop.errors import DataError, UsageError

# what a message calls the result, and the function
INDICES = {
    "Shapley values": shapley_values,
    "Banzhaf values": banzhaf_values,
    "leave-one-out values": leave_one_out,
    "Owen values": lambda values: owen_values(values, [[0]]),
    "Shapley values of groups": lambda values: group_values(values, [[0]]),
    "Shapley interactions": shapley_interactions,
    "dividends": harsanyi_dividends,
    "InterSHAP scores": intershap,
}


@pytest.mark.parametrize("n", [1, 3, 12])
def test_the_columns_are_the_coalitions_in_order(n):
    members = coalition_members(torch.zeros(5, 2**n), "values")
    assert torch.equal(members, coalition_matrix(n))


def test_values_come_in_double_precision_with_their_coalitions():
    table, members = coalition_values([[0, 1, 1, 2]], "Shapley values")
    assert table.dtype == torch.float64
    assert table.tolist() == [[0, 1, 1, 2]]
    assert torch.equal(members, coalition_matrix(2))


@pytest.mark.parametrize("shape", [(4,), (), (3, 1), (3, 0), (3, 6), (2, 2, 4)])
@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_every_index_refuses_a_table_that_is_not_one_column_a_coalition(index, shape):
    with pytest.raises(DataError, match=r"expected \(samples, 2\*\*n\), one column for each") as e:
        index(torch.zeros(shape))
    assert str(e.value).startswith(f"coalition values of shape {shape}: ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("result", "index"), INDICES.items())
def test_every_index_refuses_values_that_are_not_finite(result, index, bad):
    with pytest.raises(
        DataError, match=f"^coalition values hold NaN or infinity: {result} are undefined$"
    ):
        index([[0, 1, 1, 2], [0, bad, 1, 2]])


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_thirteen_modalities_are_too_many_for_every_index(index):
    with pytest.raises(UsageError, match="^13 modalities: .* for 1 to 12 modalities only$"):
        index(torch.zeros(1, 2**13))


@pytest.mark.parametrize(
    "index",
    [v for k, v in INDICES.items() if k != "InterSHAP scores"] + [interaction_indices],
)
def test_no_samples_give_no_rows_in_double_precision(index):
    found = index(torch.zeros(0, 8))
    assert len(found) == 0
    assert found.shape[1] in (3, 8)
    assert found.dtype == torch.float64

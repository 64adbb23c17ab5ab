"""Tables over coalitions: what a table must be before indices are worked out of it."""

from torch import Tensor

from mmcoop.core.arrays import as_numbers
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.errors import DataError


def coalition_members(table: Tensor, what: str) -> Tensor:
    """Members of the coalitions that are the columns of a table, bool `(2**n, n)`.

    Raises `DataError`, calling the table `what`, where it is not `(samples, 2**n)`, and
    `UsageError` for more than 12 modalities.
    """
    n_modalities = table.shape[-1].bit_length() - 1 if table.dim() == 2 else 0
    if n_modalities < 1 or table.shape[-1] != 2**n_modalities:
        raise DataError(
            f"{what} of shape {tuple(table.shape)}: expected (samples, 2**n), one column for each "
            "coalition of n modalities"
        )
    return coalition_matrix(n_modalities)


def coalition_values(values: Tensor, result: str) -> tuple[Tensor, Tensor]:
    """A table of coalition values in float64 `(samples, 2**n)`, and its coalitions' members.

    `values` is a tensor, an array, a table or nested lists. Raises `DataError` for another shape
    and for values that are not finite numbers, of which no `result` ("Shapley values") can be made.
    """
    table = as_numbers(values, "coalition values")
    members = coalition_members(table, "coalition values")
    if not table.isfinite().all():
        raise DataError(f"coalition values hold NaN or infinity: {result} are undefined")
    return table, members

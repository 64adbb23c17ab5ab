"""Coalition values → Shapley values."""

from functools import cache
from math import comb, lcm

import torch
from torch import Tensor

from mmcoop.core.games.coalition_tables import coalition_values
from mmcoop.core.games.coalitions import coalition_matrix


def size_weights(n_players: int) -> Tensor:
    """Weight of a coalition that one of n players joins, by its size k: float64 `(n,)`.

    k! (n−k−1)! / n! = 1 / (n·C(n−1, k)): every size from 0 to n − 1 counts the same, and so does
    every coalition of a size.
    """
    return torch.tensor(
        [1 / (n_players * comb(n_players - 1, k)) for k in range(n_players)], dtype=torch.float64
    )


def shapley_matrix(n_modalities: int) -> Tensor:
    """The linear map from coalition values to Shapley values, float64 `(2**n, n)`.

    φᵐ = Σ_{S ⊆ N∖{m}} |S|! (n−|S|−1)! / n! · (v(S ∪ {m}) − v(S)) gathers, for each coalition T,
    the factor (|T|−1)! (n−|T|)! / n! if m is in T, and −|T|! (n−|T|−1)! / n! if it is not.
    """
    members = coalition_matrix(n_modalities)
    by_size = size_weights(n_modalities)
    sizes = members.sum(1, keepdim=True)
    joining = by_size[(sizes - 1).clamp(min=0)]
    staying_out = -by_size[sizes.clamp(max=n_modalities - 1)]
    return torch.where(members, joining, staying_out)


def shapley_values(values: Tensor) -> Tensor:
    """Compute the Shapley values of every sample, as one matrix product.

    Args:
        values: `(samples, 2**n)`, n in 1…12: a tensor, an array, a table or nested lists. Column S
            is the value of the coalition whose members are the set bits of S; bit 0 is the first
            modality, and column 0 the empty coalition.

    Returns:
        float64 `(samples, n)`. A row sums to the last value minus the first (efficiency).

    Raises:
        DataError: Another shape, or values that are not finite numbers.

    Example:
        >>> mmcoop.shapley_values([[0, 1, 0, 2]]).tolist()
        [[1.5, 0.5]]
    """
    table, members = coalition_values(values, "Shapley values")
    return contributions_of(table, members.shape[1])


def contributions_of(table: Tensor, n_modalities: int) -> Tensor:
    """Shapley values of a table of float64 values, `(…, 2**n)` → `(…, n)`.

    Weights are whole numbers over their common denominator, so that of values that are whole
    numbers, as the paper's, contributions are exact where they have an exact form: 1 is 1.
    """
    whole, denominator = _whole_weights(n_modalities)
    return table @ whole.to(table.device) / denominator


@cache
def _whole_weights(n_modalities: int) -> tuple[Tensor, int]:
    """`shapley_matrix` times its common denominator, and that; worked out once, not every batch."""
    denominator = n_modalities * lcm(*(comb(n_modalities - 1, k) for k in range(n_modalities)))
    with torch.inference_mode(False):  # or it could never be used where gradients are taken
        return (shapley_matrix(n_modalities) * denominator).round(), denominator

"""Coalition values → Shapley values."""

from math import comb

import torch
from torch import Tensor

from mmcoop.core.coalitions import coalition_matrix
from mmcoop.errors import DataError


def shapley_matrix(n_modalities: int) -> Tensor:
    """The linear map from coalition values to Shapley values, float64 `(2**n, n)`.

    φᵐ = Σ_{S ⊆ N∖{m}} |S|! (n−|S|−1)! / n! · (v(S ∪ {m}) − v(S)) gathers, for each coalition T,
    the factor (|T|−1)! (n−|T|)! / n! = 1 / (n·C(n−1, |T|−1)) if m is in T, and
    −|T|! (n−|T|−1)! / n! = −1 / (n·C(n−1, |T|)) if it is not.
    """
    members = coalition_matrix(n_modalities)
    by_size = torch.tensor(
        [1 / (n_modalities * comb(n_modalities - 1, k)) for k in range(n_modalities)],
        dtype=torch.float64,
    )
    sizes = members.sum(1, keepdim=True)
    joining = by_size[(sizes - 1).clamp(min=0)]
    staying_out = -by_size[sizes.clamp(max=n_modalities - 1)]
    return torch.where(members, joining, staying_out)


def shapley_values(values: Tensor) -> Tensor:
    """Shapley values of every sample at once, as one matrix product.

    `values` is `(samples, 2**n)` with n in 1…12: column S is the value of the coalition whose
    members are the set bits of S, bit 0 being the first modality; column 0 is the empty
    coalition. Anything `torch.as_tensor` takes will do.

    Returns float64 `(samples, n)`. Rows sum to `values[:, -1] - values[:, 0]` (efficiency).
    Raises `DataError` for another shape and for values that are not finite numbers.
    """
    table = torch.as_tensor(values, dtype=torch.float64)
    n_modalities = table.shape[-1].bit_length() - 1 if table.dim() == 2 else 0
    if n_modalities < 1 or table.shape[-1] != 2**n_modalities:
        raise DataError(
            f"coalition values of shape {tuple(table.shape)}: expected (samples, 2**n), one "
            "column for each coalition of n modalities"
        )
    if not table.isfinite().all():
        raise DataError("coalition values hold NaN or infinity: Shapley values are undefined")
    return table @ shapley_matrix(n_modalities).to(table.device)

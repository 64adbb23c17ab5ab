"""Coalition values → interactions: the value that modalities have together beyond what each is."""

import numpy as np
import torch
from torch import Tensor

from mmcoop.core.games.coalition_tables import coalition_values
from mmcoop.core.games.shapley import shapley_values, size_weights

# Samples × coalitions that are transformed at a time: 1 MB, so that they stay in the cache.
_AT_A_TIME = 2**17


def shapley_interactions(values: Tensor) -> Tensor:
    """Compute Shapley values and pairwise Shapley interaction indices of every sample.

    I_ij = Σ_{S ⊆ N∖{i,j}} |S|! (n−|S|−2)! / (n−1)! · (v(S∪{i,j}) − v(S∪{i}) − v(S∪{j}) + v(S))
    (Grabisch & Roubens, Int. J. of Game Theory 1999). Above 0, the pair adds more than the sum of
    what each adds (synergy); below 0, less (redundancy).

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.

    Returns:
        float64 `(samples, n, n)`, symmetric, with the Shapley values on the diagonal.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    table, members = coalition_values(values, "Shapley interactions")
    n_modalities = members.shape[1]
    interactions = torch.diag_embed(shapley_values(table))
    if n_modalities == 1:
        return interactions
    i, j = torch.triu_indices(n_modalities, n_modalities, offset=1)
    first, second = members[:, i], members[:, j]
    sizes = members.sum(1, keepdim=True) - first.long() - second.long()
    # the weights are those of a game in which i and j come as one player
    weights = size_weights(n_modalities - 1)[sizes]
    pairs = table @ torch.where(first == second, weights, -weights).to(table.device)
    interactions[:, i, j] = pairs
    interactions[:, j, i] = pairs
    return interactions


def harsanyi_dividends(values: Tensor) -> Tensor:
    """Compute what each coalition adds beyond all its subsets, its dividend m (Möbius transform).

    m(R) = Σ_{S ⊆ R} (−1)^(|R|−|S|) v(S), so that v(S) = Σ_{R ⊆ S} m(R) (Harsanyi, Int. Economic
    Review 1963). This takes n·2ⁿ⁻¹ subtractions per sample.

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.

    Returns:
        float64 of the same shape, with m(R) in column R.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    table, members = coalition_values(values, "dividends")
    dividends = torch.empty_like(table)
    for rows in _chunks(table):
        found = table[rows].T.clone(memory_format=torch.contiguous_format)
        for m in range(members.shape[1]):
            without, having = _halves(found, m)
            having -= without
        dividends[rows] = found.T
    return dividends


def interaction_indices(values: Tensor) -> Tensor:
    """Compute the Shapley interaction index of every coalition, of all orders.

    I(T) = Σ_{S ⊆ N∖T} |S|! (n−|S|−|T|)! / (n−|T|+1)! · Σ_{L ⊆ T} (−1)^(|T|−|L|) v(S ∪ L)
    = Σ_{R ⊇ T} m(R) / (|R|−|T|+1), m the Harsanyi dividends (Grabisch & Roubens 1999).

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.

    Returns:
        float64 of the same shape, with I(T) in column T. For a single modality that is its Shapley
        value, for a pair the entry of `shapley_interactions`, and for the empty coalition the mean
        value of a coalition, with equal weight for every size from 0 to n.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    dividends = harsanyi_dividends(values)
    n_modalities = dividends.shape[1].bit_length() - 1
    # 1/(k+1) is the integral of t^k over 0…1, and Σ_{R ⊇ T} m(R) t^(|R|−|T|) is a polynomial in t
    # of degree n at most: Gauss-Legendre quadrature with n//2 + 1 points is exact for it.
    points, shares = np.polynomial.legendre.leggauss(n_modalities // 2 + 1)
    indices = torch.empty_like(dividends)
    for rows in _chunks(dividends):
        start = dividends[rows].T.contiguous()
        total = torch.zeros_like(start)
        for t, share in zip(((points + 1) / 2).tolist(), (shares / 2).tolist(), strict=True):
            found = start.clone()
            for m in range(n_modalities):
                without, having = _halves(found, m)
                without.add_(having, alpha=t)
            total.add_(found, alpha=share)
        indices[rows] = total.T
    return indices


def _chunks(table: Tensor) -> list[slice]:
    step = max(1, _AT_A_TIME // table.shape[1])
    return [slice(start, start + step) for start in range(0, len(table), step)]


def _halves(by_coalition: Tensor, modality: int) -> tuple[Tensor, Tensor]:
    """Views of the coalitions without a modality and of the same ones with it.

    `by_coalition`: `(2**n, samples)`, contiguous. Both views are `(2**(n−m−1), 2**m, samples)`.
    """
    halves = by_coalition.view(-1, 2, 2**modality, by_coalition.shape[1])
    return halves[:, 0], halves[:, 1]

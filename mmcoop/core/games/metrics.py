"""Published summaries of modality interaction and use, as their authors define them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcoop.core.arrays import as_numbers, as_tensor
from mmcoop.core.games.coalition_tables import coalition_members, coalition_values
from mmcoop.core.games.interactions import shapley_interactions
from mmcoop.errors import DataError

# Sums of fractions in floating point: what is smaller than this is 0, and a share of it undefined.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class InterShap:
    """InterSHAP of a dataset.

    All tensors are float64. If no modality changes anything, score and shares are 0/0: NaN.

    Attributes:
        matrix: Φ `(n, n)`, Φ_ij = |mean over samples of φ_ij|.
        score: The off-diagonal share of Φ, in 0…1; each pair counts twice, as in the matrix.
        shares: `(n,)`, Φ_ii divided by the sum of Φ. Shares and score sum to 1.
        local: `(samples,)`, the same score of each sample's own |φ_ij|.
        local_mean: The mean of `local` over the samples that have a score.
    """

    matrix: Tensor
    score: float
    shares: Tensor
    local: Tensor
    local_mean: float


def intershap(values: Tensor) -> InterShap:
    """Compute which part of the effect of all modalities is interaction (InterSHAP).

    φ_ij = I_ij / 2 for i ≠ j, with I the Shapley interaction index, and φ_ii = φ_i − Σ_{j≠i} φ_ij,
    with φ_i the Shapley value: the matrix φ of a sample sums to v(N) − v(∅) (Wenderoth, Hemker,
    Simidjievski, Jamnik, *Measuring cross-modal interactions in multimodal models*, AAAI 2025).
    The global matrix averages over samples before it takes absolute values, so interactions of
    opposite sign cancel in it; in the local scores they do not.

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`. The authors value a coalition
            by the probability of the class predicted from all modalities, replace absent modalities
            by those of other samples, averaged over draws, and take the mean prediction, not 0, as
            the value of the empty coalition.

    Returns:
        Scores of the dataset and of each sample.

    Raises:
        DataError: Another shape, no samples, or values that are not finite numbers.
    """
    table, _ = coalition_values(values, "InterSHAP scores")
    check_samples(table, "InterSHAP")
    # differences alone matter; without v(∅) a game that nothing changes is exactly 0
    table = table - table[:, :1]
    interactions = shapley_interactions(table)
    contributions = interactions.diagonal(dim1=1, dim2=2)
    pairs = (interactions - torch.diag_embed(contributions)) / 2
    phi = pairs + torch.diag_embed(contributions - pairs.sum(2))
    matrix = phi.mean(0).abs()
    local = _score(phi.abs(), table.abs().amax(1))
    scale = table.abs().max()
    return InterShap(
        matrix=matrix,
        score=float(_score(matrix, scale)),
        shares=_share(matrix.diagonal(), matrix.sum(), scale),
        local=local,
        local_mean=float(local.nanmean()),
    )


def shape_cooperation(values: Tensor) -> float:
    """Compute SHAPE's cooperation of modalities: v(N) − v(∅) − Σ_m (v({m}) − v(∅)).

    Above 0, all together gain more than the sum of what each gains alone; below 0, they overlap
    (Hu, Li, Zhou, *SHAPE: an unified approach to evaluate the contribution and cooperation of
    individual modalities*, IJCAI 2022, as in their code).

    Args:
        values: `(2**n,)`, n in 1…12: one value of the dataset per coalition. The authors take
            macro-F1 (`macro_f1_by_coalition`).

    Returns:
        The cooperation.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    given = as_numbers(values, "values")
    if given.dim() != 1:
        raise DataError(
            f"values of shape {tuple(given.shape)}: SHAPE takes one value a coalition, (2**n,)"
        )
    table, members = coalition_values(given.unsqueeze(0), "SHAPE's values")
    gains = table[0] - table[0, 0]
    alone = members.sum(1) == 1
    return float(gains[-1] - gains[alone].sum())


def macro_f1(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    """F1 averaged over all classes, from counts: 0 for a class neither there nor predicted.

    F1 of a class is 2·hits / (predicted + actual). `hits`, `predicted`: `(…, classes)`, how often
    a class was predicted rightly, and at all; `actual`: `(classes,)`, how many samples it has.
    Returns float64 `(…)`.
    """
    return (2 * hits.double() / (predicted + actual).clamp(min=1)).mean(-1)


def macro_f1_by_coalition(predictions: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Compute macro-F1 of every coalition's predictions, SHAPE's value of a dataset.

    Args:
        predictions: Integers `(samples, 2**n)`, n in 1…12; −1 for no prediction. Column 0 is
            ignored: the empty coalition predicts the most frequent label for every sample.
        labels: `(samples,)`.
        n_classes: The number of classes. The mean is over all of them.

    Returns:
        float64 `(2**n,)`.

    Raises:
        DataError: Other shapes, no samples, or classes outside 0 … n_classes − 1.
    """
    predictions = as_tensor(predictions, "predictions")
    coalition_members(predictions, "predictions")
    labels = checked_labels(labels, len(predictions), n_classes)
    if int(predictions.min()) < -1 or int(predictions.max()) >= n_classes:
        raise DataError(
            f"predictions go from {int(predictions.min())} to {int(predictions.max())}: expected "
            f"classes 0 to {n_classes - 1}, or −1 for none"
        )
    labels = labels.to(predictions.device)
    actual = labels.bincount(minlength=n_classes)
    scores = [_f1_of(actual.argmax().expand(len(labels)), labels, actual)]
    scores += [_f1_of(column, labels, actual) for column in predictions.unbind(1)[1:]]
    return torch.stack(scores)


@dataclass(frozen=True)
class ModalityShares:
    """MM-SHAP's shares: each in 0…1, summing to 1 over the n modalities.

    All tensors are float64. If all contributions are 0, shares are 0/0: NaN.

    Attributes:
        shares: `(n,)`, of the dataset's mean contributions.
        local: `(samples, n)`, of each sample's own contributions.
        local_mean: `(n,)`, the mean of `local` over the samples that have shares.
    """

    shares: Tensor
    local: Tensor
    local_mean: Tensor


def modality_shares(contributions: Tensor) -> ModalityShares:
    """Compute how much of a prediction each modality moves, in either direction (MM-SHAP).

    A share is |φᵐ| / Σ_k |φᵏ|. The authors' players are tokens and image patches, whose |φ| are
    summed by modality, and a dataset has the mean of its samples' shares (Parcalabescu & Frank,
    *MM-SHAP: a performance-agnostic metric for measuring multimodal contributions in vision and
    language models and tasks*, ACL 2023). Here the players are the modalities.

    Args:
        contributions: `(samples, n)`, of `shapley_values` or another index.

    Returns:
        Shares of the mean contributions, in which opposite signs cancel, and of each sample's own.

    Raises:
        DataError: Another shape, no samples, or contributions that are not finite numbers.
    """
    phi = as_numbers(contributions, "contributions")
    if phi.dim() != 2 or phi.shape[1] < 1:
        raise DataError(
            f"contributions of shape {tuple(phi.shape)}: expected (samples, modalities)"
        )
    check_samples(phi, "MM-SHAP's share")
    if not phi.isfinite().all():
        raise DataError("contributions hold NaN or infinity: shares are undefined")
    one = torch.ones((), dtype=torch.float64, device=phi.device)
    mean = phi.mean(0).abs()
    local = _share(phi.abs(), phi.abs().sum(1, keepdim=True), one)
    return ModalityShares(
        shares=_share(mean, mean.sum(), one), local=local, local_mean=local.nanmean(0)
    )


def _share(part: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
    """part / whole; NaN where the whole is but rounding errors of numbers as large as `scale`."""
    return torch.where(whole > _ROUNDING * scale, part / whole, torch.nan)


def _score(matrices: Tensor, scale: Tensor) -> Tensor:
    """Off-diagonal share of matrices `(…, n, n)` that are not negative, `(…)`."""
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    apart = matrices - torch.diag_embed(diagonal)
    return _share(apart.sum((-2, -1)), matrices.sum((-2, -1)), scale)


def _f1_of(predictions: Tensor, labels: Tensor, actual: Tensor) -> Tensor:
    """Macro-F1 of one prediction per sample, `(samples,)`; `actual` are the labels' counts."""
    n_classes = len(actual)
    hits = labels[predictions == labels].bincount(minlength=n_classes)
    predicted = predictions[predictions >= 0].bincount(minlength=n_classes)
    return macro_f1(hits, predicted, actual)


def checked_labels(labels: Tensor, samples: int, n_classes: int) -> Tensor:
    """Labels as int64 `(samples,)`; `DataError` unless there is one class for each sample."""
    given = as_tensor(labels, "labels").long()
    if given.shape != (samples,):
        raise DataError(f"labels of shape {tuple(given.shape)} for {samples} samples")
    check_samples(given, "macro-F1")
    outside = given[(given < 0) | (given >= n_classes)]
    if len(outside):
        raise DataError(
            f"label {int(outside[0])} has no class: expected classes 0 to {n_classes - 1}"
        )
    return given


def check_samples(table: Tensor, what: str) -> None:
    """Raise `DataError` where there are no samples."""
    if len(table) == 0:
        raise DataError(f"{what} of no samples is undefined: give one at least")

"""The field's own summaries of interaction and use of modalities, as their authors define them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcoop.core.arrays import as_numbers, as_tensor
from mmcoop.core.games.coalition_tables import coalition_members, coalition_values
from mmcoop.core.games.interactions import shapley_interactions
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.imputers.outputs import Output, OutputReader, class_logits
from mmcoop.core.modalities import check_modalities
from mmcoop.core.valuation.game import Model
from mmcoop.core.valuation.value_functions import class_shares
from mmcoop.errors import DataError, UsageError

# Sums of fractions in floating point: what is smaller than this is 0, and a share of it undefined.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class InterShap:
    """InterSHAP of a data set. All float64; n modalities.

    `matrix`: Φ `(n, n)`, Φ_ij = |mean over samples of φ_ij|. `score`: its off-diagonal share, in
    0…1, each pair counted twice as in the matrix. `shares`: `(n,)`, Φ_ii / sum of Φ, the share of
    each modality alone; with the score they sum to 1. `local`: `(samples,)`, the same score of
    each sample's own |φ_ij|. `local_mean`: its mean over the samples that have one.

    Where no modality changes anything, score and shares are 0/0: NaN.
    """

    matrix: Tensor
    score: float
    shares: Tensor
    local: Tensor
    local_mean: float


def intershap(values: Tensor) -> InterShap:
    """How much of what modalities do is interaction between them (InterSHAP).

    φ_ij = I_ij / 2 for i ≠ j, with I the Shapley interaction index, and φ_ii = φ_i − Σ_{j≠i} φ_ij,
    with φ_i the Shapley value: the matrix φ of a sample sums to v(N) − v(∅) (Wenderoth, Hemker,
    Simidjievski, Jamnik, *Measuring cross-modal interactions in multimodal models*, AAAI 2025).
    The global matrix averages over samples before it takes absolute values, so interactions of
    opposite sign cancel in it; the local scores do not.

    `values`: `(samples, 2**n)`, n in 1…12. The authors value a coalition by the probability of the
    class predicted from all modalities, and replace absent modalities by those of other samples,
    averaged over draws; the empty coalition is the mean prediction then, not 0.

    Raises `DataError` for another shape, no samples, and values that are not finite numbers.
    """
    table, _ = coalition_values(values, "InterSHAP scores")
    _check_samples(table, "InterSHAP")
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
    """SHAPE's cooperation of modalities: v(N) − v(∅) − Σ_m (v({m}) − v(∅)).

    Above 0, all together gain more than each does alone; below 0, they overlap (Hu, Li, Zhou,
    *SHAPE: an unified approach to evaluate the contribution and cooperation of individual
    modalities*, IJCAI 2022, as their code has it).

    `values`: `(2**n,)`, n in 1…12, one value of the whole data set a coalition; the authors take
    macro-F1 (`macro_f1_by_coalition`). Raises `DataError` for another shape and for values that
    are not finite numbers.
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
    """Macro-F1 of every coalition's predictions, SHAPE's value of a data set.

    `predictions`: whole numbers `(samples, 2**n)`, n in 1…12, −1 where there is none. `labels`:
    `(samples,)`. The mean goes over all `n_classes` classes. Column 0 is not looked at: the empty
    coalition predicts the most frequent label for every sample. Returns float64 `(2**n,)`.

    Raises `DataError` for other shapes, no samples, and classes outside 0 … n_classes − 1.
    """
    predictions = as_tensor(predictions, "predictions")
    coalition_members(predictions, "predictions")
    labels = _checked_labels(labels, len(predictions), n_classes)
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


def cross_logits(
    model: Model,
    inputs: Mapping[str, Tensor],
    modalities: Sequence[str],
    max_rows: int = 256,
    *,
    output: Output = None,
) -> Tensor:
    """Logits of every pairing of the first modality of one sample with the second of another.

    `model` is a callable `(inputs by modality, present (rows, 2)) -> logits (rows, classes)`,
    called for at most `max_rows` pairs at a time, all modalities present; one with `encode` and
    `fuse`, as `MultimodalModel` has, encodes every sample once. A `torch.nn.Module` is put into
    evaluation mode meanwhile. `inputs`: `(N, …)` by modality. `output`: where the predictions are,
    or on which scale (`core/imputers/outputs.py`).

    Returns `(N, N, classes)` on the CPU: row i, column j is f(aᵢ, vⱼ), for `emap`. That is N²
    runs: some hundred samples are enough for EMAP.

    Raises `UsageError` unless there are exactly two modalities, the model's own, `DataError` where
    one has no input, they are of different numbers of samples, or logits have the wrong shape.
    """
    names = check_modalities(modalities)
    if len(names) != 2:
        raise UsageError(
            f"EMAP is defined for two modalities, not for {len(names)}: {', '.join(names)}"
        )
    if max_rows < 1:
        raise UsageError(f"max_rows is {max_rows}: it must be at least 1")
    for name in names:
        if name not in inputs:
            raise DataError(
                f"the batch has no input for the modality {name!r}; it has: "
                f"{', '.join(sorted(inputs)) or 'none'}"
            )
    first, second = (inputs[name] for name in names)
    if len(first) != len(second):
        raise DataError(
            f"{names[0]} has {len(first)} samples and {names[1]} {len(second)}: EMAP pairs the "
            "modalities of the same samples"
        )
    _check_samples(first, "EMAP")
    samples = len(first)
    answers: list[Tensor] = []
    reader = OutputReader(output)
    with torch.inference_mode(), evaluation_mode(model):
        parts, answer = _parts(model, {names[0]: first, names[1]: second}, max_rows)
        for pairs in torch.split(torch.arange(samples**2), max_rows):
            rows = {names[0]: pairs // samples, names[1]: pairs % samples}
            chosen = {name: part[rows[name].to(part.device)] for name, part in parts.items()}
            outputs = reader(
                answer(chosen, torch.ones(len(pairs), 2, dtype=torch.bool)), len(pairs)
            )
            column = outputs.unsqueeze(1) if outputs.dim() == 1 else outputs
            logits = class_logits(column, reader.probabilities)
            if logits.dim() != 2 or (answers and logits.shape[1] != answers[0].shape[1]):
                raise DataError(
                    f"the model gave logits of shape {tuple(logits.shape)} for {len(pairs)} "
                    "samples: expected (samples, classes), the same classes for all"
                )
            answers.append(logits.cpu())
    return torch.cat(answers).reshape(samples, samples, -1)


def emap(logits: Tensor) -> Tensor:
    """Logits of the additive model that is nearest to this one over all pairs (EMAP).

    f̂ᵢ = mean_j f(aᵢ, vⱼ) + mean_j f(aⱼ, vᵢ) − mean_jk f(aⱼ, vₖ): what each modality says on
    average over the other, without any interaction (Hessel & Lee, *Does my multimodal model learn
    cross-modal interactions? It's harder to tell than you might think!*, EMNLP 2020).

    `logits`: `(N, N, classes)`, as `cross_logits` gives them. Returns float64 `(N, classes)`.
    Raises `DataError` for another shape, no samples, and logits that are not finite numbers.
    """
    crossed = _checked_cross(logits)
    return crossed.mean(1) + crossed.mean(0) - crossed.mean((0, 1))


def emap_gap(logits: Tensor, labels: Tensor) -> float:
    """What interactions are worth: macro-F1 of the model − macro-F1 of its EMAP.

    Near 0 the model does as well without them. The sign is kept, where the authors' code takes
    the absolute value: below 0, interactions hurt.

    `logits`: `(N, N, classes)` as in `emap`, the model's own on the diagonal; `labels`: `(N,)`.
    Raises what `emap` raises, and `DataError` for labels without a class.
    """
    crossed = _checked_cross(logits)
    n_classes = crossed.shape[2]
    labels = _checked_labels(labels, len(crossed), n_classes).to(crossed.device)
    actual = labels.bincount(minlength=n_classes)
    own = crossed.diagonal().T
    return float(_f1_of_logits(own, labels, actual) - _f1_of_logits(emap(crossed), labels, actual))


@dataclass(frozen=True)
class ModalityShares:
    """MM-SHAP's shares, float64, each in 0…1 and summing to 1 over the n modalities.

    `shares`: `(n,)`, of the data set's mean contributions. `local`: `(samples, n)`, of each
    sample's own. `local_mean`: `(n,)`, the mean of these over the samples that have them.

    Where all contributions are 0, shares are 0/0: NaN.
    """

    shares: Tensor
    local: Tensor
    local_mean: Tensor


def modality_shares(contributions: Tensor) -> ModalityShares:
    """How much of a prediction each modality moves, whichever way: |φᵐ| / Σ_k |φᵏ| (MM-SHAP).

    The authors' players are tokens and image patches, whose |φ| are summed by modality, and a data
    set has the mean of its samples' shares (Parcalabescu & Frank, *MM-SHAP: a performance-agnostic
    metric for measuring multimodal contributions in vision and language models and tasks*, ACL
    2023). Here modalities are the players. `shares` differs from `local_mean`: contributions of
    opposite sign cancel in the mean.

    `contributions`: `(samples, n)`, of `shapley_values` or another index. Raises `DataError` for
    another shape, no samples, and contributions that are not finite numbers.
    """
    phi = as_numbers(contributions, "contributions")
    if phi.dim() != 2 or phi.shape[1] < 1:
        raise DataError(
            f"contributions of shape {tuple(phi.shape)}: expected (samples, modalities)"
        )
    _check_samples(phi, "MM-SHAP's share")
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
    """Macro-F1 of one prediction a sample, `(samples,)`; `actual` are the labels' counts."""
    n_classes = len(actual)
    hits = labels[predictions == labels].bincount(minlength=n_classes)
    predicted = predictions[predictions >= 0].bincount(minlength=n_classes)
    return macro_f1(hits, predicted, actual)


def _f1_of_logits(logits: Tensor, labels: Tensor, actual: Tensor) -> Tensor:
    """The same of logits `(samples, classes)`; of k tied classes each is predicted 1/k times."""
    shares = class_shares(logits)
    right = shares.gather(1, labels.unsqueeze(1)).squeeze(1)
    hits = torch.zeros_like(shares[0]).index_add(0, labels, right)
    return macro_f1(hits, shares.sum(0), actual)


def _parts(
    model: Any, inputs: Mapping[str, Tensor], max_rows: int
) -> tuple[Mapping[str, Tensor], Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
    """What is paired, by modality, and the function of pairs: features where a model has them."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if parameter is not None:
        inputs = {name: x.to(parameter.device) for name, x in inputs.items()}
    if not (hasattr(model, "encode") and hasattr(model, "fuse")):
        return inputs, model
    own = tuple(getattr(model, "modalities", inputs))
    if sorted(own) != sorted(inputs):
        raise UsageError(f"the model's modalities are {', '.join(own)}, not {', '.join(inputs)}")
    chunks = []
    for rows in torch.split(torch.arange(len(next(iter(inputs.values())))), max_rows):
        some = {name: x[rows.to(x.device)] for name, x in inputs.items()}
        chunks.append(model.encode(some, torch.ones(len(rows), 2, dtype=torch.bool)))
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}, model.fuse


def _checked_cross(logits: Tensor) -> Tensor:
    crossed = as_numbers(logits, "logits")
    if crossed.dim() != 3 or crossed.shape[0] != crossed.shape[1] or crossed.shape[2] < 1:
        raise DataError(
            f"logits of shape {tuple(crossed.shape)}: EMAP takes those of all pairs, "
            "(samples, samples, classes)"
        )
    _check_samples(crossed, "EMAP")
    if not crossed.isfinite().all():
        raise DataError("logits hold NaN or infinity: EMAP is undefined")
    return crossed


def _checked_labels(labels: Tensor, samples: int, n_classes: int) -> Tensor:
    given = as_tensor(labels, "labels").long()
    if given.shape != (samples,):
        raise DataError(f"labels of shape {tuple(given.shape)} for {samples} samples")
    _check_samples(given, "macro-F1")
    outside = given[(given < 0) | (given >= n_classes)]
    if len(outside):
        raise DataError(
            f"label {int(outside[0])} has no class: expected classes 0 to {n_classes - 1}"
        )
    return given


def _check_samples(table: Tensor, what: str) -> None:
    if len(table) == 0:
        raise DataError(f"{what} of no samples is undefined: give one at least")

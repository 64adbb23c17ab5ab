"""EMAP: the additive model nearest to a two-modality model, and what interactions add to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcoop.core.arrays import as_numbers
from mmcoop.core.games.metrics import check_samples, checked_labels, macro_f1
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.imputers.outputs import Output, OutputReader, class_logits
from mmcoop.core.modalities import check_modalities
from mmcoop.core.valuation.game import Model
from mmcoop.core.valuation.value_functions import class_shares
from mmcoop.errors import DataError, UsageError


def cross_logits(
    model: Model,
    inputs: Mapping[str, Tensor],
    modalities: Sequence[str],
    max_rows: int = 256,
    *,
    output: Output = None,
) -> Tensor:
    """Compute the logits of every pair of one sample's first modality and another's second one.

    That is N² queries: some hundred samples are enough for EMAP.

    Args:
        model: A callable `(inputs by modality, present (rows, 2)) -> logits (rows, classes)`,
            called with all modalities present. A model with `encode` and `fuse`, such as
            `MultimodalModel`, encodes every sample once. A `torch.nn.Module` is in evaluation mode
            during the call.
        inputs: `(N, …)` by modality.
        modalities: The two modalities, in order.
        max_rows: At most this many pairs per call.
        output: Which item of the model's output holds the predictions, or on which scale they are,
            as for `valuate`.

    Returns:
        `(N, N, classes)` on the CPU, with f(aᵢ, vⱼ) in row i and column j, for `emap`.

    Raises:
        UsageError: Not exactly two modalities, or others than the model's own.
        DataError: A modality without input, different numbers of samples, or logits of the wrong
            shape.
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
    check_samples(first, "EMAP")
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
    """Compute the logits of the additive model that is nearest to this one over all pairs (EMAP).

    f̂ᵢ = mean_j f(aᵢ, vⱼ) + mean_j f(aⱼ, vᵢ) − mean_jk f(aⱼ, vₖ): what each modality predicts on
    average over the other, without interaction (Hessel & Lee, *Does my multimodal model learn
    cross-modal interactions? It's harder to tell than you might think!*, EMNLP 2020).

    Args:
        logits: `(N, N, classes)`, from `cross_logits`.

    Returns:
        float64 `(N, classes)`.

    Raises:
        DataError: Another shape, no samples, or logits that are not finite numbers.
    """
    crossed = _checked_cross(logits)
    return crossed.mean(1) + crossed.mean(0) - crossed.mean((0, 1))


def emap_gap(logits: Tensor, labels: Tensor) -> float:
    """Compute what interactions contribute: macro-F1 of the model − macro-F1 of its EMAP.

    Near 0, the model does as well without them. The sign is kept, whereas the authors' code takes
    the absolute value: below 0, interactions hurt.

    Args:
        logits: `(N, N, classes)`, from `cross_logits`; the diagonal has the model's predictions.
        labels: `(N,)`.

    Returns:
        The difference.

    Raises:
        DataError: Another shape, no samples, logits that are not finite numbers, or labels that are
            not classes.
    """
    crossed = _checked_cross(logits)
    n_classes = crossed.shape[2]
    labels = checked_labels(labels, len(crossed), n_classes).to(crossed.device)
    actual = labels.bincount(minlength=n_classes)
    own = crossed.diagonal().T
    return float(_f1_of_logits(own, labels, actual) - _f1_of_logits(emap(crossed), labels, actual))


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
    check_samples(crossed, "EMAP")
    if not crossed.isfinite().all():
        raise DataError("logits hold NaN or infinity: EMAP is undefined")
    return crossed

"""Model + batches → values of all coalitions and contributions, batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcoop.core.coalitions import check_modalities, coalition_matrix
from mmcoop.core.shapley import shapley_matrix
from mmcoop.core.values import predictions, value_function
from mmcoop.errors import DataError, UsageError

#: `(inputs by modality, present (batch, n)) -> logits (batch, classes)`.
Model = Callable[[Mapping[str, Tensor], Tensor], Tensor]

# Coalitions are asked for in groups of at most this many (sample, coalition) pairs, so that
# memory is bounded at 2**12 coalitions too.
_MAX_PAIRS = 2**16


@dataclass(frozen=True)
class ValuedBatch:
    """One batch, valued. Tensors are on the CPU, samples first.

    `ids`: the batch's own, or None. `labels`, `predictions`: int64 `(batch,)`; a prediction is −1
    where the logits are not numbers. `logits`: `(batch, classes)` from all modalities. `hits`: bool
    `(batch, 2**n)`, whether each coalition's arg-max prediction is the label (False for the empty
    coalition, which predicts nothing). `values`: float64 `(batch, 2**n)`, 0 for the empty
    coalition. `contributions`: float64 `(batch, n)`, Shapley values of `values`.
    """

    ids: list[str] | None
    labels: Tensor
    predictions: Tensor
    logits: Tensor
    hits: Tensor
    values: Tensor
    contributions: Tensor


def value_batches(
    model: Model, batches: Iterable[Any], *, modalities: Sequence[str], value: str = "paper"
) -> Iterator[ValuedBatch]:
    """Value every sample of every batch, in order, holding one batch at a time.

    A model with `encode(inputs, present)` and `coalition_logits(features, coalitions)`, as
    `MultimodalModel` has, encodes each modality once a sample and answers all coalitions from
    that; any other callable is called once for each coalition that is not empty. A
    `torch.nn.Module` is put into evaluation mode while a batch is valued and then back into the
    mode it was in, module by module.

    A batch has `inputs` (tensors by modality), `labels` `(batch,)` and, if it likes, `ids`, as
    attributes or as keys. `modalities` gives the order of the columns.

    Raises `UsageError` for an unknown value function or more than 12 modalities, `DataError`
    for a modality without input, a label without a class, or logits of the wrong shape.
    """
    names = check_modalities(modalities)
    coalitions = coalition_matrix(len(names))[1:]
    weights = shapley_matrix(len(names))
    worth = value_function(value)
    for batch in batches:
        inputs, labels = _inputs_and_labels(model, batch, names)
        # column 0: the empty coalition predicts nothing and is worth 0 by definition
        hits = [torch.zeros(len(labels), 1, dtype=torch.bool)]
        values = [torch.zeros(len(labels), 1, dtype=torch.float64)]
        logits = None
        with torch.inference_mode(), evaluation_mode(model):
            answer = _coalition_answers(model, inputs, len(labels), names)
            for group in torch.split(coalitions, max(1, _MAX_PAIRS // max(1, len(labels)))):
                logits = answer(group)
                _check_logits(logits, labels, len(group))
                sizes = group.sum(1).to(logits.device)
                device_labels = labels.to(logits.device)
                hits.append((predictions(logits) == device_labels.unsqueeze(1)).cpu())
                values.append(worth(logits, device_labels, sizes).cpu())
        assert logits is not None  # there is always at least one coalition, the grand one last
        grand = logits[:, -1].cpu().clone()
        table = torch.cat(values, dim=1)
        yield ValuedBatch(
            ids=_ids(batch),
            labels=labels,
            predictions=predictions(grand),
            logits=grand.float(),
            hits=torch.cat(hits, dim=1),
            values=table,
            contributions=table @ weights,
        )


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode for a `torch.nn.Module`, each of its modules restored afterwards."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _coalition_answers(
    model: Any, inputs: Mapping[str, Tensor], batch: int, modalities: Sequence[str]
) -> Callable[[Tensor], Tensor]:
    """`coalitions (k, n) -> logits (batch, k, classes)` for these inputs."""
    if hasattr(model, "encode") and hasattr(model, "coalition_logits"):
        # the model reads columns in its own order of modalities
        own = tuple(getattr(model, "modalities", modalities))
        if sorted(own) != sorted(modalities):
            raise UsageError(
                f"the model's modalities are {', '.join(own)}, not {', '.join(modalities)}"
            )
        columns = [modalities.index(m) for m in own]
        features = model.encode(inputs, torch.ones(batch, len(own), dtype=torch.bool))
        return lambda coalitions: model.coalition_logits(features, coalitions[:, columns])

    def ask(coalitions: Tensor) -> Tensor:
        answers: list[Tensor] = []
        for row in coalitions:
            logits = model(inputs, row.expand(batch, -1))
            fits = logits.dim() == 2 and len(logits) == batch
            if not fits or (answers and logits.shape != answers[0].shape):
                raise DataError(
                    f"the model gave logits of shape {tuple(logits.shape)} for {batch} samples: "
                    "expected (samples, classes), the same for every coalition"
                )
            answers.append(logits)
        return torch.stack(answers, dim=1)

    return ask


def _inputs_and_labels(
    model: Any, batch: Any, modalities: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    inputs, labels = _field(batch, "inputs"), _field(batch, "labels")
    if inputs is None or labels is None:
        raise DataError("a batch must have `inputs` (tensors by modality) and `labels`")
    missing = [m for m in modalities if m not in inputs]
    if missing:
        raise DataError(
            f"the batch has no input for the modality {missing[0]!r}; it has: "
            f"{', '.join(sorted(inputs)) or 'none'}"
        )
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device = parameter.device if parameter is not None else None
    on_device = {m: inputs[m].to(device) if device else inputs[m] for m in modalities}
    return on_device, torch.as_tensor(labels).long().cpu()


def _check_logits(logits: Tensor, labels: Tensor, n_coalitions: int) -> None:
    if logits.dim() != 3 or logits.shape[:2] != (len(labels), n_coalitions):
        raise DataError(
            f"the model gave logits of shape {tuple(logits.shape)} for {len(labels)} samples and "
            f"{n_coalitions} coalitions: expected (samples, coalitions, classes)"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[2]:
        wrong = labels[(labels < 0) | (labels >= logits.shape[2])][0]
        raise DataError(
            f"label {int(wrong)} has no class: the model has {logits.shape[2]} classes, 0 to "
            f"{logits.shape[2] - 1}"
        )


def _ids(batch: Any) -> list[str] | None:
    ids = _field(batch, "ids")
    if ids is None:
        return None
    return [str(i) for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]


def _field(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)

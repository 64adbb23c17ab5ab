"""A batch as users have them: inputs by modality, labels and ids, in any of the usual forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.nested import batch_size
from mmcoop.errors import DataError


@dataclass(frozen=True)
class SampleBatch:
    """Some samples: `inputs` by modality, in its order; `labels`, whatever they are, or None; `ids`
    and `groups` or None; `samples`, how many there are.
    """

    inputs: dict[str, Any]
    labels: Tensor | None
    ids: list[str] | None
    samples: int
    groups: list[str] | None = None


def read_batch(batch: Any, modalities: Sequence[str]) -> SampleBatch:
    """A batch of a user's.

    It has `inputs` and, optionally, `labels`, `ids` and `groups` (which samples depend on each
    other, as windows of one video do), as attributes or as keys; or it is a tuple or list:
    `(inputs, labels)`, or the inputs in the order of `modalities` and, if there are any, the
    labels. A modality's input is a tensor, samples first, or several in dicts, lists
    or tuples.

    Raises `DataError` where it is none of these, where a modality has no input or labels are no
    numbers, and where inputs, labels, ids and groups are of different numbers of samples.
    """
    if isinstance(batch, tuple | list) and not hasattr(batch, "inputs"):
        (inputs, labels), ids, groups = from_sequence(batch, modalities), None, None
    else:
        fields = ("inputs", "labels", "ids", "groups")
        inputs, labels, ids, groups = (_field(batch, name) for name in fields)
    if not isinstance(inputs, Mapping):
        got = f"got {len(batch)} items" if isinstance(batch, tuple | list) else "it has none"
        raise DataError(
            "a batch must have `inputs` (tensors by modality) and `labels`, or be a tuple of the "
            f"inputs, in the order of the {len(modalities)} modalities, and the labels: {got}"
        )
    missing = [m for m in modalities if m not in inputs]
    if missing:
        raise DataError(
            f"the batch has no input for the modality {missing[0]!r}; it has: "
            f"{', '.join(sorted(inputs)) or 'none'}"
        )
    chosen = {m: inputs[m] for m in modalities}
    counts = {m: batch_size(x) for m, x in chosen.items()}
    if labels is not None:
        labels = _numbers(labels)
        counts["labels"] = len(labels) if labels.dim() else 0
    ids, groups = _names(ids), _names(groups)
    counts |= {k: len(v) for k, v in (("ids", ids), ("groups", groups)) if v is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"inputs, labels and ids of a batch are of different length: {listed}")
    return SampleBatch(chosen, labels, ids, counts[modalities[0]], groups)


def from_sequence(batch: Sequence[Any], modalities: Sequence[str]) -> tuple[Any, Any]:
    """Inputs by modality and labels of a batch that is a tuple or list; both None where it is not
    of that form, labels None where there are none.
    """
    if len(batch) == 2 and isinstance(batch[0], Mapping):
        return batch[0], batch[1]
    inputs = dict(zip(modalities, batch, strict=False))
    if len(batch) == len(modalities) + 1:
        return inputs, batch[-1]
    return (inputs, None) if len(batch) == len(modalities) else (None, None)


def _numbers(labels: Any) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"labels in a {type(labels).__name__} of what is no number: give class numbers, "
            "0-or-1 labels or numbers to be met, samples first"
        ) from None


def _names(names: Any) -> list[str] | None:
    if names is None:
        return None
    return [str(name) for name in (names.tolist() if isinstance(names, Tensor) else names)]


def _field(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)

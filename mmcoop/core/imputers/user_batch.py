"""A batch as users have them: inputs by modality, labels and ids, in any of the usual forms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmcoop.core.arrays import as_tensor, is_array
from mmcoop.core.pytree import batch_size, tree_map
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
    """A batch in any of the usual forms, its arrays and tables made tensors.

    It has `inputs` and, optionally, `labels`, `ids` and `groups` (which samples depend on each
    other, as windows of one video do), as attributes or as keys; or it is a tuple or list:
    `(inputs, labels)`, or the inputs in the order of `modalities` and, optionally, the labels. A
    modality's input is a tensor, array or table, samples first, or several in dicts, lists or
    tuples. Tables (of pandas) are taken row by row, and must agree in their index.

    Raises `DataError` where it is none of these, where a modality has no input or one of a kind
    that is not taken (`core/arrays.py`), where labels are no numbers, where inputs, labels, ids and
    groups have different numbers of samples, and where tables differ in their index.
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
    others = {"labels": labels, "ids": ids, "groups": groups}
    _check_index({**{m: inputs[m] for m in modalities}, **others})
    chosen = {m: admitted(m, inputs[m]) for m in modalities}
    counts = {m: batch_size(x) for m, x in chosen.items()}
    if labels is not None:
        labels = _numbers(labels)
        counts["labels"] = len(labels) if labels.dim() else 0
    ids, groups = _names(ids), _names(groups)
    counts |= {k: len(v) for k, v in (("ids", ids), ("groups", groups)) if v is not None}
    for m in modalities:
        _check_entries(m, inputs[m], counts)
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


def admitted(modality: str, x: Any) -> Any:
    """A modality's input with dense tensors for its arrays and tables, which may share memory.

    Raises `DataError`, naming the modality, where it has no input or one of another kind.
    """
    if x is None:
        raise DataError(
            f"the modality {modality!r} is None in this batch: every sample needs an input for "
            "every modality; leave such samples out, or give zeros if these mean absence"
        )
    what = f"the modality {modality!r}"
    if isinstance(x, list) and any(entry is None for entry in x) and len(x) > 1:
        raise DataError(f"{what} is a list in which entry {x.index(None)} is None: {_ENTRIES}")
    return _with_tensors(x, what)


_ENTRIES = (
    "a list holds several tensors of all samples, not one entry per sample. Stack the entries "
    "into one tensor, samples first; leave out samples without one"
)


def _with_tensors(x: Any, what: str) -> Any:
    if is_array(x):
        return as_tensor(x, what)
    if isinstance(x, Mapping | list | tuple):
        return tree_map(lambda part: as_tensor(part, what), x)
    return x


def _check_entries(modality: str, x: Any, counts: Mapping[str, int]) -> None:
    """Raise `DataError` for a list with one entry per sample, by all that can be seen."""
    if not isinstance(x, list) or len(x) < 2:
        return
    others = {count for name, count in counts.items() if name != modality}
    if others == {len(x)} and len({getattr(entry, "shape", None) for entry in x}) == 1:
        raise DataError(
            f"the modality {modality!r} is a list of {len(x)} tensors of one shape, as many as "
            f"there are samples: {_ENTRIES}. If they are several tensors, give a tuple"
        )


def _check_index(parts: Mapping[str, Any]) -> None:
    """Raise `DataError` where tables of one batch have different indices."""
    tables = {name: x.index for name, x in parts.items() if hasattr(x, "iloc")}
    for name, index in tables.items():
        first = next(iter(tables))
        if not index.equals(tables[first]):
            raise DataError(
                f"{first} and {name} of a batch have different indices, and are taken row by row: "
                "bring them into one order, as reindex does, or give arrays"
            )


def _numbers(labels: Any) -> Tensor:
    try:
        tensor = as_tensor(labels, "labels")
    except DataError as error:
        raise DataError(
            f"{error}: give class numbers, 0-or-1 labels or numbers to be predicted, samples first"
        ) from None
    column = hasattr(labels, "iloc") and tensor.dim() == 2 and tensor.shape[1] == 1
    return tensor.squeeze(1) if column else tensor


def _names(names: Any) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise DataError(f"ids or groups of a batch are {names!r}: give one for each sample")
    return [str(name) for name in (names.tolist() if hasattr(names, "tolist") else names)]


def _field(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)

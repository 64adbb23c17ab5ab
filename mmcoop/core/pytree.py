"""Batch structures: tensors, samples first, in dicts, lists and tuples of any depth.

A modality's input may be one tensor or several that belong together, such as padded series of
different lengths, `{"values": (batch, time, d), "mask": (batch, time)}`. What is neither a tensor
nor one of the three (None, a number) is a setting of all samples, and left as it is.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.arrays import is_array
from mmcoop.errors import DataError


def tree_map(fn: Callable[..., Tensor], x: Any, *others: Any) -> Any:
    """The same structure with `fn(tensor, …)` in place of each tensor.

    `others` are of the structure of `x`, and give `fn` its further tensors. Types of mappings and
    tuples are kept. Raises `DataError` where another structure has no such place.
    """
    if is_array(x):
        if not all(is_array(other) for other in others):
            raise DataError("batch structures differ: where one has a tensor, another has none")
        return fn(x, *others)
    if isinstance(x, Mapping):
        if any(not isinstance(o, Mapping) or o.keys() != x.keys() for o in others):
            raise DataError(f"batch structures differ: one has {_names(x)}, another has not")
        result = copy(x) if isinstance(x, MutableMapping) else dict(x)
        for name in x:
            result[name] = tree_map(fn, x[name], *(other[name] for other in others))
        return result
    if isinstance(x, list | tuple):
        if any(not isinstance(o, list | tuple) or len(o) != len(x) for o in others):
            raise DataError(f"batch structures differ: one has {len(x)} items, another has not")
        items = [tree_map(fn, *parts) for parts in zip(x, *others, strict=True)]
        named = isinstance(x, tuple) and hasattr(x, "_fields")
        return type(x)(*items) if named else type(x)(items)
    return x


def batch_size(x: Any) -> int:
    """The number of samples: the leading size, which all tensors share.

    Raises `DataError` for a structure without a tensor, for a tensor without dimensions or of
    another leading size, and for what a batch cannot hold, such as text or arrays of numpy.
    """
    sizes = set()
    for tensor in _tensors(x):
        if tensor.dim() == 0:
            raise DataError("a tensor of the batch has no dimension: samples come first")
        sizes.add(tensor.shape[0])
    if not sizes:
        raise DataError("the batch holds no tensor")
    if len(sizes) > 1:
        raise DataError(
            f"tensors of one batch have {', '.join(map(str, sorted(sizes)))} rows: they need one "
            "row a sample each; pad what varies in length, and give its mask beside it"
        )
    return sizes.pop()


def take(x: Any, index: Tensor) -> Any:
    """The samples at the positions `index`, int64 `(k,)`: the same structure with k rows."""
    return tree_map(lambda tensor: tensor.index_select(0, index.to(tensor.device)), x)


def to_device(x: Any, device: torch.device | str) -> Any:
    """The same structure with its tensors on `device`."""
    return tree_map(lambda tensor: tensor.to(device), x)


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Mapping):
        for part in x.values():
            yield from _tensors(part)
    elif isinstance(x, list | tuple):
        for part in x:
            yield from _tensors(part)
    elif not (x is None or isinstance(x, int | float)):
        raise DataError(
            f"the batch holds a {type(x).__name__}: give tensors, in dicts, lists or tuples "
            "where there are several"
        )


def _names(x: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, x)) or "nothing"

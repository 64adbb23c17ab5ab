"""Arrays and tables of any library → dense tensors; what cannot become one is refused by name."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcoop.errors import DataError


def is_array(x: Any) -> bool:
    """Whether `x` is a tensor, a NumPy array, or a table, column or sparse matrix that can become
    one.
    """
    return isinstance(x, Tensor | np.ndarray) or _is_table(x) or _is_sparse_matrix(x)


def as_tensor(x: Any, what: str) -> Tensor:
    """`x` as a dense tensor, at its own precision and in the order of its rows.

    Args:
        x: A tensor, a NumPy array, a pandas Series or DataFrame (rows as they stand, whatever the
            index), a SciPy sparse matrix or array, or nested lists of numbers.
        what: What `x` is, for messages.

    Raises:
        DataError: For sparse, nested and quantised tensors; for arrays of text, objects, dates or
            masked entries.
    """
    if not isinstance(x, Tensor):
        return _from_array(x, what)
    if x.is_nested:
        raise DataError(
            f"{what}: a nested tensor; pad it (torch.nested.to_padded_tensor) and put a mask "
            "beside it"
        )
    if x.layout != torch.strided:
        raise DataError(
            f"{what}: a sparse tensor ({x.layout}); make it dense with x.to_dense(), and sparse "
            "again inside the model where it needs that"
        )
    if x.is_quantized:
        raise DataError(f"{what}: a quantised tensor; dequantise it with x.dequantize()")
    return x


def as_numbers(x: Any, what: str) -> Tensor:
    """`x` as real numbers, float64. Raises `DataError` as `as_tensor`, and for complex numbers."""
    tensor = as_tensor(x, what)
    if tensor.is_complex():
        raise DataError(f"{what}: complex numbers, where real ones are expected")
    return tensor.double()


def _is_table(x: Any) -> bool:
    """Whether `x` is a Series or DataFrame, of pandas or of a library with the same method."""
    return hasattr(x, "to_numpy") and hasattr(x, "shape") and not isinstance(x, type)


def _is_sparse_matrix(x: Any) -> bool:
    """Whether `x` is a sparse matrix or array, of SciPy or of a library with the same method."""
    return hasattr(x, "toarray") and hasattr(x, "shape") and not isinstance(x, type)


def _from_array(x: Any, what: str) -> Tensor:
    if _is_sparse_matrix(x):
        x = x.toarray()
    if isinstance(x, list | tuple) and any(isinstance(item, Tensor) for item in x):
        try:
            return as_tensor(torch.stack([torch.as_tensor(item) for item in x]), what)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(f"{what}: its items have different shapes or types") from None
    if np.ma.is_masked(x):
        raise DataError(f"{what}: an array with masked entries; fill them in first")
    try:
        # NumPy reads Python floats at double precision, torch at single
        array = np.asarray(x.to_numpy() if _is_table(x) else x)
        if array.dtype.kind == "O":  # nullable columns, mixed tables
            array = np.asarray(array.tolist())
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{what}: a {type(x).__name__} that is no array of numbers") from None
    if array.dtype.kind not in "biufc":
        holds = {"U": "text", "S": "bytes", "M": "dates", "m": "time spans"}
        raise DataError(
            f"{what}: a {type(x).__name__} that holds "
            f"{holds.get(array.dtype.kind, 'missing values or objects')}, and not numbers alone"
        )
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if array.ndim == 0:
        native = native.reshape(())
    if not native.flags.writeable:
        native = native.copy()
    try:
        return torch.from_numpy(native)
    except TypeError:  # extended precision
        raise DataError(f"{what}: numbers of type {array.dtype}, which torch has not") from None

"""Files written by `torch.save`, read without trusting them.

`torch.load(weights_only=True)` runs no code from a file, but trusts the sizes and offsets that the
file states: a tensor may extend beyond its storage, or request any amount of memory. Here every
tensor is within bytes that the file has.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmcoop.errors import DataError, said

#: The largest pickle, in bytes: it describes values, but holds no tensor data.
_LARGEST_PICKLE = 16 * 2**20

# Torch's name for the attribute of a state dict that holds module versions.
_VERSIONS = "_metadata"

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_torch(path: Path) -> Any:
    """Read a file of tensors, numbers, text, lists, tuples and dicts written by `torch.save`.

    Args:
        path: The file, in the zip format of torch 1.6 and later.

    Returns:
        The content, with tensors on the CPU.

    Raises:
        DataError: The file is missing, damaged, or holds other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).load()
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except RecursionError:
        raise DataError(f"{path} is damaged: it is nested too deeply") from None
    # a damaged pickle or archive may raise any error
    except Exception as error:  # noqa: BLE001
        reason = said(error) or type(error).__name__
        raise DataError(f"{path} is damaged, or holds more than data: {reason}") from None


# The opcodes that are needed. Others could call methods that an object defines.
_INSTRUCTIONS = [
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
    "BINPUT",
    "LONG_BINPUT",
    "MEMOIZE",
    "BINGET",
    "LONG_BINGET",
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
    "BINPERSID",
    "BUILD",
]


class _Reader(pickle._Unpickler):
    """Based on Python's unpickler, which, unlike the C version, does not allocate stated sizes."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS)
    }

    stack: list[Any]

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        if len(self._entries) != len(archive.infolist()):
            raise ValueError("two of its parts have the same name")
        (described,) = (name for name in self._entries if name.endswith("/data.pkl"))
        self._folder = described.removesuffix("data.pkl")
        order = self._folder + "byteorder"
        if order in self._entries and self._part(order, 16) != b"little":
            raise ValueError("its numbers are not little-endian")
        self._storages: dict[str, Tensor] = {}
        super().__init__(io.BytesIO(self._part(described, _LARGEST_PICKLE)))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise ValueError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a one-dimensional tensor."""
        kind, dtype, key, _, numbers = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("a storage is not described as torch does")
        if key not in self._storages:
            entry = self._entries[f"{self._folder}data/{key}"]
            content = self._part(entry.filename, entry.compress_size)
            itemsize = torch.empty((), dtype=dtype).element_size()
            if type(numbers) is not int or len(content) != numbers * itemsize:
                raise ValueError(f"storage {key} has {len(content)} bytes, not {numbers} numbers")
            empty = torch.empty(0, dtype=dtype)
            # copied, because bytes are read-only
            self._storages[key] = (
                torch.frombuffer(bytearray(content), dtype=dtype) if content else empty
            )
        storage = self._storages[key]
        if storage.dtype != dtype or len(storage) != numbers:
            raise ValueError(f"storage {key} is described in two ways")
        return storage

    def load_build(self) -> None:
        """Set attributes of an object: only the module versions of a state dict."""
        state = self.stack.pop()
        found = self.stack[-1]
        if (
            type(found) is not OrderedDict
            or not isinstance(state, dict)
            or set(state) != {_VERSIONS}
        ):
            raise ValueError("it sets attributes")
        found._metadata = state[_VERSIONS]  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build

    def _part(self, name: str, largest: int) -> bytes:
        """Read a part of the archive, with its checksum; torch does not compress parts."""
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"its part {name} is compressed")
        if entry.file_size > largest:
            raise ValueError(f"its part {name} has {entry.file_size} bytes")
        return self._archive.read(entry)


def _tensor(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Mapping[str, Any],
    metadata: Any = None,
) -> Tensor:
    """A view of a storage, within its bounds and no larger."""
    whole = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in whole):
        raise ValueError("a tensor has an impossible shape")
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (0 not in size and reach >= len(storage)):
        raise ValueError("a tensor reaches outside of its storage")
    return storage.as_strided(size, stride, offset)


def _parameter(data: Tensor, requires_grad: bool, hooks: Mapping[str, Any]) -> Tensor:
    return data

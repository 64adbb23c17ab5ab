"""NumPy's `.npy` files, opened without running what they hold."""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from mmcoop.errors import DataError, said


def open_array(path: Path) -> np.ndarray:
    """Open an array, memory-mapped and read-only.

    Its header is read as a literal, objects are refused, and a shape that needs more bytes than the
    file has is no array.

    Raises:
        DataError: It is missing, damaged, or holds objects.
    """
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (
        OSError,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        RecursionError,
        SyntaxError,
        TokenError,
    ) as error:
        # of the header's, the first line says what
        lines = str(said(error)).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path} cannot be read: {lines[0]}") from None
    return array

"""NumPy's `.npy` files, opened without executing their content."""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from mmcoop.errors import DataError, said


def open_array(path: Path) -> np.ndarray:
    """Open an array, memory-mapped and read-only.

    The header is parsed as a literal, and object arrays and shapes larger than the file are
    refused.

    Raises:
        DataError: The file is missing, damaged, or holds objects.
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
        # errors about the header quote it below their first line
        lines = str(said(error)).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path} cannot be read: {lines[0]}") from None
    return array

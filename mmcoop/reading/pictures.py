"""Pictures stored in a dataset."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmcoop.errors import DataError

# The most pixels of one picture: recipes store frames of a few hundred pixels per side.
_LARGEST = 2**25


def decode_jpeg(content: bytes) -> np.ndarray:
    """Decode a JPEG file.

    Args:
        content: Its bytes.

    Returns:
        RGB uint8 `(height, width, 3)`.

    Raises:
        DataError: It is not a JPEG file, is damaged, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
                if picture.width * picture.height > _LARGEST:
                    raise ValueError(f"it has {picture.width} × {picture.height} pixels")
                return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise DataError("a stored picture cannot be decoded: it is no JPEG file") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises any kind of error on damaged files
        raise DataError(f"a stored picture cannot be decoded: {error}") from None

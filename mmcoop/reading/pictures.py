"""Pictures that a data set stores."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmcoop.errors import DataError

# The most pixels of one picture: recipes store frames of a few hundred a side.
_LARGEST = 2**25


def decode_jpeg(content: bytes) -> np.ndarray:
    """A JPEG file's picture: uint8 `(height, width, 3)`; `DataError` where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
                if picture.width * picture.height > _LARGEST:
                    raise ValueError(f"it has {picture.width} × {picture.height} pixels")
                return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise DataError("a stored picture cannot be decoded: it is no JPEG file") from None
    except Exception as error:  # noqa: BLE001 - of damaged files Pillow raises errors of any kind
        raise DataError(f"a stored picture cannot be decoded: {error}") from None

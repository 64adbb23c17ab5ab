"""Versions of the software that affects results, recorded with runs and scores."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version


@cache
def versions() -> Mapping[str, str]:
    """Versions of Python, mmcoop and the packages it computes with, by name."""
    packages = {name: version(name) for name in ("mmcoop", "torch", "numpy", "pyarrow")}
    return {"python": platform.python_version(), **packages}

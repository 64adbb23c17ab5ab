"""Versions of what decides the numbers, as runs and scores record them."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version


@cache
def versions() -> Mapping[str, str]:
    """Versions of Python, mmcoop and the packages that it computes with."""
    packages = {name: version(name) for name in ("mmcoop", "torch", "numpy", "pyarrow")}
    return {"python": platform.python_version(), **packages}

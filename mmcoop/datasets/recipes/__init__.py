"""Recipes: how a data set is built, one file each.

A recipe is a frozen dataclass: its fields are its options (with a `help` text in their
metadata), and `build(folder, overwrite=…, progress=…)` writes the dataset folder.
"""

from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from mmcoop.progress import Progress
from mmcoop.registry import Entry, Registry

RECIPES = Registry(
    "recipe",
    {
        "keypad": Entry(
            "mmcoop.datasets.recipes.keypad",
            "Keypad",
            "handwritten digits and keypad tones, made on the spot",
        ),
        "av-digits": Entry(
            "mmcoop.datasets.recipes.av_digits",
            "AVDigits",
            "recordings of spoken digits and handwritten digits",
        ),
    },
)

#: The recipe that needs nothing from outside, which a bare `mmcoop build-dataset` builds.
DEFAULT_RECIPE = "keypad"


class Recipe(Protocol):
    """What every recipe can do."""

    def build(self, folder: Path, *, overwrite: bool, progress: Progress) -> None:
        """Write the dataset folder, whole or not at all."""


def option(default: Any, help: str) -> Any:
    """A field of a recipe with the help text of its command-line option."""
    return field(default=default, metadata={"help": help})


def required(help: str) -> Any:
    """A field of a recipe that has no default."""
    return field(metadata={"help": help})

"""Recipes: how a data set is built, one file each.

A recipe is a frozen dataclass. Its fields are its options, declared by `settings.option`, and
`build(folder, overwrite=…, progress=…)` writes the dataset folder.
"""

from pathlib import Path
from typing import Protocol

from mmcoop.progress import Progress
from mmcoop.registry import Entry, Registry

RECIPES = Registry(
    "recipe",
    {
        "keypad": Entry(
            "mmcoop.recipes.keypad",
            "Keypad",
            "handwritten digits and keypad tones, made on the spot",
        ),
        "av-digits": Entry(
            "mmcoop.recipes.av_digits",
            "AVDigits",
            "recordings of spoken digits and handwritten digits",
        ),
        "folder": Entry(
            "mmcoop.recipes.folder",
            "Folder",
            "your own clips, in class folders or listed in a table",
        ),
        "mm-debiased": Entry(
            "mmcoop.recipes.mm_debiased",
            "MMDebiased",
            "the paper's debiased data set, from its list and your clips",
        ),
        "kinetics-sounds": Entry(
            "mmcoop.recipes.kinetics_sounds",
            "KineticsSounds",
            "31 classes of Kinetics, from published lists and your clips",
        ),
        "ucf101": Entry(
            "mmcoop.recipes.ucf101",
            "UCF101",
            "101 actions as pictures and optical flow, from the official lists and your videos",
        ),
        "features": Entry(
            "mmcoop.recipes.features",
            "Features",
            "tables or arrays, one a modality: sensors, EEG, embeddings",
        ),
        "debiased": Entry(
            "mmcoop.recipes.debiased",
            "Debiased",
            "the largest part of another data set on which modalities contribute equally",
        ),
    },
)

#: The recipe that needs nothing from outside, which a bare `mmcoop build-dataset` builds.
DEFAULT_RECIPE = "keypad"


class Recipe(Protocol):
    """What every recipe has."""

    def build(self, folder: Path, *, overwrite: bool, progress: Progress) -> None:
        """Write the dataset folder, completely or not at all."""

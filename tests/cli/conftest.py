"""The story of the README, run once."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def story(
    tmp_path_factory: pytest.TempPathFactory, process: Callable[..., Result]
) -> tuple[Path, dict[str, Result]]:
    """The commands one after the other in an empty folder, as real processes; what each said.

    Bare but for the number of epochs. Tests read this folder and do not change it.
    """
    folder = tmp_path_factory.mktemp("story")
    commands = {
        "build-dataset": ["build-dataset"],
        "train": ["train", "--epochs", "3"],
        "valuate": ["valuate", "--out", "scores.parquet"],
        "enhance": ["enhance", "--epochs", "2"],
        "evaluate": ["evaluate", "--run", "runs/joint", "--run", "runs/joint-sample"],
    }
    return folder, {name: process(folder, *words) for name, words in commands.items()}

"""Commands run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcoop.cli import main

Result = subprocess.CompletedProcess[str]


def run_process(folder: Path, *arguments: str) -> Result:
    """`mmcoop …` in a process of its own, in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "mmcoop", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
        check=False,
    )


@pytest.fixture(scope="session")
def process() -> Callable[..., Result]:
    """`mmcoop …` in a process of its own: `process(folder, *arguments)` gives what it said."""
    return run_process


@pytest.fixture
def mmcoop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """`mmcoop …` in this process: `mmcoop(folder, *arguments)` gives exit code and output."""

    def call(folder: Path, *arguments: str) -> Result:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        code = 0
        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
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
    return folder, {name: run_process(folder, *words) for name, words in commands.items()}

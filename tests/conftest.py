"""What several test files share: commands run as a user runs them; data sets, made once a session
and never changed.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcoop.cli import main
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.recipes.av_digits import AVDigits
from mmcoop.datasets.recipes.keypad import Keypad
from mmcoop.datasets.writer import Header, write_dataset

Result = subprocess.CompletedProcess[str]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the development data, beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the development data is not here: no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def process() -> Callable[..., Result]:
    """`mmcoop …` in a process of its own: `process(folder, *arguments)` gives what it said."""

    def run(folder: Path, *arguments: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "mmcoop", *arguments],
            cwd=folder,
            text=True,
            capture_output=True,
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
            check=False,
        )

    return run


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
def keypad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keypad data set, as a bare `mmcoop build-dataset` builds it."""
    folder = tmp_path_factory.mktemp("keypad") / "keypad"
    Keypad().build(folder)
    return folder


@pytest.fixture(scope="session")
def av_digits(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The av-digits data set of all 3,000 recordings, without planted noise (about 15 s)."""
    recordings = shared_data / "fsdd" / "recordings"
    if not recordings.is_dir():
        pytest.skip(f"the spoken digits are not here: no folder {recordings}")
    folder = tmp_path_factory.mktemp("av-digits") / "av-digits"
    AVDigits(source=recordings).build(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 samples of 3 classes in 3 modalities, each of which tells the class: 36, 12 and 12.

    `picture` is an image with a bright third, `features` a vector around its class's corner and
    `motion` a series whose channel of the class swings. All have random training transforms.
    """
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    rng = np.random.default_rng(0)
    header = Header(
        name="tiny",
        recipe="tiny",
        options={"seed": 0},
        classes=["left", "middle", "right"],
        modalities={
            "picture": Modality(
                "image",
                (1, 28, 28),
                "float16",
                "conv",
                mean=0.33,
                std=0.5,
                training={"shift": {"height": 2, "width": 2}},
            ),
            "features": Modality(
                "vector", (6,), "float32", "mlp", mean=0.5, training={"noise": {"scale": 0.1}}
            ),
            "motion": Modality(
                "series", (20, 3), "float32", "conv1d", std=0.7, training={"noise": {"scale": 0.1}}
            ),
        },
        source="made by the tests",
        columns={"quality": "float32"},
    )
    swing = np.sin(2 * np.pi * np.arange(20) / 5)
    with write_dataset(folder, header) as writer:
        for i in range(60):
            label = i % 3
            picture = rng.normal(0, 0.2, (1, 28, 28))
            picture[:, :, 9 * label : 9 * label + 9] += 1
            features = rng.normal(0, 0.3, 6)
            features[[label, label + 3]] += 1.5
            motion = rng.normal(0, 0.3, (20, 3))
            motion[:, label] += swing
            writer.add(
                "train" if i < 36 else "validation" if i < 48 else "test",
                id=f"sample-{i:02d}",
                label=label,
                group=f"source-{i:02d}",
                quality=i / 60,
                picture=picture,
                features=features,
                motion=motion,
            )
    return folder


@pytest.fixture(scope="session")
def jpeg() -> Callable[[np.ndarray], bytes]:
    """A picture, uint8 `(height, width, 3)`, → its JPEG bytes, encoded by Pillow."""

    def encode(picture: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()

    return encode

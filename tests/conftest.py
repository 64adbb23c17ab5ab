"""What several test files share: commands run as a user runs them; data sets, made once a session
and never changed; quick settings of training.
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmcoop.cli import main
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.recipes.av_digits import AVDigits
from mmcoop.recipes.keypad import Keypad
from mmcoop.training.config import TrainConfig, make_config

# as commands do for models of this size: what is computed here is compared with what they leave
torch.set_num_threads(1)

pytest_plugins = ["films", "recorder"]

#: Folders and files, by the beginnings of their paths here, whose tests take seconds each: they
#: train, start processes or decode films. `make test-fast` leaves them out.
SLOW = (
    *("cli/", "fuzz/", "recipes/", "test_examples", "test_kills", "test_locks", "test_processes"),
    *("comparison/test_comparison", "comparison/test_tuning", "core/games/test_estimators"),
    *("datasets/test_building", "datasets/test_clip_reader", "datasets/test_debiasing"),
    *("datasets/test_media", "datasets/test_timeline", "datasets/test_writer"),
    *("methods/test_every_method", "reporting/test_summaries", "scores/test_dataset"),
    *("scores/test_precomputed", "scores/test_resume", "training/test_crossfit"),
    *("training/test_evaluation", "training/test_loggers", "training/test_trainer"),
)

Result = subprocess.CompletedProcess[str]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the files in `SLOW`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


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
def small_disk() -> Callable[[Path, int], AbstractContextManager[Callable[[int], None]]]:
    """`with small_disk(place, size) as resize:` has a disk of so many bytes at `place`."""

    @contextmanager
    def mounted(place: Path, size: int) -> Iterator[Callable[[int], None]]:
        place.mkdir()
        if shutil.which("mount") is None or os.geteuid() != 0:
            pytest.skip("only root mounts a small disk")
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        failed = subprocess.run(mount, capture_output=True, text=True, check=False)
        if failed.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {failed.stderr}")

        def resize(size: int) -> None:
            subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)

        try:
            yield resize
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)

    return mounted


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


@pytest.fixture(scope="session")
def quick() -> Callable[..., TrainConfig]:
    """`quick(**changes)`: a configuration that trains in a moment."""

    def configure(**changes: Any) -> TrainConfig:
        settings = {
            "epochs": 3,
            "batch_size": 16,
            "lr": 3e-3,
            "schedule": "constant",
            "warmup": 1,
        }
        return make_config(settings, changes)

    return configure


def write_noisy(folder: Path, *, seed: int = 0, broken: str | None = None) -> Path:
    """70, 30 and 30 samples of 4 classes, of which the test split has 3.

    `sound` tells the class about as often as not and `touch` more rarely, so that accuracies go
    up and down. With `broken`, one sample of that split has NaN in its `sound`.
    """
    rng = np.random.default_rng(seed)
    vector = {"dtype": "float32", "encoder": "mlp", "training": {"noise": {"scale": 0.2}}}
    header = Header(
        name="noisy",
        recipe="tests",
        options={},
        classes=["north", "east", "south", "west"],
        modalities={
            "touch": Modality("vector", (4,), **vector),
            "sound": Modality("vector", (5,), **vector),
        },
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 70), ("validation", 30), ("test", 30)):
            for i in range(rows):
                label = i % (3 if split == "test" else 4)
                sound, touch = rng.normal(0, 1, 5), rng.normal(0, 1, 4)
                sound[label] += 2
                touch[label] += 1
                if split == broken and i == 5:
                    sound[0] = 1234.5
                name = f"{split}-{i}"
                writer.add(split, id=name, label=label, group=name, sound=sound, touch=touch)
    if broken is not None:
        _put_nan(folder, broken, np.float32(1234.5))
    return folder


def _put_nan(folder: Path, split: str, number: np.float32) -> None:
    """Put NaN in the place of a number, in a way that no checksum tells."""
    (path,) = folder.glob(f"{split}-*.arrow")
    before, old = path.read_bytes(), number.tobytes()
    assert before.count(old) == 1
    after = before.replace(old, np.float32("nan").tobytes())
    path.write_bytes(after)
    header = (folder / "dataset.json").read_text()
    header = header.replace(sha256(before).hexdigest(), sha256(after).hexdigest())
    (folder / "dataset.json").write_text(header)


@pytest.fixture(scope="session")
def noisy_folder() -> Callable[..., Path]:
    """`write_noisy`, for tests that change or break the data set."""
    return write_noisy


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `write_noisy`, whole; not to be changed."""
    return write_noisy(tmp_path_factory.mktemp("noisy") / "noisy")

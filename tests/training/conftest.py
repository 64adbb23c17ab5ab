"""What the tests of training share: a data set that is hard to learn, and quick settings."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.progress import Item, Progress
from mmcoop.training.config import TrainConfig, make_config


class Recorder(Progress):
    """Keeps what training goes through, as a progress bar would be shown it.

    `tracked`: `(label, items)` in the order they came; `notes`: the lines worth reading.
    """

    def __init__(self) -> None:
        self.tracked: list[tuple[str, list[Any]]] = []
        self.notes: list[str] = []

    def track(self, items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
        kept: list[Any] = []
        self.tracked.append((label, kept))
        for item in items:
            kept.append(item)
            yield item

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epochs(self) -> list[list[Any]]:
        """The batches that were trained on, epoch by epoch."""
        return [items for label, items in self.tracked if label.startswith("epoch ")]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


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

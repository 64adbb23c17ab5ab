"""What the tests of methods share: a task over data in memory, and slopes by finite differences."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.models.encoders.base import Encoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.resampling import TrainingExamples, complete_examples
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.methods.base import TrainContext
from mmcoop.training.build import Architecture

CLASSES = 3
SHAPES = {"mlp": (4,), "conv1d": (12, 2), "conv": (1, 8, 8)}


class World:
    """A task whose samples are random numbers in memory, in double precision, and what it was
    asked for.

    `asked`: `(split, rows, seed)` of every call of `task.batches`, in order; `given`: the batches
    that came of it. `inputs` and `labels` by split may be changed.
    """

    def __init__(
        self, model: MultimodalModel, inputs: Mapping[str, Any], labels: Mapping[str, Tensor]
    ) -> None:
        self.model = model.double()
        self.inputs, self.labels = inputs, labels
        self.asked: list[tuple[str, TrainingExamples | None, int | None]] = []
        self.given: list[list[Batch]] = []
        self.lr = 0.1
        self.batch_size = 4
        self.task = TrainContext(
            model=self.model,
            n_samples=len(labels["train"]),
            n_classes=CLASSES,
            seed=0,
            warmup=0,
            value=lambda samples: pytest.fail("no contributions are asked for"),
            batches=self._batches,
            optimizer=lambda parameters: torch.optim.SGD(list(parameters), lr=self.lr),
        )

    def batch(self, split: str = "train", rows: TrainingExamples | None = None) -> Batch:
        """Some rows of a split in one batch, all of them whole by default; NaN where absent."""
        if rows is None:
            rows = complete_examples(len(self.labels[split]), len(self.model.modalities))
        inputs = {}
        for column, (m, x) in enumerate(self.inputs[split].items()):
            here = rows.present[:, column]
            if here.any():
                inputs[m] = x[rows.sample].clone()
                inputs[m][~here] = torch.nan
        return Batch(inputs, rows.present, self.labels[split][rows.sample], rows.sample)

    def _batches(
        self, split: str, rows: TrainingExamples | None, seed: int | None
    ) -> Iterable[Batch]:
        self.asked.append((split, rows, seed))
        if rows is None:
            rows = complete_examples(len(self.labels[split]), len(self.model.modalities))
        parts = torch.arange(len(rows)).split(self.batch_size)
        self.given.append([self.batch(split, rows.take(part)) for part in parts])
        return iter(self.given[-1])


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """`make_world(fusion, n, encoder)`: 10 training and 6 validation samples of n modalities."""

    def make(fusion: str = "concat", n: int = 2, encoder: str = "mlp") -> World:
        if "mmtm" in fusion:
            encoder = "conv"
        names = [f"m{k}" for k in range(n)]
        model = Architecture(
            encoders=dict.fromkeys(names, encoder),
            shapes=dict.fromkeys(names, SHAPES[encoder]),
            fusion=fusion,
            classes=tuple("abc"),
        ).build()
        chance = torch.Generator().manual_seed(7)
        inputs: dict[str, dict[str, Tensor]] = {}
        labels: dict[str, Tensor] = {}
        for split, size in (("train", 10), ("validation", 6)):
            labels[split] = torch.randint(CLASSES, (size,), generator=chance)
            inputs[split] = {}
            for k, m in enumerate(names):
                x = torch.randn(size, *SHAPES[encoder], generator=chance, dtype=torch.float64)
                # the first modality tells the class best
                sign = labels[split].view(-1, *[1] * (x.dim() - 1)) - 1
                inputs[split][m] = x + sign * (n - k) / 2
        return World(model, inputs, labels)

    return make


class Features(Encoder):
    """An encoder that passes vectors on, times a number that can be trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x


@pytest.fixture(scope="session")
def world_of_features() -> Callable[..., World]:
    """`world_of_features(features, labels)`: the features by modality, concatenated, are given."""

    def make(features: Mapping[str, Any], labels: list[int], fusion: str = "concat") -> World:
        given = {m: torch.tensor(z, dtype=torch.float64) for m, z in features.items()}
        encoders = {m: Features(z.shape[1]) for m, z in given.items()}
        torch.manual_seed(0)
        model = MultimodalModel(*build_fusion(fusion, encoders, CLASSES))
        return World(model, {"train": given}, {"train": torch.tensor(labels)})

    return make


@pytest.fixture(scope="session")
def slopes() -> Callable[..., list[tuple[float, float]]]:
    """`slopes(loss, parameters)`: how `loss()` rises along random directions of the parameters, by
    central differences, beside what the gradients that the parameters hold say of it.
    """

    def measure(loss: Callable[[], Tensor], parameters: Iterable[nn.Parameter], step=1e-8):
        parameters = list(parameters)
        chance = torch.Generator().manual_seed(11)
        found = []
        for _ in range(4):
            directions = [
                torch.randn(p.shape, generator=chance, dtype=torch.float64) for p in parameters
            ]
            ends = []
            with torch.no_grad():
                for sign in (1, -1):
                    for p, d in zip(parameters, directions, strict=True):
                        p += sign * step * d
                    ends.append(float(loss()))
                    for p, d in zip(parameters, directions, strict=True):
                        p -= sign * step * d
            said = sum(
                float((p.grad * d).sum())
                for p, d in zip(parameters, directions, strict=True)
                if p.grad is not None
            )
            found.append(((ends[0] - ends[1]) / (2 * step), said))
        return found

    return measure


def cross_entropy_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of −log p(label) over the rows, one by one."""
    rows = [
        torch.log(row.exp().sum()) - row[y] for row, y in zip(logits, labels.tolist(), strict=True)
    ]
    return sum(rows) / len(rows)


@pytest.fixture(scope="session")
def by_hand() -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of logits and labels, written out."""
    check = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, 3.0]])
    torch.testing.assert_close(
        cross_entropy_by_hand(check, torch.tensor([0, 1])),
        F.cross_entropy(check, torch.tensor([0, 1])),
    )
    return cross_entropy_by_hand


# --- small data sets on disk


def write_pictures(folder, n: int) -> DatasetFolder:
    """9 training, 5 validation and 4 test samples of 3 classes in n modalities of 28 × 28 pictures;
    not every batch has every class."""
    rng = np.random.default_rng(n)
    names = ["ear", "eye", "touch"][:n]
    header = Header(
        name="pictures",
        recipe="tests",
        options={},
        classes=["a", "b", "c"],
        modalities={
            m: Modality("image", (1, 28, 28), "float32", "conv", training={"noise": {"scale": 0.1}})
            for m in names
        },
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 9), ("validation", 5), ("test", 4)):
            for i in range(rows):
                label = (i * i) % 3 if split == "train" else i % 3
                pictures = {m: rng.normal(0, 0.5, (1, 28, 28)) for m in names}
                for k, m in enumerate(names):
                    pictures[m][:, :, 9 * label : 9 * label + 9] += 1 + k
                name = f"{split}-{i}"
                writer.add(split, id=name, label=label, group=name, **pictures)
    return open_dataset(folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, DatasetFolder]:
    """The data sets of `write_pictures` by their number of modalities."""
    folder = tmp_path_factory.mktemp("pictures")
    return {n: write_pictures(folder / str(n), n) for n in (1, 2, 3)}


@pytest.fixture(scope="session")
def senses(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """50 training, 12 validation and 12 test samples of 3 classes in vectors; `ear` is worth more
    than `eye`, and neither is enough."""
    folder = tmp_path_factory.mktemp("data") / "data"
    rng = np.random.default_rng(3)
    header = Header(
        name="methods",
        recipe="tests",
        options={},
        classes=["a", "b", "c"],
        modalities={
            "ear": Modality("vector", (4,), "float32", "mlp", training={"noise": {"scale": 0.1}}),
            "eye": Modality("vector", (3,), "float32", "mlp"),
        },
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 50), ("validation", 12), ("test", 12)):
            for i in range(rows):
                ear, eye = rng.normal(0, 1, 4), rng.normal(0, 1, 3)
                ear[i % 3] += 2
                eye[i % 3] += 0.7
                writer.add(
                    split, id=f"{split}-{i}", label=i % 3, group=f"{split}-{i}", ear=ear, eye=eye
                )
    return open_dataset(folder)


@pytest.fixture
def random_rows() -> Iterator[None]:
    """Torch's own generator seeded, and given back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield

"""Claim: valuation by mmcoop costs about as much as its forward passes; tools that process one
sample at a time cost far more.

Values samples of n modalities (n = 2, 4, 8, 12) by the probability of the label, with zeros in
place of absent modalities and the same model for every tool:

- `callable`: a network with two hidden layers over all modalities, evaluated on every sample with
  every coalition;
- `encoders`: one-dimensional convolutions over one series per modality, and a linear head on their
  features; mmcoop encodes each modality of a sample once.

floor: the forward passes alone, on prepared inputs. mmcoop: `mmcoop.valuate` on all samples.
shapiq: `ExactComputer`, one sample at a time, all its coalitions in one forward pass. captum:
`ShapleyValueSampling`, one sample at a time, with as many forward passes as there are coalitions;
it samples permutations, so its values are approximate. shapiq and captum get only the first
samples. Prints the time per sample, the speed-up of mmcoop, and the largest
difference between the values.

    python benchmarks/valuation_peers.py [--samples 10000] [--modalities 2 4 8 12]

Needs the `bench` extra: pip install -e '.[bench]'
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import shapiq
import torch
from captum.attr import ShapleyValueSampling
from torch import Tensor, nn

import mmcoop
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.models.encoders import build_encoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.model import MultimodalModel

CLASSES, BATCH = 10, 250
SHAPES = {"callable": (16,), "encoders": (64, 4)}  # of a modality's input
HIDDEN = 512
ROWS = 4000  # of the callable's rows at once, in the floor: about as mmcoop does


class Network(nn.Module):
    """Two hidden layers over the inputs of all modalities, side by side."""

    def __init__(self, n: int) -> None:
        super().__init__()
        width = n * SHAPES["callable"][0]
        self.layers = nn.Sequential(
            nn.Linear(width, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, CLASSES),
        )

    def forward(self, inputs: dict[str, Tensor], present: Tensor) -> Tensor:
        x = torch.stack(list(inputs.values()), dim=1)
        return self.layers((x * present.unsqueeze(-1)).flatten(1))


def make_model(kind: str, names: list[str]) -> nn.Module:
    torch.manual_seed(len(names))
    if kind == "callable":
        return Network(len(names)).eval()
    encoders = {m: build_encoder("conv1d", SHAPES[kind]) for m in names}
    return MultimodalModel(*build_fusion("concat", encoders, CLASSES)).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 4, 8, 12])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for kind in arguments.models:
        for n in arguments.modalities:
            compare(kind, n, arguments.samples, arguments.rounds)


def compare(kind: str, n: int, samples: int, rounds: int) -> None:
    names = [f"m{k:02}" for k in range(n)]
    model = make_model(kind, names)
    x = torch.randn(samples, n, *SHAPES[kind])
    labels = torch.randint(CLASSES, (samples,))
    few = min(samples, max(8, 400 // 2 ** max(0, n - 4)))
    work: dict[str, tuple[int, Callable[[], Tensor | None]]] = {
        "floor": (samples, lambda: floor(model, x, names)),
        "mmcoop": (samples, lambda: by_mmcoop(model, x, labels, names)),
        "shapiq": (few, lambda: by_shapiq(model, x[:few], labels, names)),
        "captum": (few, lambda: by_captum(model, x[:few], labels, names)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    values: dict[str, Tensor | None] = {}
    for _ in range(rounds):
        for name, (count, job) in work.items():
            start = time.perf_counter()
            values[name] = job()
            seconds[name].append((time.perf_counter() - start) / count)
    print(f"{kind}, n = {n}, {2**n:,} coalitions, {samples:,} samples (peers: {few})")
    ours = values["mmcoop"]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["mmcoop"], strict=True))
        line = f"  {name:7} {1e6 * statistics.median(times):12,.1f} µs a sample"
        theirs = values[name]
        if name == "floor":
            line += f"   mmcoop / floor = {1 / ratio:.3f}"
        elif theirs is not None and ours is not None and name != "mmcoop":
            line += f"   {ratio:8.1f} × mmcoop's time"
            line += f"   largest difference {float((theirs - ours[:few]).abs().max()):.1e}"
        print(line, flush=True)


def batches_of(x: Tensor, names: list[str]) -> Iterator[dict[str, Tensor]]:
    for part in x.split(BATCH):
        yield dict(zip(names, part.unbind(1), strict=True))


def floor(model: nn.Module, x: Tensor, names: list[str]) -> None:
    """The model on all that it has to be asked for, and nothing else."""
    masks = coalition_matrix(len(names))
    together = min(len(masks), ROWS // BATCH)
    with torch.inference_mode():
        for inputs in batches_of(x, names):
            size = len(next(iter(inputs.values())))
            if isinstance(model, MultimodalModel):
                features = model.encode(inputs, torch.ones(size, len(names), dtype=torch.bool))
                model.coalition_logits(features, masks)
                continue
            rows = {m: part.repeat(together, 1) for m, part in inputs.items()}
            for group in masks.split(together):
                k = len(group) * size
                present = group.repeat_interleave(size, 0)
                model({m: part[:k] for m, part in rows.items()}, present)


def by_mmcoop(model: nn.Module, x: Tensor, labels: Tensor, names: list[str]) -> Tensor:
    batches = (
        {"inputs": inputs, "labels": y}
        for inputs, y in zip(batches_of(x, names), labels.split(BATCH), strict=True)
    )
    return mmcoop.valuate(model, batches, modalities=names, value="probability").contributions


def by_shapiq(model: nn.Module, x: Tensor, labels: Tensor, names: list[str]) -> Tensor:
    found = []
    for sample, label in zip(x, labels, strict=False):

        def game(coalitions: np.ndarray, sample: Tensor = sample, label: Tensor = label):
            present = torch.from_numpy(coalitions.astype(bool))
            rows = sample.expand(len(present), *sample.shape)
            with torch.inference_mode():
                logits = model(dict(zip(names, rows.unbind(1), strict=True)), present)
            return logits.softmax(1)[:, label].double().numpy()

        values = shapiq.ExactComputer(game, len(names))("SV")
        found.append([values[(k,)] for k in range(len(names))])
    return torch.tensor(found, dtype=torch.float64)


def by_captum(model: nn.Module, x: Tensor, labels: Tensor, names: list[str]) -> Tensor:
    n = len(names)
    # its features are switches, one a modality, which say what is present
    on, off = torch.ones(1, n), torch.zeros(1, n)

    def probability(switches: Tensor, sample: Tensor) -> Tensor:
        rows = sample.expand(len(switches), *sample.shape[1:])
        inputs = dict(zip(names, rows.unbind(1), strict=True))
        return model(inputs, switches.bool()).softmax(1)

    method = ShapleyValueSampling(probability)
    found = []
    with torch.inference_mode():
        for sample, label in zip(x, labels, strict=False):
            values = method.attribute(
                on,
                baselines=off,
                target=int(label),
                additional_forward_args=(sample[None],),
                n_samples=max(1, 2**n // n),  # each order asks for n coalitions
            )
            found.append(values[0].double())
    return torch.stack(found)


if __name__ == "__main__":
    main()

"""Does training wait for data? The reading speed of a data set against the speed of the model.

Measures in turn: reading the training split, with its training transforms, through 0, 1 and 2
loader processes; and training steps of the dataset's default model (ResNet-18 for clips) on a batch
that is already in memory.

    python benchmarks/reading_speed.py data/mm-debiased --batch-size 16
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mmcoop import TrainConfig, load_batches, open_dataset
from mmcoop.training.build import architecture_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    split = open_dataset(arguments.dataset).split("train")

    def reading(workers: int) -> float:
        """Samples per second, without the first batch (start-up of the processes)."""
        batches = iter(load_batches(split, batch_size=arguments.batch_size, seed=0,
                                    workers=workers))  # fmt: skip
        next(batches)
        started, samples = time.perf_counter(), 0
        for batch in batches:
            samples += len(batch.labels)
        return samples / (time.perf_counter() - started)

    config = TrainConfig()
    model = architecture_of(split.dataset, config).build()
    optimizer = torch.optim.Adam(model.parameters(), config.lr)
    batch = next(iter(load_batches(split, batch_size=arguments.batch_size, seed=0)))

    def training(steps: int = 3) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(model(batch.inputs), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return steps * len(batch.labels) / (time.perf_counter() - started)

    measures: dict[str, Callable[[], float]] = {
        f"reading, {workers} loader processes": lambda workers=workers: reading(workers)
        for workers in arguments.workers
    }
    measures["training steps of the model"] = training
    found: dict[str, list[float]] = {name: [] for name in measures}
    training()
    for _ in range(arguments.rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    own = statistics.median(found["training steps of the model"])
    for name, speeds in found.items():
        speed = statistics.median(speeds)
        print(f"{name}: {speed:.1f} samples/s, {speed / own:.1f} times the model's")


if __name__ == "__main__":
    main()

"""Claim: valuing a run costs little more than one plain forward pass over the same batches.

Times, in turn, a plain forward pass and the valuation of all coalitions over the keypad training
samples, by the keypad model and by ResNet-18 encoders, and prints the ratio of the medians. The
batches are loaded beforehand: this is about the model, not about reading.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from mmcoop import load_batches, open_dataset
from mmcoop.core.valuation.engine import value_batches
from mmcoop.recipes.keypad import Keypad
from mmcoop.training.build import Architecture

REPEATS = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "keypad"
        Keypad().build(folder)
        dataset = open_dataset(folder)
        for encoder, samples in (("conv", 1000), ("resnet18", 256)):
            architecture = Architecture(
                encoders=dict.fromkeys(dataset.modalities, encoder),
                shapes={m: spec.input_shape for m, spec in dataset.modalities.items()},
                fusion="concat",
                classes=tuple(dataset.classes),
            )
            batches = list(load_batches(dataset.split("train"), batch_size=64))[: samples // 64]
            compare(encoder, architecture.build().eval(), batches, list(dataset.modalities))


def compare(name: str, model: torch.nn.Module, batches: list, modalities: list[str]) -> None:
    def plain() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch.inputs)

    def valuation() -> None:
        for _ in value_batches(model, batches, modalities=modalities):
            pass

    plain(), valuation()  # warm-up
    seconds: dict[str, list[float]] = {"plain": [], "valuation": []}
    for _ in range(REPEATS):
        for label, work in (("plain", plain), ("valuation", valuation)):
            start = time.perf_counter()
            work()
            seconds[label].append(time.perf_counter() - start)
    median = {label: statistics.median(times) for label, times in seconds.items()}
    print(
        f"{name}: valuation / plain forward pass = {median['valuation'] / median['plain']:.2f} "
        f"({median['valuation']:.3f} s / {median['plain']:.3f} s, median of {REPEATS})"
    )


if __name__ == "__main__":
    main()

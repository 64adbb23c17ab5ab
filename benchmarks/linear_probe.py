"""Did the encoders get better, or only the head? Linear probes of frozen encoders.

For every run given, trains a logistic regression on each modality's frozen features (training
samples, evaluation transform) and prints its test accuracy beside that of the model's own
prediction from the modality alone.

    python benchmarks/linear_probe.py data/keypad comparison/runs/{joint,sample}-concat-seed*
"""

import argparse
import statistics
from collections import defaultdict

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmcoop import evaluate_run, load_batches, load_run, open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("runs", nargs="+")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.dataset)
    found = defaultdict(list)
    for folder in arguments.runs:
        run = load_run(folder)
        own = evaluate_run(run, dataset)["coalitions"]
        train, train_labels = features(run, dataset.split("train"))
        test, test_labels = features(run, dataset.split("test"))
        kind = run.name.rsplit("-seed", 1)[0]
        for modality in run.modalities:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            probe.fit(train[modality], train_labels)
            accuracy = probe.score(test[modality], test_labels)
            found[kind, modality].append((100 * own[modality], 100 * accuracy))
    print("| runs | modality | the model's own | linear probe |")
    print("|---|---|---|---|")
    for (kind, modality), numbers in found.items():
        own, probed = (statistics.mean(column) for column in zip(*numbers, strict=True))
        print(f"| {kind} ({len(numbers)}) | {modality} | {own:.1f} | {probed:.1f} |")


def features(run, split):
    """Frozen features by modality, `(samples, width)`, and labels."""
    parts, labels = defaultdict(list), []
    for batch in load_batches(split, modalities=run.modalities, batch_size=64):
        with torch.inference_mode():
            for modality, z in run.model.encode(batch.inputs, batch.present).items():
                parts[modality].append(z.numpy())
        labels.append(batch.labels.numpy())
    return {m: np.concatenate(p) for m, p in parts.items()}, np.concatenate(labels)


if __name__ == "__main__":
    main()

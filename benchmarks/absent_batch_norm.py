"""Does it matter to batch normalisation whether absent modalities are encoded?

In a row of sample-level enhancement all modalities but one are absent. Here such a modality is left
out of its encoder's batch (`MultimodalModel.encode`); the paper's published code encodes its input
all the same and zeroes the features, so that it counts in the batch's mean and variance and in the
running ones. This trains a data set's encoders, with batch normalisation, both ways, from the same
weights and with the same random seeds. The warm-up, in which no modality is absent, is the same
training for both. The best epoch is chosen on validation, the first of equal ones, and the test
split is read once. `joint`, without enhancement, is there for scale.

    mmcoop build-dataset features --source mfeat --label last \\
        --modality fou=mfeat-fou.csv --modality zer=mfeat-zer.csv --out data/two-views
    python benchmarks/absent_batch_norm.py data/two-views
"""

import argparse
import copy
import math
import statistics
from pathlib import Path

import pyarrow as pa
import torch
from scipy.stats import t as student
from torch import nn
from torch.nn import functional as F

from mmcoop import load_batches, open_dataset
from mmcoop.core.models.encoders import build_encoder
from mmcoop.core.models.fusions import build_fusion
from mmcoop.core.models.fusions.base import zeroed
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.resampling import (
    TrainingExamples,
    complete_examples,
    sample_level_examples,
    shuffled,
)
from mmcoop.core.seeds import derive_seed, generator, seeded
from mmcoop.core.valuation.engine import value_batches
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import scores_table

BATCH = 64


def with_batch_norm(encoder):
    """`conv` with batch normalisation after each convolution, `mlp` with it in place of layer
    normalisation; the other encoders have it."""
    if any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in encoder.modules()):
        return encoder
    parts = []
    for layer in encoder.layers:
        if isinstance(layer, nn.LayerNorm):
            parts.append(nn.BatchNorm1d(encoder.width))
            continue
        parts.append(layer)
        if isinstance(layer, nn.Conv2d):
            parts.append(nn.BatchNorm2d(layer.out_channels))
    encoder.layers = nn.Sequential(*parts)
    return encoder


class EncodesAbsent(MultimodalModel):
    """Encodes every row of every modality, and zeroes the features of absent ones."""

    def encode(self, inputs, present):
        return zeroed(super().encode(inputs, torch.ones_like(present)), present)


KINDS = {
    "joint": (MultimodalModel, False),
    "sample, absent not encoded": (MultimodalModel, True),
    "sample, absent encoded": (EncodesAbsent, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    arguments = parser.parse_args()
    if len(arguments.seeds) < 2:
        parser.error("intervals over seeds need two of them or more")
    torch.set_num_threads(1)
    dataset = open_dataset(arguments.dataset)
    found = {name: [] for name in KINDS}
    for seed in arguments.seeds:
        for name, (kind, enhanced) in KINDS.items():
            found[name].append(trained(kind, enhanced, dataset, seed))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    coalitions = [key for key in found["joint"][0] if key not in ("epoch", "rows")]
    print(f"\ntest accuracy on {dataset.name}, %, {len(arguments.seeds)} seeds: mean ± deviation")
    print(f"| training | {' | '.join(coalitions)} | rows encoded |")
    print("|---" * (len(coalitions) + 2) + "|")
    for name, runs in found.items():
        cells = [spread([100 * run[c] for run in runs]) for c in coalitions]
        rows = statistics.mean(run["rows"] for run in runs)
        print(f"| {name} | {' | '.join(cells)} | {rows:,.0f} |")
    print("\npaired by seed, points: mean [95 % interval]")
    print(f"| difference | {' | '.join(coalitions)} |\n" + "|---" * (len(coalitions) + 1) + "|")
    joint, ours, published = found.values()
    for label, one, other in (
        ("not encoded − encoded", ours, published),
        ("not encoded − joint", ours, joint),
        ("encoded − joint", published, joint),
    ):
        pairs = list(zip(one, other, strict=True))
        cells = [interval([100 * (a[c] - b[c]) for a, b in pairs]) for c in coalitions]
        print(f"| {label} | {' | '.join(cells)} |")


def trained(kind, enhanced, dataset, seed):
    """Test accuracy of all modalities and of each alone at the best epoch of one training, which
    that was, and how many modalities of rows were encoded to learn from."""
    settings = dataset.defaults["train"]
    split, modalities = dataset.split("train"), tuple(sorted(dataset.modalities))
    with seeded(derive_seed(seed, "weights")):
        specs = {m: dataset.modalities[m] for m in modalities}
        encoders = {
            m: with_batch_norm(build_encoder(spec.encoder, spec.input_shape))
            for m, spec in specs.items()
        }
        model = kind(*build_fusion("concat", encoders, len(dataset.classes)))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    rows = complete_examples(len(split), len(modalities))
    encoded = 0
    best = (-1.0, 0, None)
    for epoch in range(1, settings["epochs"] + 1):
        if enhanced and epoch > settings["warmup"]:
            rows = sample_level_examples(contributions(model, split, modalities))
        ordered = shuffled(rows, generator(seed, "order", epoch))
        # absent inputs are loaded as well: both kinds of training are given the same ones
        whole = TrainingExamples(ordered.sample, torch.ones_like(ordered.present))
        chance = derive_seed(seed, "transforms", epoch)
        batches = load_batches(
            split, whole, modalities=modalities, batch_size=BATCH, seed=chance, with_ids=False
        )
        model.train()
        for batch, present in zip(batches, ordered.present.split(BATCH), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(batch.inputs, present), batch.labels).backward()
            optimizer.step()
            encoded += present.numel() if kind is EncodesAbsent else int(present.sum())
        reached = accuracy(model, dataset, "validation")["+".join(modalities)]
        if reached > best[0]:
            best = (reached, epoch, copy.deepcopy(model.state_dict()))
    model.load_state_dict(best[2])
    tested = accuracy(model, dataset, "test")
    shown = {name: tested[name] for name in ("+".join(modalities), *modalities)}
    return {**shown, "epoch": best[1], "rows": encoded}


def contributions(model, split, modalities):
    batches = load_batches(split, modalities=modalities, batch_size=BATCH)
    valued = value_batches(model, batches, modalities=modalities)
    return torch.cat([batch.contributions for batch in valued])


def accuracy(model, dataset, split):
    """Accuracy by coalition."""
    modalities = model.modalities
    batches = load_batches(dataset.split(split), modalities=modalities, batch_size=BATCH)
    valued = value_batches(model, batches, modalities=modalities)
    table = pa.concat_tables([scores_table(modalities, split, batch) for batch in valued])
    scores = Scores(table, modalities, {"classes": len(dataset.classes)})
    return scores.summary(replicates=0).accuracy


def spread(numbers):
    return f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f}"


def interval(differences):
    """Mean of paired differences with its 95 % confidence interval (Student's t)."""
    n = len(differences)
    half = student.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    mean = statistics.mean(differences)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


if __name__ == "__main__":
    main()

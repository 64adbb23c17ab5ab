"""Does enhancement help? Joint, sample-level and modality-level training over several seeds.

For every seed: joint training; sample-level and modality-level enhancement from scratch with as
many epochs; and joint training for as many more epochs as it takes to encode as many rows as the
sample-level run did (for training and for valuation together). The best epoch of each run is
chosen on validation, then the test split is read once. Finished runs are not repeated.

    python benchmarks/enhancement.py data/keypad --out enhancement
"""

import argparse
import math
import statistics
from pathlib import Path

from scipy.stats import t as student

from mmcoop import evaluate_run, load_run, make_config, open_dataset, resume, train
from mmcoop.reporting.progress import TerminalProgress
from mmcoop.runtime import Runtime

METHODS = ("joint", "joint, rows matched", "sample", "modality")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, default=Path("enhancement"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.dataset)
    progress = TerminalProgress()

    def finished_run(name, seed, **settings):
        folder = arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
        if (folder / "run.json").is_file():
            return resume(folder, dataset, runtime=Runtime(progress=progress))
        config = make_config(dataset.defaults["train"], {"seed": seed, **settings})
        return train(folder, dataset, config, runtime=Runtime(progress=progress))

    results = {name: [] for name in METHODS}
    for seed in arguments.seeds:
        runs = {m: finished_run(m, seed, method=m) for m in ("joint", "sample", "modality")}
        cost = runs["sample"].cost
        rows_per_epoch = dataset.rows["train"] * len(dataset.modalities)
        epochs = math.ceil((cost["rows_encoded"] + cost["rows_valued"]) / rows_per_epoch)
        runs["joint, rows matched"] = finished_run("joint, rows matched", seed, epochs=epochs)
        for name, run in runs.items():
            results[name].append(evaluate_run(load_run(run.folder), dataset))

    coalitions = list(results["joint"][0]["coalitions"])
    print(f"test accuracy on {dataset.name}, %, {len(arguments.seeds)} seeds")
    print(
        f"| method | {' | '.join(coalitions)} | gain over joint | over joint, rows matched "
        "| mean φ | rows encoded (of these to value) | seconds |"
    )
    print("|---" * (len(coalitions) + 6) + "|")
    for name in METHODS:
        cells = [spread([100 * e["coalitions"][c] for e in results[name]]) for c in coalitions]
        for base in ("joint", "joint, rows matched"):
            gains = [
                100 * (e["accuracy"] - b["accuracy"])
                for e, b in zip(results[name], results[base], strict=True)
            ]
            cells.append("" if name == base else interval(gains))
        cells.append(
            ", ".join(
                f"{m} {statistics.mean(e['contributions'][m] for e in results[name]):.2f}"
                for m in dataset.modalities
            )
        )
        valued = statistics.mean(e["cost"]["rows_valued"] for e in results[name])
        encoded = valued + statistics.mean(e["cost"]["rows_encoded"] for e in results[name])
        seconds = statistics.mean(e["cost"]["seconds"] for e in results[name])
        print(f"| {name} | {' | '.join(cells)} | {encoded:,.0f} ({valued:,.0f}) | {seconds:.0f} |")


def spread(numbers: list[float]) -> str:
    return f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f}"


def interval(gains: list[float]) -> str:
    """Mean of paired differences with its 95 % confidence interval (Student's t)."""
    n = len(gains)
    half = student.ppf(0.975, n - 1) * statistics.stdev(gains) / math.sqrt(n)
    mean = statistics.mean(gains)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


if __name__ == "__main__":
    main()

"""What do six views of the same digits contribute, and what does enhancement change?

For every seed: joint training, and sample- and modality-level enhancement from scratch with as many
epochs, with and without a cap on extra rows. Prints test accuracy of all views and of each alone,
mean contributions, and the mean pairwise interactions (value: probability of the label), as mean ±
95 % confidence interval over seeds. The best epoch is chosen on validation, the test split is read
once. Finished runs are not repeated.

    mmcoop build-dataset features --source mfeat --label last --out data/six-views
    python benchmarks/six_views.py data/six-views --out six-views
"""

import argparse
import statistics
from itertools import combinations
from pathlib import Path

from scipy.stats import t as student

from mmcoop import (
    intershap,
    load_batches,
    load_run,
    make_config,
    open_dataset,
    resume,
    shapley_interactions,
    train,
    valuate,
)
from mmcoop.reporting.progress import TerminalProgress
from mmcoop.runtime import Runtime
from mmcoop.training.run import Run

METHODS = {
    "joint": {"method": "joint"},
    "sample": {"method": "sample"},
    "sample, at most 2 rows": {"method": "sample", "max_extra": 2},
    "modality": {"method": "modality"},
    "uniform": {"method": "uniform"},
}
SETTINGS = {"epochs": 30, "warmup": 5, "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, default=Path("six-views"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.dataset)
    views = tuple(dataset.modalities)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for seed in arguments.seeds:
        for name, settings in METHODS.items():
            folder = arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
            if (folder / "run.json").is_file():
                run = resume(folder, dataset)
            else:
                config = make_config(SETTINGS, {"seed": seed, **settings})
                run = train(folder, dataset, config, runtime=Runtime(progress=TerminalProgress()))
            found[name].append(numbers(load_run(run.folder), dataset, views))
    heading(["training", "all views", *(f"{v} alone" for v in views), "rows encoded"])
    for name, runs in found.items():
        keys = ["accuracy", *(f"accuracy {v}" for v in views)]
        cells = [spread([100 * r[key] for r in runs], ".1f") for key in keys]
        rows = statistics.mean(r["rows"] for r in runs)
        print(f"| {name} | {' | '.join(cells)} | {rows:,.0f} |")
    heading(["mean φ, paper's value", *views])
    for name, runs in found.items():
        print(f"| {name} | {' | '.join(spread([r[f'φ {v}'] for r in runs]) for v in views)} |")
    heading(["mean φ, probability", *views, "InterSHAP"])
    for name, runs in found.items():
        cells = [spread([r[f"p {v}"] for r in runs]) for v in views]
        print(f"| {name} | {' | '.join(cells)} | {spread([r['intershap'] for r in runs])} |")
    for name in ("joint", "sample"):
        heading([f"interactions, {name}", *views[1:]])
        for i, one in enumerate(views[:-1]):
            cells = [
                spread([r[f"{one} × {other}"] for r in found[name]], "+.3f") if j > i else ""
                for j, other in enumerate(views)
                if j > 0
            ]
            print(f"| {one} | {' | '.join(cells)} |")


def numbers(run: Run, dataset, views: tuple[str, ...]) -> dict[str, float]:
    """Everything that is reported of one run, on the test split."""

    def valued(value: str):
        batches = load_batches(dataset.split("test"), modalities=views, batch_size=64)
        return valuate(run.model, batches, modalities=views, value=value)

    paper, probability = valued("paper"), valued("probability")
    right = {
        f"accuracy {v}": float((paper.values[:, 2**k] > 0).double().mean())
        for k, v in enumerate(views)
    }
    pairs = shapley_interactions(probability.values).mean(0)
    cost = run.whole_cost
    return {
        "accuracy": float((paper.values[:, -1] > 0).double().mean()),
        **right,
        **{f"φ {v}": float(paper.contributions[:, k].mean()) for k, v in enumerate(views)},
        **{f"p {v}": float(probability.contributions[:, k].mean()) for k, v in enumerate(views)},
        **{
            f"{views[i]} × {views[j]}": float(pairs[i, j])
            for i, j in combinations(range(len(views)), 2)
        },
        "intershap": intershap(probability.values).score,
        "rows": cost["rows_encoded"] + cost["rows_valued"],
    }


def heading(cells: list[str]) -> None:
    print(f"\n| {' | '.join(cells)} |\n" + "|---" * len(cells) + "|")


def spread(found: list[float], form: str = ".3f") -> str:
    """Mean ± half of the 95 % confidence interval (Student's t)."""
    mean = format(statistics.mean(found), form)
    if len(found) < 2:
        return mean
    half = student.ppf(0.975, len(found) - 1) * statistics.stdev(found) / len(found) ** 0.5
    return f"{mean} ± {format(half, form.lstrip('+'))}"


if __name__ == "__main__":
    main()

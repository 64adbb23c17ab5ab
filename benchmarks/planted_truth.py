"""Does the valuation see which modality is informative? Contributions against planted noise.

In keypad and av-digits every sample has noise of a known amount in each modality. Prints, for
every value function and every group of runs (runs whose names differ only in the seed), Spearman's
rank correlation of the contribution difference (audio - visual) with the difference of the
signal-to-noise ratios over the samples of a split: mean ± standard deviation over the runs.

    python benchmarks/planted_truth.py data/keypad comparison/runs/joint-concat-seed* --split test
"""

import argparse
import re
import statistics
from collections import defaultdict
from pathlib import Path

from scipy.stats import spearmanr

from mmcoop import load_batches, load_run, open_dataset, valuate
from mmcoop.core.valuation.value_functions import CLASSES, PREDICTED, VALUE_FUNCTIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    split = open_dataset(arguments.dataset).split(arguments.split)
    planted = split.table.select(["snr_audio", "snr_visual"]).to_pandas()
    difference = planted["snr_audio"] - planted["snr_visual"]
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    groups = {re.sub(r"-?seed\d+$", "", Path(folder).name): None for folder in arguments.runs}
    values = [name for name, f in VALUE_FUNCTIONS.items() if f.targets in (CLASSES, PREDICTED)]
    for folder in arguments.runs:
        run = load_run(folder)
        for value in values:
            batches = load_batches(split, batch_size=64)
            found_scores = valuate(run.model, batches, modalities=run.modalities, value=value)
            scores = found_scores.to_frame()
            by_model = scores["contribution_audio"] - scores["contribution_visual"]
            group = re.sub(r"-?seed\d+$", "", Path(folder).name)
            found[group, value].append(float(spearmanr(by_model, difference).statistic))
    print(f"{arguments.split} split, {len(split)} samples, {len(arguments.runs)} runs")
    print(f"| value function | {' | '.join(groups)} |")
    print("|---" * (len(groups) + 1) + "|")
    for value in values:
        cells = [spread(found[group, value]) for group in groups]
        print(f"| `{value}` | {' | '.join(cells)} |")


def spread(numbers: list[float]) -> str:
    deviation = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):+.2f}{deviation}"


if __name__ == "__main__":
    main()

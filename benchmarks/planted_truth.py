"""Does the valuation see which modality is informative? Contributions against planted noise.

In keypad and av-digits every sample has noise of a known amount in each modality. Prints, for
every run given, Spearman's rank correlation of the contribution difference (audio - visual) with
the difference of the signal-to-noise ratios, over the samples of a split.

    python benchmarks/planted_truth.py data/keypad comparison/runs/joint-concat-seed* --split test
"""

import argparse
import statistics

from scipy.stats import spearmanr

from mmcoop import load_batches, load_run, open_dataset, valuate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    split = open_dataset(arguments.dataset).split(arguments.split)
    planted = split.table.select(["snr_audio", "snr_visual"]).to_pandas()
    difference = planted["snr_audio"] - planted["snr_visual"]
    found = []
    for folder in arguments.runs:
        run = load_run(folder)
        scores = valuate(
            run.model, load_batches(split, batch_size=64), modalities=run.modalities
        ).to_frame()
        told = scores["contribution_audio"] - scores["contribution_visual"]
        correlation = spearmanr(told, difference)
        found.append(correlation.statistic)
        print(f"{folder}: rho {correlation.statistic:+.3f} (p = {correlation.pvalue:.1g})")
    spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
    mean = statistics.mean(found)
    print(f"{arguments.split} split, {len(split)} samples: mean rho {mean:+.3f}{spread}")


if __name__ == "__main__":
    main()

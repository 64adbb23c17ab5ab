"""Train from Python: a joint run, then sample-level enhancement of it, then both on the test split.

mmcoop build-dataset
python examples/train_from_python.py data/keypad
"""

import argparse
from pathlib import Path

from mmcoop import evaluate_run, make_config, open_dataset, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a dataset folder")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=25)
    arguments = parser.parse_args()

    dataset = open_dataset(arguments.dataset)
    epochs = {"epochs": arguments.epochs}
    joint = train(
        arguments.out / "python-joint",
        dataset,
        make_config(dataset.defaults["train"], epochs),
        overwrite=True,
    )
    enhanced = train(
        arguments.out / "python-sample",
        dataset,
        make_config(dataset.defaults["enhance"], epochs, {"method": "sample", "warmup": 0}),
        parent=joint,
        overwrite=True,
    )
    for run in (joint, enhanced):
        result = evaluate_run(run, dataset)
        shares = ", ".join(f"{name} {100 * a:.1f} %" for name, a in result["coalitions"].items())
        print(f"{run.name}: {shares}")


if __name__ == "__main__":
    main()

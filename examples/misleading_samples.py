"""Value a trained run and list the samples where one modality misleads.

    mmcoop build-dataset && mmcoop train
    python examples/misleading_samples.py runs/joint

A modality misleads where its contribution is below zero: with it, the model is more often wrong.
"""

import argparse

from mmcoop import load_batches, load_run, open_dataset, valuate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--split", default="validation")
    arguments = parser.parse_args()

    run = load_run(arguments.run)
    dataset = open_dataset(run.dataset["path"])
    batches = load_batches(
        dataset.split(arguments.split), modalities=run.modalities, batch_size=64, with_ids=True
    )
    scores = valuate(run.model, batches, modalities=run.modalities).to_frame()

    for modality in run.modalities:
        contribution = f"contribution_{modality}"
        misled = scores[scores[contribution] < 0].sort_values(contribution)
        print(f"{modality} misleads on {len(misled)} of {len(scores)} samples:")
        print(misled[["id", "label", "prediction", contribution]].head(10).to_string(index=False))


if __name__ == "__main__":
    main()

"""`mmcoop valuate`: what every modality contributed to every sample."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report


def valuate(
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run to value. \\[default: the one that finished last]"),
    ] = None,
    data: options.RunData = None,
    split: Annotated[
        str, typer.Option("--split", help="Which samples: train, validation, test or all.")
    ] = "train",
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")] = Path(
        "scores.parquet"
    ),
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Value the modalities of a trained run, sample by sample, into a Parquet file.

    A modality's contribution φ to a sample is its Shapley value over all coalitions of modalities,
    a coalition being worth its size where the model is right from it alone, else 0. The φ of a
    sample sum to the number of modalities where the model is right, else to 0: 1 is a fair share,
    less is low-contributing, below 0 is misleading. One row a sample:
    `id, split, label, prediction, correct, contribution_…, value_…`.

    Examples:

    - `mmcoop valuate --out scores.parquet`

    - `mmcoop valuate --run runs/joint --split test --out test-scores.parquet --json`
    """
    from mmcoop.reporting.tables import accuracy_table, contribution_table
    from mmcoop.training.evaluation import valuate_run
    from mmcoop.workspace import dataset_of, find_run

    valued = find_run(run)
    summary = valuate_run(
        valued,
        dataset_of(valued, data),
        split,
        out,
        overwrite=overwrite,
        device=device,
        workers=workers,
        progress=options.progress(quiet),
    )
    title = f"{valued.folder}, {summary.samples:,} {split} samples → {out}:"
    answer = {
        "run": str(valued.folder),
        "split": split,
        "out": str(out),
        "samples": summary.samples,
        "contributions": summary.mean_contribution,
        "low_contributing": summary.low_contributing,
        "coalitions": summary.accuracy,
    }
    tables: list[Any] = [title, contribution_table(summary), accuracy_table(summary.accuracy)]
    report(answer, tables, as_json=as_json, quiet=quiet)

"""`mmcoop enhance`: fine-tuning a run so that its weak modality is used."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.methods import LEVELS


@options.with_options(
    {
        "max_extra": options.MAX_EXTRA,
        "scores": options.SCORES,
        "set": options.METHOD_OPTIONS,
        **options.SETTINGS,
    }
)
def enhance(
    level: Annotated[
        str,
        typer.Option(
            "--level",
            help="sample: values every sample and adds rows of exactly the modalities that "
            "contribute little to it; modality: adds rows of the modality that is weaker on the "
            "whole, at random.",
        ),
    ] = "sample",
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="The run to start from. \\[default: the one that finished last in runs/, enhanced "
            "ones aside]",
        ),
    ] = None,
    data: options.RunData = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run folder to make. \\[default: runs/RUN-LEVEL]"),
    ] = None,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Fine-tune a trained run so that the modality that contributes little is used.

    Before every epoch the training samples are valued, and the modalities with a low contribution
    are trained once more, alone. With --scores the contributions of that file are used instead, the
    same ones before every epoch. The model is the one of the run; what is not given is as the data
    set advises for enhancing, or else as the run was trained.

    Examples:

    - `mmcoop enhance`

    - `mmcoop enhance --level modality --run runs/joint --epochs 10`

    - `mmcoop enhance --scores scores.parquet --max-extra 3`: by these contributions, and at most
      three extra rows a sample
    """
    from mmcoop.reporting.summaries import enhanced
    from mmcoop.training.config import make_config
    from mmcoop.training.run import load_run
    from mmcoop.training.threads import suitable_threads, use_threads
    from mmcoop.training.train import resume as resume_run
    from mmcoop.training.train import train as train_run
    from mmcoop.workspace import dataset_of, enhanced_folder, find_run

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if level not in LEVELS:
        raise UsageError(f"unknown level {level!r}: choose one of {', '.join(LEVELS)}")
    chosen = options.given(settings)
    scores = chosen.pop("scores", None)
    if pairs := chosen.pop("set", None):
        chosen["options"] = options.parse_pairs("--set", pairs)
    if resume and out and run is None and (begun := load_run(out).parent):
        run = Path(begun["path"])
    parent = find_run(run, enhanced=False)
    if len(parent.modalities) < 2:
        raise UsageError(f"{parent.folder} has one modality alone: enhancing needs two or more")
    dataset = dataset_of(parent, data)
    config = make_config(
        parent.config.to_json(),
        dataset.defaults.get("enhance", {}),
        {"method": level, "options": {}, "warmup": 0},
        chosen,
    )
    folder = out or enhanced_folder(parent, level, config.seed)
    shown = options.progress(quiet)
    where: dict[str, Any] = {
        "device": device,
        "workers": workers,
        "progress": shown,
        "scores": scores,
    }
    kept = load_run(folder).threads if resume else None
    use_threads(threads or kept or suitable_threads(parent.architecture, config.batch_size), shown)
    if resume:
        after = resume_run(folder, dataset, expected={"method": level, **chosen}, **where)
    else:
        after = train_run(folder, dataset, config, parent=parent, overwrite=overwrite, **where)
    answer, tables = enhanced(parent, after)
    report(answer, tables, as_json=as_json, quiet=quiet)

"""`mmcoop train`: a run from scratch."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.methods import METHODS

_METHODS = "; ".join(f"{name}: {entry.summary}" for name, entry in METHODS.items())


@options.with_options(
    {
        "method": options.setting(str, f"{_METHODS}. \\[default: joint]", panel="Method"),
        "modality": options.setting(str, "The modality of --method unimodal.", panel="Method"),
        "warmup": options.WARMUP,
        "max_extra": options.MAX_EXTRA,
        "scores": options.SCORES,
        "set": options.METHOD_OPTIONS,
        **options.MODEL_SETTINGS,
        **options.SETTINGS,
    }
)
def train(
    data: options.Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The run folder. \\[default: runs/METHOD, with -MODALITY, -FUSION and -seedN "
            "where they are not the usual ones]",
        ),
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
    """Train a model on a data set, from scratch, and leave a run folder in `runs/`.

    What is not given is as the data set advises (see `mmcoop info`), or else as in the paper:
    adam, learning rate 5e-5, 60 epochs. The best epoch is chosen on the validation split; the
    test split is not read.

    Examples:

    - `mmcoop train`: joint training on the data set in `data/`

    - `mmcoop train --method sample`: the paper's whole schedule, warm-up and enhancement

    - `mmcoop train --method unimodal --modality audio --seed 1`

    - `mmcoop train --method modality --set rule=tanh --set alpha=2`

    - `mmcoop train --resume`: goes on after Ctrl-C or a crash
    """
    from mmcoop.reporting.summaries import trained
    from mmcoop.training.build import architecture_of
    from mmcoop.training.config import (
        check_warmup,
        fitting_defaults,
        make_config,
        shrunk_warmup,
    )
    from mmcoop.training.run import load_run
    from mmcoop.training.threads import suitable_threads, use_threads
    from mmcoop.training.train import resume as resume_run
    from mmcoop.training.train import train as train_run
    from mmcoop.workspace import dataset_of, find_dataset, run_folder

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    chosen = options.given(settings)
    method_options = options.parse_pairs("--set", chosen.pop("set", []))
    if "modality" in chosen:
        method_options["modality"] = chosen.pop("modality")
    if method_options:
        chosen["options"] = method_options
    shown = options.progress(quiet)
    where: dict[str, Any] = {
        "device": device,
        "workers": workers,
        "progress": shown,
        "scores": chosen.pop("scores", None),
    }
    if resume:
        folder = out or run_folder(make_config(chosen))
        begun = load_run(folder)
        dataset = dataset_of(begun, data)
        use_threads(
            threads
            or begun.threads
            or suitable_threads(begun.architecture, begun.config.batch_size),
            shown,
        )
        run = resume_run(folder, dataset, expected=chosen, **where)
    else:
        dataset = find_dataset(data)
        usual = dataset.defaults.get("train", {})
        config = make_config(fitting_defaults(usual, chosen), chosen)
        if "warmup" in chosen and not METHODS.load(config.method).has_warmup:
            raise UsageError(f"method {config.method!r} has no warm-up: leave --warmup out")
        if "max_extra" in chosen and not METHODS.load(config.method).adds_rows:
            raise UsageError(f"method {config.method!r} adds no rows: leave --max-extra out")
        check_warmup(config)
        if note := shrunk_warmup(config, usual, chosen):
            shown.note(note)
        folder = out or run_folder(config)
        architecture = architecture_of(dataset, config)
        use_threads(threads or suitable_threads(architecture, config.batch_size), shown)
        run = train_run(folder, dataset, config, overwrite=overwrite, **where)
    answer, tables = trained(run)
    report(answer, tables, as_json=as_json, quiet=quiet)

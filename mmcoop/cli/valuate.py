"""`mmcoop valuate`: what every modality contributed to every sample."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.core.choices import ABSENT, CLASS_VALUES, ESTIMATORS, INDICES, INTERACTIONS, listed
from mmcoop.errors import UsageError


def _option(kind: Any, help: str, *names: str, panel: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*names, help=help, rich_help_panel=panel, **more)]


_WORTH, _DRAWN, _MORE, _OWN = (
    "What is valued",
    "Which coalitions",
    "Further numbers",
    "A model of your own",
)

_DRAWS, _BATCH_SIZE = 8, 64

_OPTIONS: dict[str, Any] = {
    "value": (
        _option(str, f"What a coalition is worth. {listed(CLASS_VALUES)}.", panel=_WORTH),
        "paper",
    ),
    "absent": _option(
        str | None,
        f"What stands in for an absent modality's input. {listed(ABSENT)}; the background is the "
        "training split. \\[default: what the model itself does: zero features for a run]",
        panel=_WORTH,
    ),
    "features": _option(
        list[str] | None,
        "MODALITY=SUBMODULE, one for each modality: --absent is for what this submodule puts out, "
        "and not for inputs. Of a run, audio=encoders.audio.",
        "--features",
        panel=_WORTH,
    ),
    "draws": _option(
        int | None,
        f"Samples that --absent marginal averages over. \\[default: {_DRAWS}]",
        min=1,
        panel=_WORTH,
    ),
    "estimator": (_option(str, f"{listed(ESTIMATORS)}.", panel=_DRAWN), "auto"),
    "budget": _option(
        int | None,
        "Coalitions a sample that may be valued, where they are drawn. \\[default: 512, or more if "
        "that is too few]",
        min=1,
        panel=_DRAWN,
    ),
    "tolerance": _option(
        float | None,
        "Stop drawing for a sample when none of its standard errors is above this.",
        panel=_DRAWN,
    ),
    "max_batch": _option(
        int | None,
        "Rows (a sample and a coalition each) the model is asked for at once. \\[default: as "
        "many as fill 4 MiB with inputs or outputs]",
        min=1,
        panel=_DRAWN,
    ),
    "seed": (_option(int, "Decides what is drawn.", panel=_DRAWN), 0),
    "cross_fit": _option(
        int | None,
        "Value each training sample by a model that has not seen it, so that what is merely "
        "remembered does not look well used: trains so many, as the run was trained, each without "
        "its fold, in a folder named as --out with -folds.",
        "--cross-fit",
        min=2,
        panel=_WORTH,
    ),
    "interactions": (
        _option(
            str,
            f"Shapley interaction indices a sample: above 0 synergy, below 0 redundancy. "
            f"{listed(INTERACTIONS)}. With InterSHAP and SHAPE. Best with --value probability: the "
            "paper's value grows with the number of modalities, which is no interaction.",
            panel=_MORE,
        ),
        "none",
    ),
    "index": _option(
        list[str] | None,
        f"Further attributions, may be repeated. {listed(INDICES)}.",
        "--index",
        panel=_MORE,
    ),
    "groups": _option(
        list[str] | None,
        "NAME=MODALITY,MODALITY: a group, may be repeated; the others are groups of their own.",
        "--groups",
        panel=_MORE,
    ),
    "emap": (
        _option(
            int,
            "EMAP's gap, of two modalities: what interactions add to macro-F1, over all pairings "
            "of so many samples of the split, drawn at random; 0: not.",
            min=0,
            panel=_MORE,
        ),
        0,
    ),
    "model": _option(
        str | None,
        "package.module:make_model, a function that gives the model, or the model itself; the "
        "current folder is looked in too. It takes (inputs by modality, present) or, if it has no "
        "`present`, the modalities by name or one dict of them, and gives logits.",
        panel=_OWN,
    ),
    "output": _option(
        str | None,
        "Which item of what the model returns holds its predictions, by name or position; or "
        "logits or probabilities, for what they are. \\[default: recognised where that is certain]",
        "--output",
        panel=_OWN,
    ),
    "weights": _option(
        Path | None,
        "Its weights: a file of safetensors, or of torch.save (.pt, .ckpt).",
        panel=_OWN,
    ),
    "modality": _option(
        list[str] | None,
        "A modality of the data set that it takes, may be repeated. \\[default: all]",
        "--modality",
        panel=_OWN,
    ),
    "batch_size": _option(
        int | None,
        f"Samples that are loaded at once. \\[default: {_BATCH_SIZE}]",
        "--batch-size",
        min=1,
        panel=_OWN,
    ),
}


@options.with_options(_OPTIONS)
def valuate(
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run to value. \\[default: the one that finished last]"),
    ] = None,
    data: options.RunData = None,
    split: Annotated[
        str, typer.Option("--split", help="Which samples: train, validation, test or all.")
    ] = "train",
    out: Annotated[Path, typer.Option("--out", help="The file to write, NAME.parquet.")] = Path(
        "scores.parquet"
    ),
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the file at --out that was cut off.")
    ] = False,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    **more: Any,
) -> None:
    """Value the modalities of a trained run, or of a model of your own, sample by sample, into a
    Parquet file.

    A modality's contribution φ to a sample is its Shapley value over all coalitions of modalities,
    a coalition being worth its size where the model is right from it alone, else 0. The φ of a
    sample sum to the number of modalities where the model is right, else to 0: 1 is a fair share,
    less is low-contributing, below 0 is misleading. With another --value they sum to that of all
    modalities less that of none, and a fair share is the sample's own, the n-th part of it.
    One row per sample: `id, split, group, label, prediction, correct, contribution_…, value_…`.

    Examples:

    - `mmcoop valuate --out scores.parquet`

    - `mmcoop valuate --run runs/joint --split test --out test-scores.parquet --json`

    - `mmcoop valuate --split test --value probability --absent marginal --interactions pairwise`

    - `mmcoop valuate --cross-fit 5 --out held-out.parquet`

    - `mmcoop valuate --model mine:make_model --weights mine.safetensors --data data/keypad`
    """
    from mmcoop.core.valuation.config import ValuationConfig
    from mmcoop.files import sha256
    from mmcoop.reporting.valuation import valuation_report
    from mmcoop.scores.dataset import ValuationRequest, score_model
    from mmcoop.scores.user_model import ImputerSpec, load_own_model, own_errors
    from mmcoop.training.device import pick_device
    from mmcoop.training.evaluation import valuate_run
    from mmcoop.training.threads import suitable_threads, use_threads
    from mmcoop.workspace import dataset_of, find_dataset, find_run

    if more["draws"] and more["absent"] != "marginal":
        raise UsageError("--draws is for --absent marginal: leave it out")
    how = ValuationConfig(
        **{name: more[name] for name in ("value", "estimator", "budget", "tolerance", "max_batch")},
        seed=more["seed"],
    )
    places = options.parse_pairs("--features", more["features"] or [])
    request = ValuationRequest(
        how=how,
        absence=ImputerSpec(more["absent"], places, more["draws"] or _DRAWS, more["seed"]),
        interactions=more["interactions"],
        indices=tuple(more["index"] or ()),
        groups=tuple(more["groups"] or ()),
        emap=more["emap"],
    )
    where: dict[str, Any] = {
        "request": request,
        "overwrite": overwrite,
        "resume": resume,
        "workers": workers,
        "progress": options.progress(quiet),
    }
    held_out: float | None = None
    if more["model"] is None:
        for name in ("weights", "modality", "batch_size", "output"):
            if more[name]:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is for a model of your own: name it with --model")
        valued = find_run(run)
        subject: dict[str, Any] = {"run": str(valued.folder)}
        if more["cross_fit"]:
            subject["cross_fit"] = more["cross_fit"]
        elif split == "train":
            held_out = valued.best_epoch["validation_accuracy"]
        dataset = dataset_of(valued, data)
        work = valued.architecture, valued.config.batch_size
        use_threads(threads or suitable_threads(*work), where["progress"])
        scores = valuate_run(
            valued, dataset, split, out, folds=more["cross_fit"] or 0, device=device, **where
        )
    else:
        if run is not None:
            raise UsageError("--run and --model exclude each other: what is to be valued?")
        if more["cross_fit"]:
            raise UsageError("--cross-fit trains runs anew: it is for a --run, not for a --model")
        dataset = find_dataset(data)
        model = load_own_model(more["model"], more["weights"])
        if threads:
            use_threads(threads, where["progress"])
        if hasattr(model, "to"):
            model = model.to(pick_device(device))
        subject = {"model": more["model"]}
        with own_errors(more["model"], model):
            scores = score_model(
                model,
                dataset,
                split,
                out,
                modalities=tuple(sorted(more["modality"])) if more["modality"] else None,
                name=more["model"],
                weights=sha256(more["weights"]) if more["weights"] else None,
                batch_size=more["batch_size"] or _BATCH_SIZE,
                output=_item(more["output"]),
                **where,
            )
    answer, tables = valuation_report(scores, subject, held_out)
    report(answer, tables, as_json=as_json, quiet=quiet)


def _item(text: str | None) -> str | int | None:
    """The name or position that --output gives."""
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else text

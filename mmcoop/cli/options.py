"""The options that several commands share, spelled the same everywhere."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import UsageError
from mmcoop.progress import SILENT, Progress
from mmcoop.training.config import OPTIMIZERS, SCHEDULES

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Dataset folder. \\[default: the only one in data/]"),
]
RunData = Annotated[
    Path | None,
    typer.Option("--data", help="Dataset folder. \\[default: the one of the run]"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run at --out that was cut off.")
]
Device = Annotated[
    str,
    typer.Option("--device", help="Where to compute: auto (a GPU if there is one), cpu, cuda, …"),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, help="Processes that load batches ahead. 0 loads them in between."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads to compute with. \\[default: 1 for a small model, else one per processor; a "
        "resumed run keeps its number]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors and --json.")]


def setting(kind: type, help: str, *names: str, panel: str = "Training", **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=help, rich_help_panel=panel, **more)]


WARMUP = setting(int, "Ordinary epochs before sample, modality or random sets in.", panel="Method")
MAX_EXTRA = setting(
    int,
    "Rows that sample, modality or random adds to an epoch for one sample at most, those of the "
    "modalities that contribute least first; 0: no limit.",
    "--max-extra",
    panel="Method",
)
SCORES = setting(
    Path,
    "Scores file to enhance by, in place of valuing the samples before each epoch: of any run or "
    "model with the same modalities, by the value function paper, correct or probability.",
    "--scores",
    panel="Method",
)
METHOD_OPTIONS = setting(
    list[str],
    "NAME=VALUE: an option of the method, may be repeated; a NAME that it does not have "
    "shows those it has. Of modality: fraction of the samples that is valued (0.2), rule linear, "
    "tanh or power (linear), alpha (1).",
    "--set",
    panel="Method",
)


def _one_of(names: Sequence[str]) -> str:
    return ", ".join(names)


#: The settings of training that a user may give, by their name in `TrainConfig`. One that is not
#: given is the data set's own or, for `enhance`, that of the run it starts from.
SETTINGS: dict[str, Any] = {
    "epochs": setting(int, "Number of epochs."),
    "batch_size": setting(int, "Rows a step."),
    "optimizer": setting(str, f"One of: {_one_of(OPTIMIZERS)}."),
    "lr": setting(float, "Learning rate."),
    "momentum": setting(float, "Momentum, for sgd."),
    "weight_decay": setting(float, "Weight decay."),
    "schedule": setting(str, f"Course of the learning rate. One of: {_one_of(SCHEDULES)}."),
    "step_epochs": setting(float, "Epochs between two steps of --schedule step."),
    "step_factor": setting(float, "Factor of each step of --schedule step."),
    "lr_warmup": setting(float, "Epochs over which the learning rate rises to --lr."),
    "patience": setting(int, "Stop after so many epochs without a better validation; 0: never."),
    "max_seconds": setting(float, "Stop after the epoch in which so many have passed; 0: never."),
    "seed": setting(int, "Decides the weights, the order of rows and all other chance."),
}

#: The settings that decide the model, for `train` alone.
MODEL_SETTINGS: dict[str, Any] = {
    "fusion": setting(
        str, f"How modalities are joined. One of: {_one_of(list(FUSIONS))}.", panel="Model"
    ),
    "encoder": setting(
        list[str],
        f"MODALITY=ENCODER, may be repeated. Encoders: {_one_of(list(ENCODERS))}.",
        "--encoder",
        panel="Model",
    ),
}


def with_options(parameters: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """Let a command take further options: `{name: annotation or (annotation, default)}`.

    They reach the function as keyword arguments; None is the default of those without one.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        more = []
        for name, what in parameters.items():
            annotation, default = what if isinstance(what, tuple) else (what, None)
            more.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
            )
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        # the options of the command itself come last: they say where, the others say what
        function.__signature__ = inspect.Signature([*more, *keyword])  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in [*more, *keyword]}
        return function

    return decorate


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings the user gave, as `TrainConfig` has them."""
    result = {name: setting for name, setting in settings.items() if setting is not None}
    if pairs := result.pop("encoder", None):
        result["encoders"] = parse_pairs("--encoder", pairs)
    return result


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """`["a=1", "b=2"]` → `{"a": "1", "b": "2"}`; `UsageError` for anything else."""
    result = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name and sign and value):
            raise UsageError(f"{option} {pair!r}: write it as NAME=VALUE")
        result[name] = value
    return result


def progress(quiet: bool) -> Progress:
    """Progress on standard error, or none."""
    if quiet:
        return SILENT
    from mmcoop.reporting.progress import TerminalProgress

    return TerminalProgress()

"""The options that several commands share, spelled the same everywhere.

A command is a dataclass: its fields are its options, and `run` does what the command is for.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from mmcoop.errors import UsageError, setting
from mmcoop.progress import SILENT, Progress
from mmcoop.runtime import Runtime
from mmcoop.training.config import TrainConfig

#: What help shows in place of a value of each type.
METAVARS = {int: "N", float: "NUMBER", str: "NAME", Path: "PATH", tuple[float, float]: "LOW HIGH"}


def option(help: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """An option of a command, for `Annotated`."""
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


def options_of(
    settings: type,
    names: Sequence[str] | None = None,
    *,
    panel: str | None = None,
    unset: bool = False,
) -> Any:
    """A dataclass with an option for each setting, for a command to inherit from.

    Args:
        settings: A dataclass whose fields are declared by `mmcoop.settings.option`.
        names: Which of its fields, in this order; None for all, its own before inherited ones.
        panel: The panel of the help they are shown in.
        unset: Whether options are None unless given, since the defaults depend on the dataset.

    Returns:
        The dataclass, with keyword-only fields.
    """
    hints = get_type_hints(settings)
    declared = {each.name: each for each in fields(settings)}
    made = []
    own = settings.__annotations__
    for name in names or sorted(declared, key=lambda name: name not in own):
        meta, kind = declared[name].metadata, hints[name]
        flags = [meta["flag"]] if meta["flag"] else []
        metavar = meta["metavar"] or METAVARS.get(_plain(kind))
        default = None if unset else declared[name].default
        shown = option(_sentence(meta["help"]), *flags, panel=panel, metavar=metavar)
        annotated: Any = Annotated[kind | None if unset else kind, shown]
        made.append((name, annotated) if default is MISSING else (name, annotated, default))
    return make_dataclass(f"{settings.__name__}Options", made, kw_only=True)


def _sentence(help: str) -> str:
    return help if help.endswith("]") else f"{help}."


def _plain(kind: Any) -> Any:
    """A type without None."""
    parts = [part for part in getattr(kind, "__args__", ()) if part is not type(None)]
    return parts[0] if parts and type(None) in kind.__args__ else kind


Data = Annotated[
    Path | None,
    option("Dataset folder. \\[default: the only one in data/]", metavar="FOLDER"),
]
RunData = Annotated[Path | None, option("Dataset folder. \\[default: the run's]", metavar="FOLDER")]
OneRun = Annotated[
    Path | None,
    option("Run folder. \\[default: the last one finished in runs/]", metavar="FOLDER"),
]

_OUTPUT, _COMPUTING = "Output", "Computing"


@dataclass(kw_only=True)
class Printing:
    """What is printed."""

    as_json: Annotated[bool, option("Print the result as JSON.", "--json", panel=_OUTPUT)] = False
    quiet: Annotated[bool, option("Print only errors, and --json.", "--quiet", panel=_OUTPUT)] = (
        False
    )

    @property
    def progress(self) -> Progress:
        """Progress on standard error, or none."""
        if self.quiet:
            return SILENT
        from mmcoop.reporting.progress import TerminalProgress

        return TerminalProgress()


@dataclass(kw_only=True)
class Writing:
    """What happens to files that are there already."""

    overwrite: Annotated[
        bool, option("Replace what is at --out.", "--overwrite", panel=_OUTPUT)
    ] = False


@dataclass(kw_only=True)
class Resuming(Writing):
    """Work that can be interrupted."""

    resume: Annotated[
        bool, option("Resume the interrupted work at --out.", "--resume", panel=_OUTPUT)
    ] = False

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")


@dataclass(kw_only=True)
class Logging:
    """Where the metrics of training go, beside the run folder and the terminal."""

    tensorboard: Annotated[
        bool, option("Write TensorBoard event files too.", "--tensorboard", panel=_OUTPUT)
    ] = False


@dataclass(kw_only=True)
class Computing(Printing):
    """Where and with how many processors."""

    device: Annotated[
        str,
        option(
            "auto (default), cpu, cuda, …", panel=_COMPUTING, metavar="NAME", show_default=False
        ),
    ] = "auto"
    workers: Annotated[
        int,
        option(
            "Processes that load batches; 0 (default): none.",
            min=0,
            panel=_COMPUTING,
            metavar="N",
            show_default=False,
        ),
    ] = 0
    threads: Annotated[
        int | None,
        option(
            "Threads. \\[default: 1 for a small model, else all]",
            min=1,
            panel=_COMPUTING,
            metavar="N",
        ),
    ] = None

    @property
    def runtime(self) -> Runtime:
        """Device, loader processes, and progress on standard error."""
        return Runtime(self.device, self.workers, self.progress)


#: The settings of training that `train`, `enhance` and `compare` share.
TRAINING = [
    *("batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule", "step_epochs"),
    *("step_factor", "lr_warmup", "patience", "max_seconds"),
]
TrainingOptions: Any = options_of(TrainConfig, TRAINING, panel="Training", unset=True)

Encoder = Annotated[
    list[str] | None,
    option(
        "Encoder of a modality; see --list-encoders. \\[repeatable]", metavar="MODALITY=ENCODER"
    ),
]
ScoresFile = Annotated[
    Path | None,
    option("Enhance by these scores; no valuation.", panel="Method", metavar="FILE"),
]
MethodOptions = Annotated[
    list[str] | None,
    option("Option of the method. \\[repeatable]", "--set", panel="Method", metavar="NAME=VALUE"),
]


def given(command: Any, names: Sequence[str]) -> dict[str, Any]:
    """The settings among `names` that were given to a command, as `TrainConfig` has them."""
    found = {name: getattr(command, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def parse_pairs(name: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """`["a=1", "b=2"]` → `{"a": "1", "b": "2"}`; `UsageError` for anything else."""
    result = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not (key and sign and value):
            raise UsageError(f"{setting(name)} {pair!r}: write it as NAME=VALUE")
        result[key] = value
    return result

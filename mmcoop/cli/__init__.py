"""The command line: one file per subcommand, which parses, calls the library and prints."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmcoop.cli import build_dataset
from mmcoop.cli.compare import Compare
from mmcoop.cli.enhance import Enhance
from mmcoop.cli.evaluate import Evaluate
from mmcoop.cli.info import Info
from mmcoop.cli.train import Train
from mmcoop.cli.valuate import Valuate
from mmcoop.errors import Interrupted, MmcoopError, said
from mmcoop.names import is_utf8
from mmcoop.printable import printable
from mmcoop.stopping import TERMINATED, stop_on_sigterm


class StoryGroup(TyperGroup):
    """The commands in the order they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["build-dataset", "train", "valuate", "enhance", "evaluate", "compare", "info"]


app = typer.Typer(
    name="mmcoop",
    cls=StoryGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _run(command: Any, **_: Any) -> None:
    """Run a command, once its options are known: a command is a dataclass of them."""
    command.run()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mmcoop {version('mmcoop')}")
        raise typer.Exit


@app.callback(result_callback=_run)
def mmcoop(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Measure how much each modality of a multimodal model contributes to every sample, and make
    the weak one count.

    Without options, the commands work in the current folder, one after the other:

    1. `mmcoop build-dataset` builds a dataset in `data/`

    2. `mmcoop train` trains a model on it, in `runs/`

    3. `mmcoop valuate --out scores.parquet` values every sample

    4. `mmcoop enhance` fine-tunes the model where a modality contributes little

    5. `mmcoop evaluate` prints test accuracy, with modalities missing too

    6. `mmcoop compare` compares methods over several seeds
    """


app.add_typer(build_dataset.app, name="build-dataset")
app.command("train")(Train)
app.command("valuate")(Valuate)
app.command("enhance")(Enhance)
app.command("evaluate")(Evaluate)
app.command("compare")(Compare)
app.command("info")(Info)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 for success, 2 for wrong usage, 1 for other bad input, 130
    after Ctrl-C and 143 after SIGTERM.
    """
    with stop_on_sigterm() as was_terminated:
        code = _exit_code(None if arguments is None else list(arguments))
    if was_terminated() and code == Interrupted.exit_code:
        code = TERMINATED
    sys.exit(code)


def _exit_code(arguments: list[str] | None) -> int | str | None:
    try:
        app(arguments, prog_name="mmcoop")
    except MmcoopError as error:
        print(f"Error: {error.on_command_line()}", file=sys.stderr)
        return error.exit_code
    except UnicodeEncodeError as error:
        # of the path of a file to read: Python reads some that Arrow and others cannot
        if is_utf8(error.object):
            raise
        print(printable(f"Error: {error.object} is not UTF-8: rename it"), file=sys.stderr)
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(printable(f"Error: {said(error)}{where}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except SystemExit as end:
        if end.code == Interrupted.exit_code:
            print("Error: stopped", file=sys.stderr)
        return end.code
    return 0

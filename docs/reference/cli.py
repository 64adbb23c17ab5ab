"""Write `cli.md`, the reference of the command line, from the commands themselves.

python docs/reference/cli.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mmcoop.cli import app

INTRODUCTION = """\
# Command line

Every command and option, as `mmcoop COMMAND --help` shows them. `make docs-cli` writes this page.
"""


def page() -> str:
    """The page, as Markdown."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="mmcoop")
    return "\n".join([INTRODUCTION, *_command(root, context)])


def _command(command: Any, context: Any) -> Iterator[str]:
    """The lines of a command, then those of its subcommands."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from [f"## {context.command_path}", "", f"`{usage}`", ""]
    yield from [_text(command.help or "").strip(), ""]
    for panel, rows in _panels(command, context).items():
        yield from [f"**{panel}**", "", "| option | meaning |", "|---|---|", *rows, ""]
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            yield from _command(subcommand, typer.Context(subcommand, context, info_name=name))


def _panels(command: Any, context: Any) -> dict[str, list[str]]:
    """Table rows of the options, by the panel of the help they are in."""
    panels: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        panel = getattr(parameter, "rich_help_panel", None) or "Options"
        record = parameter.get_help_record(context)  # none of a hidden option
        if record and parameter.name != "help":
            name, text = record
            row = f"| `{_cell(name)}` | {_cell(_text(text))} |"
            panels.setdefault(panel, []).append(row)
    return panels


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(text: str) -> str:
    """Help as Markdown: what is between < and > is no HTML, unless in code."""
    code_and_prose = text.split("`")
    code_and_prose[::2] = [prose.replace("<", "&lt;") for prose in code_and_prose[::2]]
    return "`".join(code_and_prose)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())

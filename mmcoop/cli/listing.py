"""Lists of what can be chosen by name, one line each."""

from collections.abc import Callable

import typer

from mmcoop.cli.output import report
from mmcoop.registry import Registry


def list_and_exit(registry: Registry) -> Callable[[bool], None]:
    """The callback of an option that prints a registry and ends the command."""

    def print_list(wanted: bool) -> None:
        if wanted:
            from rich.table import Table

            table = Table(show_header=False, box=None, pad_edge=False)
            for name, entry in registry.items():
                source = f" ({entry.source})" if entry.source else ""
                table.add_row(name, f"{entry.summary}{source}")
            report(None, [table], as_json=False, quiet=False)
            raise typer.Exit

    return print_list

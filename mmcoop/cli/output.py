"""What the commands print on standard output."""

from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from mmcoop.printable import json_text
from mmcoop.reporting.fitting import FittedTable
from mmcoop.reporting.terminal import Terminal


def report(answer: Any, tables: Iterable[RenderableType], *, as_json: bool, quiet: bool) -> None:
    """Print `answer` as JSON if that was asked for, the tables unless all should be quiet."""
    if as_json:
        print(json_text(answer))
    elif not quiet:
        terminal = Terminal()
        for table in tables:
            if isinstance(table, Table) and len(table.columns) > 2:
                table = FittedTable(table)
            terminal.print(table, soft_wrap=isinstance(table, str))

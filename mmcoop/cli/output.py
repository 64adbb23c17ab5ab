"""What the commands print on standard output."""

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType


def report(answer: Any, tables: Iterable[RenderableType], *, as_json: bool, quiet: bool) -> None:
    """Print `answer` as JSON if that was asked for, the tables unless all should be quiet."""
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    elif not quiet:
        console = Console(highlight=False)
        for table in tables:
            console.print(table, soft_wrap=isinstance(table, str), markup=False)

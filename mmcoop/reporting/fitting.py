"""A table that is too wide for the terminal, as several narrower ones: no heading is cut off."""

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

# What a column takes beside its text, and what a table takes beside its columns.
_AROUND, _EDGE = 3, 1


@dataclass(frozen=True)
class FittedTable:
    """`table` as it is where the console is wide enough, else as many tables one below the other as
    it takes, each with the first column, which names the rows.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        label, *others = self.table.columns
        natural = _needed(label, whole=True) + _AROUND + _EDGE
        left = options.max_width - min(natural, max(options.max_width // 3, 16))
        parts: list[list[Column]] = [[]]
        room = left
        for column in others:
            needed = _needed(column) + _AROUND
            if parts[-1] and needed > room:
                parts.append([])
                room = left
            parts[-1].append(column)
            room -= needed
        for part in parts:
            yield self._with([label, *part])

    def _with(self, columns: list[Column]) -> Table:
        table = Table(show_header=self.table.show_header)
        for k, column in enumerate(columns):
            table.add_column(
                column.header,
                style=column.style,
                justify=column.justify,
                overflow="fold",
                # the first one gives way, and headings at their spaces
                min_width=_needed(column) if k else None,
            )
        cells = [list(column.cells) for column in columns]
        for row, texts in zip(self.table.rows, zip(*cells, strict=True), strict=True):
            table.add_row(*texts, end_section=row.end_section)
        return table


def _needed(column: Column, whole: bool = False) -> int:
    """Its width with no cell broken, and the heading at spaces alone (not at all if `whole`)."""
    heading = str(column.header)
    words = [heading] if whole else heading.split()
    lines = [line for cell in column.cells for line in str(cell).splitlines()]
    return max(map(cell_len, [*words, *lines]), default=1)

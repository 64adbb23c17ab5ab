"""Tables on a narrow terminal: every heading and every cell is there to be read."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from mmcoop.reporting.fitting import FittedTable


def drawn(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(FittedTable(table), markup=False)
    return file.getvalue()


def wide(columns: int, label: str = "a rather long name of a row {}") -> Table:
    table = Table("class, accuracy in %")
    for k in range(columns):
        table.add_column(f"sensor{k} alone", justify="right")
    for row in range(3):
        cells = [f"{row}{k}.5 ± {k}.0" for k in range(columns)]
        table.add_row(label.format(row), *cells, end_section=row == 1)
    return table


@pytest.mark.parametrize("columns", [2, 7, 31])
@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    "label", ["row {}", "a rather long name of a row {}", "no-space-" * 9 + "{}"]
)
def test_nothing_is_cut_off(columns, width, label):
    text = drawn(wide(columns, label), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for k in range(columns):
        assert len(re.findall(rf"sensor{k}(?!\d)", text)) == 1
        for row in range(3):
            assert f"{row}{k}.5 ± {k}.0" in text


def test_each_part_names_the_rows_and_one_that_fits_is_left_whole():
    parts = drawn(wide(12, "row {}"), 80).count("row 0")
    assert parts > 1
    assert drawn(wide(12, "row {}"), 250).count("row 0") == 1
    assert drawn(wide(2, "row {}"), 80).count("row 0") == 1

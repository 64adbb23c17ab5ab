"""What files and names say reaches the terminal without acting on it."""

import json
import sys
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcoop.datasets.reader import REJECTS
from mmcoop.datasets.rejects import Unusable
from mmcoop.errors import DataError
from mmcoop.printable import LONGEST, json_text, printable

any_text = st.text(st.characters(exclude_categories=()), max_size=400)
hostile = "\x1b]0;owned\x07 [red]\x9b2J\u202e\udcff:warning:"


@given(any_text)
def test_nothing_that_a_terminal_acts_on_is_left(text):
    shown = printable(text)
    shown.encode()  # no lone surrogate
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert not any(unicodedata.bidirectional(c) in BIDI for c in shown)
    assert printable(shown) == shown


BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def test_what_is_ordinary_stays():
    for text in ("naïve Größe φ < 1 → 3 %", "می‌خواهم", "한국어", "a\u00a0b", r"C:\new\x1b", "👩‍🚀"):
        assert printable(text) == text


def test_escapes_name_the_character():
    assert printable("\x1b[2J") == r"\x1b[2J"
    assert printable("a\nb\tc\r") == r"a\nb\tc\r"
    assert printable("a\nb\r", lines=True) == "a\nb\\r"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\xe9"
    assert printable("\u202egpj.exe") == r"\u202egpj.exe"


@given(st.integers(0, 10**5), st.sampled_from("a\x00\u202e"), st.integers(100, LONGEST))
def test_long_text_loses_its_middle(length, letter, most):
    shown = printable(f"begin{letter * length}end", most=most)
    assert len(shown) <= most
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert printable(shown, most=most) == shown


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | any_text
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    )
)
def test_json_means_the_same_and_is_safe_to_print(content):
    text = json_text(content)
    assert json.loads(text) == content
    assert printable(text, lines=True, most=sys.maxsize) == text


def test_json_has_no_nan():
    assert json.loads(json_text({"a": [float("nan"), float("-inf"), (1.5,)]})) == {
        "a": [None, None, [1.5]]
    }


@pytest.mark.parametrize("kind", [DataError, lambda text: Unusable("unreadable", text)])
def test_every_error_is_safe_to_print(kind):
    shown = str(kind(f"cannot read {hostile * 1000}: give another one"))
    assert printable(shown) == shown
    assert shown.endswith(": give another one")


def test_tables_of_the_command_line_show_a_file_as_it_is(mmcoop, tmp_path):
    path = tmp_path / "rejects.parquet"
    row = {"id": f"{hostile[:-9]}:warning:", "reason": "missing", "detail": "[b]x[/b] [/]"}
    row = {name: cell.encode("utf-8", "ignore").decode() for name, cell in row.items()}
    pq.write_table(pa.Table.from_pylist([row], schema=REJECTS), path)
    shown = mmcoop(tmp_path, "info", "rejects.parquet")
    assert shown.returncode == 0, shown.stderr
    for text in (r"\x1b]0;owned\x07", "[red]", r"\x9b2J\u202e", ":warning:", "[b]x[/b] [/]"):
        assert text in shown.stdout.replace("\n", "")
    assert printable(shown.stdout, lines=True, most=10**6) == shown.stdout
    (answer,) = json.loads(mmcoop(tmp_path, "info", "rejects.parquet", "--json").stdout)
    assert answer == row


def test_progress_and_errors_of_the_command_line_are_safe(mmcoop, tmp_path):
    said = mmcoop(tmp_path, "info", "\x1b[2J[red]" * 2000)
    assert said.returncode == 1
    assert printable(said.stderr, lines=True, most=10**4) == said.stderr
    assert len(said.stderr) < LONGEST + 10

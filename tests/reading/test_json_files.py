"""JSON files: read as `json` reads them; what is not expected is refused in one line."""

import json
from typing import NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import with_config
from typing_extensions import TypedDict

from mmcoop.errors import DataError
from mmcoop.reading.json_files import (
    AS_WRITTEN,
    DEEPEST,
    Count,
    PathText,
    Sha256,
    checked,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    read_versioned,
)


@with_config(AS_WRITTEN)
class Content(TypedDict):
    name: str
    rows: Count
    path: NotRequired[PathText]
    sha256: NotRequired[Sha256]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_any_json_is_read_as_the_standard_library_reads_it(value):
    text = json.dumps(value)
    assert parse_json(text, "here") == json.loads(text) == value


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_is_not_described_and_the_types_of_numbers_are_kept(tmp_path, mark):
    content = {"name": "ä", "rows": 3, "later": [1, 2.0, {"a": None}]}
    path = tmp_path / "a.json"
    path.write_bytes(mark + json.dumps(content).encode())
    found = read_json(path, Content)
    assert found == content
    assert [type(number) for number in found["later"][:2]] == [int, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "3"}, "rows: Input should be a valid integer"),
        ({"rows": 3.0}, "rows: Input should be a valid integer"),
        ({"rows": True}, "rows: Input should be a valid integer"),
        ({"rows": -1}, "rows: Input should be greater than or equal to 0"),
        ({"rows": 2**53 + 1}, "rows: Input should be less than or equal to 9007199254740992"),
        ({"name": None}, "name: Input should be a valid string"),
        ({"path": "a\0b"}, "path: Value error, a path cannot have a null character"),
        ({"path": "a" * 256}, "path: Value error, a path cannot be this long"),
        ({"path": "a/" * 2049}, "path: Value error, a path cannot be this long"),
        ({"sha256": "0" * 63}, "sha256: String should match pattern"),
        ({"sha256": "\ud800" * 64}, "sha256: Input should be a valid string"),
    ],
)
def test_content_of_another_kind_is_refused_with_its_place(change, message):
    with pytest.raises(DataError) as error:
        checked({"name": "a", "rows": 1, **change}, Content, "where")
    assert str(error.value).startswith(f"where is not what mmcoop writes: {message}")


def test_a_missing_entry_is_named():
    with pytest.raises(DataError, match="^where is not what mmcoop writes: rows: Field required$"):
        checked({"name": "a"}, Content, "where")


@pytest.mark.parametrize("open_, close", [("[", "]"), ('{"a":', "}")])
def test_nesting_has_a_limit(open_, close):
    def nested(levels: int) -> str:
        return open_ * levels + "1" + close * levels

    assert parse_json(nested(DEEPEST - 1), "here") == json.loads(nested(DEEPEST - 1))
    for levels in (DEEPEST, 100_000):
        with pytest.raises(DataError, match="^here cannot be read: "):
            parse_json(nested(levels), "here")


@pytest.mark.parametrize("text", [b"", b"{", b"nothing", b'{"a": 1,}', b"\xff\xfe{}"])
def test_what_is_no_json_is_refused_with_the_file(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=rf"^{path} cannot be read: "):
        read_json(path, Content)


@pytest.mark.parametrize("version", [None, 1, 3, "2", 2.0, True])
def test_another_version_is_refused_before_the_rest_is_looked_at(tmp_path, version):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"format_version": version}))
    message = f"^{path} has format version {version}: this mmcoop reads 2$"
    with pytest.raises(DataError, match=message):
        read_versioned(path, Content, 2)


def test_this_version_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"format_version": 2, "name": "a", "rows": 0}))
    assert read_versioned(path, Content, 2) == {"format_version": 2, "name": "a", "rows": 0}


def test_a_file_may_have_the_most_bytes_and_no_more(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abcd")
    assert read_bytes(path, 4) == b"abcd"
    assert read_text(path, largest=4) == "abcd"
    with pytest.raises(DataError, match=rf"^{path} is larger than 0 MiB, the most for its kind$"):
        read_bytes(path, 3)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=rf"^{tmp_path / 'a'} is missing$"):
        read_json(tmp_path / "a", Content)
    with pytest.raises(DataError, match=rf"^{tmp_path} cannot be read: Is a directory$"):
        read_json(tmp_path, Content)

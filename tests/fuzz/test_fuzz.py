"""Damaged files of every kind are refused in words: seconds of what `make fuzz` does."""

import json
from pathlib import Path

import pytest
from fuzz_engine import CORPUS, fuzz, replay
from fuzz_fixture import build
from fuzz_targets import TARGETS, DatasetJson, RunJson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcoop.errors import DataError
from mmcoop.printable import printable


@pytest.fixture(scope="module")
def fixture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    build(folder)
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused_and_nothing_else(name, fixture, tmp_path):
    executions = max(20, round(60 * TARGETS[name].share))
    result = fuzz(name, executions, seed=1, fixture=fixture, keep=tmp_path)
    assert result.findings == []
    assert result.executions == executions
    assert result.refused or TARGETS[name].recovers


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*") if path.is_dir()))
def test_what_failed_once_is_read_or_refused(name, fixture):
    inputs = sorted((CORPUS / name).iterdir())
    result = replay(name, inputs, fixture)
    assert result.findings == []
    assert result.executions == len(inputs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", [DatasetJson, RunJson])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_place_of_a_document_is_read_or_refused(
    kind, fixture, tmp_path_factory, data
):
    target = kind(fixture, tmp_path_factory.mktemp("work") / "work")
    document = json.loads(target.seeds[0])
    at = document
    while isinstance(at, dict) and at:
        holder, key = at, data.draw(st.sampled_from(sorted(at)))
        at = at[key]
        if data.draw(st.booleans()):
            break
    holder[key] = data.draw(json_values)
    try:
        target.read(json.dumps(document).encode())
    except DataError as error:
        assert printable(str(error)) == str(error)

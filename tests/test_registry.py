"""Tables of the things a user picks by name."""

import sys

import pytest

from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import MmcoopError, UsageError
from mmcoop.registry import Entry, Registry

PARTS = Registry(
    "part",
    {
        "root": Entry("math", "sqrt", "a square root"),
        "never": Entry("a_module_that_does_not_exist", "thing", "cannot be imported"),
    },
)


def test_a_registry_is_a_table_from_names_to_entries_in_the_order_written():
    assert list(PARTS) == ["root", "never"]
    assert len(PARTS) == 2
    assert "root" in PARTS
    assert "sqrt" not in PARTS
    assert PARTS["root"] == Entry("math", "sqrt", "a square root")
    assert {name: entry.summary for name, entry in PARTS.items()} == {
        "root": "a square root",
        "never": "cannot be imported",
    }


def test_loading_returns_the_thing_itself():
    import math

    assert PARTS.load("root") is math.sqrt


def test_a_module_is_imported_only_when_its_thing_is_loaded():
    assert PARTS.check("never") == "never"
    assert "a_module_that_does_not_exist" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="a_module_that_does_not_exist"):
        PARTS.load("never")


@pytest.mark.parametrize("ask", [PARTS.check, PARTS.load])
@pytest.mark.parametrize("name", ["Root", "", "sqrt"])
def test_an_unknown_name_is_refused_with_the_legal_names(ask, name):
    with pytest.raises(UsageError, match=f"^unknown part '{name}': choose one of root, never$"):
        ask(name)


def test_a_registry_keeps_its_own_copy_of_the_entries():
    entries = {"root": Entry("math", "sqrt", "a square root")}
    table = Registry("part", entries)
    entries["floor"] = Entry("math", "floor", "round down")
    assert list(table) == ["root"]


@pytest.mark.parametrize("table", [ENCODERS, FUSIONS], ids=["encoders", "fusions"])
def test_every_registered_thing_of_the_core_can_be_loaded_and_says_what_it_is(table):
    for name, entry in table.items():
        assert table.load(name).__name__ == entry.attribute
        assert entry.summary


def test_an_unknown_name_is_a_usage_error_of_exit_code_2():
    with pytest.raises(MmcoopError) as error:
        PARTS.check("leaf")
    assert error.value.exit_code == 2

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcoop.names import is_utf8, normalised

CAFE = "caf\u00e9"


@pytest.mark.parametrize(
    "spelling",
    [
        CAFE,
        "cafe\u0301",
        f"  {CAFE}\t",
        f"\u00a0{CAFE}\u3000",
        f"\ufeff{CAFE}",
        f"\u200b {CAFE}\u200b\n",
        f"{CAFE}\u2060",
    ],
)
def test_spellings_that_look_the_same_are_one_name(spelling):
    assert normalised(spelling) == CAFE


@pytest.mark.parametrize(
    "name",
    [
        "Cafe",
        "caf e",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "a\udcffb",
        "",
        "\ufb01n",
    ],
)
def test_a_name_in_its_one_spelling_stays_as_it_is(name):
    assert normalised(name) == name


@given(st.text())
def test_a_normalised_name_is_normal_and_has_nothing_to_strip(text):
    name = normalised(text)
    assert normalised(name) == name == name.strip()
    assert unicodedata.is_normalized("NFC", name)


def test_names_without_letters_are_empty():
    assert normalised(" \ufeff\u200b \u2060") == ""


def test_names_that_are_not_utf_8_are_recognised():
    assert is_utf8(CAFE + "\u0000\U0001f600")
    assert not is_utf8(b"caf\xe9".decode("utf-8", "surrogateescape"))

"""Coalitions: enumeration, order and names."""

from itertools import combinations

import pytest
import torch

from mmcoop.core.coalitions import (
    MAX_EXACT_MODALITIES,
    check_modalities,
    coalition_matrix,
    coalition_names,
    telling_coalitions,
)
from mmcoop.errors import UsageError


def test_two_modalities_have_four_coalitions_from_empty_to_grand():
    table = coalition_matrix(2)
    assert table.dtype == torch.bool
    assert table.tolist() == [[False, False], [True, False], [False, True], [True, True]]


def test_row_s_holds_the_set_bits_of_s_with_bit_0_the_first_modality():
    by_hand = {
        0b000: set(),
        0b001: {0},
        0b010: {1},
        0b011: {0, 1},
        0b100: {2},
        0b101: {0, 2},
        0b110: {1, 2},
        0b111: {0, 1, 2},
    }
    table = coalition_matrix(3)
    assert {row: set(table[row].nonzero().flatten().tolist()) for row in range(8)} == by_hand


@pytest.mark.parametrize("n", range(1, MAX_EXACT_MODALITIES + 1))
def test_every_subset_is_there_once(n):
    table = coalition_matrix(n)
    assert table.shape == (2**n, n)
    found = {frozenset(m for m, member in enumerate(row) if member) for row in table.tolist()}
    subsets = {frozenset(s) for size in range(n + 1) for s in combinations(range(n), size)}
    assert found == subsets
    assert not table[0].any()
    assert table[-1].all()


@pytest.mark.parametrize("n", [-1, 0, 13])
def test_coalitions_of_too_few_or_too_many_modalities_are_refused(n):
    message = f"^{n} modalities: all coalitions are enumerated for 1 to 12 modalities only$"
    with pytest.raises(UsageError, match=message):
        coalition_matrix(n)


def test_names_of_coalitions_come_in_table_order():
    assert coalition_names(["audio", "visual"]) == ["", "audio", "visual", "audio+visual"]
    assert coalition_names(("c", "a", "b")) == ["", "c", "a", "c+a", "b", "c+b", "a+b", "c+a+b"]


def test_coalitions_of_refused_modality_names_have_no_names_either():
    with pytest.raises(UsageError, match="modality names repeat: audio, audio"):
        coalition_names(["audio", "audio"])


@pytest.mark.parametrize(
    "names", [["audio"], ["visual", "audio"], ["rgb", "flow", "mic-2"], ["2d", "A_b-9"]]
)
def test_good_modality_names_are_kept_in_the_order_given(names):
    assert check_modalities(names) == tuple(names)


def test_no_modality_at_all_is_refused():
    with pytest.raises(UsageError, match="^no modalities given: at least one is needed$"):
        check_modalities([])


def test_a_repeated_modality_name_is_refused():
    with pytest.raises(UsageError, match="^modality names repeat: audio, visual, audio$"):
        check_modalities(["audio", "visual", "audio"])


@pytest.mark.parametrize("name", ["", "audio+visual", "a b", "a.b", "../a", "_a", "-a", "é", "a\n"])
def test_a_name_with_other_characters_cannot_name_a_modality(name):
    with pytest.raises(
        UsageError, match=r"cannot name a modality: use letters, digits, '_' and '-'$"
    ) as error:
        check_modalities(["audio", name])
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "a", "c"]])
def test_of_up_to_three_modalities_all_coalitions_are_telling(names):
    every = coalition_names(names)[1:]
    assert telling_coalitions(every) == every


def test_of_more_modalities_the_telling_ones_are_each_alone_all_but_one_and_all():
    assert telling_coalitions(coalition_names(list("abcd"))[1:]) == [
        *["a", "b", "c", "d"],
        *["a+b+c", "a+b+d", "a+c+d", "b+c+d"],
        "a+b+c+d",
    ]

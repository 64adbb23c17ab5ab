"""Coalitions: enumeration, order and names."""

from itertools import combinations

import pytest
import torch

from mmcoop.core.games.coalitions import (
    MAX_EXACT_MODALITIES,
    coalition_matrix,
    coalition_names,
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

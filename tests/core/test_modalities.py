"""Names of modalities, and which coalitions of them are shown."""

import subprocess
import sys

import pytest
from torch import nn

from mmcoop.core.games.coalitions import coalition_names
from mmcoop.core.modalities import check_modalities, display_coalitions
from mmcoop.errors import UsageError


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


def test_what_is_an_attribute_of_a_module_dict_cannot_name_a_modality():
    # in a process of its own: what tests import may give all modules further attributes
    names = "from torch import nn; print(*dir(nn.ModuleDict()))"
    listed = subprocess.run([sys.executable, "-c", names], stdout=subprocess.PIPE, text=True)
    taken = [name for name in listed.stdout.split() if not name.startswith("_")]
    assert "values" in taken
    for name in taken:
        with pytest.raises(UsageError, match="torch's modules use it themselves$"):
            check_modalities([name])
    nn.ModuleDict(dict.fromkeys(check_modalities(["value", "audio", "key"]), nn.Identity()))


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "a", "c"]])
def test_of_up_to_three_modalities_all_coalitions_are_telling(names):
    every = coalition_names(names)[1:]
    assert display_coalitions(every) == every


def test_of_more_modalities_the_telling_ones_are_each_alone_all_but_one_and_all():
    assert display_coalitions(coalition_names(list("abcd"))[1:]) == [
        *["a", "b", "c", "d"],
        *["a+b+c", "a+b+d", "a+c+d", "b+c+d"],
        "a+b+c+d",
    ]

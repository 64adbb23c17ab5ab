"""Which runs a comparison is made of."""

import pytest

from mmcoop.comparison.run_specs import RunSpec, make_run_specs
from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import UsageError
from mmcoop.methods import METHODS

SETTINGS = {"epochs": 2, "warmup": 1}


@pytest.fixture(scope="module")
def pictures(keypad):
    """Two modalities with convolutional encoders: all fusions and methods are possible."""
    return open_dataset(keypad)


@pytest.fixture(scope="module")
def mixed(tiny_dataset):
    """Three modalities, not all of them convolutional: no MMTM."""
    return open_dataset(tiny_dataset)


def labels(cases):
    return [(case.label, case.fusion) for case in cases]


def test_all_methods_are_each_with_the_fusion_and_some_with_their_own(pictures):
    cases, left_out = make_run_specs(pictures, None, ["concat"], {}, SETTINGS)
    assert not left_out
    own = {"ensemble": "late", "greedy": "mmtm"}
    expected = {(name, own.get(name, "concat")) for name in METHODS if name != "unimodal"}
    expected |= {("unimodal audio", "concat"), ("unimodal visual", "concat")}
    expected |= {("joint", "late"), ("joint", "mmtm")}  # what those two are set beside
    assert set(labels(cases)) == expected
    assert len(cases) == len(expected)


@pytest.mark.parametrize(
    ("fusions", "trained"),
    [
        (["concat", "mmtm"], ["mmtm"]),
        (["mmtm-2x", "concat"], ["mmtm-2x"]),
        (["mmtm-2x", "mmtm"], ["mmtm-2x", "mmtm"]),
        (["late"], ["mmtm"]),
    ],
)
def test_a_method_that_some_fusions_alone_carry_is_trained_with_those(pictures, fusions, trained):
    cases, left_out = make_run_specs(pictures, ["greedy"], fusions, {}, SETTINGS)
    assert not left_out
    assert [case.fusion for case in cases if case.method == "greedy"] == trained
    assert {case.fusion for case in cases if case.method == "joint"} == {*fusions, *trained}


def test_joint_is_always_there_and_first(pictures):
    cases, _ = make_run_specs(pictures, ["sample"], ["concat", "sum"], {}, SETTINGS)
    assert labels(cases) == [
        *[("joint", "concat"), ("joint", "sum")],
        *[("sample", "concat"), ("sample", "sum")],
    ]


def test_what_is_not_possible_is_left_out_and_says_why(mixed):
    cases, left_out = make_run_specs(mixed, None, ["concat"], {}, SETTINGS)
    assert "greedy" not in {case.method for case in cases}
    assert ("joint", "mmtm") not in labels(cases)
    assert set(left_out) == {"greedy-mmtm", "joint-mmtm"}
    assert all("MLPEncoder has no stages" in why for why in left_out.values())
    assert [case.label for case in cases if case.method == "unimodal"] == [
        f"unimodal {m}" for m in mixed.modalities
    ]


def test_a_method_that_some_fusions_do_not_carry_is_left_out_there_alone(pictures):
    cases, left_out = make_run_specs(pictures, ["ogm"], ["concat", "gated"], {}, SETTINGS)
    assert ("ogm", "concat") in labels(cases)
    assert set(left_out) == {"ogm-gated"}


def test_a_method_that_was_asked_for_and_is_impossible_is_refused(mixed):
    with pytest.raises(UsageError, match="greedy cannot be compared here: MLPEncoder has no"):
        make_run_specs(mixed, ["sample", "greedy"], ["concat"], {}, SETTINGS)


def test_a_fusion_that_is_impossible_is_refused(mixed):
    with pytest.raises(UsageError, match="mmtm cannot be compared here: MLPEncoder has no"):
        make_run_specs(mixed, None, ["concat", "mmtm"], {}, SETTINGS)


@pytest.mark.parametrize(
    ("methods", "fusions", "options", "message"),
    [
        (["magic"], ["concat"], {}, "unknown method 'magic'"),
        (None, ["glue"], {}, "unknown fusion 'glue'"),
        (None, ["concat"], {"magic": {"alpha": "1"}}, "unknown method 'magic'"),
        (["sample"], ["concat"], {"ogm": {"alpha": "1"}}, "options of 'ogm' are given, which"),
        (None, ["concat"], {"ogm": {"beta": "1"}}, "has no option 'beta'; its options: alpha"),
        (None, ["concat"], {"ogm": {"alpha": "much"}}, "must be float, not 'much'"),
        (None, ["concat"], {"ogm": {"alpha": "-1"}}, "ogm cannot be compared here: alpha is -1.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(pictures, methods, fusions, options, message):
    with pytest.raises(UsageError, match=message):
        make_run_specs(pictures, methods, fusions, options, SETTINGS)


def test_a_warm_up_that_leaves_no_epoch_is_refused(pictures):
    with pytest.raises(UsageError, match="method 'sample' would never start"):
        make_run_specs(pictures, ["sample"], ["concat"], {}, {"epochs": 2, "warmup": 2})


def test_options_reach_their_method_and_tuned_settings_go_over_those_of_all():
    case = RunSpec("ogm", "sum", {"alpha": "0.8"}, {"lr": 0.5})
    config = case.config({"lr": 0.1, "epochs": 7}, {"seed": 3})
    assert (config.method, config.fusion, config.options["alpha"]) == ("ogm", "sum", 0.8)
    assert (config.lr, config.epochs, config.seed) == (0.5, 7, 3)


def test_names_of_cases_can_be_folders():
    assert RunSpec("unimodal", "concat", {"modality": "audio"}).name == "unimodal-audio-concat"

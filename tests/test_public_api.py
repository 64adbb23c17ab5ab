"""What `from mmcoop import …` promises."""

import mmcoop


def test_every_public_name_can_be_imported():
    for name in mmcoop.__all__:
        assert getattr(mmcoop, name) is not None


def test_the_names_other_people_call_are_there():
    fixed = ["shapley_values", "valuate", "extra_rows", "modality_probability"]
    indices = ["shapley_interactions", "interaction_indices", "banzhaf_values", "owen_values"]
    others = ["leave_one_out", "intershap", "replace_inputs", "replace_features"]
    assert {*fixed, *indices, *others, "open_dataset", "load_run"} <= set(mmcoop.__all__)


def test_all_and_the_homes_of_names_agree():
    assert sorted(mmcoop.__all__) == sorted(mmcoop._HOMES)
    assert dir(mmcoop) == mmcoop.__all__


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(mmcoop, "nonsense")

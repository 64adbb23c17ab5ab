"""Library functions that are given something else say so, as errors of their own."""

import numpy as np
import pandas as pd
import pytest
import torch

import mmcoop

BAD = [{"a": 1}, "text", None, 3]
LAYER = torch.nn.Linear(1, 1)


def valued(**batch):
    inputs = {"a": torch.ones(2, 1)}
    whole = {"inputs": inputs, "labels": [0, 1], **batch}
    return mmcoop.valuate(lambda x, p: p.float().expand(-1, 2), [whole], modalities=["a"])


CALLS = {
    "shapley_values": mmcoop.shapley_values,
    "shapley_interactions": mmcoop.shapley_interactions,
    "interaction_indices": mmcoop.interaction_indices,
    "banzhaf_values": mmcoop.banzhaf_values,
    "leave_one_out": mmcoop.leave_one_out,
    "intershap": mmcoop.intershap,
    "extra_rows": lambda x: mmcoop.extra_rows("0.5" if x == 3 else x),
    "modality_probability": lambda x: mmcoop.modality_probability("0.5" if x == 3 else x),
    "open_dataset": mmcoop.open_dataset,
    "load_run": mmcoop.load_run,
    "make_config": lambda x: mmcoop.make_config({"lr": "x"} if x == {"a": 1} else x),
    "train, data": lambda x: mmcoop.train("nowhere", x, mmcoop.make_config()),
    "resume": lambda x: mmcoop.resume(x, x),
    "evaluate_run": lambda x: mmcoop.evaluate_run(x, x),
    "valuate_run": lambda x: mmcoop.valuate_run(x, x, "test", "nowhere"),
    "cross_fit": lambda x: mmcoop.cross_fit(x, x, 2, "nowhere"),
    "score_model": lambda x: mmcoop.score_model(LAYER, x, "test", "nowhere"),
    "load_batches": lambda x: mmcoop.load_batches(x, batch_size=4),
    "replace_inputs": lambda x: mmcoop.replace_inputs(x, ["a"]),
    "replace_inputs, names": lambda x: mmcoop.replace_inputs(LAYER, "a" if x == {"a": 1} else x),
    "replace_inputs, background": lambda x: mmcoop.replace_inputs(
        LAYER, ["a"], "mean", background=x
    ),
    "replace_inputs, absent": lambda x: mmcoop.replace_inputs(LAYER, ["a"], x),
    "replace_features": lambda x: mmcoop.replace_features(x, {"a": ""}),
    "replace_features, places": lambda x: mmcoop.replace_features(LAYER, x),
    "value": lambda x: mmcoop.ValuationConfig(x),
    "estimator": lambda x: mmcoop.ValuationConfig(estimator=x),
    "budget": lambda x: mmcoop.ValuationConfig(budget=1.5 if x in (3, None) else x),
    "tolerance": lambda x: mmcoop.ValuationConfig(tolerance=-1 if x in (3, None) else x),
    "labels": lambda x: valued(labels=x),
    "ids": lambda x: valued(ids=3 if x is None else x),
}


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("call", list(CALLS))
def test_what_is_given_by_mistake_is_refused(call, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mmcoop.MmcoopError, match=r"\S"):
        CALLS[call](bad)
    assert list(tmp_path.iterdir()) == []


def test_a_text_is_no_list_of_ids():
    with pytest.raises(mmcoop.DataError, match="^ids or groups of a batch are 'ab'"):
        valued(ids="ab")


def test_values_may_be_arrays_tables_or_lists():
    table = [[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 1e17]]
    expected = mmcoop.shapley_values(torch.tensor(table, dtype=torch.float64))
    for given in (table, np.array(table), pd.DataFrame(table, index=[7, 3])):
        assert torch.equal(mmcoop.shapley_values(given), expected)
    with pytest.raises(mmcoop.DataError, match="complex"):
        mmcoop.shapley_values(torch.ones(1, 2, dtype=torch.complex64))


@pytest.mark.parametrize("workers", [-1, 1.5, "2"])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    with pytest.raises(mmcoop.UsageError, match="^workers is "):
        mmcoop.Runtime(workers=workers)


def test_emap_of_a_negative_number_of_samples_is_refused():
    with pytest.raises(mmcoop.UsageError, match="^emap is -1"):
        mmcoop.ValuationRequest(emap=-1)

"""The library call: valuing a model of one's own."""

import itertools
import json
import math
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import mmcoop
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.errors import DataError, UsageError
from mmcoop.reading.scores import read_scores_details
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import valuation_details
from mmcoop.scores.valuate import valuate
from mmcoop.versions import versions

# Correctness of the first modality alone, the second alone and both, and the contributions.
PATTERNS = [
    ((0, 0, 0), (0.0, 0.0)),
    ((1, 0, 0), (0.5, -0.5)),
    ((0, 1, 0), (-0.5, 0.5)),
    ((1, 1, 0), (0.0, 0.0)),
    ((0, 0, 1), (1.0, 1.0)),
    ((1, 0, 1), (1.5, 0.5)),
    ((0, 1, 1), (0.5, 1.5)),
    ((1, 1, 1), (1.0, 1.0)),
]


class Oracle:
    """A model that is right exactly where it is told to be, and counts its calls.

    `inputs[first]` has one column a coalition of the modalities, numbered by the bits of its
    members: 1 where the model is to be right. The label is always class 2 of 4; elsewhere the
    model says 0.
    """

    def __init__(self, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities
        self.asked: list[torch.Tensor] = []

    def __call__(self, inputs: dict[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        assert present.dtype == torch.bool
        assert present.shape == (len(inputs[self.modalities[0]]), len(self.modalities))
        self.asked.append(present.clone())
        coalition = (present * 2 ** torch.arange(len(self.modalities))).sum(1)
        right = inputs[self.modalities[0]].gather(1, coalition.unsqueeze(1)).squeeze(1).bool()
        return nn.functional.one_hot(torch.where(right, 2, 0), 4).float()


def pattern_batches(size: int = 3, **more: Any) -> list[dict[str, Any]]:
    """All eight patterns of two modalities, in batches."""
    table = torch.tensor([(0, *pattern) for pattern, _ in PATTERNS])
    inputs = {"audio": table, "visual": torch.zeros(8, 1)}
    return [
        {
            "inputs": {m: x[start : start + size] for m, x in inputs.items()},
            "labels": torch.full((len(table[start : start + size]),), 2),
            **{name: column[start : start + size] for name, column in more.items()},
        }
        for start in range(0, 8, size)
    ]


def valued_patterns(**more: Any) -> Scores:
    model = Oracle(("audio", "visual"))
    return valuate(model, pattern_batches(**more), modalities=["audio", "visual"])


class Small(nn.Module):
    """A user's network: two linear layers, dropout, and zeros for what is absent."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)
        self.dropout = nn.Dropout(0.5)
        self.modes: list[bool] = []

    def forward(self, inputs: dict[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        left = self.left(inputs["left"]) * present[:, :1]
        right = self.right(inputs["right"]) * present[:, 1:]
        return self.dropout(left + right)


def batches_for_small(samples: int = 20) -> list[SimpleNamespace]:
    generator = torch.Generator().manual_seed(1)
    return [
        SimpleNamespace(
            inputs={
                "left": torch.randn(size, 4, generator=generator),
                "right": torch.randn(size, 2, generator=generator),
            },
            labels=torch.randint(0, 3, (size,), generator=generator),
        )
        for size in (samples - 7, 7)
    ]


# --- the library call


def test_it_is_the_valuate_of_the_package():
    assert mmcoop.valuate is valuate


def test_the_eight_patterns_of_two_modalities_get_the_contributions_of_the_paper():
    valuation = valued_patterns()
    expected = torch.tensor([phi for _, phi in PATTERNS], dtype=torch.float64)
    assert valuation.contributions.dtype == torch.float64
    assert torch.equal(valuation.contributions, expected)
    values = torch.tensor([(0, a, b, 2 * ab) for (a, b, ab), _ in PATTERNS], dtype=torch.float64)
    assert torch.equal(valuation.values, values)
    assert valuation.labels.tolist() == [2] * 8
    assert valuation.predictions.tolist() == [2 if ab else 0 for (_, _, ab), _ in PATTERNS]
    assert valuation.modalities == ("audio", "visual")


@pytest.mark.parametrize("n", [1, 3, 4])
def test_more_modalities_get_the_mean_over_all_orders_of_joining(n):
    names = tuple(f"m{k}" for k in range(n))
    right = torch.randint(0, 2, (25, 2**n), generator=torch.Generator().manual_seed(n))
    inputs = dict.fromkeys(names, right)
    batch = {"inputs": inputs, "labels": torch.full((25,), 2)}
    valuation = valuate(Oracle(names), [batch], modalities=names)
    for sample in range(25):

        def worth(members: frozenset, sample: int = sample) -> int:
            return len(members) * int(right[sample, sum(2**m for m in members)])

        for m in range(n):
            gains = []
            for order in itertools.permutations(range(n)):
                before = frozenset(order[: order.index(m)])
                gains.append(worth(before | {m}) - worth(before))
            mean = sum(gains) / math.factorial(n)
            assert float(valuation.contributions[sample, m]) == pytest.approx(mean, abs=1e-12)
        total = float(valuation.contributions[sample].sum())
        assert total == pytest.approx(worth(frozenset(range(n))), abs=1e-12)


def test_the_order_of_the_modalities_is_the_one_given():
    batches = [
        {"inputs": {"a": torch.tensor([[0, 1, 0, 1]]), "b": torch.zeros(1)}, "labels": [2]},
    ]
    model = Oracle(("a", "b"))
    forward = valuate(model, batches, modalities=["a", "b"])
    assert forward.contributions.tolist() == [[1.5, 0.5]]
    assert forward.to_frame()["contribution_a"].tolist() == [1.5]
    # the callable's first column is now b, and it is b that is right alone
    backward = valuate(lambda x, p: model(x, p), batches, modalities=["b", "a"])
    assert backward.modalities == ("b", "a")
    assert backward.to_frame()["contribution_b"].tolist() == [1.5]


def test_a_callable_is_asked_once_for_each_sample_and_coalition():
    model = Oracle(("audio", "visual"))
    valuate(model, pattern_batches(4), modalities=("audio", "visual"))
    asked = torch.cat(model.asked).tolist()
    assert sorted(asked) == sorted([[True, False], [False, True], [True, True]] * 8)


def test_a_module_is_asked_in_evaluation_mode_and_comes_back_as_it_was():
    model = Small()
    model.train()
    model.right.eval()
    first = valuate(model, batches_for_small(), modalities=["left", "right"])
    assert set(model.modes) == {False}
    assert model.training
    assert model.left.training
    assert not model.right.training
    second = valuate(model, batches_for_small(), modalities=["left", "right"])
    assert torch.equal(first.contributions, second.contributions)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_module_gets_the_values_of_a_plain_loop():
    model = Small()
    batches = batches_for_small()
    valuation = valuate(model, batches, modalities=["left", "right"])
    model.eval()
    row = 0
    for batch in batches:
        for k in range(len(batch.labels)):
            left, right = batch.inputs["left"][k], batch.inputs["right"][k]
            with torch.no_grad():
                answers = {
                    1: model.left(left),
                    2: model.right(right),
                    3: model.left(left) + model.right(right),
                }
            v = [0.0] + [
                {1: 1, 2: 1, 3: 2}[s] * float(answers[s].argmax() == batch.labels[k])
                for s in (1, 2, 3)
            ]
            assert valuation.values[row].tolist() == v
            assert valuation.contributions[row].tolist() == [
                (v[1] + v[3] - v[2]) / 2,
                (v[2] + v[3] - v[1]) / 2,
            ]
            assert valuation.predictions[row] == answers[3].argmax()
            row += 1
    assert row == len(valuation.ids) == 20
    assert 0 < float(valuation.contributions.sum()) < 40


def test_a_model_of_the_package_may_be_valued_too(tiny_dataset, tmp_path):
    dataset = mmcoop.open_dataset(tiny_dataset)
    config = mmcoop.make_config({"epochs": 1, "batch_size": 8, "lr": 1e-3})
    run = mmcoop.train(tmp_path / "run", dataset, config)
    batches = mmcoop.load_batches(dataset.split("test"), batch_size=5, with_ids=True)
    valuation = valuate(run.model, batches, modalities=run.modalities)
    mmcoop.valuate_run(run, dataset, "test", tmp_path / "scores.parquet")
    written = pd.read_parquet(tmp_path / "scores.parquet").drop(columns="split")
    pd.testing.assert_frame_equal(valuation.to_frame().drop(columns="split"), written)


def test_samples_without_ids_are_numbered_from_0_over_all_batches():
    assert valued_patterns().ids == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert valued_patterns().details["ids"] == "positions"
    assert "ids" not in valued_patterns(ids=list("abcdefgh")).details


def test_batches_with_and_without_ids_are_refused():
    batches = pattern_batches(4, ids=list("abcdefgh"))
    del batches[1]["ids"]
    empty = {
        "inputs": {m: x[:0] for m, x in batches[0]["inputs"].items()},
        "labels": batches[0]["labels"][:0],
        "ids": [],
    }
    with pytest.raises(DataError, match="^batch 1 has no ids, unlike those before it"):
        valuate(Oracle(("audio", "visual")), [empty, batches[1]], modalities=["audio", "visual"])
    with pytest.raises(DataError, match="^batch 1 has no ids, unlike those before it"):
        valuate(Oracle(("audio", "visual")), batches, modalities=["audio", "visual"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"model": {"audio": 1}}, "^the model is {'audio': 1}: give a torch.nn.Module"),
        ({"model": "mine:make"}, "^the model is 'mine:make'"),
        ({"model": Small}, "^the model is Small, a class"),
        ({"batches": "data/keypad"}, "^`batches` is a str: give an iterable of batches"),
        ({"batches": None}, "^`batches` is a NoneType"),
        ({"batches": torch.zeros(3)}, "^`batches` is a Tensor"),
        ({"batches": {"inputs": {}}}, "^`batches` is a single batch"),
        ({"batches": SimpleNamespace(inputs={})}, "^`batches` is a single batch"),
        ({"modalities": "audio"}, "^modalities are a list of names, and not 'audio'$"),
        ({"modalities": None}, "^modalities are a list of names, and not None$"),
        ({"modalities": ["audio", 2]}, "^modalities are names, and 2 is a int$"),
        ({"modalities": {"audio": 1}.items()}, "^modalities are names, and .* is a tuple$"),
    ],
)
def test_what_is_no_model_no_batches_or_no_names_is_refused(argument, message):
    given = {"model": Oracle(("audio", "visual")), "batches": pattern_batches(), **argument}
    with pytest.raises(UsageError, match=message):
        valuate(modalities=given.pop("modalities", ["audio", "visual"]), **given)


@pytest.mark.parametrize(
    "ids",
    [
        list(range(10, 18)),
        ("10", "11", "12", "13", "14", "15", "16", "17"),
        np.arange(10, 18),
        torch.arange(10, 18),  # what a loader's default collation makes of numbers
    ],
    ids=["numbers", "strings", "array", "tensor"],
)
def test_ids_are_kept_as_text(ids):
    assert valued_patterns(ids=ids).ids == ["10", "11", "12", "13", "14", "15", "16", "17"]


def test_batches_may_have_attributes_or_keys_and_come_from_a_generator():
    batches = pattern_batches()
    stream = (SimpleNamespace(**batch) for batch in batches)
    by_attribute = valuate(Oracle(("audio", "visual")), stream, modalities=["audio", "visual"])
    assert torch.equal(by_attribute.values, valued_patterns().values)


def test_the_details_name_value_absence_estimator_and_versions():
    details = valued_patterns().details
    assert details == {
        "value": "paper",
        "fair_share": 1.0,
        "best": None,
        "absent": "zero",
        "estimator": "exact",
        "seed": 0,
        "classes": 4,
        "ids": "positions",
        "versions": versions(),
    }
    more = {"classes": 4, "ids": "positions"}
    assert details == {**valuation_details(ValuationConfig(), 2), **more}
    assert versions()["torch"] == version("torch")
    assert versions()["mmcoop"] == version("mmcoop")


def test_the_columns_of_scores_cannot_be_changed():
    with pytest.raises(AttributeError):
        valued_patterns().ids = []  # type: ignore[misc]


# --- what is refused


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"value": "logit"}, "^unknown value function 'logit': choose one of paper"),
        ({"absent": "gone"}, "^unknown absence 'gone': choose one of zero, mean, marginal$"),
        ({"estimator": "guess"}, "^unknown estimator 'guess': choose one of auto, exact"),
        ({"budget": 0}, "^budget is 0: it must be at least 1$"),
        ({"max_batch": 0}, "^max_batch is 0: it must be at least 1$"),
        ({"tolerance": 0.0}, "^tolerance is 0.0: it must be a number above 0$"),
        ({"tolerance": math.nan}, "^tolerance is nan: it must be a number above 0$"),
        (
            {"estimator": "exact", "budget": 9},
            "^a budget or a tolerance is for coalitions that are",
        ),
        ({"modalities": []}, "^no modalities given: at least one is needed$"),
        ({"modalities": ["audio", "audio"]}, "^modality names repeat: audio, audio$"),
        ({"modalities": ["audio+visual"]}, r"^'audio\+visual' cannot name a modality"),
        (
            {"modalities": [f"m{k}" for k in range(13)], "estimator": "exact"},
            "^13 modalities: all coalitions are valued for 1 to 12 modalities only; choose an est",
        ),
        (
            {"modalities": [f"m{k}" for k in range(5)], "budget": 20},
            "^a budget of 20 coalitions a sample is too small for estimator 'kernel' and 5 modali",
        ),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(argument, message):
    arguments: dict[str, Any] = {"modalities": ["audio", "visual"], **argument}
    with pytest.raises(UsageError, match=message):
        valuate(Oracle(("audio", "visual")), pattern_batches(), **arguments)


def test_no_batch_at_all_is_refused():
    with pytest.raises(DataError, match="^there is no batch to value$"):
        valuate(Oracle(("a", "b")), [], modalities=["a", "b"])


def test_a_tie_is_neither_right_nor_wrong_in_the_scores(tmp_path):
    votes = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 2, 1], [1, 0, 1]])
    model = lambda inputs, present: inputs["votes"]  # noqa: E731
    found = valuate(model, [({"votes": votes}, torch.tensor([0, 1, 1, 1]))], modalities=["votes"])
    assert found.correct.tolist() == found.contributions.flatten().tolist() == [0.5, 0.5, 1, 0]
    found.save(tmp_path / "scores.parquet")
    column = pq.read_table(tmp_path / "scores.parquet")["correct"]
    assert (column.type, column.to_pylist()) == (pa.bool_(), [None, None, True, False])


def test_groups_go_into_the_scores_and_widen_the_intervals(tmp_path):
    batches = [
        {**batch, "groups": torch.arange(k, k + len(batch["labels"])) // 4}
        for k, batch in zip((0, 3, 6), pattern_batches(3), strict=True)
    ]
    names = ("audio", "visual")
    found = valuate(Oracle(names), batches, modalities=names)
    assert found.groups == ["0", "0", "0", "0", "1", "1", "1", "1"]
    found.save(tmp_path / "scores.parquet")
    assert pd.read_parquet(tmp_path / "scores.parquet")["group"].tolist() == found.groups
    # the mean of one group is 0, of the other 1: some replicates have one of them alone
    assert found.means().loc["audio", ["low", "high"]].tolist() == [0, 1]
    with pytest.raises(DataError, match="^some batches have `groups` and some have none"):
        valuate(Oracle(names), [*batches, *pattern_batches(3)], modalities=names)
    with pytest.raises(DataError, match="groups 1$"):
        valuate(Oracle(names), [{**batches[0], "groups": ["one"]}], modalities=names)


@pytest.mark.parametrize("ids", [["only one"], ["one", "two", "three", "four"], []])
def test_ids_that_are_not_one_a_sample_are_refused(ids):
    batch = {**pattern_batches(3)[0], "ids": ids}
    expected = f"^inputs, labels and ids of a batch are of different length: .*, ids {len(ids)}$"
    with pytest.raises(DataError, match=expected):
        valuate(Oracle(("audio", "visual")), [batch], modalities=["audio", "visual"])


@pytest.mark.parametrize(
    "batch",
    [{"labels": [1]}, ([1], [2], [3], [4]), SimpleNamespace(x=1), [torch.zeros(1)]],
    ids=["no inputs", "too many", "something else", "one tensor"],
)
def test_a_batch_without_inputs_is_refused(batch):
    with pytest.raises(
        DataError, match="^a batch must have `inputs`.* and `labels`, or be a tuple"
    ):
        valuate(Oracle(("a", "b")), [batch], modalities=["a", "b"])


def test_a_batch_without_labels_is_refused_where_the_value_function_needs_them():
    batch = {"inputs": pattern_batches()[0]["inputs"]}
    expected = (
        "^value function 'paper' needs `labels`, and the batch has none: 'predicted-probability'"
    )
    with pytest.raises(DataError, match=expected):
        valuate(Oracle(("audio", "visual")), [batch], modalities=["audio", "visual"])


@pytest.mark.parametrize("form", ["pair", "tuple", "list"])
def test_batches_may_be_tuples_or_lists(form):
    batches: list[Any] = []
    for batch in pattern_batches():
        inputs, labels = batch["inputs"], batch["labels"]
        whole = (inputs["audio"], inputs["visual"], labels)
        batches.append({"pair": (inputs, labels), "tuple": whole, "list": list(whole)}[form])
    found = valuate(Oracle(("audio", "visual")), batches, modalities=["audio", "visual"])
    assert torch.equal(found.values, valued_patterns().values)


def test_a_batch_that_lacks_a_modality_is_refused():
    with pytest.raises(DataError, match="no input for the modality 'smell'; it has: audio, visual"):
        valuate(Oracle(("a",)), pattern_batches(), modalities=["audio", "smell"])


def test_a_label_without_a_class_is_refused():
    batch = {**pattern_batches(3)[0], "labels": torch.tensor([1, 4, 0])}
    expected = "^label 4 has no class: the model has 4 classes, 0 to 3$"
    with pytest.raises(DataError, match=expected):
        valuate(Oracle(("audio", "visual")), [batch], modalities=["audio", "visual"])


@pytest.mark.parametrize("shape", [(), (2, 4), (3, 4, 1)])
def test_logits_of_another_shape_are_refused(shape):
    batch = pattern_batches(3)[0]
    with pytest.raises(
        DataError, match=r"^the model gave outputs of shape .* for 3 (rows|samples)"
    ):
        valuate(lambda inputs, present: torch.zeros(shape), [batch], modalities=["audio"])


# --- table and file


def test_the_frame_has_one_row_a_sample_with_named_columns():
    frame = valued_patterns(ids=[f"clip {k}" for k in range(8)]).to_frame()
    assert list(frame.columns) == [
        "id",
        "split",
        "label",
        "prediction",
        "correct",
        "contribution_audio",
        "contribution_visual",
        "base_value",
        "value_audio",
        "value_visual",
        "value_audio+visual",
        "correct_audio",
        "correct_visual",
        "correct_audio+visual",
        "prediction_audio",
        "prediction_visual",
        "ties",
    ]
    assert frame["id"].tolist() == [f"clip {k}" for k in range(8)]
    assert frame["split"].isna().all()
    assert frame["label"].tolist() == [2] * 8
    for k, ((a, b, ab), phi) in enumerate(PATTERNS):
        row = frame.iloc[k]
        assert row["correct"] == bool(ab)
        assert (row["value_audio"], row["value_visual"], row["value_audio+visual"]) == (
            a,
            b,
            2 * ab,
        )
        assert (row["contribution_audio"], row["contribution_visual"]) == phi


def test_saving_and_reading_gives_the_frame_back(tmp_path):
    valuation = valued_patterns()
    valuation.save(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "scores.parquet"), valuation.to_frame(), check_exact=True
    )
    assert pq.read_schema(tmp_path / "scores.parquet").field("split").type == pa.string()


def test_the_file_says_how_the_scores_came_about(tmp_path):
    valuation = valued_patterns()
    valuation.save(str(tmp_path / "scores.parquet"))
    details = json.loads(pq.read_schema(tmp_path / "scores.parquet").metadata[b"mmcoop"])
    assert details == {
        "format": "mmcoop scores",
        "modalities": ["audio", "visual"],
        **valuation.details,
    }
    assert read_scores_details(tmp_path / "scores.parquet") == details


def test_saving_twice_gives_the_same_bytes(tmp_path):
    valued_patterns().save(tmp_path / "one")
    valued_patterns().save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_saving_replaces_the_file_that_is_there_and_leaves_no_other(tmp_path):
    path = tmp_path / "scores.parquet"
    path.write_text("something older")
    valued_patterns().save(path)
    assert len(pd.read_parquet(path)) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_saving_into_a_folder_that_does_not_exist_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        valued_patterns().save(tmp_path / "nowhere" / "scores.parquet")
    assert list(tmp_path.iterdir()) == []


class ByName(nn.Module):
    """A user's network that knows nothing of absence."""

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return audio + visual


def test_a_network_that_takes_modalities_by_name_is_told_what_to_do():
    with pytest.raises(UsageError, match=r"^ByName takes audio, visual by name and no `present`: "):
        valuate(ByName(), pattern_batches(), modalities=["audio", "visual"])


def test_tuples_without_labels_will_do_where_no_label_is_needed_also_as_a_background():
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    batches = [(rows[:4], rows[:4] + 1), (rows[4:], rows[4:] + 1)]
    model = mmcoop.replace_inputs(ByName(), ["audio", "visual"], "mean", background=batches)
    found = valuate(model, batches, modalities=["audio", "visual"], value="predicted-probability")
    by_key = [{"inputs": {"audio": a, "visual": v}} for a, v in batches]
    same = mmcoop.replace_inputs(ByName(), ["audio", "visual"], "mean", background=by_key)
    expected = valuate(same, by_key, modalities=["audio", "visual"], value="predicted-probability")
    assert torch.equal(found.contributions, expected.contributions)
    assert found.labels is None


def test_scores_are_shown_in_one_line():
    assert repr(valued_patterns()) == (
        "<Scores: 8 samples, value paper: mean φ audio 0.5, visual 0.5>"
    )

"""Model + batches → values of all coalitions and contributions."""

import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmcoop.core.batch import Batch
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.models.encoders.base import Encoder, Stages
from mmcoop.core.models.fusions import FUSIONS, build_fusion
from mmcoop.core.models.fusions.base import Fusion
from mmcoop.core.models.model import MultimodalModel
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.engine import value_batches
from mmcoop.errors import DataError, UsageError
from mmcoop.scores.summary import Summary
from mmcoop.scores.table import TableLayout, scores_table
from mmcoop.training.build import Architecture

CLASSES = 3
NAMES = ("audio", "text", "visual")


# a callable that looks answers up


class Lookup:
    """Predicts what the inputs say: `inputs[m][i]` holds, for the coalitions of which m is the
    first member, the class predicted for sample i by each."""

    def __init__(self, predictions: torch.Tensor) -> None:
        self.predictions = predictions  # (samples, 2**n)
        self.asked: list[tuple[int, tuple[bool, ...]]] = []  # sample and coalition of each row
        self.calls: list[int] = []  # rows

    def __call__(self, inputs, present):
        samples = next(iter(inputs.values())).long()
        rows = zip(samples.tolist(), map(tuple, present.tolist()), strict=True)
        self.calls.append(len(present))
        self.asked += list(rows)
        coalition = (present * 2 ** torch.arange(present.shape[1])).sum(1)
        return nn.functional.one_hot(self.predictions[samples, coalition], CLASSES).float()


def lookup_batch(samples: range, n: int, labels) -> dict:
    inputs = {f"m{m}": torch.tensor(list(samples)) for m in range(n)}
    return {"inputs": inputs, "labels": labels}


EIGHT_PATTERNS = [
    ((0, 0, 0), (0.0, 0.0)),
    ((1, 0, 0), (0.5, -0.5)),
    ((0, 1, 0), (-0.5, 0.5)),
    ((1, 1, 0), (0.0, 0.0)),
    ((0, 0, 1), (1.0, 1.0)),
    ((1, 0, 1), (1.5, 0.5)),
    ((0, 1, 1), (0.5, 1.5)),
    ((1, 1, 1), (1.0, 1.0)),
]


def test_the_eight_correctness_patterns_give_the_papers_contributions():
    rights = [right for right, _ in EIGHT_PATTERNS]
    # column 0, the empty coalition, would predict the label if it were asked
    predictions = torch.tensor([[1, *(1 if right else 2 for right in row)] for row in rights])
    model = Lookup(predictions)
    batch = lookup_batch(range(8), 2, torch.ones(8, dtype=torch.long))
    (valued,) = value_batches(model, [batch], modalities=["m0", "m1"])
    assert valued.contributions.tolist() == [list(phi) for _, phi in EIGHT_PATTERNS]
    assert valued.values.tolist() == [[0, a, b, 2 * both] for a, b, both in rights]
    assert valued.hits.tolist() == [[False, *map(bool, row)] for row in rights]
    assert valued.predictions.tolist() == [1 if both else 2 for *_, both in rights]
    assert valued.labels.tolist() == [1] * 8
    assert valued.numbered


@pytest.mark.parametrize("value", ["paper", "correct"])
@pytest.mark.parametrize("n", [1, 3])
def test_ties_count_as_their_expectation_everywhere(value, n):
    # votes of modalities as logits: whole numbers, of which several are often the highest
    chance = torch.Generator().manual_seed(n)
    votes = torch.randint(0, 3, (60, n, CLASSES), generator=chance).float()
    labels = torch.randint(CLASSES, (60,), generator=chance)
    names = [f"m{m}" for m in range(n)]

    def model(inputs, present):
        stacked = torch.stack([inputs[name] for name in names], 1)
        return (stacked * present.unsqueeze(2)).sum(1)

    batches = [
        {"inputs": {f"m{m}": votes[part, m] for m in range(n)}, "labels": labels[part]}
        for part in (slice(0, 7), slice(7, 60))
    ]
    found = list(value_batches(model, batches, modalities=names, how=ValuationConfig(value)))
    tables = [scores_table(tuple(names), None, batch) for batch in found]
    summary = Summary(TableLayout.of(tables[0].schema, tuple(names)), CLASSES)
    for table in tables:
        summary.add(table)
    hits, values, predicted = [], [], torch.zeros(2**n, CLASSES, dtype=torch.float64)
    rights = torch.zeros(2**n, CLASSES, dtype=torch.float64)
    for i in range(60):
        for coalition in range(2**n):
            members = [m for m in range(n) if coalition >> m & 1]
            logits = votes[i, members].sum(0).tolist()
            highest = [c for c in range(CLASSES) if logits[c] == max(logits)]
            right = (int(labels[i]) in highest) / len(highest)
            values.append(right * len(members) if value == "paper" else right)
            hits.append(right if members else 0.0)
            rights[coalition, labels[i]] += right
            for c in highest:
                predicted[coalition, c] += 1 / len(highest)
    assert torch.cat([b.values for b in found]).flatten().tolist() == pytest.approx(values)
    assert torch.cat([b.hits for b in found]).flatten().tolist() == pytest.approx(hits)
    correct = torch.cat([b.correct for b in found])
    assert correct.tolist() == pytest.approx(hits[2**n - 1 :: 2**n])
    assert 0 < ((correct > 0) & (correct < 1)).sum() < 60
    actual = labels.bincount(minlength=CLASSES)
    for k, name in enumerate(summary.coalitions[1:], start=1):
        assert summary.accuracy[name] == pytest.approx(sum(hits[k :: 2**n]) / 60)
        f1 = (2 * rights[k] / (predicted[k] + actual)).mean()
        assert summary.macro_f1[name] == pytest.approx(float(f1))
    assert summary.unpredicted == 0


def test_of_labels_a_logit_of_0_says_neither_0_nor_1():
    made = {
        "inputs": {"m0": torch.tensor([[0.0, 2.0], [-1.0, 0.0]])},
        "labels": torch.eye(2).long(),
    }
    model = lambda inputs, present: inputs["m0"] * present  # noqa: E731
    how = ValuationConfig("label-probability")
    (batch,) = value_batches(model, [made], modalities=["m0"], how=how)
    assert batch.hits.tolist() == [[0, 0.5], [0, 0], [0, 1], [0, 0.5]]


@pytest.mark.parametrize("fusion", ["late", "sum", "mmtm"])
def test_what_predicts_no_class_from_nothing_favours_none(fusion):
    shape = (1, 12, 12)
    encoders = {"a": "conv", "b": "conv"}
    model = Architecture(encoders, {"a": shape, "b": shape}, fusion, tuple("xyz")).build(0)
    made = {"inputs": {m: torch.randn(9, *shape) for m in "ab"}, "labels": torch.arange(9) % 3}
    how = ValuationConfig("correct")
    (batch,) = value_batches(model, [made], modalities=["a", "b"], how=how)
    assert batch.values[:, 0].tolist() == pytest.approx([1 / 3] * 9)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_callable_is_asked_for_each_coalition_and_never_for_the_empty_one(n):
    predictions = torch.randint(CLASSES, (10, 2**n), generator=torch.Generator().manual_seed(n))
    model = Lookup(predictions)
    batches = [
        lookup_batch(range(6), n, torch.zeros(6).long()),
        lookup_batch(range(6, 10), n, torch.zeros(4).long()),
    ]
    valued = list(value_batches(model, batches, modalities=[f"m{m}" for m in range(n)]))
    every = [(i, tuple(row)) for i in range(10) for row in coalition_matrix(n)[1:].tolist()]
    assert sorted(model.asked) == sorted(every)
    hits = torch.cat([v.hits for v in valued])
    assert torch.equal(hits[:, 1:], predictions[:, 1:] == 0)
    for v in valued:
        assert not v.hits[:, 0].any()
        assert (v.values[:, 0] == 0).all()


def test_present_is_bool_a_row_a_sample_in_the_order_of_modalities():
    seen = []

    def model(inputs, present):
        seen.append((list(inputs), present.dtype, present.clone()))
        return torch.zeros(len(present), CLASSES)

    inputs = {"a": torch.zeros(2, 1), "b": torch.zeros(2, 1), "unused": torch.zeros(2, 1)}
    batch = {"inputs": inputs, "labels": torch.tensor([0, 1])}
    how = ValuationConfig(max_batch=2)
    list(value_batches(model, [batch], modalities=["b", "a"], how=how))
    assert [names for names, _, _ in seen] == [["b", "a"]] * 3
    assert all(dtype == torch.bool for _, dtype, _ in seen)
    # all modalities first: what is then predicted is what some value functions are of
    assert [present.tolist() for _, _, present in seen] == [
        [[True, True]] * 2,
        [[True, False]] * 2,
        [[False, True]] * 2,
    ]


# models that encode once


class Counting(Encoder):
    """A small encoder with batch normalisation and dropout that counts its calls and rows."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(d, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Tanh()
        )
        self.rows: list[int] = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.layers(x)


class CountingImages(Encoder):
    """The same for images `(3, 2, 2)`, in convolutional stages, of which the first one counts."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Sequential(nn.Conv2d(d, 5, 1), nn.BatchNorm2d(5), nn.Dropout(0.5))
        self.second = nn.Sequential(nn.Conv2d(5, 6, 1), nn.BatchNorm2d(6), nn.Tanh())
        self.third = nn.Sequential(nn.Conv2d(6, width, 2), nn.Dropout(0.5), nn.Tanh())
        self.first.rows = []
        self.first.register_forward_hook(lambda first, x, _: first.rows.append(len(x[0])))

    def stages(self) -> Stages:
        return Stages([self.first, self.second, self.third], [5, 6, self.width])


class Highest(Fusion):
    """A fusion that is no sum of parts: the highest logit of the present modalities."""

    def __init__(self, widths, n_classes):
        super().__init__(widths, n_classes)
        self.heads = nn.ModuleDict({m: nn.Linear(w, n_classes) for m, w in widths.items()})

    def forward(self, features, present):
        logits = torch.stack([self.heads[m](z) for m, z in features.items()], dim=1)
        return torch.where(present.unsqueeze(-1), logits, -1e9).amax(1)


WIDTHS = {"audio": 4, "text": 5, "visual": 6}


def make_model(fusion: Fusion | str = "concat") -> MultimodalModel:
    torch.manual_seed(0)
    kind = CountingImages if str(fusion).startswith("mmtm") else Counting
    encoders = {m: kind(3, width) for m, width in WIDTHS.items()}
    if isinstance(fusion, str):
        encoders, fusion = build_fusion(fusion, encoders, CLASSES)
    model = MultimodalModel(encoders, fusion)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


def encoded(model: MultimodalModel) -> list[list[int]]:
    """How many rows each encoder has got in each of its calls."""
    return [
        next(part.rows for part in encoder.modules() if hasattr(part, "rows"))
        for encoder in model.encoders.values()
    ]


def make_batches(sizes=(7, 1, 16), fusion: Fusion | str = "concat") -> list[dict]:
    generator = torch.Generator().manual_seed(5)
    places = (2, 2) if "mmtm" in fusion else ()
    return [
        {
            "inputs": {m: torch.randn(size, 3, *places, generator=generator) for m in NAMES},
            "labels": torch.randint(CLASSES, (size,), generator=generator),
            "ids": [f"{size}-{i}" for i in range(size)],
        }
        for size in sizes
    ]


def assert_same(found, expected):
    """The same valuation; logits, that are worked out another way, to float precision."""
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        for name in ("labels", "predictions", "hits", "values", "contributions"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        torch.testing.assert_close(one.outputs, other.outputs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fusion", [*FUSIONS, "highest"])
def test_encoding_once_gives_what_calling_the_model_once_a_coalition_gives(fusion):
    model = make_model(Highest(WIDTHS, CLASSES) if fusion == "highest" else fusion)
    batches = make_batches(fusion=fusion)
    found = list(value_batches(model, batches, modalities=NAMES))
    model.eval()
    asked = list(
        value_batches(lambda inputs, present: model(inputs, present), batches, modalities=NAMES)
    )
    assert_same(found, asked)
    hits = torch.cat([batch.hits for batch in found])[:, 1:]
    assert hits.any(0).all()
    assert not hits.all(0).any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_valued_batch_agrees_with_a_plain_loop_over_samples_and_coalitions(fusion):
    model = make_model(fusion)
    batches = make_batches(fusion=fusion)
    found = list(value_batches(model, batches, modalities=NAMES))
    model.eval()
    for batch, valued in zip(batches, found, strict=True):
        for i, label in enumerate(batch["labels"].tolist()):
            inputs = {m: x[i : i + 1] for m, x in batch["inputs"].items()}
            values = [0.0]
            for present in coalition_matrix(3)[1:]:
                with torch.inference_mode():
                    prediction = int(model(inputs, present[None]).argmax())
                values.append(float(present.sum()) if prediction == label else 0.0)
            assert valued.values[i].tolist() == values
            assert valued.predictions[i] == prediction
            for m in range(3):
                shapley = 0.0
                for s in range(8):
                    if not s >> m & 1:
                        size = bin(s).count("1")
                        weight = math.factorial(size) * math.factorial(2 - size) / 6
                        shapley += weight * (values[s | 1 << m] - values[s])
                assert valued.contributions[i, m].item() == pytest.approx(shapley, abs=1e-14)


@pytest.mark.parametrize("fusion", [*FUSIONS, "highest"])
def test_each_encoder_runs_exactly_once_a_batch_on_every_sample_once(fusion):
    model = make_model(Highest(WIDTHS, CLASSES) if fusion == "highest" else fusion)
    list(value_batches(model, make_batches(fusion=fusion), modalities=NAMES))
    assert encoded(model) == [[7, 1, 16]] * 3


@pytest.mark.parametrize("max_batch", [1, 7, 16, 20, 48])
def test_asking_in_small_groups_of_coalitions_changes_nothing(max_batch):
    expected = list(value_batches(make_model(), make_batches(), modalities=NAMES))
    asked = []  # samples, coalitions
    model = make_model()
    answer = model.coalition_logits
    model.coalition_logits = lambda features, coalitions: (
        asked.append((len(features["text"]), len(coalitions))) or answer(features, coalitions)
    )
    how = ValuationConfig(max_batch=max_batch)
    assert_same(list(value_batches(model, make_batches(), modalities=NAMES, how=how)), expected)
    # of each batch (7, 1 and 16 samples) the grand coalition goes first, then the six others
    by_batch = {
        1: [(1, 1)] * 24 * 7,
        7: [*[(7, 1)] * 7, (1, 1), (1, 6), *[(7, 1), (7, 1), (2, 1)] * 7],
        16: [(7, 1), *[(7, 2)] * 3, (1, 1), (1, 6), *[(16, 1)] * 7],
        20: [(7, 1), *[(7, 2)] * 3, (1, 1), (1, 6), *[(16, 1)] * 7],
        48: [(7, 1), (7, 6), (1, 1), (1, 6), (16, 1), (16, 3), (16, 3)],
    }
    assert asked == by_batch[max_batch]
    # and each sample is still encoded once
    once = {1: [1] * 24, 7: [7, 1, 7, 7, 2]}
    assert encoded(model) == [once.get(max_batch, [7, 1, 16])] * 3


@pytest.mark.parametrize("max_batch", [1, 4, 9, 18, 100])
def test_a_callable_is_never_asked_for_more_rows_at_once_than_it_may(max_batch):
    predictions = torch.randint(CLASSES, (9, 8), generator=torch.Generator().manual_seed(0))
    batch = lookup_batch(range(9), 3, torch.arange(9) % CLASSES)
    names = ["m0", "m1", "m2"]
    expected = list(value_batches(Lookup(predictions), [batch], modalities=names))
    model = Lookup(predictions)
    how = ValuationConfig(max_batch=max_batch)
    assert_same(list(value_batches(model, [batch], modalities=names, how=how)), expected)
    assert max(model.calls) <= max_batch
    assert sum(model.calls) == 9 * 7
    # and for no fewer than it may: samples and coalitions are batched together
    assert len(model.calls) == {1: 63, 4: 3 * 7, 9: 7, 18: 1 + 3, 100: 1 + 1}[max_batch]


def test_twelve_modalities_are_valued():
    # the label needs all of them: each gets its fair share
    names = [f"m{m}" for m in range(12)]

    def model(inputs, present):
        return nn.functional.one_hot(present.all(1).long(), 2).float()

    inputs = {m: torch.zeros(2, 1) for m in names}
    (valued,) = value_batches(
        model, [{"inputs": inputs, "labels": torch.tensor([1, 1])}], modalities=names
    )
    torch.testing.assert_close(
        valued.contributions, torch.ones(2, 12, dtype=torch.float64), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("order", [("visual", "text", "audio"), ("text", "audio", "visual")])
def test_the_order_of_modalities_asked_for_is_the_order_of_the_columns(order):
    by_name = {}
    for names in (NAMES, order):
        (valued,) = value_batches(make_model(), make_batches([16]), modalities=names)
        by_name[names] = {m: valued.contributions[:, k] for k, m in enumerate(names)}
    assert any(
        not torch.equal(by_name[NAMES][m], by_name[NAMES][other]) for m in NAMES for other in NAMES
    )
    for m in NAMES:
        torch.testing.assert_close(by_name[order][m], by_name[NAMES][m], atol=1e-12, rtol=0)


# evaluation mode


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def partly_frozen() -> MultimodalModel:
    model = make_model().train()
    model.encoders["audio"].eval()
    model.encoders["text"].layers[1].eval()
    model.fusion.eval()
    return model


def test_every_module_returns_to_the_mode_it_was_in():
    model = partly_frozen()
    before = modes(model)
    assert set(before.values()) == {True, False}
    during = []
    encode = model.encode
    model.encode = lambda *arguments: during.append(modes(model)) or encode(*arguments)
    list(value_batches(model, make_batches(), modalities=NAMES))
    assert modes(model) == before
    assert len(during) == 3
    assert not any(any(found.values()) for found in during)


def test_modules_are_back_in_their_mode_between_batches():
    model = partly_frozen()
    before = modes(model)
    for _ in value_batches(model, make_batches(), modalities=NAMES):
        assert modes(model) == before
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_modules_are_back_in_their_mode_after_a_failure():
    model = partly_frozen()
    before = modes(model)
    batch = make_batches()[0]
    batch["labels"][3] = CLASSES
    with pytest.raises(DataError, match="has no class"):
        list(value_batches(model, [batch], modalities=NAMES))
    assert modes(model) == before


def test_a_module_without_an_encode_is_valued_in_evaluation_mode_too():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_model()

        def forward(self, inputs, present):
            return self.inner(inputs, present)

    model = Plain().train()
    assert_same(
        list(value_batches(model, make_batches(), modalities=NAMES)),
        list(value_batches(make_model(), make_batches(), modalities=NAMES)),
    )
    assert all(modes(model).values())
    # and, with no more to go by than a callable, encodes a modality in 4 of the 7 coalitions: in
    # that of all, and in three of the others, which are asked for together
    assert model.inner.encoders["text"].rows == [7, 7 * 3, 1, 1 * 3, 16, 16 * 3]


def test_weights_and_the_statistics_of_batch_normalisation_are_left_alone():
    model = make_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(value_batches(model, make_batches(), modalities=NAMES))
    assert any("running_mean" in name for name in before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_training_is_valued_as_in_evaluation():
    assert_same(
        list(value_batches(make_model().train(), make_batches(), modalities=NAMES)),
        list(value_batches(make_model().eval(), make_batches(), modalities=NAMES)),
    )


def test_evaluation_mode_is_nothing_to_a_plain_callable():
    with evaluation_mode(print):
        pass


def test_a_model_can_be_trained_right_after_valuing():
    model = make_model().train()
    valued = next(iter(value_batches(model, make_batches([16]), modalities=NAMES)))
    batch = make_batches([16])[0]
    loss = (model(batch["inputs"]) - valued.outputs).square().sum() + valued.contributions.sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# batches


def test_batches_may_be_mappings_or_objects():
    batches = make_batches()
    expected = list(value_batches(make_model(), batches, modalities=NAMES))
    as_namespaces = [SimpleNamespace(**batch) for batch in batches]
    as_batches = [
        Batch(
            inputs=batch["inputs"],
            present=torch.ones(len(batch["labels"]), 3, dtype=torch.bool),
            labels=batch["labels"],
            sample=torch.arange(len(batch["labels"])),
            ids=batch["ids"],
        )
        for batch in batches
    ]
    for same in (as_namespaces, as_batches):
        assert_same(list(value_batches(make_model(), same, modalities=NAMES)), expected)


def test_ids_pass_through_as_text():
    batch = make_batches([3])[0]
    for given, expected in (
        (["x", "y", "z"], ["x", "y", "z"]),
        ((7, 8, 9), ["7", "8", "9"]),
        (None, ["0", "1", "2"]),
    ):
        (valued,) = value_batches(make_model(), [{**batch, "ids": given}], modalities=NAMES)
        assert valued.ids == expected
        assert valued.numbered == (given is None)
    del batch["ids"]
    (valued,) = value_batches(make_model(), [batch], modalities=NAMES)
    assert valued.numbered
    (valued,) = value_batches(make_model(), [SimpleNamespace(**batch)], modalities=NAMES)
    assert valued.numbered


def test_ids_in_a_tensor_are_the_numbers_it_holds():
    batch = {**make_batches([3])[0], "ids": torch.tensor([7, 8, 9])}
    (valued,) = value_batches(make_model(), [batch], modalities=NAMES)
    assert valued.ids == ["7", "8", "9"]


def test_labels_may_be_a_plain_list_or_of_another_whole_number_type():
    batch = make_batches([7])[0]
    expected = list(value_batches(make_model(), [batch], modalities=NAMES))
    for labels in (batch["labels"].tolist(), batch["labels"].to(torch.uint8)):
        other = [{**batch, "labels": labels}]
        assert_same(list(value_batches(make_model(), other, modalities=NAMES)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_plain_cpu_tensors_of_the_promised_types_and_shapes(dtype):
    (batch,) = make_batches([7])
    batch["inputs"] = {m: x.to(dtype) for m, x in batch["inputs"].items()}
    (valued,) = value_batches(make_model().to(dtype), [batch], modalities=NAMES)
    shapes = {
        "labels": (torch.int64, (7,)),
        "predictions": (torch.int64, (7,)),
        "outputs": (torch.float32, (7, CLASSES)),
        "hits": (torch.float64, (7, 8)),
        "correct": (torch.float64, (7,)),
        "values": (torch.float64, (7, 8)),
        "contributions": (torch.float64, (7, 3)),
    }
    for name, (dtype, shape) in shapes.items():
        tensor = getattr(valued, name)
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape), name
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert not tensor.is_inference(), name


def test_a_prediction_is_a_hit_exactly_where_it_is_the_label_however_close_the_logits():
    # a difference that double precision sees and single precision does not
    logits = torch.tensor([[1.0, 1.0 + 1e-12, 0.0]], dtype=torch.float64)
    batch = {"inputs": {"a": torch.zeros(1, 1)}, "labels": torch.tensor([1])}
    (valued,) = value_batches(lambda inputs, present: logits, [batch], modalities=["a"])
    assert valued.hits[:, -1].tolist() == (valued.predictions == valued.labels).tolist()


def test_batches_are_taken_one_at_a_time():
    taken = []

    def stream() -> Iterator[dict]:
        for batch in make_batches():
            taken.append(len(batch["labels"]))
            yield batch

    results = value_batches(make_model(), stream(), modalities=NAMES)
    assert taken == []
    for k, valued in enumerate(results, start=1):
        assert taken == [7, 1, 16][:k]
        assert len(valued.labels) == taken[-1]


def test_no_batches_give_nothing_and_an_empty_batch_an_empty_valuation():
    assert list(value_batches(make_model(), [], modalities=NAMES)) == []
    (valued,) = value_batches(make_model(), make_batches([0]), modalities=NAMES)
    assert valued.ids == []
    assert valued.outputs.shape == (0, CLASSES)
    assert valued.hits.shape == valued.values.shape == (0, 8)
    assert valued.contributions.shape == (0, 3)


@pytest.mark.parametrize("held", [float("nan"), float("inf")])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_modality_without_sense_does_not_touch_the_coalitions_without_it(fusion, held):
    batch = make_batches([16], fusion)[0]
    (expected,) = value_batches(make_model(fusion), [batch], modalities=NAMES)
    batch["inputs"]["text"] = torch.full_like(batch["inputs"]["text"], held)
    (found,) = value_batches(make_model(fusion), [batch], modalities=NAMES)
    without = ~coalition_matrix(3)[:, 1]
    assert torch.equal(found.values[:, without], expected.values[:, without])


def test_logits_that_are_not_numbers_predict_no_class():
    batch = {"inputs": {"a": torch.zeros(2, 1)}, "labels": torch.tensor([0, 1])}
    (valued,) = value_batches(
        lambda inputs, present: torch.full((2, CLASSES), float("nan")), [batch], modalities=["a"]
    )
    assert not valued.hits.any()
    assert (valued.contributions == 0).all()


# refused


def test_an_unknown_value_function_is_refused_with_the_legal_names():
    with pytest.raises(UsageError, match="^unknown value function 'size': choose one of paper, "):
        list(
            value_batches(
                make_model(), make_batches(), modalities=NAMES, how=ValuationConfig(value="size")
            )
        )


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ([], "no modalities given"),
        (["audio", "audio"], "modality names repeat: audio, audio"),
        (["audio", "a+b"], "cannot name a modality"),
    ],
)
def test_modalities_that_cannot_be_valued_are_refused(modalities, message):
    with pytest.raises(UsageError, match=message):
        list(value_batches(make_model(), make_batches(), modalities=modalities))


@pytest.mark.parametrize(
    "batch",
    [
        {"labels": [0]},
        {"inputs": {"audio": torch.zeros(1, 3)}},
        {},
        SimpleNamespace(labels=[0]),
        (torch.zeros(1, 3), torch.zeros(1)),
    ],
)
def test_a_batch_without_inputs_or_labels_is_refused(batch):
    message = (
        r"^(a batch must have `inputs` \(tensors by modality\) and `labels`, or|.*no input for)"
    )
    with pytest.raises(DataError, match=message):
        list(value_batches(make_model(), [batch], modalities=NAMES))


def test_a_modality_without_input_is_refused():
    batch = make_batches()[0]
    del batch["inputs"]["text"]
    with pytest.raises(
        DataError,
        match="^the batch has no input for the modality 'text'; it has: audio, visual$",
    ):
        list(value_batches(make_model(), [batch], modalities=NAMES))
    batch["inputs"] = {}
    with pytest.raises(DataError, match="no input for the modality 'audio'; it has: none$"):
        list(value_batches(make_model(), [batch], modalities=NAMES))


@pytest.mark.parametrize("label", [-1, CLASSES, 99])
def test_a_label_without_a_class_is_refused(label):
    batch = make_batches()[0]
    batch["labels"][4] = label
    with pytest.raises(
        DataError, match=f"^label {label} has no class: the model has 3 classes, 0 to 2$"
    ):
        list(value_batches(make_model(), [batch], modalities=NAMES))


@pytest.mark.parametrize(
    ("shape", "reported"),
    [
        ((5, CLASSES), r"\(5, 3\)"),  # another number of samples
        ((7, 2, CLASSES), r"\(7, 2, 3\)"),
    ],
)
def test_a_callables_logits_of_the_wrong_shape_are_refused(shape, reported):
    with pytest.raises(
        DataError,
        match=rf"^the model gave outputs of shape {reported} for 7 (rows|samples): expected ",
    ):
        list(
            value_batches(
                lambda inputs, present: torch.zeros(shape), make_batches(), modalities=NAMES
            )
        )


@pytest.mark.parametrize(
    "model",
    [
        lambda inputs, present: torch.tensor(0.0),
        lambda inputs, present: torch.zeros(len(present), 2 + int(present[0].sum())),
        lambda inputs, present: torch.zeros(6 + int(present[0].sum()), CLASSES),
    ],
    ids=["no dimension", "classes vary", "samples vary"],
)
def test_a_callables_logits_that_do_not_stack_are_refused(model):
    with pytest.raises(DataError, match="^the model gave outputs of shape"):
        list(value_batches(model, make_batches(), modalities=NAMES))


@pytest.mark.parametrize("answered", [1, 6])
def test_logits_of_another_number_of_coalitions_than_asked_are_refused(answered):
    model = make_model()
    model.coalition_logits = lambda features, coalitions: torch.zeros(7, answered, CLASSES)
    with pytest.raises(DataError, match="^the model gave outputs"):
        list(value_batches(model, make_batches([7]), modalities=NAMES))


def test_an_encoders_features_of_the_wrong_number_of_samples_are_refused():
    batch = make_batches()[0]
    batch["labels"] = batch["labels"][:5]
    with pytest.raises(
        DataError,
        match="^inputs, labels and ids of a batch are of different length: audio 7, text 7, ",
    ):
        list(value_batches(make_model(), [batch], modalities=NAMES))


# the package's own batch


def make_batch() -> Batch:
    return Batch(
        inputs={"a": torch.ones(2, 3), "b": torch.ones(2, 1)},
        present=torch.tensor([[True, True], [True, False]]),
        labels=torch.tensor([1, 0]),
        sample=torch.tensor([4, 9]),
        ids=["x", "y"],
    )


def test_a_batch_on_the_cpu_is_already_there():
    batch = make_batch()
    assert batch.to(torch.device("cpu")) is batch


def test_a_batch_moves_its_inputs_and_labels_and_nothing_else():
    batch = make_batch()
    moved = batch.to(torch.device("meta"))
    assert list(moved.inputs) == ["a", "b"]
    assert {x.device.type for x in moved.inputs.values()} == {"meta"}
    assert moved.labels.device.type == "meta"
    assert moved.present is batch.present
    assert moved.sample is batch.sample
    assert moved.ids == ["x", "y"]
    assert {x.device.type for x in batch.inputs.values()} == {"cpu"}

"""The library call with every value function, kind of labels and estimator, end to end."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from mmcoop import replace_inputs, shapley_values, valuate
from mmcoop.core.games.coalitions import anchor_coalitions, coalition_matrix, coalition_names
from mmcoop.core.valuation.value_functions import VALUE_FUNCTIONS
from mmcoop.errors import DataError
from mmcoop.scores.scores import Scores

NAMES = ("a", "b", "c")
CLASSES = 3
OF_CLASSES = ["paper", "correct", "probability", "log-likelihood", "margin", "negative-loss"]


class Mixing(nn.Module):
    """Outputs that are no sum of parts, with a bias that is there even if no modality is."""

    def __init__(self, outputs: int = CLASSES, n: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(n)
            self.first, self.last = nn.Linear(2 * n, 16), nn.Linear(16, outputs)

    def forward(self, inputs: dict[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x * present[:, k : k + 1] for k, x in enumerate(inputs.values())], dim=1)
        return 2 * self.last(torch.tanh(2 * self.first(x)))


def batches(sizes=(7, 5), names=NAMES, labels: Any = None, ids: bool = False) -> list[dict]:
    """`labels`: a function of the number of samples and a generator."""
    g = torch.Generator().manual_seed(4)
    made = []
    for size in sizes:
        batch: dict[str, Any] = {
            "inputs": {m: torch.randn(size, 2, generator=g) for m in names},
        }
        batch["labels"] = (labels or classes)(size, g)
        if ids:
            batch["ids"] = [f"clip-{size}-{i}" for i in range(size)]
        made.append(batch)
    return made


def classes(size: int, g: torch.Generator) -> torch.Tensor:
    return torch.randint(CLASSES, (size,), generator=g)


def several(size: int, g: torch.Generator) -> torch.Tensor:
    return torch.randint(2, (size, CLASSES), generator=g)


def outputs_by_loop(model: nn.Module, made: list[dict]) -> list[list[list[float]]]:
    """Outputs of each sample and coalition, asked for one by one."""
    found = []
    for batch in made:
        for i in range(len(next(iter(batch["inputs"].values())))):
            one = {m: x[i : i + 1] for m, x in batch["inputs"].items()}
            with torch.no_grad():
                found.append([model(one, s[None])[0].tolist() for s in coalition_matrix(3)])
    return found


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(z) / sum(map(math.exp, logits)) for z in logits]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def worth(value: str, logits: list[float], label: int, size: int) -> float:
    """The definitions, one row at a time."""
    right = logits.index(max(logits)) == label
    p = softmax(logits)[label]
    return {
        "paper": size * float(right),
        "correct": float(right),
        "probability": p,
        "log-likelihood": math.log(p),
        "negative-loss": math.log(p),
        "margin": logits[label] - max(z for k, z in enumerate(logits) if k != label),
    }[value]


def assert_shared_out(valuation: Scores) -> None:
    """Contributions sum to the value of all modalities less that of none."""
    gained = valuation.values[:, -1] - valuation.values[:, 0]
    torch.testing.assert_close(valuation.contributions.sum(1), gained, atol=1e-12, rtol=0)


# --- classes


@pytest.mark.parametrize("value", OF_CLASSES)
def test_every_value_of_classes_is_that_of_a_plain_loop(value):
    model, made = Mixing(), batches()
    valuation = valuate(model, made, modalities=NAMES, value=value)
    labels = torch.cat([b["labels"] for b in made]).tolist()
    sizes = coalition_matrix(3).sum(1).tolist()
    expected = [
        [worth(value, logits, label, size) for logits, size in zip(row, sizes, strict=True)]
        for row, label in zip(outputs_by_loop(model, made), labels, strict=True)
    ]
    np.testing.assert_allclose(valuation.values, expected, atol=1e-5)
    torch.testing.assert_close(valuation.contributions, shapley_values(valuation.values))
    assert_shared_out(valuation)
    assert valuation.details["value"] == value
    assert valuation.labels.tolist() == labels
    # what nothing is worth is measured, but for the paper's value
    base = valuation.to_frame()["base_value"]
    assert (base == 0).all() == (value == "paper")
    assert base.tolist() == valuation.values[:, 0].tolist()


def test_without_labels_the_class_predicted_from_all_modalities_is_valued():
    model, made = Mixing(), batches()
    for batch in made:
        del batch["labels"]
    valuation = valuate(model, made, modalities=NAMES, value="predicted-probability")
    for row, values, said in zip(
        outputs_by_loop(model, made), valuation.values.tolist(), valuation.predictions, strict=True
    ):
        assert int(said) == row[-1].index(max(row[-1]))
        assert values == pytest.approx([softmax(logits)[said] for logits in row], abs=1e-5)
    assert valuation.labels is None
    assert_shared_out(valuation)
    frame = valuation.to_frame()
    assert frame["label"].isna().all()
    assert frame["correct"].isna().all()


def test_with_labels_they_are_told_beside_the_probability_of_the_predicted_class():
    made = batches()
    valuation = valuate(Mixing(), made, modalities=NAMES, value="predicted-probability")
    assert valuation.labels.tolist() == torch.cat([b["labels"] for b in made]).tolist()
    right = valuation.labels == valuation.predictions
    assert valuation.to_frame()["correct"].tolist() == right.tolist()
    assert 0 < right.sum() < 12
    # where they are equal, it is the probability of the label
    other = valuate(Mixing(), made, modalities=NAMES, value="probability")
    assert torch.equal(valuation.values[right], other.values[right])
    assert not torch.equal(valuation.values[~right], other.values[~right])


# --- several labels


def test_each_of_several_labels_is_a_row_with_its_own_values():
    model, made = Mixing(), batches(labels=several, ids=True)
    valuation = valuate(model, made, modalities=NAMES, value="label-probability")
    truth = torch.cat([b["labels"] for b in made])
    logits = torch.tensor(outputs_by_loop(model, made))  # (samples, coalitions, labels)
    ids = [i for b in made for i in b["ids"]]
    assert valuation.ids == [f"{i}/{label}" for i in ids for label in range(CLASSES)]
    assert valuation.groups == [i for i in ids for _ in range(CLASSES)]
    assert valuation.labels.tolist() == truth.flatten().tolist()
    row = 0
    for i in range(12):
        for label in range(CLASSES):
            sign = 1 if truth[i, label] else -1
            expected = [sigmoid(sign * float(z)) for z in logits[i, :, label]]
            assert valuation.values[row].tolist() == pytest.approx(expected, abs=1e-5)
            assert valuation.predictions[row] == int(logits[i, -1, label] > 0)
            row += 1
    assert row == len(valuation.ids)
    assert_shared_out(valuation)
    frame = valuation.to_frame()
    assert frame["correct"].tolist() == (frame["label"] == frame["prediction"]).tolist()
    means = valuation.means(replicates=0)
    assert means["mean"].tolist() == pytest.approx(valuation.contributions.mean(0).tolist())


def test_labels_of_samples_without_ids_are_told_by_the_samples_number():
    valuation = valuate(
        Mixing(), batches((2, 1), labels=several), modalities=NAMES, value="label-probability"
    )
    assert valuation.ids == ["0/0", "0/1", "0/2", "1/0", "1/1", "1/2", "2/0", "2/1", "2/2"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_several_labels_valued_together_are_one_row_a_sample(dtype, tmp_path):
    model = Mixing()
    made = batches(labels=lambda size, g: several(size, g).to(dtype), ids=True)
    valuation = valuate(model, made, modalities=NAMES, value="negative-loss")
    truth = torch.cat([b["labels"] for b in made]).tolist()
    for i, row in enumerate(outputs_by_loop(model, made)):
        expected = [
            sum(
                math.log(sigmoid(z if there else -z))
                for z, there in zip(logits, truth[i], strict=True)
            )
            / CLASSES
            for logits in row
        ]
        assert valuation.values[i].tolist() == pytest.approx(expected, abs=1e-5)
    assert valuation.ids == [i for b in made for i in b["ids"]]
    assert valuation.labels.tolist() == truth
    assert_shared_out(valuation)
    valuation.save(tmp_path / "scores.parquet")
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    assert [list(labels) for labels in frame["label"]] == truth
    assert [list(said) for said in frame["prediction"]] == valuation.predictions.tolist()
    assert frame["correct"].isna().all()


# --- regression


class Regression:
    """A scikit-learn regression on the inputs side by side, which knows nothing of absence."""

    def __init__(self, targets: int, column: bool = False) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60, 6))
        y = x @ rng.normal(size=(6, targets)) + 2
        self.fitted = LinearRegression().fit(x, y if targets > 1 or column else y[:, 0])

    def __call__(self, inputs):
        return self.fitted.predict(torch.cat([inputs[m] for m in NAMES], dim=1).numpy())


@pytest.mark.parametrize(("targets", "column"), [(1, False), (1, True), (3, False)])
def test_a_regression_is_valued_by_its_squared_error(targets, column, tmp_path):
    regression = Regression(targets, column)
    model = replace_inputs(regression, NAMES, "zero", task="regression")
    shape = () if targets == 1 else (targets,)
    made = batches(labels=lambda size, g: torch.randn(size, *shape, generator=g))
    valuation = valuate(model, made, modalities=NAMES, value="negative-squared-error")
    numbers = torch.cat([b["labels"] for b in made])
    x = {m: torch.cat([b["inputs"][m] for b in made]) for m in NAMES}
    for k, present in enumerate(coalition_matrix(3).tolist()):
        shown = {m: x[m] * here for m, here in zip(NAMES, present, strict=True)}
        error = regression(shown).reshape(12, -1) - numbers.double().numpy().reshape(12, -1)
        np.testing.assert_allclose(
            valuation.values[:, k], -np.square(error).mean(1), atol=1e-4, rtol=1e-5
        )
    assert_shared_out(valuation)
    assert (valuation.values[:, 0] < 0).all()
    assert valuation.labels.dtype == valuation.predictions.dtype == torch.float64
    assert valuation.labels.shape == valuation.predictions.shape == numbers.shape
    assert valuation.details["fair_share"] is None
    assert valuation.details["absent"] == "input zero"
    valuation.save(tmp_path / "scores.parquet")
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    for name, told in (("label", valuation.labels), ("prediction", valuation.predictions)):
        assert [np.asarray(number).tolist() for number in frame[name]] == told.tolist()
    assert frame["correct"].isna().all()


# --- a value function of one's own


def test_a_value_function_of_ones_own_gets_outputs_labels_and_sizes():
    seen = []

    def entropy(outputs, targets, sizes):
        seen.append((tuple(outputs.shape), targets.tolist(), sizes.tolist()))
        p = outputs.softmax(-1)
        return (p * p.log()).sum(-1) + sizes / 10

    model, made = Mixing(), batches((4,))
    valuation = valuate(model, made, modalities=NAMES, value=entropy)
    expected = [
        [
            sum(p * math.log(p) for p in softmax(logits)) + size / 10
            for logits, size in zip(row, coalition_matrix(3).sum(1).tolist(), strict=True)
        ]
        for row in outputs_by_loop(model, made)
    ]
    np.testing.assert_allclose(valuation.values, expected, atol=1e-5)
    assert valuation.details["value"] == "custom: entropy"
    labels = made[0]["labels"].tolist()
    # seven coalitions at once, a coalition's rows beside each other, then that of all
    sizes = [size for size in (0, 1, 1, 2, 1, 2, 2) for _ in range(4)]
    assert seen == [
        ((28, CLASSES), labels * 7, sizes),
        ((4, CLASSES), labels, [3] * 4),
    ]
    assert_shared_out(valuation)


def test_a_value_function_of_ones_own_gets_numbers_in_their_own_shape():
    made = batches((4,), labels=lambda size, g: torch.randn(size, generator=g))

    def absolute(outputs, targets, sizes):
        return -(outputs[:, 0] - targets).abs()

    valuation = valuate(Mixing(1), made, modalities=NAMES, value=absolute)
    for i, row in enumerate(outputs_by_loop(Mixing(1), made)):
        expected = [-abs(output[0] - float(made[0]["labels"][i])) for output in row]
        assert valuation.values[i].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda outputs, targets, sizes: outputs[:, :2],
            "^a value function gave 2 values a sample: expected one, or one for each of several",
        ),
        (
            lambda outputs, targets, sizes: outputs.sum(),
            r"^value function 'custom: <lambda>' gave values of shape \(\) for 49 rows: expected "
            r"\(rows,\)$",
        ),
        (
            lambda outputs, targets, sizes: outputs[1:, 0],
            r"^value function 'custom: <lambda>' gave values of shape \(48,\) for 49 rows: expec",
        ),
        (
            lambda outputs, targets, sizes: torch.where(sizes == 2, torch.nan, outputs[:, 0]),
            r"^value function 'custom: <lambda>' gave nan for a\+b of sample 0 in its batch: look "
            "for NaN in the model's outputs$",
        ),
        (
            lambda outputs, targets, sizes: torch.where(sizes == 0, -torch.inf, outputs[:, 0]),
            "^value function 'custom: <lambda>' gave -inf for no modality of sample 0 in its batch",
        ),
    ],
)
def test_a_value_function_of_ones_own_that_does_not_fit_is_refused(function, message):
    with pytest.raises(DataError, match=message):
        valuate(Mixing(), batches((7,)), modalities=NAMES, value=function)


def test_what_is_not_a_number_in_a_coalition_that_is_drawn_is_refused():
    names = [f"m{k}" for k in range(6)]

    def function(outputs, targets, sizes):
        return torch.where(sizes == 3, torch.nan, outputs[:, 0])

    for estimator in ("permutation", "kernel"):
        with pytest.raises(DataError, match="^value function 'custom: function' gave NaN or infin"):
            valuate(
                Mixing(n=6),
                batches(names=names),
                modalities=names,
                value=function,
                estimator=estimator,
            )


# --- forms of batches


def test_padded_series_may_be_given_in_tuples_and_come_out_as_unpadded():
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 2, 3, 4])
    words = torch.randn(4, 5, 2, generator=g)
    mask = torch.arange(5) < lengths.unsqueeze(1)
    sight, labels = torch.randn(4, 2, generator=g), torch.tensor([0, 1, 2, 0])

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = Mixing(n=2)

        def forward(self, inputs, present):
            text = inputs["text"]
            kept = (text["words"] * text["mask"].unsqueeze(2)).sum(1)
            return self.mixing({"text": kept, "sight": inputs["sight"]}, present)

    def forms(words, mask, sight, labels):
        text = {"words": words, "mask": mask}
        yield (text, sight, labels)
        yield [text, sight, labels]
        yield ({"sight": sight, "text": text}, labels)
        yield {"inputs": {"text": text, "sight": sight}, "labels": labels}

    padded = [
        valuate(Reads(), [form], modalities=["text", "sight"], value="probability").values
        for form in forms(words, mask, sight, labels)
    ]
    for other in padded[1:]:
        assert torch.equal(other, padded[0])
    for i, k in enumerate(lengths.tolist()):
        one = slice(i, i + 1)
        unpadded = next(forms(words[one, :k], mask[one, :k], sight[one], labels[one]))
        alone = valuate(Reads(), [unpadded], modalities=["text", "sight"], value="probability")
        torch.testing.assert_close(alone.values, padded[0][one], atol=1e-6, rtol=0)


# --- coalitions that are drawn

SIX = tuple(f"m{k}" for k in range(6))


def drawn(estimator: str, made=None, **options: Any) -> Scores:
    made = batches((40, 21), SIX) if made is None else made
    options = {"value": "log-likelihood", **options}
    return valuate(Mixing(n=6), made, modalities=SIX, estimator=estimator, **options)


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_contributions_from_coalitions_that_are_drawn_are_near_the_exact_ones(estimator):
    exact, found = drawn("exact"), drawn(estimator, budget=400)
    low, high = found.interval().unbind(-1)
    covered = (low <= exact.contributions) & (exact.contributions <= high)
    assert 0.9 < covered.double().mean() < 0.99
    assert (found.interval(0.5)[..., 1] < high).all()
    torch.testing.assert_close((low + high) / 2, found.contributions)
    error = (found.contributions - exact.contributions).square().mean().sqrt()
    assert 0 < error < 0.2 * exact.contributions.std()
    assert_shared_out(found)
    # what is told: none, each alone, all but one, all
    column = (anchor_coalitions(6) * 2 ** torch.arange(6)).sum(1)
    assert torch.equal(found.coalitions, anchor_coalitions(6))
    torch.testing.assert_close(found.values, exact.values[:, column], atol=1e-6, rtol=1e-6)
    assert found.ids == exact.ids
    assert torch.equal(found.labels, exact.labels)
    assert torch.equal(found.predictions, exact.predictions)
    pairs = (400 - 14) // {"permutation": 6, "kernel": 2}[estimator]
    assert found.draws.tolist() == [pairs] * 61
    assert found.details["estimator"] == estimator
    assert found.details["budget"] == 400


def test_of_an_exact_contribution_both_ends_of_the_interval_are_it():
    exact = drawn("exact")
    assert exact.stderr is None
    assert torch.equal(exact.interval(), exact.contributions.unsqueeze(-1).expand(-1, -1, 2))
    for estimator in ("permutation", "kernel"):
        three = valuate(Mixing(), batches(), modalities=NAMES, value="margin", estimator=estimator)
        same = valuate(Mixing(), batches(), modalities=NAMES, value="margin")
        torch.testing.assert_close(three.contributions, same.contributions)
        assert torch.equal(three.interval()[..., 0], three.contributions)
        assert three.draws.tolist() == [0] * 12


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_what_is_drawn_goes_by_a_samples_id_whatever_batch_it_is_in(estimator):
    made = batches((9,), SIX)[0]
    made["ids"] = [f"clip-{i}" for i in range(9)]
    whole = drawn(estimator, [made])
    order = torch.tensor([5, 2, 8, 0, 1, 7, 3, 6, 4])
    cut = []
    for rows in torch.split(order, 4):
        cut.append(
            {
                "inputs": {m: x[rows] for m, x in made["inputs"].items()},
                "labels": made["labels"][rows],
                "ids": [made["ids"][i] for i in rows.tolist()],
            }
        )
    found = drawn(estimator, cut)
    torch.testing.assert_close(
        found.contributions, whole.contributions[order], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(found.stderr, whole.stderr[order], atol=1e-5, rtol=1e-4)
    other = drawn(estimator, [{**made, "ids": [f"other-{i}" for i in range(9)]}])
    assert (other.contributions - whole.contributions).abs().max() > 1e-3
    again, anew = drawn(estimator, [made]), drawn(estimator, [made], seed=1)
    assert torch.equal(again.contributions, whole.contributions)
    assert (anew.contributions - whole.contributions).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
@pytest.mark.parametrize("max_batch", [1, 50])
def test_asking_for_few_rows_at_once_changes_nothing(estimator, max_batch):
    made = batches((5,), SIX)
    expected = drawn(estimator, made, budget=140)
    calls = []

    class Counting(Mixing):
        def forward(self, inputs, present):
            calls.append(len(present))
            return super().forward(inputs, present)

    found = valuate(
        Counting(n=6),
        made,
        modalities=SIX,
        value="log-likelihood",
        estimator=estimator,
        budget=140,
        max_batch=max_batch,
    )
    torch.testing.assert_close(found.contributions, expected.contributions, atol=1e-5, rtol=1e-5)
    assert max(calls) <= max_batch
    each = {"permutation": 6, "kernel": 2}[estimator]
    assert sum(calls) == 5 * (14 + (140 - 14) // each * each)


@pytest.mark.parametrize(("estimator", "tolerance"), [("permutation", 0.005), ("kernel", 0.002)])
def test_a_tolerance_is_a_standard_error_that_is_kept_or_the_budget_is_spent(estimator, tolerance):
    found = drawn(estimator, tolerance=tolerance, budget=600)
    most = (600 - 14) // {"permutation": 6, "kernel": 2}[estimator]
    early = found.draws < most
    assert 0 < early.sum() < 61
    assert (found.stderr[early] <= tolerance).all()
    assert (found.draws[~early] == most).all()
    assert found.details["tolerance"] == tolerance


def test_each_of_several_labels_has_errors_of_its_own():
    made = batches((5,), SIX, labels=several)
    exact = drawn("exact", made, value="label-probability")
    found = drawn("kernel", made, value="label-probability", budget=100)
    assert found.stderr.shape == found.contributions.shape == (15, 6)
    assert found.draws.shape == (15,)
    assert found.ids == exact.ids
    error = (found.contributions - exact.contributions).abs()
    assert (error < 5 * found.stderr + 1e-9).all()
    assert_shared_out(found)


def test_fourteen_modalities_are_valued_by_drawing_and_their_table_is_of_the_telling_coalitions():
    names = tuple(f"m{k}" for k in range(14))
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(14, generator=g, dtype=torch.float64)
    inputs = {m: torch.randn(6, 2, generator=g, dtype=torch.float64) for m in names}

    def model(inputs, present):
        # a sum of parts and of what neighbours say together
        x = torch.stack([x[:, 0] for x in inputs.values()], dim=1) * present
        together = (x[:, 1:] * x[:, :-1]).sum(1)
        return torch.stack([torch.zeros(len(x)), x @ weights + together], dim=1)

    def logit(outputs, targets, sizes):
        return outputs[:, 1]

    batch = {"inputs": inputs, "labels": torch.ones(6).long(), "ids": list("uvwxyz")}
    valuation = valuate(model, [batch], modalities=names, value=logit)
    x = torch.stack([x[:, 0] for x in inputs.values()], dim=1)
    # each gets its own part and half of what it says with either neighbour
    expected = x * weights
    expected[:, 1:] += x[:, 1:] * x[:, :-1] / 2
    expected[:, :-1] += x[:, 1:] * x[:, :-1] / 2
    torch.testing.assert_close(valuation.contributions, expected, atol=1e-9, rtol=0)
    assert valuation.details["estimator"] == "kernel"
    assert valuation.details["budget"] == 512
    frame = valuation.to_frame()
    told = coalition_names(names, anchor_coalitions(14))[1:]
    assert list(frame.columns) == [
        *("id", "split", "label", "prediction", "correct"),
        *(f"contribution_{m}" for m in names),
        *(f"stderr_{m}" for m in names),
        "draws",
        "base_value",
        *(f"value_{name}" for name in told),
        *(f"correct_{name}" for name in told),
        *(f"prediction_{name}" for name in told[:-1]),
        "ties",
    ]
    assert frame["id"].tolist() == list("uvwxyz")
    alone = frame[[f"value_{m}" for m in names]].to_numpy()
    np.testing.assert_allclose(alone, x * weights, atol=1e-12)
    assert list(valuation.means(replicates=0).index) == list(names)


def test_a_valuation_made_of_a_table_has_the_columns_of_all_coalitions(tmp_path):
    table = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    made = Scores.from_values(
        ("a", "b"),
        ["x", "y"],
        table,
        labels=torch.tensor([1, 0]),
        predictions=torch.tensor([1, 1]),
    )
    frame = made.to_frame()
    assert frame["value_a+b"].tolist() == [2.0, 0.0]
    assert frame["contribution_a"].tolist() == [1.5, -0.5]
    assert frame["correct"].tolist() == [True, False]
    made.save(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), frame)
    assert made.means(replicates=0)["mean"].tolist() == [0.5, 0.5]


# --- means of a data set


def test_means_have_bootstrap_intervals_and_shares_of_low_contributing_samples():
    made = batches((300,))
    valuation = valuate(Mixing(), made, modalities=NAMES, value="probability")
    means = valuation.means()
    phi = valuation.contributions.numpy()
    gained = (valuation.values[:, -1] - valuation.values[:, 0]).numpy()
    below = phi < gained[:, None] / 3 - 1e-6
    assert list(means.index) == list(NAMES)
    assert list(means.columns) == ["mean", "low", "high", "low_contributing"]
    np.testing.assert_allclose(means["mean"], phi.mean(0), atol=1e-12)
    np.testing.assert_allclose(means["low_contributing"], below.mean(0), atol=1e-12)
    half = 1.96 * phi.std(0) / 300**0.5
    np.testing.assert_allclose(means["low"], phi.mean(0) - half, atol=0.2 * half.max())
    np.testing.assert_allclose(means["high"], phi.mean(0) + half, atol=0.2 * half.max())
    narrow = valuation.means(level=0.5)
    assert (narrow["low"] > means["low"]).all()
    assert (narrow["high"] < means["high"]).all()
    assert valuation.means(replicates=0)[["low", "high"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(valuation.means(), means)


def test_of_a_value_without_bounds_low_contributing_is_below_the_samples_own_share():
    valuation = valuate(Mixing(), batches(), modalities=NAMES, value="margin")
    phi = valuation.contributions
    below = (phi < phi.mean(1, keepdim=True) - 1e-6).double().mean(0)
    assert valuation.means()["low_contributing"].tolist() == pytest.approx(below.tolist())


def test_every_value_function_by_name_is_tried_above():
    others = {"predicted-probability", "label-probability", "negative-squared-error"}
    assert {*OF_CLASSES, *others} == set(VALUE_FUNCTIONS)

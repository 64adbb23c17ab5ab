"""`mmcoop valuate`, every option of it, and what the other commands do with its files."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from mmcoop import load_run, open_dataset
from mmcoop.core.choices import CLASS_VALUES
from mmcoop.core.valuation.engine import value_batches
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.locks import locked
from mmcoop.training.crossfit import cross_fit
from mmcoop.training.train import train

Call = Callable[..., "subprocess.CompletedProcess[str]"]

MODULE = '''
"""Models of the tests; `asked` holds the numbers of rows of every call."""

import time

import torch
from torch import nn

asked = []


class Five(nn.Module):
    """Logits of 3 classes from five views, with interactions; it does without a view by itself."""

    def forward(self, inputs, present):
        asked.append(len(present))
        views = torch.stack([inputs[name] for name in sorted(inputs)], 1) * present.unsqueeze(2)
        return views.sum(1) + 0.5 * views.prod(1) + torch.tanh(views[:, 0] * views[:, -1])


class Two(nn.Module):
    """Logits of 4 classes from sound and touch, and no `present`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.ear, self.hand = nn.Linear(5, 4), nn.Linear(4, 4)

    def forward(self, sound, touch):
        heard, felt = self.ear(sound), self.hand(touch)
        return heard + felt + heard * felt


def make_two():
    return Two()


def slow(inputs, present):
    time.sleep(0.02)
    return inputs["sound"][:, :4] * present[:, :1] + inputs["touch"] * present[:, 1:]


class Takes(nn.Module):
    def __init__(self, width):
        super().__init__()


class Breaks(nn.Module):
    modalities = ("sound", "touch")

    def forward(self, inputs, present):
        return nn.functional.linear(inputs["sound"], inputs["touch"][:, :1])


class Swapped(nn.Module):
    def forward(self, sound, picture):
        return sound


class Present(nn.Module):
    def forward(self, inputs, present):
        return inputs["sound"]


def needs(width):
    return nn.Linear(4, 3)


class Undefined(nn.Module):
    def forward(self, sound, touch):
        return sound[:, :4] * float("nan")


def breaks(inputs, present):
    return inputs["light"]


def fails():
    raise ValueError("out of order")


number = 3
'''


def write_views(folder: Path) -> None:
    """24, 12 and 12 samples of 3 classes in five views, each of which tells the class a little."""
    rng = np.random.default_rng(3)
    header = Header(
        name="views",
        recipe="tests",
        options={},
        classes=["a", "b", "c"],
        modalities={m: Modality("vector", (3,), "float32", "mlp") for m in "pqrst"},
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 24), ("validation", 12), ("test", 12)):
            for i in range(rows):
                views = {m: rng.normal(0, 1, 3) + 0.8 * np.eye(3)[i % 3] for m in "pqrst"}
                name = f"{split}-{i}"
                writer.add(split, id=name, label=i % 3, group=name, **views)


@pytest.fixture(scope="module")
def folder(noisy, quick, tmp_path_factory) -> Path:
    """A folder with two data sets, a run and a module of models; not to be changed."""
    place = tmp_path_factory.mktemp("valuate")
    shutil.copytree(noisy, place / "data/noisy")
    write_views(place / "views")
    with pytest.MonkeyPatch.context() as change:
        change.chdir(place)
        train(Path("runs/joint"), open_dataset(Path("data/noisy")), quick(epochs=4, lr=1e-2))
    (place / "models_of_valuate.py").write_text(MODULE)
    return place


@pytest.fixture
def valuate(folder, mmcoop, tmp_path, monkeypatch) -> Iterator[Call]:
    """`valuate(*words)`: the command in the folder, with `--out` in a folder of the test's own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "out").mkdir()

    def call(*words: str) -> Any:
        out = [] if "--out" in words else ["--out", str(tmp_path / "out/s.parquet")]
        return mmcoop(folder, "valuate", *words, *out)

    yield call
    sys.modules.pop("models_of_valuate", None)


@pytest.fixture
def scores(valuate, tmp_path) -> Callable[..., tuple[pd.DataFrame, dict[str, Any]]]:
    """`scores(*words)`: the rows that were written, and the answer as JSON has it."""

    def call(*words: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        result = valuate(*words, "--json", "--quiet", "--overwrite")
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return pd.read_parquet(tmp_path / "out/s.parquet"), json.loads(result.stdout)

    return call


def details_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"mmcoop"])
    return content


MODEL = ["--model", "models_of_valuate:make_two", "--data", "data/noisy"]
FIVE = ["--model", "models_of_valuate:Five", "--data", "views"]


def logits_of_run(folder: Path, split: str, present: list[bool]) -> np.ndarray:
    """What the run answers from these modalities, all samples at once."""
    run, samples = load_run(folder / "runs/joint"), open_dataset(folder / "data/noisy").split(split)
    inputs = {m: torch.from_numpy(samples.read(m, np.arange(len(samples)))) for m in run.modalities}
    with torch.no_grad():
        rows = torch.tensor([present]).expand(len(samples), 2)
        return run.model(inputs, rows).double().numpy()


def worth(name: str, logits: np.ndarray, labels: np.ndarray, whole: np.ndarray, size: int) -> Any:
    """v of a coalition of that size for every sample, by the definition in words."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own, right = np.arange(len(labels)), logits.argmax(1) == labels
    others = np.where(np.eye(logits.shape[1])[labels] == 1, -np.inf, logits)
    return {
        "paper": size * right,
        "correct": 1.0 * right,
        "probability": p[own, labels],
        "log-likelihood": np.log(p[own, labels]),
        "negative-loss": np.log(p[own, labels]),
        "margin": logits[own, labels] - others.max(1),
        "predicted-probability": p[own, whole.argmax(1)],
    }[name]


# --- what a coalition is worth


@pytest.mark.parametrize("value", CLASS_VALUES)
def test_values_and_contributions_are_those_of_the_value_function(folder, scores, tmp_path, value):
    frame, answer = scores("--value", value, "--split", "test")
    labels = open_dataset(folder / "data/noisy").split("test").labels
    whole = logits_of_run(folder, "test", [True, True])
    v = {
        present: worth(value, logits_of_run(folder, "test", list(present)), labels, whole, size)
        for size, present in zip(
            (0, 1, 1, 2), itertools.product((False, True), repeat=2), strict=True
        )
    }
    if value == "paper":
        v[False, False] = np.zeros(30)
    for column, present in (
        ("base_value", (False, False)),
        ("value_sound", (True, False)),
        ("value_touch", (False, True)),
        ("value_sound+touch", (True, True)),
    ):
        np.testing.assert_allclose(frame[column], v[present], atol=1e-5)
    none, sound, touch, both = (v[p] for p in [(0, 0), (1, 0), (0, 1), (1, 1)])
    np.testing.assert_allclose(
        frame["contribution_sound"], (sound - none + both - touch) / 2, atol=1e-5
    )
    np.testing.assert_allclose(
        frame["contribution_touch"], (touch - none + both - sound) / 2, atol=1e-5
    )
    assert frame["prediction"].tolist() == whole.argmax(1).tolist()
    details = details_of(tmp_path / "out/s.parquet")
    assert (details["value"], answer["value"]) == (value, value)
    assert details["fair_share"] == (1.0 if value == "paper" else None)
    bounded = value in ("correct", "probability", "predicted-probability")
    assert details["best"] == (1.0 if bounded else None)
    own = (frame["value_sound+touch"] - frame["base_value"]) / 2
    for m in ("sound", "touch"):
        low = (frame[f"contribution_{m}"] < (1 if value == "paper" else own) - 1e-6).mean()
        assert answer["low_contributing"][m] == pytest.approx(low)


def test_the_answer_is_that_of_the_rows(scores):
    frame, answer = scores("--value", "probability")
    assert (answer["run"], answer["split"], answer["samples"]) == ("runs/joint", "train", 70)
    phi = frame[["contribution_sound", "contribution_touch"]]
    for m in ("sound", "touch"):
        column = frame[f"contribution_{m}"]
        assert answer["contributions"][m] == pytest.approx(column.mean())
        low, high = answer["intervals"][m]
        # as wide as the normal approximation has it
        half = 1.96 * column.std() / 70**0.5
        assert [low, high] == pytest.approx([column.mean() - half, column.mean() + half], abs=half)
        assert answer["mm_shap"][m] == pytest.approx((column / phi.abs().sum(axis=1)).abs().mean())
    assert answer["coalitions"]["sound+touch"] == pytest.approx(frame["correct"].mean())
    assert answer["efficiency_residual"] < 1e-12
    assert answer["further"] == {}


# --- absence


def two_by_hand(
    folder: Path, what: str, whole: dict[str, torch.Tensor]
) -> dict[tuple[int, int], torch.Tensor]:
    """Softmax probabilities of the test samples by what is present (of sound, of touch), `what`
    standing in at the inputs for what is not: zeros, the mean of the training samples, or each."""
    model = sys.modules["models_of_valuate"].Two()
    train = open_dataset(folder / "data/noisy").split("train")
    inputs = {m: torch.from_numpy(train.read(m, np.arange(70))) for m in ("sound", "touch")}
    fillers = {
        "zero": [{m: torch.zeros_like(x[0]) for m, x in inputs.items()}],
        "mean": [{m: x.mean(0) for m, x in inputs.items()}],
        "marginal": [{m: x[k] for m, x in inputs.items()} for k in range(70)],
    }[what]
    found = {}
    for present in itertools.product((0, 1), repeat=2):
        each = []
        for filler in fillers:
            rows = {
                m: whole[m] if here else filler[m].expand_as(whole[m])
                for m, here in zip(("sound", "touch"), present, strict=True)
            }
            each.append(model(**rows).softmax(1))
        found[present] = torch.stack(each).mean(0)
    return found


@pytest.mark.parametrize("absent", ["zero", "mean", "marginal", None])
def test_what_stands_in_for_an_absent_input(folder, scores, tmp_path, absent):
    more = [] if absent is None else ["--absent", absent]
    more += ["--draws", "70"] if absent == "marginal" else []  # each sample of the background
    frame, _ = scores(*MODEL, "--split", "test", "--value", "probability", *more)
    test = open_dataset(folder / "data/noisy").split("test")
    whole = {m: torch.from_numpy(test.read(m, np.arange(30))) for m in ("sound", "touch")}
    p = two_by_hand(folder, absent or "zero", whole)
    for column, present in (
        ("base_value", (0, 0)),
        ("value_sound", (1, 0)),
        ("value_touch", (0, 1)),
        ("value_sound+touch", (1, 1)),
    ):
        expected = p[present][torch.arange(30), test.labels.tolist()]
        np.testing.assert_allclose(frame[column], expected.detach(), atol=1e-5)
    told = {"marginal": "input marginal, 70 draws", None: "input zero"}
    details = details_of(tmp_path / "out/s.parquet")
    assert details["absent"] == told.get(absent, f"input {absent}")
    assert details.get("absent_seed") == (0 if absent == "marginal" else None)


def test_a_run_is_absent_by_zero_features_unless_something_else_is_asked_for(scores, tmp_path):
    usual, _ = scores("--value", "probability")
    assert details_of(tmp_path / "out/s.parquet")["absent"] == "zero"
    places = ["--features", "sound=encoders.sound", "--features", "touch=encoders.touch"]
    by_hook, _ = scores("--value", "probability", *places)
    pd.testing.assert_frame_equal(by_hook, usual, rtol=1e-5)
    details = details_of(tmp_path / "out/s.parquet")
    assert details["absent"] == "features zero"
    assert details["features"] == {"sound": "encoders.sound", "touch": "encoders.touch"}
    inputs, _ = scores("--value", "probability", "--absent", "zero")
    assert not np.allclose(inputs["value_sound"], usual["value_sound"], atol=1e-3)
    np.testing.assert_allclose(inputs["value_sound+touch"], usual["value_sound+touch"], rtol=1e-5)


def test_mean_features_of_a_model_of_ones_own(folder, scores):
    places = ["--features", "sound=ear", "--features", "touch=hand"]
    words = [*MODEL, "--split", "test", "--value", "probability", *places, "--absent", "mean"]
    frame, _ = scores(*words)
    model = sys.modules["models_of_valuate"].Two()
    dataset = open_dataset(folder / "data/noisy")
    train, test = (
        {m: torch.from_numpy(s.read(m, np.arange(len(s)))) for m in ("sound", "touch")}
        for s in (dataset.split("train"), dataset.split("test"))
    )
    heard, felt = model.ear(test["sound"]), model.hand(train["touch"]).mean(0)
    p = (heard + felt + heard * felt).softmax(1)
    p = p[torch.arange(30), dataset.split("test").labels.tolist()]
    np.testing.assert_allclose(frame["value_sound"], p.detach(), atol=1e-5)


# --- a model of one's own


def test_weights_and_modalities_of_a_model_of_ones_own(folder, scores, valuate, tmp_path):
    plain, _ = scores(*MODEL)
    weights = {name: torch.randn_like(w) for name, w in two_weights().items()}
    save_file(weights, tmp_path / "w.safetensors")
    words = [*MODEL, "--weights", str(tmp_path / "w.safetensors"), "--batch-size", "7"]
    other, answer = scores(*words)
    assert not other["prediction"].equals(plain["prediction"])
    assert answer["model"] == "models_of_valuate:make_two"
    details = details_of(tmp_path / "out/s.parquet")
    assert details["model"] == "models_of_valuate:make_two"
    assert re.fullmatch("[0-9a-f]{64}", details["weights"])
    # modalities come in their order, however they are named
    frame, answer = scores(*FIVE, "--modality", "t", "--modality", "q")
    assert list(frame.filter(like="contribution_")) == ["contribution_q", "contribution_t"]
    assert list(answer["contributions"]) == ["q", "t"]


def two_weights() -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = sys.modules["models_of_valuate"].Two().state_dict()
    return weights


# --- further numbers


def by_coalition(row: pd.Series, names: str) -> dict[frozenset[str], float]:
    """v(S) of one sample by the members of S."""
    values = {frozenset(): row["base_value"]}
    for size in range(1, len(names) + 1):
        for members in itertools.combinations(names, size):
            values[frozenset(members)] = row[f"value_{'+'.join(members)}"]
    return values


def subsets(of: Any) -> Iterator[frozenset[str]]:
    for size in range(len(of) + 1):
        yield from map(frozenset, itertools.combinations(sorted(of), size))


def interaction(v: dict[frozenset[str], float], of: frozenset[str], names: str) -> float:
    """The Shapley interaction index, by its definition."""
    n, t, total = len(names), len(of), 0.0
    for s in subsets(set(names) - of):
        weight = factorial(len(s)) * factorial(n - len(s) - t) / factorial(n - t + 1)
        total += weight * sum((-1) ** (t - len(part)) * v[s | part] for part in subsets(of))
    return total


def owen(v: dict[frozenset[str], float], groups: list[str], of: str) -> float:
    """Mean marginal contribution over all orders in which groups arrive as a whole."""
    total, orders = 0.0, 0
    for order in itertools.permutations(groups):
        for inner in itertools.product(*(itertools.permutations(group) for group in order)):
            arrival = [m for group in inner for m in group]
            before = frozenset(arrival[: arrival.index(of)])
            total += v[before | {of}] - v[before]
            orders += 1
    return total / orders


@pytest.mark.parametrize("kind", ["pairwise", "all"])
def test_further_columns_are_what_their_definitions_say(scores, tmp_path, kind):
    words = ["--interactions", kind, "--index", "banzhaf", "--index", "leave-one-out"]
    words += ["--index", "owen", "--groups", "left=p,r", "--groups", "right=t,q"]
    names = "pqrst"
    frame, answer = scores(*FIVE, "--value", "probability", "--split", "test", *words)
    orders = range(2, 3 if kind == "pairwise" else 6)
    sets = [c for size in orders for c in itertools.combinations(names, size)]
    for _, row in frame.iloc[::4].iterrows():
        v = by_coalition(row, names)
        for members in sets:
            expected = interaction(v, frozenset(members), names)
            assert row[f"interaction_{'+'.join(members)}"] == pytest.approx(expected, abs=1e-9)
        for m in names:
            others = list(subsets(set(names) - {m}))
            banzhaf = np.mean([v[s | {m}] - v[s] for s in others])
            assert row[f"banzhaf_{m}"] == pytest.approx(banzhaf, abs=1e-9)
            lost = v[frozenset(names)] - v[frozenset(names) - {m}]
            assert row[f"leave_one_out_{m}"] == pytest.approx(lost, abs=1e-9)
            expected = owen(v, ["pr", "tq", "s"], m)
            assert row[f"owen_{m}"] == pytest.approx(expected, abs=1e-9)
        assert row["group_left"] == pytest.approx(row["owen_p"] + row["owen_r"], abs=1e-9)
        assert row["group_right"] == pytest.approx(row["owen_q"] + row["owen_t"], abs=1e-9)
        assert row["group_s"] == pytest.approx(row["owen_s"], abs=1e-9)
    found = [name for name in frame if name.startswith("interaction_")]
    assert sorted(found) == sorted(f"interaction_{'+'.join(members)}" for members in sets)
    for name, content in answer["further"].items():
        assert content["mean"] == pytest.approx(frame[name].mean(), abs=1e-9)
        assert content["interval"][0] <= content["mean"] <= content["interval"][1]
    assert 0 < answer["intershap"] < 1
    details = details_of(tmp_path / "out/s.parquet")
    assert details["interactions"] == kind
    assert details["indices"] == ["banzhaf", "leave-one-out", "owen"]
    assert details["groups"] == ["left=p,r", "right=t,q"]


def test_intervals_stand_where_some_samples_have_no_intershap(scores):
    # by the paper's value a sample that is wrong from everything is worth nothing to anyone
    frame, answer = scores("--interactions", "pairwise")
    assert 0 < frame["intershap"].isna().sum() < 70
    assert answer["further"]["intershap"]["mean"] == pytest.approx(frame["intershap"].mean())
    for m in ("sound", "touch"):
        low, high = answer["intervals"][m]
        assert low < answer["contributions"][m] < high


def test_emaps_gap_is_printed(scores, valuate):
    _, answer = scores("--emap", "40", "--value", "probability")
    assert -1 < answer["emap_gap"] < 1
    assert f"{answer['emap_gap']:+.3f}" in valuate("--emap", "40", "--overwrite").stdout


# --- which coalitions


@pytest.mark.parametrize("estimator", ["kernel", "permutation"])
def test_drawn_coalitions(scores, tmp_path, estimator):
    exact, _ = scores(*FIVE, "--value", "probability")
    words = ["--estimator", estimator, "--budget", "140", "--seed", "5"]
    frame, answer = scores(*FIVE, "--value", "probability", *words)
    assert answer["estimator"] == estimator
    gained = frame["value_p+q+r+s+t"] - frame["base_value"]
    phi = frame[[f"contribution_{m}" for m in "pqrst"]]
    np.testing.assert_allclose(phi.sum(axis=1), gained, atol=1e-9)
    assert (frame["draws"] > 0).all()
    for m in "pqrst":
        error = (frame[f"contribution_{m}"] - exact[f"contribution_{m}"]).abs()
        assert (error <= 6 * frame[f"stderr_{m}"] + 1e-9).all()
        assert error.max() > 0
    # of each alone, of all but one, and of all
    assert len(frame.filter(like="value_").columns) == 5 + 5 + 1
    details = details_of(tmp_path / "out/s.parquet")
    for name, expected in (("budget", 140), ("tolerance", None), ("seed", 5)):
        assert details[name] == expected
    again, _ = scores(*FIVE, "--value", "probability", *words)
    pd.testing.assert_frame_equal(again, frame)
    words[-1] = "6"
    other, _ = scores(*FIVE, "--value", "probability", *words)
    assert not other["contribution_p"].equals(frame["contribution_p"])


def test_a_tolerance_ends_the_drawing_sample_by_sample(scores, tmp_path):
    words = [*FIVE, "--value", "probability", "--budget", "3000"]
    usual, _ = scores(*words, "--estimator", "kernel")
    frame, _ = scores(*words, "--tolerance", "0.02")
    assert details_of(tmp_path / "out/s.parquet")["estimator"] == "kernel"
    assert details_of(tmp_path / "out/s.parquet")["tolerance"] == 0.02
    assert len(set(frame["draws"])) > 1
    assert frame["draws"].max() < usual["draws"].min()
    assert (frame.filter(like="stderr_") <= 0.02).all().all()


def test_a_budget_that_is_enough_for_all_is_exact(scores, tmp_path):
    frame, answer = scores(*FIVE, "--budget", "32")
    assert answer["estimator"] == "exact"
    assert len(frame.filter(like="value_").columns) == 2**5 - 1


@pytest.mark.parametrize("more", [[], ["--estimator", "permutation", "--budget", "200"]])
def test_the_model_is_asked_for_no_more_rows_at_once_than_may_be(scores, more):
    usual, _ = scores(*FIVE, "--value", "probability", *more)
    asked = sys.modules["models_of_valuate"].asked
    assert max(asked) > 11
    asked.clear()
    frame, _ = scores(*FIVE, "--value", "probability", *more, "--max-batch", "11")
    assert max(asked) == 11
    pd.testing.assert_frame_equal(frame, usual, rtol=1e-5)


# --- which samples


def test_all_splits_have_their_own_means_and_train_agrees_with_validation_or_not(scores, valuate):
    frame, answer = scores("--split", "all", "--value", "probability")
    assert frame["split"].value_counts().to_dict() == {"train": 70, "validation": 30, "test": 30}
    assert list(answer["splits"]) == ["train", "validation", "test"]
    means = frame.groupby("split")[["contribution_sound", "contribution_touch"]].mean()
    for split, part in answer["splits"].items():
        for m in ("sound", "touch"):
            assert part["contributions"][m] == pytest.approx(means[f"contribution_{m}"][split])
    for m in ("sound", "touch"):
        assert answer["contributions"][m] == pytest.approx(frame[f"contribution_{m}"].mean())
        found, column = answer["agreement"][m], means[f"contribution_{m}"]
        assert found["difference"] == pytest.approx(column["train"] - column["validation"])
        assert found["interval"][0] < found["difference"] < found["interval"][1]
    said = valuate("--split", "all", "--value", "probability", "--overwrite").stdout
    assert "φ on train − φ on validation" in said
    assert "130 all samples" in said


def test_cross_fitting_values_each_training_sample_by_a_model_without_it(
    folder, scores, valuate, tmp_path
):
    usual, _ = scores("--value", "probability")
    frame, answer = scores("--value", "probability", "--cross-fit", "2")
    assert details_of(tmp_path / "out/s.parquet")["cross_fit"] == 2
    assert sorted(frame["id"]) == sorted(usual["id"])
    assert set(frame["split"]) == {"train"}
    assert (answer["samples"], answer["cross_fit"]) == (70, 2)
    folds = tmp_path / "out/s-folds"
    assert sorted(path.name for path in folds.iterdir()) == ["fold-1", "fold-2"]
    run, dataset = load_run(folder / "runs/joint"), open_dataset(folder / "data/noisy")
    expected = {}
    for fold, held_out in cross_fit(run, dataset, 2, folds):
        left_out = set(dataset.split("train").ids(held_out))
        batches = load_batches(
            dataset.split("train"), modalities=run.modalities, batch_size=70, with_ids=True
        )
        for batch in value_batches(fold.model, batches, modalities=run.modalities):
            hits = zip(batch.ids, (batch.predictions == batch.labels).tolist(), strict=True)
            expected |= {id: hit for id, hit in hits if id in left_out}
    assert dict(zip(frame["id"], frame["correct"], strict=True)) == expected
    assert frame["correct"].mean() < usual["correct"].mean()
    # a further question trains nothing again
    weights = {path: path.stat().st_mtime_ns for path in folds.rglob("*.safetensors")}
    again = valuate("--cross-fit", "2", "--overwrite")
    assert again.stdout.startswith("runs/joint, 2 folds, 70 train samples, value paper → ")
    assert {path: path.stat().st_mtime_ns for path in folds.rglob("*.safetensors")} == weights
    # and folds of another number are told from these
    result = valuate("--cross-fit", "3", "--overwrite")
    refused(result, 2, "fold-1 is a run of other folds", "--out")


# --- printed


def test_without_json_tables_are_printed_and_quiet_prints_nothing(valuate):
    said = valuate(*MODEL, "--interactions", "pairwise")
    assert said.returncode == 0, said.stderr
    first = said.stdout.replace("\n", "")
    assert first.startswith(
        "models_of_valuate:make_two, 70 train samples, value paper, absent: input zero → "
    )
    for word in ("mean φ", "95 % interval", "φ < 1", "MM-SHAP", "InterSHAP, global", "SHAPE"):
        assert word in said.stdout
    quiet = valuate(*MODEL, "--quiet", "--overwrite")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


# --- refusals


def refused(result: Any, code: int, *words: str) -> None:
    said = " ".join(result.stderr.replace("│", " ").split())
    assert result.returncode == code, said
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert result.stdout == ""


RUN_OR_MODEL = "is for your own model: name it with --model"
FITTING = f"choose one of {', '.join(CLASS_VALUES)}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--value", "nope"], "unknown value function 'nope': choose one of paper, correct"),
        (["--value", "label-probability"], f"have one class each: {FITTING}"),
        (["--value", "negative-squared-error"], f"have one class each: {FITTING}"),
        (["--absent", "nope"], "unknown absence 'nope': choose one of zero, mean, marginal"),
        (["--draws", "3"], "--draws is for --absent marginal"),
        (["--absent", "mean", "--draws", "3"], "--draws is for --absent marginal"),
        (["--absent", "marginal", "--draws", "0"], "Invalid value for '--draws'"),
        (["--features", "sound"], "--features 'sound': write it as NAME=VALUE"),
        (["--features", "sound=encoders.sound"], "no other modality; amiss: touch"),
        (
            ["--features", "sound=encoders.ear", "--features", "touch=encoders.touch"],
            "the model has no submodule 'encoders.ear' for the modality 'sound'",
        ),
        (["--estimator", "nope"], "unknown estimator 'nope': choose one of auto, exact, permut"),
        (["--estimator", "exact", "--budget", "9"], "a budget or a tolerance is for coalitions"),
        (["--budget", "0"], "Invalid value for '--budget'"),
        (["--tolerance", "-1"], "tolerance is -1.0: it must be a number above 0"),
        (["--tolerance", "nan"], "tolerance is nan: it must be a number above 0"),
        (["--max-batch", "0"], "Invalid value for '--max-batch'"),
        ([*FIVE, "--estimator", "kernel", "--budget", "20"], "it takes 32 at least"),
        (
            [*FIVE, "--estimator", "kernel", "--interactions", "pairwise"],
            "leave them out, or value with --estimator exact",
        ),
        (["--interactions", "nope"], "unknown interactions 'nope': choose one of none, pairwise"),
        ([*FIVE, "--modality", "p", "--interactions", "all"], "leave interactions out"),
        (["--index", "nope"], "unknown index 'nope': choose one of banzhaf, leave-one-out, owen"),
        (["--index", "owen"], "index 'owen' needs groups of modalities (--groups)"),
        (["--groups", "a=sound"], "groups of modalities are for index 'owen'"),
        (["--groups", "a=smell", "--index", "owen"], "there is no modality 'smell', only sound"),
        (["--groups", "a", "--index", "owen"], "write it as NAME=MODALITY,MODALITY"),
        (["--groups", "touch=sound", "--index", "owen"], "'touch' is a modality"),
        (["--emap", "-1"], "Invalid value for '--emap'"),
        ([*FIVE, "--emap", "9"], "EMAP is defined for two modalities, not for 5"),
        (["--emap", "9", "--split", "all"], "EMAP's gap is of one split: name it with --split"),
        (["--emap", "9", "--cross-fit", "2"], "cross-fitting has several: no --emap"),
        (["--cross-fit", "1"], "Invalid value for '--cross-fit'"),
        (["--cross-fit", "71"], "71 folds: choose 2 at least, and no more than"),
        (["--cross-fit", "2", "--split", "test"], "of test ones: choose --split train"),
        (["--cross-fit", "2", "--split", "all"], "of all ones: choose --split train"),
        ([*MODEL, "--cross-fit", "2"], "use it with --run, not with --model"),
        ([*MODEL, "--run", "runs/joint"], "--run and --model exclude each other"),
        (["--weights", "w.safetensors"], f"--weights {RUN_OR_MODEL}"),
        (["--modality", "sound"], f"--modality {RUN_OR_MODEL}"),
        (["--batch-size", "8"], f"--batch-size {RUN_OR_MODEL}"),
        ([*MODEL, "--modality", "smell"], "no modality 'smell': choose of sound, touch"),
        ([*MODEL, "--modality", "sound", "--modality", "sound"], "modality names repeat"),
        (["--model", "models_of_valuate"], "write it as package.module:make_model"),
        (["--model", "no_module:x"], "cannot import no_module"),
        (["--model", "models_of_valuate:nope"], "models_of_valuate has no 'nope'"),
        (["--model", "models_of_valuate:number"], "gives int, which is no model"),
        (["--model", "models_of_valuate:Takes"], "is a class that needs width"),
        (["--model", "models_of_valuate:fails"], "failed: ValueError: out of order ("),
        (["--model", "models_of_valuate:Breaks"], "models_of_valuate.py, line "),
        (["--model", "models_of_valuate:Swapped"], "Swapped takes sound by name, and has no param"),
        (["--model", "models_of_valuate:Swapped"], "put it into a torch.nn.Module that takes"),
        (
            ["--model", "models_of_valuate:Present", "--absent", "zero"],
            "Present takes inputs, present, and no parameter is named after a modality",
        ),
        (["--model", "models_of_valuate:breaks"], "breaks failed: KeyError: 'light' ("),
        (
            ["--model", "models_of_valuate:slow", "--weights", "w.safetensors"],
            "--weights are for a torch.nn.Module: leave them out",
        ),
        (
            [
                *["--model", "models_of_valuate:slow"],
                *["--features", "sound=a", "--features", "touch=b"],
            ],
            "--features are of a torch.nn.Module, and the model is a function: leave them out",
        ),
        (["--split", "nope"], "choose one of train, validation, test, all"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        ([*MODEL, "--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
    ids=lambda x: " ".join(x)[-50:] if isinstance(x, list) else "",
)
def test_wrong_usage_exits_with_2_and_leaves_nothing(valuate, folder, tmp_path, words, message):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if "__pycache__" not in str(p)}
    refused(valuate(*words), 2, message)
    assert list((tmp_path / "out").iterdir()) == []
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if "__pycache__" not in str(p)}
    assert {p: t for p, t in after.items() if p != folder} == {
        p: t for p, t in before.items() if p != folder
    }


def test_samples_of_which_nothing_is_predicted_are_told(valuate, tmp_path):
    result = valuate("--model", "models_of_valuate:Undefined", "--data", "data/noisy")
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "70 of them have logits with NaN, which predict no class (-1) and count as wrong" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*MODEL, "--weights", "nowhere"], "nowhere cannot be read"),
        (["--model", "models_of_valuate:needs"], "takes no argument"),
        ([*MODEL, "--weights", "models_of_valuate.py"], "cannot be read as a safetensors file"),
        ([*MODEL, "--weights", "WEIGHTS"], "is of another model: 'ear.weight' is missing from it"),
        (["--run", "nowhere"], "nowhere is not a run folder"),
        (["--data", "views"], "was trained on another data set"),
        (["--data", "nowhere"], "nowhere is not a dataset folder"),
    ],
)
def test_unusable_input_exits_with_1_and_leaves_nothing(valuate, tmp_path, words, message):
    save_file({"other": torch.ones(2)}, tmp_path / "w.safetensors")
    words = [str(tmp_path / "w.safetensors") if w == "WEIGHTS" else w for w in words]
    refused(valuate(*words), 1, message)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_file_is_replaced_on_request_only(valuate, tmp_path):
    (tmp_path / "out/s.parquet").write_text("mine")
    refused(valuate(), 2, "exists: choose another --out, or replace it with --overwrite")
    assert (tmp_path / "out/s.parquet").read_text() == "mine"
    assert valuate("--overwrite").returncode == 0
    assert len(pd.read_parquet(tmp_path / "out/s.parquet")) == 70


# --- killed, interrupted, gone on with

STOPPED = """
import json, os, signal, sys, time
from pathlib import Path

import pandas  # once, and not in every fork

import mmcoop.scores.resume
import mmcoop.training.evaluation
import mmcoop.workspace
from mmcoop.cli import main

mmcoop.scores.resume._SECONDS = 0.05
place, results = Path(sys.argv[1]), []


def run(name, *words, stop=None, when=None):
    # the command in a fork that gets the signal `stop` once the file `when` is there
    process = os.fork()
    if process == 0:
        with (place / name).open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            main(["valuate", *words, "--out", str(place / "s.parquet")])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if stop is not None:
        deadline = time.monotonic() + 60
        while not when.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process, stop)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    left = sorted(p.name for p in place.iterdir() if "parquet" in p.name or "folds" in p.name)
    results.append([name, code, left, (place / name).read_text()])


model = ["--model", "models_of_valuate:slow", "--data", "data/noisy", "--batch-size", "4"]
model += ["--split", "all", "--json", "--quiet"]
parts = place / ".s.parquet.parts"
run("whole", *model)
(place / "s.parquet").rename(place / "whole")
mmcoop.scores.resume._SECONDS = 1e9
run("early", *model, stop=signal.SIGINT, when=parts / "details.json")
mmcoop.scores.resume._SECONDS = 0.05
run("killed", *model, stop=signal.SIGKILL, when=parts / "part-00001.parquet")
run("interrupted", *model, "--resume", stop=signal.SIGINT, when=parts / "part-00004.parquet")
run("other", *model, "--resume", "--value", "margin")
run("resumed", *model, "--resume")
same = [(place / "s.parquet").read_bytes() == (place / "whole").read_bytes()]
run("replacing", *model, "--overwrite", stop=signal.SIGKILL, when=parts / "state.json")
run("not replaced", *model, "--resume", "--value", "margin")
run("replaced", *model, "--resume")
same.append((place / "s.parquet").read_bytes() == (place / "whole").read_bytes())
(place / "s.parquet").unlink()
fit = ["--run", "runs/joint", "--cross-fit", "2", "--value", "probability", "--json", "--quiet"]
folds = place / "s-folds"
run("fit killed", *fit, stop=signal.SIGKILL, when=folds / "fold-2/metrics.parquet")
run("fit", *fit, "--resume")
(place / "s.parquet").rename(place / "once")
run("fit again", *fit)
same.append((place / "s.parquet").read_bytes() == (place / "once").read_bytes())
(place / "s.parquet").unlink()
folds.rename(place / "earlier")
run("fit anew", *fit)
same.append((place / "s.parquet").read_bytes() == (place / "once").read_bytes())
print(json.dumps([results, same]))
"""


def test_cut_off_in_any_way_it_goes_on_with_resume(folder, tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    done = subprocess.run(
        [sys.executable, tmp_path / "stopped.py", str(tmp_path)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results, same = json.loads(done.stdout)
    codes = {name: code for name, code, _, _ in results}
    left = {name: files for name, _, files, _ in results}
    said = {name: text for name, _, _, text in results}
    assert same == [True] * 4
    assert codes["whole"] == 0
    assert codes["early"] == 130
    assert left["early"] == []
    assert codes["killed"] == -9
    assert left["killed"] == [".s.parquet.lock", ".s.parquet.parts"]
    assert codes["interrupted"] == 130
    assert left["interrupted"] == [".s.parquet.parts"]
    assert said["interrupted"] == (
        "Error: stopped; what was valued is kept: resume with the same command and --resume\n"
    )
    assert codes["other"] == 2
    assert "was begun with value 'paper', not 'margin': resume it as it began" in said["other"]
    assert codes["resumed"] == 0
    assert left["resumed"] == ["s.parquet"]
    assert json.loads(said["resumed"]) == json.loads(said["whole"])
    assert codes["replacing"] == -9
    assert left["replacing"] == [".s.parquet.lock", ".s.parquet.parts", "s.parquet"]
    assert codes["not replaced"] == 2
    assert "or replace it with --overwrite" in said["not replaced"]
    assert codes["replaced"] == 0
    assert json.loads(said["replaced"]) == json.loads(said["whole"])
    assert codes["fit killed"] == -9
    kept = [".s-folds.lock", ".s.parquet.lock", ".s.parquet.parts", "s-folds"]
    assert left["fit killed"] == kept
    for name in ("fit", "fit again", "fit anew"):
        assert codes[name] == 0, said[name]
        assert left[name] == ["s-folds", "s.parquet"]
        assert json.loads(said[name]) == json.loads(said["fit"])
    assert not any("Traceback" in text for text in said.values())


def test_what_another_process_is_writing_is_refused(valuate, tmp_path):
    with locked(tmp_path / "out/s.parquet"):
        for more in ([], ["--resume"], ["--overwrite"]):
            refused(valuate(*more), 2, f"{tmp_path}/out/s.parquet is in use by process")
    assert valuate().returncode == 0


# --- its files in other commands


def test_enhance_goes_by_the_fair_share_of_the_value_function(folder, scores, mmcoop, tmp_path):
    frame, _ = scores("--value", "probability", "--cross-fit", "2")
    words = ["--scores", str(tmp_path / "out/s.parquet"), "--epochs", "1", "--max-extra", "1"]
    result = mmcoop(folder, "enhance", "--out", str(tmp_path / "enhanced"), *words, "--quiet")
    assert result.returncode == 0, result.stderr
    run = load_run(tmp_path / "enhanced")
    assert run.scores["path"] == str(tmp_path / "out/s.parquet")
    # of two modalities one falls short by half of what is between them, in parts of ½; less than a
    # quarter is nothing, and a sample gets one row at most
    short = (frame["contribution_sound"] - frame["contribution_touch"]).abs()
    assert run.metrics["rows"].tolist() == [70 + (short > 0.25).sum()]
    assert 0 < (short > 0.25).sum() < 70


def test_enhance_refuses_scores_without_a_fair_share(folder, scores, mmcoop, tmp_path):
    scores("--value", "log-likelihood")
    words = ["--scores", str(tmp_path / "out/s.parquet"), "--epochs", "1"]
    result = mmcoop(folder, "enhance", "--out", str(tmp_path / "enhanced"), *words)
    refused(
        result,
        2,
        "scores by the value function 'log-likelihood', which has no fair share",
        "value the samples by paper, correct or probability",
    )
    assert not (tmp_path / "enhanced").exists()


KINDS = {
    "of a run": ["--split", "all"],
    "with more": [
        *["--interactions", "all", "--index", "banzhaf", "--index", "leave-one-out"],
        *["--index", "owen", "--groups", "both=sound,touch"],
    ],
    "drawn": [*FIVE, "--value", "margin", "--estimator", "kernel", "--tolerance", "0.5"],
    "own model": [*MODEL, "--absent", "marginal", "--value", "correct"],
    "at places": [*MODEL, "--features", "sound=ear", "--features", "touch=hand"],
    "cross-fitted": ["--cross-fit", "2"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_info_says_all_that_a_file_says_of_itself(folder, scores, mmcoop, tmp_path, kind):
    frame, answer = scores(*KINDS[kind])
    path = tmp_path / "out/s.parquet"
    told = json.loads(mmcoop(folder, "info", str(path), "--json").stdout)
    assert told.pop("samples") == len(frame)
    assert told.pop("columns") == list(frame.columns)
    assert told.pop("scores") == str(path)
    # the same numbers as valuate printed, intervals included, but for the run's folder
    summary = told.pop("summary")
    masked = {"run": None, "out": None}
    assert {**summary, **masked} == {**answer, **masked}
    assert {**told, "format": "mmcoop scores"} == details_of(path)
    table = mmcoop(folder, "info", str(path))
    assert table.returncode == 0
    for number in summary["contributions"].values():
        assert f"{number:.3f}" in table.stdout
    for name in told:
        assert name.replace("_", " ") in table.stdout


def test_the_page_on_formats_has_every_column_and_every_detail(scores, tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/reference/scores.md").read_text()
    for kind, words in KINDS.items():
        frame, _ = scores(*words)
        for column in frame.columns:
            stem = re.split(r"_(?=(?:sound|touch|both|[pqrst])(?:\+|$))", column)[0]
            assert f"`{stem}" in page, f"{kind}: {column}"
        for name in details_of(tmp_path / "out/s.parquet"):
            assert f"`{name}`" in page, f"{kind}: {name}"

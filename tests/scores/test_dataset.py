"""Samples of a data set valued into a scores file, and gone on with after a kill."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import mmcoop.scores.resume
from mmcoop.core.choices import CLASS_VALUES, VALUES
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.value_functions import VALUE_FUNCTIONS, ValueFunction
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, DatasetFolder, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.files import NoRoom
from mmcoop.progress import Progress
from mmcoop.reporting.valuation import valuation_report
from mmcoop.runtime import Runtime
from mmcoop.scores.dataset import ValuationRequest, score_model
from mmcoop.scores.scores import Scores
from mmcoop.scores.user_model import ImputerSpec

ROWS = {"train": 70, "validation": 30, "test": 30}


class Model(torch.nn.Module):
    """Logits of 4 classes with an interaction of sound and touch; notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, inputs, present=None):
        self.rows.append(len(present))
        sound = torch.tanh(inputs["sound"][:, :4]) * present[:, :1]
        touch = inputs["touch"] * present[:, 1:]
        return 2 * sound + touch + 0.7 * sound * touch.roll(1, 1)


@pytest.fixture(scope="module")
def dataset(noisy) -> DatasetFolder:
    return open_dataset(noisy)


def value(dataset: DatasetFolder, out: Path, split: str = "train", **more: Any) -> Scores:
    request = {
        name: more.pop(name)
        for name in ("interactions", "indices", "groups", "emap", "absence")
        if name in more
    }
    how = ValuationConfig(
        **{name: more.pop(name) for name in ("value", "max_batch") if name in more}
    )
    return score_model(
        more.pop("model", None) or Model(),
        dataset,
        split,
        out,
        request=ValuationRequest(how=how, **request),
        batch_size=more.pop("batch_size", 8),
        **more,
    )


class Noted(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def answer(scores: Scores) -> dict[str, Any]:
    """All that is printed of it, but for the name of the file."""
    said, _ = valuation_report(scores, {"model": "it"})
    return {**said, "out": None}


# --- what is written


def test_samples_of_every_split_are_there_in_order_with_a_summary_each(dataset, tmp_path):
    scored = value(dataset, tmp_path / "all.parquet", "all", value="probability")
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert frame["split"].tolist() == [split for split in SPLITS for _ in range(ROWS[split])]
    assert frame["id"].tolist() == [f"{split}-{i}" for split in SPLITS for i in range(ROWS[split])]
    assert list(scored.summaries()) == [*SPLITS, "all"]
    for split, summary in scored.summaries().items():
        part = frame if split == "all" else frame[frame["split"] == split]
        assert summary.samples == len(part)
        for m in ("sound", "touch"):
            phi = part[f"contribution_{m}"]
            assert summary.mean_contribution[m] == pytest.approx(phi.mean(), abs=1e-12)
            low, high = summary.interval(f"contribution_{m}")
            assert low < phi.mean() < high
    for split in SPLITS:
        one = value(dataset, tmp_path / f"{split}.parquet", split, value="probability")
        assert list(one.summaries()) == [split]
        alone = pd.read_parquet(tmp_path / f"{split}.parquet")
        part = frame[frame["split"] == split].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, part)
        # and the same intervals, whatever else is valued
        mine, other = (s.summary(split).interval("contribution_touch") for s in (one, scored))
        assert mine == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("name", ["s.csv", "s.CSV", "s.json", "s.parquet.gz"])
def test_a_file_named_as_another_kind_of_table_is_refused(dataset, tmp_path, name):
    with pytest.raises(UsageError, match=f"{name}: scores are a Parquet file, name it s.*parquet"):
        value(dataset, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_model_may_take_some_of_the_modalities(dataset, tmp_path):
    def model(inputs, present):
        assert list(inputs) == ["sound"]
        return inputs["sound"][:, :4] * present

    value(dataset, tmp_path / "s.parquet", model=model, modalities=("sound",))
    frame = pd.read_parquet(tmp_path / "s.parquet")
    assert list(frame.filter(like="contribution_")) == ["contribution_sound"]
    assert frame["contribution_sound"].tolist() == frame["correct"].astype(float).tolist()


def test_the_file_says_how_the_samples_were_valued(dataset, tmp_path):
    model = torch.nn.Linear(5, 4)
    named = score_model(
        lambda inputs: model(inputs["sound"]),
        dataset,
        "test",
        tmp_path / "s.parquet",
        name="mine:make",
        weights="0123",
        request=ValuationRequest(
            ValuationConfig("probability"),
            ImputerSpec("marginal", draws=3, seed=5),
            "pairwise",
            ("banzhaf", "owen"),
            ("both=sound,touch",),
        ),
    )
    assert "emap_gap" not in named.details
    details = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"mmcoop"])
    assert set(details.pop("versions")) == {"mmcoop", "python", "torch", "numpy", "pyarrow"}
    assert details == {
        "format": "mmcoop scores",
        "modalities": ["sound", "touch"],
        "model": "mine:make",
        "weights": "0123",
        "dataset": {"name": "noisy", "fingerprint": dataset.fingerprint},
        "split": "test",
        "value": "probability",
        "fair_share": None,
        "best": 1.0,
        "estimator": "exact",
        "absent": "input marginal, 3 draws",
        "absent_seed": 5,
        "interactions": "pairwise",
        "indices": ["banzhaf", "owen"],
        "groups": ["both=sound,touch"],
        "seed": 0,
        "classes": 4,
    }


def test_a_model_without_a_name_goes_by_its_class(dataset, tmp_path):
    value(dataset, tmp_path / "s.parquet")
    details = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"mmcoop"])
    assert details["model"] == "Model"
    assert details["absent"] == "own"
    assert "weights" not in details


def test_a_background_is_the_training_split(dataset, tmp_path):
    seen = []

    def model(sound, touch):
        seen.append(touch)
        return sound[:, :4] + touch

    value(dataset, tmp_path / "s.parquet", "test", model=model, absence=ImputerSpec("mean"))
    mean = torch.from_numpy(dataset.split("train").read("touch", np.arange(70))).mean(0)
    assert any(torch.allclose(row, mean, atol=1e-6) for rows in seen for row in rows)


def test_no_more_rows_are_asked_for_at_once_than_may_be(dataset, tmp_path):
    model = Model()
    value(dataset, tmp_path / "s.parquet", model=model, max_batch=5, emap=20)
    # 70 samples with 3 coalitions each, and 20 × 20 pairs
    assert max(model.rows) == 5
    assert sum(model.rows) == 3 * 70 + 400
    model.rows.clear()
    value(dataset, tmp_path / "t.parquet", model=model, batch_size=10, emap=20)
    assert max(model.rows[-40:]) == 10


def test_emaps_gap_is_what_is_lost_without_interaction(dataset, tmp_path):
    scored = value(dataset, tmp_path / "s.parquet", "validation", emap=1000)
    split = dataset.split("validation")
    inputs = {m: torch.from_numpy(split.read(m, np.arange(30))) for m in ("sound", "touch")}
    labels = split.labels
    f = np.zeros((30, 30, 4))
    for i in range(30):
        for j in range(30):
            pair = {"sound": inputs["sound"][[i]], "touch": inputs["touch"][[j]]}
            f[i, j] = Model()(pair, torch.ones(1, 2, dtype=torch.bool))[0]
    additive = f.mean(1) + f.mean(0) - f.mean((0, 1))

    def macro_f1(predicted) -> float:
        scores = []
        for c in range(4):
            hit = ((predicted == c) & (labels == c)).sum()
            scores.append(2 * hit / max(1, (predicted == c).sum() + (labels == c).sum()))
        return float(np.mean(scores))

    own = f[np.arange(30), np.arange(30)].argmax(1)
    expected = macro_f1(own) - macro_f1(additive.argmax(1))
    assert scored.details["emap_gap"] == pytest.approx(expected, abs=1e-12)
    assert expected != 0


def test_emap_draws_its_samples_by_the_seed(dataset, tmp_path):
    gaps = [
        score_model(
            Model(),
            dataset,
            "train",
            tmp_path / f"{number}.parquet",
            request=ValuationRequest(ValuationConfig(seed=seed), emap=12),
        ).details["emap_gap"]
        for number, seed in enumerate((0, 0, 1, 2, 3))
    ]
    assert gaps[0] == gaps[1]
    assert len(set(gaps)) > 1


# --- going on, in this process


class StopAt(Progress):
    """Fails before the batch of that number."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.left, self.error, self.seen = number, error, 0

    def track(self, items, label, total=None, status=None):
        for item in items:
            if self.left == 0:
                raise self.error
            self.left -= 1
            self.seen += len(item.labels)
            yield item


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Every batch is a part of its own."""
    monkeypatch.setattr(mmcoop.scores.resume, "_SECONDS", -1.0)


WAYS = {
    "paper": {},
    "all": {"split": "all", "value": "probability", "interactions": "all", "indices": ("banzhaf",)},
    "emap": {"emap": 15, "value": "margin"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [0, 1, 8])
def test_stopped_it_goes_on_to_the_same_bytes_and_the_same_answer(
    dataset, tmp_path, at_once, way, number
):
    split = WAYS[way].get("split", "train")
    whole = value(dataset, tmp_path / "whole.parquet", **WAYS[way])
    out = tmp_path / "scores.parquet"
    stop = StopAt(number, KeyboardInterrupt)
    with pytest.raises(Interrupted if number else KeyboardInterrupt):
        value(dataset, out, runtime=Runtime(progress=stop), **WAYS[way])
    assert not out.exists()
    rest = StopAt(-1, KeyboardInterrupt)
    resumed = value(dataset, out, resume=True, runtime=Runtime(progress=rest), **WAYS[way])
    samples = resumed.summary(split).samples
    assert rest.seen == samples - stop.seen
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert answer(resumed) == answer(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.parquet", "whole.parquet"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"value": "correct"}, "value 'paper', not 'correct'"),
        ({"split": "all"}, "split 'train', not 'all'"),
        ({"modalities": ("sound",)}, r"modalities \['sound', 'touch'\], not \['sound'\]"),
        ({"name": "another"}, "model 'Model', not 'another'"),
        ({"weights": "01"}, "weights None, not '01'"),
        ({"absence": ImputerSpec("zero")}, "absent 'own', not 'input zero'"),
        ({"interactions": "pairwise"}, "interactions None, not 'pairwise'"),
        ({"indices": ("banzhaf",)}, r"indices None, not \['banzhaf'\]"),
    ],
)
def test_it_does_not_go_on_with_anything_else(dataset, tmp_path, at_once, other, message):
    class Plain(Model):
        pass

    out = tmp_path / "scores.parquet"
    with pytest.raises(Interrupted):
        value(dataset, out, runtime=Runtime(progress=StopAt(3, KeyboardInterrupt)))
    with pytest.raises(UsageError, match=f"^{out} was begun with {message}: resume it as it began"):
        value(dataset, out, resume=True, **other)
    assert not out.exists()
    value(dataset, out, resume=True)
    assert len(pd.read_parquet(out)) == 70


@pytest.mark.parametrize(
    ("begun", "other", "message"),
    [
        (
            ImputerSpec("marginal"),
            ImputerSpec("marginal", draws=3),
            "absent 'input marginal, 8 draws'",
        ),
        (ImputerSpec("marginal"), ImputerSpec("marginal", seed=3), "absent_seed 0, not 3"),
        (
            ImputerSpec(features={"sound": "one", "touch": "two"}),
            ImputerSpec(features={"sound": "one", "touch": "three"}),
            "features {'sound': 'one', 'touch': 'two'}, not {'sound': 'one', 'touch': 'three'}",
        ),
    ],
)
def test_it_does_not_go_on_with_another_absence(dataset, tmp_path, at_once, begun, other, message):
    class Places(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (torch.nn.Identity() for _ in range(3))

        def forward(self, sound, touch):
            return self.one(sound)[:, :4] + self.three(self.two(touch))

    out = tmp_path / "scores.parquet"
    with pytest.raises(Interrupted):
        value(
            dataset,
            out,
            model=Places(),
            absence=begun,
            runtime=Runtime(progress=StopAt(3, KeyboardInterrupt)),
        )
    with pytest.raises(UsageError) as error:
        value(dataset, out, model=Places(), absence=other, resume=True)
    assert str(error.value).startswith(f"{out} was begun with {message}")


@pytest.mark.parametrize("worth", ["paper", "probability"])
def test_a_damaged_part_is_valued_again_and_said_to_be(dataset, tmp_path, at_once, worth):
    options = {"value": worth, "interactions": "pairwise"}
    whole = value(dataset, tmp_path / "whole.parquet", "all", **options)
    out, parts = tmp_path / "scores.parquet", tmp_path / ".scores.parquet.parts"
    with pytest.raises(Interrupted):
        value(
            dataset, out, "all", runtime=Runtime(progress=StopAt(11, KeyboardInterrupt)), **options
        )
    files = sorted(parts.glob("part-*.parquet"))
    damaged = [files[2], files[-1]]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    seen, model = Noted(), Model()
    scored = value(
        dataset, out, "all", resume=True, runtime=Runtime(progress=seen), model=model, **options
    )
    assert seen.notes == [f"{path} is damaged: its samples are valued again" for path in damaged]
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert answer(scored) == answer(whole)


# --- a disk that is too small


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> DatasetFolder:
    """3,000 training samples."""
    folder = tmp_path_factory.mktemp("many") / "many"
    header = Header(
        name="many",
        recipe="many",
        options={},
        classes=list("abcd"),
        modalities={
            "sound": Modality("vector", (5,), "float32", "mlp"),
            "touch": Modality("vector", (4,), "float32", "mlp"),
        },
        source="made by the tests",
    )
    rng = np.random.default_rng(0)
    with write_dataset(folder, header) as writer:
        for split, samples in (("train", 3000), ("validation", 4), ("test", 4)):
            for k in range(samples):
                sound, touch = rng.normal(size=5), rng.normal(size=4)
                name = f"{split}-{k:04d}"
                writer.add(split, id=name, label=k % 4, group=name, sound=sound, touch=touch)
    return open_dataset(folder)


def kib(number: str) -> int:
    return 1024 * int(number.replace(",", ""))


@pytest.mark.parametrize("worth", ["paper", "correct", "probability", "margin"])
def test_a_disk_that_clearly_cannot_hold_it_is_refused_before_it_starts(
    many, tmp_path, small_disk, worth
):
    """What is said to be needed is no more than the parts and the file really take."""
    value(many, tmp_path / "scores.parquet", value=worth, batch_size=64)
    really = 2 * (tmp_path / "scores.parquet").stat().st_size
    with small_disk(tmp_path / "disk", 20_480):
        out, model = tmp_path / "disk" / "scores.parquet", Model()
        with pytest.raises(DataError) as error:
            value(many, out, value=worth, model=model)
        found = re.fullmatch(
            rf"the disk of {out} has (\S+) KiB free, and at least (\S+) KiB are needed: make room, "
            "or choose another disk",
            str(error.value),
        )
        assert found, str(error.value)
        assert kib(found[1]) <= 20_480
        assert really / 4 < kib(found[2]) <= really
        assert model.rows == []
        assert not list(out.parent.iterdir())


def test_a_disk_that_is_full_in_the_middle_is_one_message_and_it_goes_on(
    many, tmp_path, small_disk, at_once
):
    value(many, tmp_path / "whole.parquet", value="probability", batch_size=64)
    with small_disk(tmp_path / "disk", 280_000) as resize:
        out = tmp_path / "disk" / "scores.parquet"
        with pytest.raises(NoRoom) as error:
            value(many, out, value="probability", batch_size=64)
        found = re.fullmatch(
            rf"no room left on the disk of {out}, for which more than (\S+) KiB are needed: make "
            "room and resume with resume=True, which keeps what was valued",
            str(error.value),
        )
        assert found, str(error.value)
        assert 100_000 < kib(found[1]) < 280_000
        with pytest.raises(DataError, match="has 0 KiB free, and at least"):
            value(many, out, value="probability", batch_size=64, resume=True)
        resize(2**21)
        model = Model()
        value(many, out, value="probability", batch_size=64, resume=True, model=model)
        assert len(model.rows) < 2 * 47, "of two calls for each of 47 batches"
        assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        assert [path.name for path in out.parent.iterdir()] == ["scores.parquet"]


# --- going on, after a kill


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path

import pandas  # once, and not in every fork
import torch

import mmcoop.scores.resume
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.datasets.reader import open_dataset
from mmcoop.reporting.valuation import valuation_report
from mmcoop.scores.dataset import ValuationRequest, score_model

data, place, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
mmcoop.scores.resume._SECONDS = 0.03
moments = random.Random(seed)


def slow(inputs, present):
    time.sleep(0.01)
    sound, touch = inputs["sound"][:, :4] * present[:, :1], inputs["touch"] * present[:, 1:]
    return 2 * sound + touch + 0.7 * sound * touch.roll(1, 1)


def begin(out, **more):
    # a fork that values all samples, and writes down what would be printed
    process = os.fork()
    if process:
        return process
    try:
        how = ValuationConfig("probability")
        request = ValuationRequest(how, interactions="pairwise", indices=("leave-one-out",))
        scored = score_model(
            slow, open_dataset(data), "all", out, request=request, batch_size=4, **more
        )
        said, _ = valuation_report(scored, {"model": "slow"})
        said["out"] = None
        (place / f"{out.name}.json").write_text(json.dumps(said))
        os._exit(0)
    finally:
        os._exit(1)


def end(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def counted():
    # the parts that are counted so far
    try:
        return len(json.loads((folder / "state.json").read_text())["parts"])
    except (OSError, ValueError):
        return 0


assert end(begin(place / "whole.parquet")) == 0
out, folder = place / "scores.parquet", place / ".scores.parquet.parts"
kills = []
for number in range(6):
    # at random in the time that some parts take, but for the first once it has written one
    before = counted()
    process = begin(out, resume=number > 0)
    while number and counted() == before:
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.05))
    os.kill(process, signal.SIGKILL)
    assert end(process) == -signal.SIGKILL
    kills.append(counted())
    assert not out.exists()
assert end(begin(out, resume=True)) == 0
print(json.dumps([kills, sorted(path.name for path in place.iterdir())]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes_and_answer(noisy, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    (tmp_path / "place").mkdir()
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py", str(noisy), str(tmp_path / "place"), "11"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts, left = json.loads(done.stdout)
    assert sorted(set(parts)) == parts
    assert left == [f"{n}.parquet{more}" for n in ("scores", "whole") for more in ("", ".json")]
    killed, whole = (tmp_path / "place" / f"{n}.parquet" for n in ("scores", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
    one, other = (json.loads(Path(f"{path}.json").read_text()) for path in (killed, whole))
    assert one == other
    assert one["samples"] == 130
    assert list(one["splits"]) == list(SPLITS)
    assert one["intervals"]["sound"][0] < one["intervals"]["sound"][1]


# --- refusals


def refusals() -> list[tuple[dict[str, Any], str]]:
    fitting = ", ".join(CLASS_VALUES)
    return [
        (
            {"value": "label-probability"},
            "value function 'label-probability' is of each label's truth, for several labels a "
            f"sample, and the samples of a data set have one class each: choose one of {fitting}",
        ),
        (
            {"value": "negative-squared-error"},
            "value function 'negative-squared-error' is for regression, and the samples of a data "
            f"set have one class each: choose one of {fitting}",
        ),
        (
            {"value": ValueFunction("my own", lambda *x: x, targets="numbers")},
            "value function 'my own' is for other labels, and the samples of a data set have one",
        ),
        ({"split": "half"}, "unknown split 'half': choose one of train, validation, test, all"),
        (
            {"split": "all", "emap": 5},
            "EMAP's gap is of one split: name it with split, or leave emap out",
        ),
        (
            {"modalities": ("sound",), "emap": 5},
            "EMAP is defined for two modalities, not for 1",
        ),
        (
            {"modalities": ("sound", "smell")},
            "the data set has no modality 'smell': choose of sound, touch",
        ),
        (
            {"groups": ("a=sound",)},
            "groups of modalities are for index 'owen': choose it, or give none",
        ),
        ({"indices": ("owen",)}, "index 'owen' needs groups of modalities (groups)"),
        (
            {"absence": ImputerSpec("fog")},
            "unknown absence 'fog': choose one of zero, mean, marginal",
        ),
    ]


@pytest.mark.parametrize(("what", "message"), refusals(), ids=lambda x: str(x)[:40])
def test_what_cannot_be_is_refused_before_anything_is_valued(dataset, tmp_path, what, message):
    model = Model()
    with pytest.raises(UsageError) as error:
        value(dataset, tmp_path / "s.parquet", model=model, **what)
    assert str(error.value).startswith(message)
    assert model.rows == []
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_other_modalities_is_refused_with_the_option(dataset, tmp_path):
    model = Model()
    model.modalities = ("sound",)
    expected = (
        "^the model's modalities are sound, not sound, touch: name those it takes with modality$"
    )
    with pytest.raises(UsageError, match=expected):
        value(dataset, tmp_path / "s.parquet", model=model)
    # in an order of its own it will do
    model.modalities = ("touch", "sound")
    value(dataset, tmp_path / "s.parquet", model=lambda i, present: Model()(i, present))
    assert model.rows == []


@pytest.mark.parametrize(
    "more", [{"interactions": "pairwise"}, {"indices": ("banzhaf",)}], ids=["pairs", "banzhaf"]
)
def test_drawn_coalitions_of_more_than_three_modalities_have_no_interactions(tmp_path, more):
    dataset = of_five(tmp_path / "data")
    asked = []

    def model(inputs, present):
        asked.append(present)
        return torch.rand(len(present), 2)

    with pytest.raises(UsageError) as error:
        score_model(
            model,
            dataset,
            "train",
            tmp_path / "s.parquet",
            request=ValuationRequest(ValuationConfig(estimator="kernel"), **more),
        )
    assert str(error.value) == (
        "interactions and further indices need the values of all coalitions: leave them out, or "
        "value with estimator='exact'"
    )
    assert asked == []
    # of three, all are known anyway
    score_model(
        model,
        dataset,
        "train",
        tmp_path / "s.parquet",
        modalities=("a", "b", "c"),
        request=ValuationRequest(ValuationConfig("probability", estimator="kernel"), **more),
    )
    assert len(pd.read_parquet(tmp_path / "s.parquet")) == 4


def of_five(folder: Path) -> DatasetFolder:
    header = Header(
        name="five",
        recipe="tests",
        options={},
        classes=["no", "yes"],
        modalities={m: Modality("vector", (2,), "float32", "mlp") for m in "abcde"},
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 4), ("validation", 2), ("test", 2)):
            for i in range(rows):
                name = f"{split}-{i}"
                views = {m: [i, k] for k, m in enumerate("abcde")}
                writer.add(split, id=name, label=i % 2, group=name, **views)
    return open_dataset(folder)


def test_the_value_functions_in_words_are_those_there_are():
    assert list(VALUES) == list(VALUE_FUNCTIONS)
    assert list(CLASS_VALUES) == [name for name in VALUES if name in CLASS_VALUES]


def test_every_value_function_of_classes_is_valued(
    dataset, tmp_path, check_values: Callable[[str, pd.DataFrame], None]
):
    for name in CLASS_VALUES:
        value(dataset, tmp_path / f"{name}.parquet", value=name)
        check_values(name, pd.read_parquet(tmp_path / f"{name}.parquet"))


@pytest.fixture
def check_values(dataset) -> Callable[[str, pd.DataFrame], None]:
    """Values and contributions of the training samples, against a plain loop over the samples."""
    split = dataset.split("train")
    inputs = {m: torch.from_numpy(split.read(m, np.arange(70))) for m in ("sound", "touch")}
    logits = {}
    for present in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows = torch.tensor([present], dtype=torch.bool).expand(70, 2)
        logits[present] = Model()(inputs, rows).double().numpy()

    def worth(name: str, sample: int, present: tuple[int, int]) -> float:
        z, y = logits[present][sample], split.labels[sample]
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        right = (z[y] == z.max()) / (z == z.max()).sum()  # of k tied classes 1/k
        return {
            "paper": sum(present) * right,
            "correct": right,
            "probability": p[y],
            "log-likelihood": np.log(p[y]),
            "negative-loss": np.log(p[y]),
            "margin": z[y] - max(np.delete(z, y)),
            "predicted-probability": p[logits[1, 1][sample].argmax()],
        }[name]

    def check(name: str, frame: pd.DataFrame) -> None:
        for sample in range(70):
            none, sound, touch, both = (
                worth(name, sample, present) for present in ((0, 0), (1, 0), (0, 1), (1, 1))
            )
            row = frame.iloc[sample]
            columns = ["base_value", "value_sound", "value_touch", "value_sound+touch"]
            assert row[columns].tolist() == pytest.approx([none, sound, touch, both], abs=1e-5)
            phi = [(sound - none + both - touch) / 2, (touch - none + both - sound) / 2]
            found = row[["contribution_sound", "contribution_touch"]].tolist()
            assert found == pytest.approx(phi, abs=1e-5)

    return check

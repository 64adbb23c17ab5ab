"""Every training sample valued by a model that has seen neither it nor its group."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.locks import locked
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.crossfit import cross_fit
from mmcoop.training.evaluation import valuate_run, value_run
from mmcoop.training.run import Run, load_run
from mmcoop.training.train import train

BEST = Path("checkpoints/best/model.safetensors")
LAST = Path("checkpoints/last/model.safetensors")


def write_grouped(folder: Path) -> Path:
    """60 training samples of 3 classes in 24 groups of 2 or 3, and 15 to validate and to test on.

    `left` tells the class better than `right` does.
    """
    rng = np.random.default_rng(5)
    header = Header(
        name="grouped",
        recipe="tests",
        options={},
        classes=["a", "b", "c"],
        modalities={
            "left": Modality("vector", (4,), "float32", "mlp", training={"noise": {"scale": 0.1}}),
            "right": Modality("vector", (3,), "float32", "mlp"),
        },
        source="made by the tests",
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", 60), ("validation", 15), ("test", 15)):
            for i in range(rows):
                label = (i // 5) % 3
                left, right = rng.normal(0, 1, 4), rng.normal(0, 1, 3)
                left[label] += 2
                right[label] += 1
                name = f"{split}-{i}"
                group = f"{split}-of-{i // 5}-{i % 5 // 3}"
                writer.add(split, id=name, label=label, group=group, left=left, right=right)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_grouped(tmp_path_factory.mktemp("data") / "grouped")


@pytest.fixture(scope="module")
def dataset(folder) -> DatasetFolder:
    return open_dataset(folder)


@pytest.fixture(scope="module")
def run(dataset, quick, tmp_path_factory) -> Run:
    """A run by sample-level enhancement; not to be changed."""
    config = quick(method="sample", seed=3, lr=1e-2)
    return train(tmp_path_factory.mktemp("runs") / "sample", dataset, config)


def valued(batches: Any) -> dict[str, list[float]]:
    """Contributions and values by id, each id valued once."""
    found: dict[str, list[float]] = {}
    for batch in batches:
        for k, id in enumerate(batch.ids):
            assert id not in found
            found[id] = [*batch.contributions[k].tolist(), *batch.values[k].tolist()]
    return found


def by_itself(run: Run, dataset: DatasetFolder, positions: list[int]) -> dict[str, list[float]]:
    """What the run's best weights say of training samples, asked one after the other."""
    model = run.architecture.build()
    model.load_state_dict(load_file(run.folder / BEST))
    model.eval()
    split = dataset.split("train")
    found = {}
    for position in positions:
        index = np.array([position])
        inputs = {m: torch.from_numpy(split.read(m, index)) for m in run.modalities}
        label = int(split.labels[position])
        v = [0.0]
        for present in ([True, False], [False, True], [True, True]):
            with torch.no_grad():
                hit = int(model(inputs, torch.tensor([present])).argmax()) == label
            v.append(float(sum(present) * hit))
        found[split.ids(index)[0]] = [(v[1] + v[3] - v[2]) / 2, (v[2] + v[3] - v[1]) / 2, *v]
    return found


def cross_fitted(
    run: Run, dataset: DatasetFolder, folds: int, out: Path, **where: Any
) -> dict[str, list[float]]:
    """The same of each training sample by the model that has not seen it, in the file's order."""
    valuate_run(run, dataset, "train", out, folds=folds, overwrite=True, **where)
    frame = pd.read_parquet(out)
    assert frame["id"].is_unique
    numbers = frame.filter(regex="^(contribution|value)_")
    # of no modality the paper's value is 0, and the file leaves it out
    numbers.insert(len(run.modalities), "nothing", 0.0)
    return dict(zip(frame["id"], numbers.to_numpy().tolist(), strict=True))


# --- who has seen what


def test_every_training_sample_is_valued_once_by_a_model_without_it_and_its_group(
    run, dataset, tmp_path
):
    fitted = list(cross_fit(run, dataset, 4, tmp_path / "s-folds"))
    split = dataset.split("train")
    groups = np.array(split.column("group").to_pylist())
    positions = np.concatenate([held_out for _, held_out in fitted])
    assert sorted(positions.tolist()) == list(range(60))
    expected: dict[str, list[float]] = {}
    for k, (fold, held_out) in enumerate(fitted, start=1):
        assert fold.folder == tmp_path / "s-folds" / f"fold-{k}"
        left = np.setdiff1d(np.arange(60), held_out)
        assert not set(groups[held_out]) & set(groups[left])
        part = dataset.restricted(train=left)
        assert fold.dataset == {
            "path": str(dataset.folder),
            "name": f"grouped, {len(left)} of 60 training samples",
            "fingerprint": part.fingerprint,
        }
        # the samples that it valued before its last epoch are those it was trained on
        assert fold.metrics["rows_valued"].iloc[-1] == 2 * len(left)
        expected |= by_itself(fold, dataset, held_out.tolist())
    found = cross_fitted(run, dataset, 4, tmp_path / "s.parquet")
    assert list(found) == split.ids(positions)
    for id, numbers in expected.items():
        assert found[id] == pytest.approx(numbers, abs=1e-12)
    assert found != valued(value_run(run, dataset, "train"))


def test_what_a_fold_trains_on_is_its_own_part_alone(run, dataset, tmp_path, recorder):
    fitted = cross_fit(run, dataset, 3, tmp_path / "folds", runtime=Runtime(progress=recorder))
    before = 0
    for _, held_out in fitted:
        left = np.setdiff1d(np.arange(60), held_out)
        part = dataset.restricted(train=left).split("train")
        epochs = recorder.epochs()[before:]
        before += len(epochs)
        assert len(epochs) == 3
        for batches in epochs:
            seen = np.unique(torch.cat([batch.sample for batch in batches]).numpy())
            assert part.ids(seen) == dataset.split("train").ids(left)
            for batch in batches:
                np.testing.assert_array_equal(batch.labels, part.labels[batch.sample.numpy()])


def test_a_fold_is_the_run_of_the_same_configuration_on_its_part(run, dataset, tmp_path):
    fold, held_out = next(iter(cross_fit(run, dataset, 3, tmp_path / "folds")))
    assert fold.config == run.config
    part = dataset.restricted(train=np.setdiff1d(np.arange(60), held_out))
    again = train(tmp_path / "again", part, run.config)
    for name in (BEST, LAST):
        assert (fold.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert fold.best_epoch == again.best_epoch


def test_the_models_differ(run, dataset, tmp_path):
    folders = [fold.folder for fold, _ in cross_fit(run, dataset, 3, tmp_path / "folds")]
    weights = [load_file(folder / LAST) for folder in (*folders, run.folder)]
    for one, other in itertools.combinations(weights, 2):
        assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_test_split_is_not_read(folder, run, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "data")
    next(copied.glob("test-*.arrow")).unlink()
    assert len(cross_fitted(run, open_dataset(copied), 2, tmp_path / "folds.parquet")) == 60


def test_workers_change_nothing(run, dataset, tmp_path):
    alone = cross_fitted(run, dataset, 2, tmp_path / "alone.parquet")
    assert (
        cross_fitted(run, dataset, 2, tmp_path / "helped.parquet", runtime=Runtime(workers=1))
        == alone
    )


def test_clips_of_frames_are_cross_fitted_too(tmp_path, quick, jpeg):
    rng = np.random.default_rng(0)
    header = Header(
        name="clips",
        recipe="tests",
        options={},
        classes=["dark", "bright"],
        modalities={
            "clip": Modality("frames", (2, 3, 28, 28), "uint8", "conv", size=28),
            "table": Modality("vector", (3,), "float32", "mlp"),
        },
        source="made by the tests",
    )
    with write_dataset(tmp_path / "data", header) as writer:
        for split, rows in (("train", 12), ("validation", 4), ("test", 2)):
            for i in range(rows):
                low = 128 * (i % 2)
                clip = [jpeg(rng.integers(low, low + 128, (28, 28, 3), np.uint8))] * 2
                name = f"{split}-{i}"
                writer.add(split, id=name, label=i % 2, group=name, clip=clip, table=[0, 0, i])
    dataset = open_dataset(tmp_path / "data")
    run = train(tmp_path / "run", dataset, quick(epochs=1, lr=1e-3))
    found = cross_fitted(run, dataset, 3, tmp_path / "folds.parquet")
    assert sorted(found) == sorted(f"train-{i}" for i in range(12))


# --- the folds


def test_the_folds_depend_on_the_seed_of_the_run_unless_another_one_is_given(
    run, dataset, tmp_path
):
    def parts(name: str, seed: int | None = None) -> list[list[int]]:
        return [
            held_out.tolist()
            for _, held_out in cross_fit(run, dataset, 2, tmp_path / name, seed=seed)
        ]

    assert parts("own") == parts("the same", run.config.seed)
    assert parts("other", 77) != parts("own")


def test_a_class_that_a_fold_cannot_learn_is_noted(quick, tmp_path, recorder):
    header = Header(
        name="rare",
        recipe="tests",
        options={},
        classes=["usual", "rare"],
        modalities={name: Modality("vector", (2,), "float32", "mlp") for name in ("x", "y")},
        source="made by the tests",
        shared_groups=True,
    )
    with write_dataset(tmp_path / "data", header) as writer:
        for split, rows in (("train", 9), ("validation", 3), ("test", 3)):
            for i in range(rows):
                group = "the rare ones" if i % 3 == 2 else f"{split}-{i}"
                writer.add(
                    split, id=f"{split}-{i}", label=i % 3 // 2, group=group, x=[i, 1], y=[i, 2]
                )
    dataset = open_dataset(tmp_path / "data")
    run = train(tmp_path / "run", dataset, quick(epochs=1))
    found = cross_fitted(
        run, dataset, 2, tmp_path / "folds.parquet", runtime=Runtime(progress=recorder)
    )
    assert len(found) == 9
    notes = [note for note in recorder.notes if note.startswith("fold ")]
    sizes = [note for note in notes if "to train on" in note]
    assert len(sizes) == 2
    assert {note.split(": ")[1] for note in sizes} == {
        "3 samples to train on, 6 left out",
        "6 samples to train on, 3 left out",
    }
    (lost,) = [note for note in notes if note not in sizes]
    assert lost.endswith("no other sample of rare, which this model cannot learn")


@pytest.mark.parametrize("folds", [1, 25])
def test_a_number_of_folds_that_cannot_be_is_refused_at_once(run, dataset, tmp_path, folds):
    with pytest.raises(UsageError, match=f"^{folds} folds: choose 2 at least, and no more than"):
        cross_fit(run, dataset, folds, tmp_path / "folds")
    assert not (tmp_path / "folds").exists()


def test_another_data_set_is_refused_at_once(run, tmp_path, noisy):
    with pytest.raises(DataError, match="was trained on another data set"):
        cross_fit(run, open_dataset(noisy), 3, tmp_path / "folds")


# --- runs that were fine-tuned, or given scores


@pytest.fixture(scope="module")
def child(run, dataset, quick, tmp_path_factory) -> Run:
    """A run that was fine-tuned from `run`, which must stay in its place."""
    config = quick(method="modality", warmup=0, epochs=2, seed=8, optimizer="sgd", lr=1e-2)
    return train(tmp_path_factory.mktemp("child") / "child", dataset, config, parent=run)


def test_a_fine_tuned_run_is_cross_fitted_from_a_start_without_the_fold(
    run, child, dataset, tmp_path
):
    held = {}
    for k, (fold, held_out) in enumerate(cross_fit(child, dataset, 2, tmp_path / "f"), start=1):
        held[k] = held_out
        start = load_run(tmp_path / "f" / f"fold-{k}-step-1")
        assert (start.config, fold.config) == (run.config, child.config)
        assert start.dataset == fold.dataset
        assert fold.parent == {
            "path": str(start.folder),
            "weights": start.weights_hash,
            "cost": start.cost,
        }
        part = dataset.restricted(train=np.setdiff1d(np.arange(60), held_out))
        first = train(tmp_path / f"first-{k}", part, run.config)
        second = train(tmp_path / f"second-{k}", part, child.config, parent=first)
        assert (second.folder / LAST).read_bytes() == (fold.folder / LAST).read_bytes()
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert names == ["fold-1", "fold-1-step-1", "fold-2", "fold-2-step-1"]


def test_a_run_whose_start_is_not_there_any_more_is_refused_at_once(run, dataset, quick, tmp_path):
    start = Path(shutil.copytree(run.folder, tmp_path / "start"))
    child = train(
        tmp_path / "child", dataset, quick(method="sample", warmup=0), parent=load_run(start)
    )
    shutil.copy(start / LAST, start / BEST)
    moved = start / BEST
    moved.write_bytes(moved.read_bytes() + b" ")
    expected = f"^{start} has been trained again since {child.folder} was fine-tuned from it$"
    with pytest.raises(DataError, match=expected):
        cross_fit(child, dataset, 2, tmp_path / "folds")
    shutil.rmtree(start)
    with pytest.raises(DataError, match=f"^{start} is not a run folder"):
        cross_fit(child, dataset, 2, tmp_path / "folds")


def test_a_run_by_scores_is_cross_fitted_by_the_same_scores(run, dataset, quick, tmp_path):
    scores = tmp_path / "scores.parquet"
    valuate_run(run, dataset, "train", scores)
    by_scores = train(
        tmp_path / "by scores", dataset, quick(method="sample", warmup=0), scores=scores
    )
    for fold, held_out in cross_fit(by_scores, dataset, 2, tmp_path / "folds"):
        assert fold.scores == by_scores.scores
        assert fold.metrics["rows_valued"].sum() == 0
        part = dataset.restricted(train=np.setdiff1d(np.arange(60), held_out))
        again = train(tmp_path / f"again {held_out[0]}", part, by_scores.config, scores=scores)
        assert (again.folder / LAST).read_bytes() == (fold.folder / LAST).read_bytes()
    scores.write_bytes(scores.read_bytes() + b" ")
    with pytest.raises(DataError, match=f"^{scores} is not "):
        cross_fit(by_scores, dataset, 2, tmp_path / "folds")


# --- going on


class StopAt(Progress):
    """Ctrl-C after so many epochs, and a count of them."""

    def __init__(self, epochs: int) -> None:
        self.left, self.epochs = epochs, 0

    def note(self, text: str) -> None:
        if text.startswith("epoch "):
            self.epochs += 1
            if self.epochs == self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("epochs", [1, 2, 4, 7])
def test_stopped_it_goes_on_and_ends_the_same(run, dataset, tmp_path, epochs):
    whole = cross_fitted(run, dataset, 3, tmp_path / "whole.parquet")
    out, folds = tmp_path / "s.parquet", tmp_path / "s-folds"
    fold = (epochs - 1) // 3 + 1
    expected = (
        f"^stopped in fold {fold} of 3; what is done is kept in {folds}: the same again goes on$"
    )
    with pytest.raises(Interrupted, match=expected):
        cross_fitted(run, dataset, 3, out, runtime=Runtime(progress=StopAt(epochs)))
    rest = StopAt(0)
    assert cross_fitted(run, dataset, 3, out, runtime=Runtime(progress=rest)) == whole
    assert rest.epochs == 9 - epochs
    again = StopAt(0)
    assert cross_fitted(run, dataset, 3, out, runtime=Runtime(progress=again)) == whole
    assert again.epochs == 0


KILLER = """
import json, os, signal, sys
from pathlib import Path
from mmcoop.datasets.reader import open_dataset
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.evaluation import valuate_run
from mmcoop.training.run import load_run

run, data, place = (Path(word) for word in sys.argv[1:4])


class Kill(Progress):
    # dies at the so-manieth batch of training
    def __init__(self, at):
        self.left = at

    def track(self, items, label, total=None):
        for item in items:
            self.left -= label.startswith("epoch ")
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def fork(name, kill_at=-1):
    # the exit status of a fork that cross-fits, negative for a signal
    process = os.fork()
    if process == 0:
        valuate_run(
            load_run(run), open_dataset(data), "train", place / f"{name}.parquet", folds=2,
            resume=True, runtime=Runtime(progress=Kill(kill_at)),
        )
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


outcome = [fork("whole")]
for kill_at in sys.argv[4:]:
    outcome.append(fork("cut", int(kill_at)))
    outcome.append(len(list((place / "cut-folds").glob("fold-*"))))
print(json.dumps([*outcome, fork("cut")]))
"""


def test_killed_it_goes_on_and_ends_the_same(run, folder, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER)
    # first in the first fold; going on with that, in the second one
    arguments = [run.folder, folder, tmp_path, 4, 14]
    done = subprocess.run(
        [sys.executable, tmp_path / "killer.py", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dead = -signal.SIGKILL
    assert json.loads(done.stdout) == [0, dead, 1, dead, 2, 0], done.stderr
    found, whole = (tmp_path / f"{name}.parquet" for name in ("cut", "whole"))
    assert len(pd.read_parquet(found)) == 60
    assert found.read_bytes() == whole.read_bytes()
    for k in (1, 2):
        one, other = (tmp_path / f"{name}-folds/fold-{k}" / LAST for name in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("other", ["folds", "seed", "run", "child"])
def test_a_folder_of_other_folds_is_refused_and_stays(run, child, dataset, quick, tmp_path, other):
    folds = tmp_path / "folds"
    next(iter(cross_fit(run, dataset, 2, folds)))
    before = {p: p.stat().st_mtime_ns for p in folds.rglob("*")}
    again: dict[str, Any] = {"run": run, "folds": 2, "seed": None}
    if other == "folds":
        again["folds"] = 3
    if other == "seed":
        again["seed"] = 99
    if other == "run":
        again["run"] = train(tmp_path / "joint", dataset, quick(epochs=1, seed=3))
    if other == "child":
        # it would have to start from another run
        again["run"] = train(tmp_path / "child", dataset, run.config, parent=child)
    expected = (
        f"^{folds / 'fold-1'} is a run of other folds, or of another run or seed: choose another "
        rf"folder than {folds} \(mmcoop valuate has it beside --out\), or remove it$"
    )
    with pytest.raises(UsageError, match=expected):
        list(cross_fit(again["run"], dataset, again["folds"], folds, seed=again["seed"]))
    kept = {p: p.stat().st_mtime_ns for p in before}
    changed = [p for p in before if before[p] != kept[p] and p != folds]
    assert changed == []


def test_two_processes_do_not_train_in_one_folder(run, dataset, tmp_path):
    (tmp_path / "folds").mkdir()
    with (
        locked(tmp_path / "folds"),
        pytest.raises(UsageError, match=f"/folds is in use by process {os.getpid()} since "),
    ):
        next(iter(cross_fit(run, dataset, 2, tmp_path / "folds")))


def test_another_folder_of_a_users_is_never_replaced(run, dataset, tmp_path):
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="was not made by mmcoop"):
        list(cross_fit(run, dataset, 2, tmp_path))
    assert (tmp_path / "fold-1" / "thesis.txt").read_text() == "years of work"


# --- what it is for


@pytest.fixture(scope="module")
def memorised(tmp_path_factory, quick) -> Iterator[tuple[Run, DatasetFolder]]:
    """A run that has learnt by heart 100 training samples whose labels are random.

    As many others, and all to validate on, tell their class plainly, so that the last epochs, which
    remember most, are the best on validation.
    """
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(1)
    header = Header(
        name="memory",
        recipe="tests",
        options={},
        classes=list("abcd"),
        modalities={name: Modality("vector", (24,), "float32", "mlp") for name in ("x", "y")},
        source="made by the tests",
    )
    with write_dataset(folder / "data", header) as writer:
        for split, rows in (("train", 200), ("validation", 40), ("test", 4)):
            for i in range(rows):
                plain = split != "train" or i < 100
                label = i % 4 if plain else int(rng.integers(4))
                x, y = rng.normal(0, 1, (2, 24))
                if plain:
                    x[label] += 8
                    y[label] += 8
                name = f"{'plain' if plain else 'random'}-{split}-{i}"
                writer.add(split, id=name, label=label, group=name, x=x, y=y)
    dataset = open_dataset(folder / "data")
    config = quick(epochs=30, lr=3e-3, weight_decay=0.0)
    yield train(folder / "run", dataset, config), dataset


def test_what_was_only_memorised_does_not_look_well_used(memorised, tmp_path):
    run, dataset = memorised

    def right(found: dict[str, list[float]], kind: str) -> float:
        # a sample that is right from both modalities is worth 2
        hits = [numbers[-1] == 2 for id, numbers in found.items() if id.startswith(kind)]
        assert len(hits) == 100
        return sum(hits) / 100

    own = valued(value_run(run, dataset, "train"))
    fitted = cross_fitted(run, dataset, 4, tmp_path / "s.parquet")
    assert right(own, "random") > 0.95
    assert right(own, "plain") > 0.95
    chance = 4 * (0.25 * 0.75 / 100) ** 0.5  # four standard deviations
    assert abs(right(fitted, "random") - 0.25) < chance
    assert right(fitted, "plain") > 0.9

"""The training loop: what a run leaves behind, and that nothing can cut it off for good."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR

from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.progress import SILENT, Progress
from mmcoop.runtime import Runtime
from mmcoop.scores.scores import Scores
from mmcoop.training.device import pick_device
from mmcoop.training.run import load_run
from mmcoop.training.train import extend, resume, train

LAST = Path("checkpoints/last/model.safetensors")
BEST = Path("checkpoints/best/model.safetensors")


class StopAt(Progress):
    """Raises `error` at the so-manieth item of the work whose label begins with `label`."""

    def __init__(self, label: str, item: int, error: BaseException) -> None:
        self.label, self.item, self.error = label, item, error

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items, start=1):
            if label.startswith(self.label) and number == self.item:
                raise self.error
            yield item


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def promised_files(epochs: int) -> set[str]:
    """What a run folder holds, as `docs/reference/run-folder.md` says."""
    return {
        "run.json",
        "metrics.parquet",
        *(f"contributions/epoch-{epoch:04d}.parquet" for epoch in range(1, epochs + 1)),
        "checkpoints/best/model.safetensors",
        "checkpoints/best/checkpoint.json",
        "checkpoints/last/model.safetensors",
        "checkpoints/last/checkpoint.json",
        "checkpoints/last/state.pt",
    }


def deciding(folder: Path) -> dict[str, bytes]:
    """Bytes of all files of a run that neither hold a time nor torch's archive format."""
    kept = {
        name: content
        for name, content in content_of(folder).items()
        if name.endswith((".safetensors", "checkpoint.json")) or name.startswith("contributions")
    }
    assert len(kept) >= 5
    return kept


def metrics_of(folder: Path) -> pd.DataFrame:
    """The metrics but for the time that the epochs took."""
    return pd.read_parquet(folder / "metrics.parquet").drop(columns=["seconds", "peak_memory"])


def assert_same_run(one: Path, other: Path) -> None:
    assert files_of(one) == files_of(other)
    mine, theirs = deciding(one), deciding(other)
    assert [name for name in mine if mine[name] != theirs[name]] == []
    pd.testing.assert_frame_equal(metrics_of(one), metrics_of(other), check_exact=True)


# --- what a run leaves behind


@pytest.mark.parametrize("method", ["joint", "sample", "modality"])
def test_a_run_folder_has_exactly_the_promised_files(tiny_dataset, quick, tmp_path, method):
    run = train(tmp_path / "run", open_dataset(tiny_dataset), quick(method=method))
    assert files_of(tmp_path / "run") == promised_files(3)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert run.status == load_run(tmp_path / "run").status == "finished"


def test_the_same_configuration_twice_leaves_the_same_bytes(tiny_dataset, quick, tmp_path):
    config = quick(method="sample", epochs=4, seed=5)
    for place in ("one", "other"):
        train(tmp_path / place / "run", open_dataset(tiny_dataset), config)
    assert_same_run(tmp_path / "one" / "run", tmp_path / "other" / "run")


def test_another_seed_gives_other_weights(noisy, quick, tmp_path):
    for seed in (1, 2):
        train(tmp_path / str(seed), open_dataset(noisy), quick(seed=seed))
    one, other = load_file(tmp_path / "1" / LAST), load_file(tmp_path / "2" / LAST)
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_loading_in_other_processes_changes_nothing(noisy, quick, tmp_path):
    config = quick(epochs=2, method="sample")
    train(tmp_path / "alone" / "run", open_dataset(noisy), config)
    train(tmp_path / "helped" / "run", open_dataset(noisy), config, runtime=Runtime(workers=1))
    assert_same_run(tmp_path / "alone" / "run", tmp_path / "helped" / "run")


def test_training_neither_uses_nor_changes_anybodys_random_state(noisy, quick, tmp_path):
    def states():
        numpys = np.random.get_state()  # noqa: NPY002 - whether anybody uses it is the question
        return torch.get_rng_state().tolist(), random.getstate(), str(numpys)

    torch.manual_seed(123)
    before = states()
    train(tmp_path / "one" / "run", open_dataset(noisy), quick(method="modality"))
    assert states() == before
    torch.manual_seed(456)
    train(tmp_path / "other" / "run", open_dataset(noisy), quick(method="modality"))
    assert_same_run(tmp_path / "one" / "run", tmp_path / "other" / "run")


@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_the_test_split_is_not_read(noisy_folder, quick, tmp_path, harm):
    folder = noisy_folder(tmp_path / "data")
    (shard,) = folder.glob("test-*.arrow")
    if harm == "removed":
        shard.unlink()
    else:
        shard.write_bytes(os.urandom(shard.stat().st_size))
    with pytest.raises(DataError, match=r"test-00000-of-00001\.arrow is (missing|damaged)"):
        open_dataset(folder).split("test")  # so that reading it would have been noticed
    run = train(tmp_path / "run", open_dataset(folder), quick(method="sample"))
    assert run.status == "finished"


# --- what the loop computes


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
    ],
    ids=["sgd", "adam"],
)
def test_weights_and_metrics_are_those_of_a_plain_loop_of_torch(
    tiny_dataset, quick, tmp_path, recorder, settings
):
    schedule = {"schedule": "step", "step_epochs": 2, "step_factor": 0.5}
    config = quick(epochs=3, batch_size=10, seed=3, **settings, **schedule)
    dataset = open_dataset(tiny_dataset)
    run = train(tmp_path / "run", dataset, config, runtime=Runtime(progress=recorder))

    model = run.architecture.build(seed=3)
    make = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.Adam
    arguments = {k: v for k, v in settings.items() if k != "optimizer"}
    optimizer = make(model.parameters(), **arguments)
    scheduler = StepLR(optimizer, 2, 0.5)
    validation = dataset.split("validation")
    inputs = {
        name: torch.from_numpy(validation.read(name, np.arange(12)).astype(np.float32))
        for name in dataset.modalities
    }
    scaled = {
        name: (x - dataset.modalities[name].mean) / dataset.modalities[name].std
        for name, x in inputs.items()
    }
    labels = torch.from_numpy(validation.labels.copy())
    metrics = run.metrics
    assert len(recorder.epochs()) == 3
    for epoch, batches in enumerate(recorder.epochs()):
        assert [len(batch.labels) for batch in batches] == [10, 10, 10, 6]
        model.train()
        total = 0.0
        rate = optimizer.param_groups[0]["lr"]
        for batch in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch.inputs, batch.present), batch.labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch.labels)
        scheduler.step()
        model.eval()
        with torch.no_grad():
            logits = model(scaled)
        row = metrics.iloc[epoch]
        assert row["lr"] == pytest.approx(rate, rel=1e-12)
        assert row["loss"] == pytest.approx(total / 36, rel=1e-5)
        assert row["validation_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), 1e-4)
        hits = (logits.argmax(1) == labels).double().mean().item()
        assert row["validation_accuracy"] == pytest.approx(hits)
    weights = load_file(run.last / "model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-6)


def test_an_epoch_goes_over_every_sample_once_in_a_new_order(noisy, quick, tmp_path, recorder):
    train(tmp_path / "run", open_dataset(noisy), quick(), runtime=Runtime(progress=recorder))
    orders = [torch.cat([batch.sample for batch in e]).tolist() for e in recorder.epochs()]
    assert len(orders) == 3
    for order in orders:
        assert sorted(order) == list(range(70))
        assert order != sorted(order)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_training_sees_random_changes_that_differ_from_epoch_to_epoch(
    noisy, quick, tmp_path, recorder
):
    train(
        tmp_path / "run", open_dataset(noisy), quick(epochs=2), runtime=Runtime(progress=recorder)
    )
    stored = open_dataset(noisy).split("train").read("sound", np.arange(70))
    changes = []  # by place in the epoch, which is what a seed used twice would repeat
    for batches in recorder.epochs():
        sample = torch.cat([batch.sample for batch in batches]).numpy()
        seen = torch.cat([batch.inputs["sound"] for batch in batches]).numpy()
        changes.append(seen - stored[sample])
    first, second = changes
    assert np.std(first) == pytest.approx(0.2, rel=0.2)
    assert np.std(second) == pytest.approx(0.2, rel=0.2)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_best_is_the_epoch_of_the_highest_validation_accuracy_then_of_the_lowest_loss(
    noisy, quick, tmp_path, seed
):
    run = train(tmp_path / "run", open_dataset(noisy), quick(epochs=6, lr=2e-2, seed=seed))
    metrics = run.metrics
    top = metrics[metrics["validation_accuracy"] == metrics["validation_accuracy"].max()]
    epoch = int(top.loc[top["validation_loss"].idxmin(), "epoch"])
    assert run.best_epoch["epoch"] == epoch
    # the weights are those that the epoch ended with
    short = train(tmp_path / "short", open_dataset(noisy), quick(epochs=epoch, lr=2e-2, seed=seed))
    assert (run.folder / BEST).read_bytes() == (short.folder / LAST).read_bytes()
    if epoch < 6:
        assert (run.folder / BEST).read_bytes() != (run.folder / LAST).read_bytes()


def test_among_equal_accuracies_the_lower_loss_is_best(tiny_dataset, quick, tmp_path):
    run = train(tmp_path / "run", open_dataset(tiny_dataset), quick(epochs=4, lr=1e-3))
    metrics = run.metrics
    assert (metrics["validation_accuracy"] == 1).sum() >= 2  # a tie, or this shows nothing
    right = metrics[metrics["validation_accuracy"] == 1]
    assert run.best_epoch["epoch"] == right.loc[right["validation_loss"].idxmin(), "epoch"]
    assert run.best_epoch["epoch"] != right["epoch"].iloc[0]


def test_an_epoch_that_is_only_as_good_is_no_better(noisy, quick, tmp_path):
    still = quick(optimizer="sgd", lr=0.0, weight_decay=0.0, epochs=5, patience=2)
    run = train(tmp_path / "run", open_dataset(noisy), still)
    assert len(set(run.metrics["validation_loss"])) == 1
    assert run.best_epoch["epoch"] == 1
    assert len(run.metrics) == 3


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_training_stops_after_so_many_epochs_without_a_better_validation(
    noisy, quick, tmp_path, patience
):
    settings = {"lr": 2e-2, "seed": 1}
    whole = train(tmp_path / "whole", open_dataset(noisy), quick(epochs=12, **settings))
    ranks = list(
        zip(whole.metrics["validation_accuracy"], -whole.metrics["validation_loss"], strict=True)
    )
    stop = next(
        epoch
        for epoch in range(patience + 1, 13)
        if max(ranks[: epoch - patience]) >= max(ranks[epoch - patience : epoch])
    )
    assert stop < 12  # or this shows nothing
    stopped = train(
        tmp_path / "stopped", open_dataset(noisy), quick(epochs=12, patience=patience, **settings)
    )
    assert stopped.status == "finished"
    assert len(stopped.metrics) == stop
    assert files_of(stopped.folder) == promised_files(stop)
    pd.testing.assert_frame_equal(
        metrics_of(stopped.folder), metrics_of(whole.folder).iloc[:stop], check_exact=True
    )
    before = content_of(stopped.folder)
    resume(stopped.folder, open_dataset(noisy))
    assert content_of(stopped.folder) == before


def test_every_epoch_is_noted_with_its_loss_and_accuracies(noisy, quick, tmp_path, recorder):
    run = train(tmp_path / "run", open_dataset(noisy), quick(), runtime=Runtime(progress=recorder))
    assert len(recorder.notes) == 3
    row = run.metrics.iloc[1]
    assert recorder.notes[1] == (
        f"epoch 2/3: loss {row['loss']:.3f}, 70 examples, validation "
        f"sound {100 * row['validation_accuracy_sound']:.1f} %, "
        f"touch {100 * row['validation_accuracy_touch']:.1f} %, "
        f"sound+touch {100 * row['validation_accuracy_sound+touch']:.1f} %"
    )


# --- starting from another run


@pytest.fixture(scope="module")
def parent(noisy, quick, tmp_path_factory) -> Path:
    """A finished run whose best epoch is not its last; not to be changed."""
    folder = tmp_path_factory.mktemp("parent") / "joint"
    run = train(folder, open_dataset(noisy), quick(epochs=5, lr=3e-2, seed=1))
    assert run.best_epoch["epoch"] < 5
    return folder


def test_a_child_starts_from_the_best_weights_of_its_parent(parent, noisy, quick, tmp_path):
    still = quick(optimizer="sgd", lr=0.0, weight_decay=0.0, seed=9, epochs=1)
    child = train(tmp_path / "child", open_dataset(noisy), still, parent=load_run(parent))
    # nothing in this model but what the optimiser changes: no running statistics
    assert (child.folder / LAST).read_bytes() == (parent / BEST).read_bytes()
    assert (child.folder / LAST).read_bytes() != (parent / LAST).read_bytes()


def test_enhancing_leaves_the_parent_as_it_was(parent, noisy, quick, tmp_path):
    before = content_of(parent)
    config = quick(method="sample", warmup=0)
    train(tmp_path / "child", open_dataset(noisy), config, parent=load_run(parent))
    assert content_of(parent) == before


@pytest.mark.parametrize(
    "other",
    [
        {"fusion": "late"},
        {"method": "unimodal", "options": {"modality": "sound"}},
    ],
    ids=["fusion", "modalities"],
)
def test_a_child_of_another_architecture_is_refused(parent, noisy, quick, tmp_path, other):
    expected = f"^{parent} has another architecture .* leave these to the run that is enhanced$"
    with pytest.raises(UsageError, match=expected):
        train(tmp_path / "child", open_dataset(noisy), quick(**other), parent=load_run(parent))
    assert list(tmp_path.iterdir()) == []


def test_a_child_on_another_data_set_is_refused(parent, noisy_folder, quick, tmp_path):
    other = open_dataset(noisy_folder(tmp_path / "data", seed=1))
    with pytest.raises(DataError, match=f"^the run {parent} was trained on another data set"):
        train(tmp_path / "child", other, quick(), parent=load_run(parent))
    assert not (tmp_path / "child").exists()


def test_a_run_cannot_take_the_place_of_its_own_parent(parent, noisy, quick, tmp_path):
    folder = shutil.copytree(parent, tmp_path / "joint")
    before = content_of(folder)
    with pytest.raises(UsageError, match=f"^{folder} is the run to start from: choose another out"):
        train(folder, open_dataset(noisy), quick(), parent=load_run(folder), overwrite=True)
    assert content_of(folder) == before


# --- where a run may go


def test_an_existing_run_is_refused_and_stays(noisy, quick, tmp_path):
    folder = tmp_path / "run"
    train(folder, open_dataset(noisy), quick(epochs=1))
    before = content_of(folder)
    with pytest.raises(UsageError, match=f"^{folder} exists: choose another out, or replace it"):
        train(folder, open_dataset(noisy), quick(epochs=1))
    assert content_of(folder) == before


def test_overwriting_leaves_nothing_of_the_old_run(noisy, quick, tmp_path):
    folder = tmp_path / "run"
    train(folder, open_dataset(noisy), quick(epochs=4))
    train(folder, open_dataset(noisy), quick(epochs=2, seed=4), overwrite=True)
    train(tmp_path / "new" / "run", open_dataset(noisy), quick(epochs=2, seed=4))
    assert files_of(folder) == promised_files(2)
    assert_same_run(folder, tmp_path / "new" / "run")


def test_a_folder_of_somebody_elses_is_never_replaced(noisy, quick, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(UsageError, match=f"^{folder} exists and was not made by mmcoop"):
        train(folder, open_dataset(noisy), quick(), overwrite=True)
    assert content_of(folder) == {"chapter.tex": b"years of work"}


def test_an_empty_folder_is_free(noisy, quick, tmp_path):
    (tmp_path / "run").mkdir()
    train(tmp_path / "run", open_dataset(noisy), quick(epochs=1))
    assert files_of(tmp_path / "run") == promised_files(1)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_damaged_shard_stops_training_before_anything_is_written(
    noisy_folder, noisy, quick, tmp_path, split, overwrite
):
    data = noisy_folder(tmp_path / "data")
    (shard,) = data.glob(f"{split}-*.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    folder = tmp_path / "run"
    if overwrite:
        train(folder, open_dataset(noisy), quick(epochs=1))
    before = content_of(folder) if overwrite else {}
    with pytest.raises(DataError, match=f"^the shard {shard} is damaged"):
        train(folder, open_dataset(data), quick(), overwrite=overwrite)
    assert (content_of(folder) if folder.exists() else {}) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "modality", "options": {"fraction": 2.0}}, "fraction is 2.0"),
        ({"method": "modality", "options": {"rule": "dice"}}, "unknown rule 'dice'"),
        ({"method": "modality", "options": {"alpha": -1.0}, "warmup": 1}, "alpha is -1.0"),
        ({"encoders": {"sound": "conv1d"}}, "encoder 'conv1d' takes series"),
    ],
    ids=["fraction", "rule", "alpha", "encoder"],
)
def test_a_choice_that_cannot_be_meant_is_refused_before_anything_is_written(
    noisy, quick, tmp_path, settings, message, overwrite
):
    folder = tmp_path / "run"
    if overwrite:
        train(folder, open_dataset(noisy), quick(epochs=1))
    before = content_of(folder) if overwrite else {}
    with pytest.raises(UsageError, match=message):
        train(folder, open_dataset(noisy), quick(**settings), overwrite=overwrite)
    assert (content_of(folder) if folder.exists() else {}) == before


def test_an_unknown_device_is_refused_before_anything_is_written(noisy, quick, tmp_path):
    with pytest.raises(UsageError, match="^device 'abacus' cannot be used here: "):
        train(tmp_path / "run", open_dataset(noisy), quick(), runtime=Runtime(device="abacus"))
    assert list(tmp_path.iterdir()) == []


def test_devices_are_picked_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto") == torch.device(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_the_machine_lacks_is_refused():
    with pytest.raises(UsageError, match="^device 'cuda' cannot be used here: ."):
        pick_device("cuda")


# --- a loss that is no number


def test_a_loss_that_explodes_stops_training_and_the_last_good_epoch_is_kept(
    noisy, quick, tmp_path
):
    folder = tmp_path / "run"
    # the third epoch has a learning rate of 1e27
    steps = {"lr": 1e-3, "schedule": "step", "step_epochs": 2, "step_factor": 1e30}
    expected = (
        rf"^the (validation )?loss of epoch 3 is (nan|inf): training stopped, epoch 2 is kept in "
        rf"{folder / 'checkpoints' / 'last'}\. Try a lower lr, and look for NaN in the data$"
    )
    with pytest.raises(DataError, match=expected):
        train(folder, open_dataset(noisy), quick(epochs=5, **steps))
    good = train(tmp_path / "good" / "run", open_dataset(noisy), quick(epochs=2, **steps))
    assert_same_run(folder, good.folder)
    assert load_run(folder).status == "stopped"


def test_an_explosion_in_the_first_epoch_leaves_nothing_and_another_try_is_free(
    noisy, quick, tmp_path
):
    folder = tmp_path / "run"
    expected = "loss of epoch 1 is (nan|inf): training stopped, nothing was saved"
    with pytest.raises(DataError, match=expected):
        train(folder, open_dataset(noisy), quick(lr=1e30))
    assert not folder.exists()
    assert train(folder, open_dataset(noisy), quick(epochs=1)).status == "finished"


def test_a_long_epoch_does_not_go_on_to_its_end_with_a_loss_that_is_no_number(
    noisy, quick, tmp_path, recorder
):
    with pytest.raises(DataError, match="^the loss at step 64 of epoch 1 is (nan|inf)"):
        train(
            tmp_path / "run",
            open_dataset(noisy),
            quick(lr=1e30, batch_size=1),
            runtime=Runtime(progress=recorder),
        )
    assert len(recorder.epochs()[0]) == 64


@pytest.mark.parametrize(("split", "what"), [("train", "loss"), ("validation", "validation loss")])
def test_nan_in_the_data_is_reported_with_the_epoch(noisy_folder, quick, tmp_path, split, what):
    data = noisy_folder(tmp_path / "data", broken=split)
    expected = f"^the {what} of epoch 1 is nan: training stopped, nothing was saved.*NaN in the da"
    with pytest.raises(DataError, match=expected):
        train(tmp_path / "run", open_dataset(data), quick())
    assert not (tmp_path / "run").exists()


# --- going on: what is refused


@pytest.fixture
def interrupted(noisy, quick, tmp_path) -> Path:
    """A run that was interrupted in its third epoch of five."""
    folder = tmp_path / "interrupted" / "run"
    stop = StopAt("epoch 3", 2, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        train(
            folder,
            open_dataset(noisy),
            quick(epochs=5, method="sample"),
            runtime=Runtime(progress=stop),
        )
    return folder


def test_a_finished_run_is_left_alone(noisy, quick, tmp_path):
    run = train(tmp_path / "run", open_dataset(noisy), quick())
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    again = resume(run.folder, open_dataset(noisy), expected={"epochs": 3})
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    assert again.status == "finished"


def test_going_on_where_there_is_no_run_is_refused(noisy, tmp_path):
    with pytest.raises(DataError, match=r"is not a run folder \(no run.json\)"):
        resume(tmp_path / "nowhere", open_dataset(noisy))


def test_going_on_with_another_data_set_is_refused(interrupted, noisy_folder, tmp_path):
    before = content_of(interrupted)
    other = open_dataset(noisy_folder(tmp_path / "data", seed=1))
    with pytest.raises(DataError, match="was trained on another data set: on noisy"):
        resume(interrupted, other)
    assert content_of(interrupted) == before


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"epochs": 6}, "epochs 5, not 6"),
        ({"lr": 0.5}, "lr 0.003, not 0.5"),
        ({"seed": 0, "optimizer": "sgd"}, "optimizer 'adam', not 'sgd'"),
        ({"fusion": "late"}, "fusion 'concat', not 'late'"),
        ({"encoders": {"sound": "mlp"}}, r"encoders \{\}, not \{'sound': 'mlp'\}"),
        ({"method": "joint"}, "method 'sample', not 'joint'"),
        ({"method": "modality"}, "method 'sample', not 'modality'"),
    ],
)
def test_going_on_with_other_settings_is_refused(interrupted, noisy, expected, message):
    before = content_of(interrupted)
    start = f"^{interrupted} was started with {message}: a run goes on as it began; "
    with pytest.raises(UsageError, match=start):
        resume(interrupted, open_dataset(noisy), expected=expected)
    assert content_of(interrupted) == before


def test_going_on_with_another_method_than_one_with_options_says_so(noisy, quick, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(
            folder,
            open_dataset(noisy),
            quick(method="modality"),
            runtime=Runtime(progress=StopAt("epoch 2", 1, KeyboardInterrupt())),
        )
    with pytest.raises(UsageError, match="was started with method 'modality', not 'sample'"):
        resume(folder, open_dataset(noisy), expected={"method": "sample"})


def test_going_on_with_a_setting_that_does_not_exist_is_refused(interrupted, noisy):
    with pytest.raises(UsageError, match="^unknown setting 'speed'"):
        resume(interrupted, open_dataset(noisy), expected={"speed": 3})


def test_going_on_with_the_settings_it_has_is_fine(interrupted, noisy):
    run = resume(interrupted, open_dataset(noisy), expected={"epochs": 5, "method": "sample"})
    assert run.status == "finished"


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_going_on_from_a_damaged_checkpoint_is_refused(interrupted, noisy, name):
    path = interrupted / "checkpoints" / "last" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=f"^the checkpoint {path} is damaged"):
        resume(interrupted, open_dataset(noisy))


@pytest.mark.parametrize("state", [{}, {"epoch": 2, "best": None, "stale_epochs": 0}])
def test_going_on_from_a_state_that_lacks_something_is_refused(interrupted, noisy, state):
    torch.save(state, interrupted / "checkpoints" / "last" / "state.pt")
    with pytest.raises(DataError, match=r"last/state\.pt is not what mmcoop writes: (epoch|best)"):
        resume(interrupted, open_dataset(noisy))


# --- longer runs


def test_a_run_stops_after_the_epoch_in_which_its_time_is_up(noisy, quick, tmp_path):
    dataset = open_dataset(noisy)
    run = train(tmp_path / "short", dataset, quick(epochs=30, max_seconds=1e-6))
    assert (run.status, len(run.metrics)) == ("finished", 1)
    limit = 4.5 * float(run.metrics["seconds"].min())
    longer = train(tmp_path / "longer", dataset, quick(epochs=1000, max_seconds=limit))
    seconds = longer.metrics["seconds"]
    assert seconds.sum() >= limit
    assert seconds[:-1].sum() < limit
    assert len(seconds) < 1000


@pytest.mark.parametrize("method", ["joint", "sample", "pmr"])
@pytest.mark.parametrize("in_place", [True, False])
def test_an_extended_run_is_the_one_that_trains_as_long_from_the_start(
    noisy, quick, tmp_path, method, in_place
):
    dataset = open_dataset(noisy)
    # the learning rate falls in the middle of what is added
    settings = {"method": method, "schedule": "step", "step_epochs": 4}
    short = train(tmp_path / "short" / "run", dataset, quick(**settings, epochs=3))
    before = content_of(short.folder)
    folder = short.folder if in_place else tmp_path / "longer" / "run"
    longer = extend(folder, short, dataset, quick(**settings, epochs=6))
    train(tmp_path / "long" / "run", dataset, quick(**settings, epochs=6))
    assert_same_run(folder, tmp_path / "long" / "run")
    assert longer.status == "finished"
    assert longer.config.epochs == 6
    if not in_place:
        assert content_of(short.folder) == before


def test_a_run_that_was_cut_off_can_be_extended(noisy, quick, tmp_path):
    dataset = open_dataset(noisy)
    with pytest.raises(Interrupted):
        stop = StopAt("epoch 2", 2, KeyboardInterrupt())
        train(tmp_path / "run", dataset, quick(epochs=3), runtime=Runtime(progress=stop))
    cut = load_run(tmp_path / "run")
    extend(tmp_path / "run", cut, dataset, quick(epochs=5))
    train(tmp_path / "long" / "run", dataset, quick(epochs=5))
    assert_same_run(tmp_path / "run", tmp_path / "long" / "run")


@pytest.mark.parametrize(
    "changes", [{"epochs": 2}, {"epochs": 5, "seed": 1}, {"epochs": 5, "schedule": "cosine"}]
)
def test_what_is_not_the_beginning_of_a_run_is_not_extended_to_it(noisy, quick, tmp_path, changes):
    dataset = open_dataset(noisy)
    run = train(tmp_path / "run", dataset, quick(epochs=3))
    before = content_of(run.folder)
    with pytest.raises(UsageError, match="is not the beginning of the run that is asked for"):
        extend(run.folder, run, dataset, quick(**changes))
    assert content_of(run.folder) == before


# --- interruptions


@pytest.mark.parametrize(
    ("method", "label", "item", "epoch"),
    [
        ("joint", "epoch 1", 1, 1),
        ("joint", "epoch 4", 5, 4),
        ("sample", "epoch 2", 3, 2),
        ("sample", "valuing", 2, 2),
        ("modality", "epoch 3", 4, 3),
        ("modality", "valuing", 1, 2),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    noisy, quick, tmp_path, reference, method, label, item, epoch
):
    folder = tmp_path / "run"
    config = quick(epochs=4, method=method)
    stop = StopAt(label, item, KeyboardInterrupt())
    with pytest.raises(Interrupted) as error:
        train(folder, open_dataset(noisy), config, runtime=Runtime(progress=stop))
    begin = "go on from the last whole epoch" if epoch > 1 else "begin it again"
    command = f"mmcoop train --resume --out {folder}"
    assert str(error.value) == f"stopped in epoch {epoch} of 4; {begin} with {command}"
    assert error.value.exit_code == 130
    assert load_run(folder).status == "stopped"
    with pytest.raises(UsageError, match="holds an unfinished run"):
        train(folder, open_dataset(noisy), config)
    assert files_of(folder) == (promised_files(epoch - 1) if epoch > 1 else {"run.json"})
    assert resume(folder, open_dataset(noisy)).status == "finished"
    assert_same_run(folder, reference(config))


def test_a_run_that_goes_on_keeps_the_best_epoch_it_had(parent, noisy, tmp_path):
    folder = tmp_path / "run"
    best = load_run(parent).best_epoch["epoch"]
    stop = StopAt(f"epoch {best + 1}/", 1, KeyboardInterrupt())
    config = load_run(parent).config
    with pytest.raises(Interrupted):
        train(folder, open_dataset(noisy), config, runtime=Runtime(progress=stop))
    again = resume(folder, open_dataset(noisy))
    assert again.best_epoch == load_run(parent).best_epoch
    assert (folder / BEST).read_bytes() == (parent / BEST).read_bytes()
    assert (folder / LAST).read_bytes() == (parent / LAST).read_bytes()


def test_a_run_that_goes_on_is_as_patient_as_it_was(noisy, quick, tmp_path):
    config = quick(epochs=12, lr=2e-2, seed=1, patience=2)
    whole = train(tmp_path / "whole" / "run", open_dataset(noisy), config)
    end = len(whole.metrics)
    assert end < 12  # or this shows nothing
    stop = StopAt(f"epoch {end}/", 1, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        train(tmp_path / "run", open_dataset(noisy), config, runtime=Runtime(progress=stop))
    resume(tmp_path / "run", open_dataset(noisy))
    assert_same_run(tmp_path / "run", whole.folder)


def test_any_other_failure_marks_the_run_as_stopped_and_comes_through(noisy, quick, tmp_path):
    with pytest.raises(OSError, match="disk full"):
        train(
            tmp_path / "run",
            open_dataset(noisy),
            quick(),
            runtime=Runtime(progress=StopAt("epoch 2", 1, OSError("disk full"))),
        )
    assert load_run(tmp_path / "run").status == "stopped"
    assert files_of(tmp_path / "run") == promised_files(1)
    torch_state = torch.get_rng_state()
    assert resume(tmp_path / "run", open_dataset(noisy)).status == "finished"
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_a_child_that_was_stopped_in_its_first_epoch_goes_on_from_its_parent(
    parent, noisy, quick, tmp_path
):
    config = quick(method="sample", warmup=0, seed=3)
    stop = StopAt("epoch 1", 2, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        train(
            tmp_path / "run",
            open_dataset(noisy),
            config,
            parent=load_run(parent),
            runtime=Runtime(progress=stop),
        )
    resume(tmp_path / "run", open_dataset(noisy))
    whole = train(tmp_path / "whole" / "run", open_dataset(noisy), config, parent=load_run(parent))
    assert_same_run(tmp_path / "run", whole.folder)


def test_a_child_does_not_go_on_from_a_parent_that_has_changed(parent, noisy, quick, tmp_path):
    folder = shutil.copytree(parent, tmp_path / "joint")
    stop = StopAt("epoch 1", 2, KeyboardInterrupt())
    with pytest.raises(Interrupted):
        train(
            tmp_path / "run",
            open_dataset(noisy),
            quick(),
            parent=load_run(folder),
            runtime=Runtime(progress=stop),
        )
    train(folder, open_dataset(noisy), quick(seed=8), overwrite=True)
    expected = f"^{folder} has been trained again since {tmp_path / 'run'} was fine-tuned from it$"
    with pytest.raises(DataError, match=expected):
        resume(tmp_path / "run", open_dataset(noisy))


# --- kills


@pytest.fixture(scope="module")
def reference(noisy, tmp_path_factory) -> Callable[..., Path]:
    """`reference(config)`: the folder of an undisturbed run called `run`; each is made once."""
    made: dict[str, Path] = {}

    def undisturbed(config: Any, parent: Path | None = None) -> Path:
        key = json.dumps([config.to_json(), str(parent)])
        if key not in made:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            start = parent and load_run(parent)
            train(folder, open_dataset(noisy), config, parent=start)
            made[key] = folder
        return made[key]

    return undisturbed


def start(*arguments: object) -> subprocess.Popen:
    """`mmcoop` in a process of its own, computing with as many threads as this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "mmcoop", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background of a shell, it has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not happened():
        if process.poll() is not None:
            pytest.fail(f"the process ended too early: {process.communicate()}")
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def kill_after_epoch(process: subprocess.Popen, folder: Path, epoch: int, delay: float) -> None:
    """SIGKILL, so many seconds after the epoch's scores are there (0: after the run began)."""
    seen = folder / ("run.json" if epoch == 0 else f"contributions/epoch-{epoch:04d}.parquet")
    wait_for(seen.is_file, process)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before the kill: train longer"


def finish(*arguments: object) -> str:
    """Run `mmcoop` to its end, which must be a good one; returns what it printed."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def given(settings: dict[str, object]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


LONG = {"epochs": 25, "batch_size": 16, "lr": 0.003, "schedule": "constant"}


@pytest.mark.parametrize(
    ("settings", "kills"),
    [
        ({"method": "joint"}, 1),
        ({"method": "sample", "warmup": 3, "optimizer": "sgd", "momentum": 0.9, "lr": 0.05}, 2),
        ({"method": "modality", "warmup": 3}, 1),
    ],
    ids=["joint", "sample with sgd and momentum, twice", "modality"],
)
def test_a_killed_run_goes_on_to_the_same_bytes(noisy, quick, tmp_path, reference, settings, kills):
    chance = random.Random(settings["method"])
    folder = tmp_path / "run"
    where = ["--data", noisy, "--out", folder, "--quiet"]
    how = given({**LONG, **settings})
    for kill in range(kills):
        process = start("train", *how, *where)
        kill_after_epoch(process, folder, 8 * kill + chance.randint(1, 7), chance.uniform(0, 0.05))
        assert load_run(folder).status == "running"
        how = ["--resume"]
    finish("train", "--resume", *where)
    assert load_run(folder).status == "finished"
    assert_same_run(folder, reference(quick(**{**LONG, **settings})))


def test_a_run_that_is_killed_before_its_first_checkpoint_goes_on_to_the_same_bytes(
    noisy, quick, tmp_path, reference
):
    folder = tmp_path / "run"
    settings = {**LONG, "epochs": 2, "method": "sample", "warmup": 0}
    where = ["--data", noisy, "--out", folder, "--quiet"]
    kill_after_epoch(start("train", *given(settings), *where), folder, 0, 0)
    assert not (folder / "checkpoints" / "last").exists()
    finish("train", "--resume", *given(settings), *where)
    assert_same_run(folder, reference(quick(**settings)))


def test_a_killed_enhancement_goes_on_to_the_same_bytes(parent, noisy, quick, tmp_path, reference):
    chance = random.Random("enhance")
    folder = tmp_path / "run"
    before = content_of(parent)
    where = ["--run", parent, "--out", folder, "--quiet"]
    killed = start("enhance", "--epochs=15", "--seed=6", *where)
    kill_after_epoch(killed, folder, chance.randint(1, 8), chance.uniform(0, 0.05))
    answer = json.loads(finish("enhance", "--resume", *where, "--json"))
    assert answer["started_from"] == str(parent)
    config = quick(epochs=15, lr=3e-2, seed=6, method="sample", warmup=0)
    assert_same_run(folder, reference(config, parent))
    assert content_of(parent) == before


def test_ctrl_c_exits_with_130_and_one_message_and_leaves_a_run_that_goes_on(
    noisy, quick, tmp_path, reference
):
    folder = tmp_path / "run"
    settings = {**LONG, "method": "modality", "warmup": 3}
    process = start("train", *given(settings), "--data", noisy, "--out", folder)
    wait_for((folder / "contributions" / "epoch-0004.parquet").is_file, process)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    threads, *notes, message = err.splitlines()
    assert threads == "computing with 1 thread"
    assert len(notes) >= 3
    assert all(note.startswith("epoch ") for note in notes)
    assert message.startswith("Error: stopped in epoch ")
    command = f"mmcoop train --resume --out {folder}"
    assert message.endswith(f" of 25; go on from the last whole epoch with {command}")
    assert load_run(folder).status == "stopped"
    resume(folder, open_dataset(noisy))
    assert_same_run(folder, reference(quick(**settings)))


KILLER = """
import json, os, random, shutil, signal, sys, traceback
from pathlib import Path

import torch
import torch._dynamo  # slow to import, and the first optimizer does it: once here, for all forks

from mmcoop.datasets.reader import open_dataset
from mmcoop.training.config import make_config
from mmcoop.training.train import resume, train
from mmcoop.training.run import is_run, load_run

torch.set_num_threads(1)
data, place, old = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
first, last, points = (int(number) for number in sys.argv[4:7])
config = make_config(json.loads(sys.argv[7]))
TOUCHING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def fork(work):
    # the exit status of a fork that does the work, negative for a signal
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def training(folder, kill_at, count=None):
    # as a user would: go on with the run of this configuration, or else start it
    done = 0

    def watch(event, arguments):
        nonlocal done
        mode = arguments[1] if event == "open" and isinstance(arguments[1], str) else ""
        if event not in TOUCHING and not set(mode) & set("wxa"):
            return
        # the removal of a tree names its files from where they are
        if str(folder.parent) in str(arguments[0]) or "/" not in str(arguments[0]):
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if is_run(folder) and load_run(folder).config == config:
        resume(folder, open_dataset(data))
    else:
        train(folder, open_dataset(data), config, overwrite=old != "nothing")
    if count is not None:
        count.write_text(str(done))


def prepare(folder):
    folder.parent.mkdir()
    if old != "nothing":
        shutil.copytree(old, folder)


whole = place / "whole" / "run"
prepare(whole)
assert fork(lambda: training(whole, None, place / "operations")) == 0
operations = int((place / "operations").read_text())
last = min(last, operations)
outcome = {}
for point in sorted(random.Random(0).sample(range(first, last + 1), points)):
    folder = place / str(point) / "run"
    prepare(folder)
    if fork(lambda: training(folder, point)) != -signal.SIGKILL:
        outcome[point] = "was not killed"
    elif fork(lambda: training(folder, None)) != 0:
        outcome[point] = "did not go on"
    else:
        outcome[point] = "went on"
print(json.dumps({"operations": operations, "outcome": outcome}))
"""


@pytest.mark.parametrize(
    ("over_an_old_run", "first", "last", "points"),
    [(False, 1, 8, 8), (False, 9, 1000, 12), (True, 1, 30, 10)],
    ids=["at its start", "later on", "while it takes the place of another run"],
)
def test_a_run_killed_at_any_file_operation_goes_on_to_the_same_bytes(
    parent, noisy, tmp_path, over_an_old_run, first, last, points
):
    """Forks of one process train and are killed by an audit hook, at points drawn by chance."""
    settings = {
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.05,
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "constant",
        "method": "sample",
        "warmup": 1,
        "seed": 1,
    }
    (tmp_path / "killer.py").write_text(KILLER)
    old = parent if over_an_old_run else "nothing"
    arguments = [noisy, tmp_path, old, first, last, points, json.dumps(settings)]
    done = subprocess.run(
        [sys.executable, tmp_path / "killer.py", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["operations"] > 40
    assert len(answer["outcome"]) == points
    wrong = {point: how for point, how in answer["outcome"].items() if how != "went on"}
    assert wrong == {}, done.stderr
    for point in answer["outcome"]:
        assert_same_run(tmp_path / point / "run", tmp_path / "whole" / "run")
        assert [path.name for path in (tmp_path / point).iterdir()] == ["run"]


def test_a_run_without_progress_says_nothing(noisy, quick, tmp_path, capfd):
    train(tmp_path / "run", open_dataset(noisy), quick(epochs=1), runtime=Runtime(progress=SILENT))
    assert capfd.readouterr() == ("", "")


def test_enhancement_follows_the_value_function_that_was_chosen(noisy, quick, tmp_path):
    """Extra examples are counted from the recorded contributions by a plain loop: steps of half a
    share below the sample's own mean, rounded to the nearest, at most three per modality."""
    config = quick(method="sample", warmup=0, epochs=2, value="probability")
    run = train(tmp_path / "run", open_dataset(noisy), config)
    for epoch, rows in zip((1, 2), run.metrics["rows"], strict=True):
        scores = Scores.open(run.contributions_file(epoch))
        assert scores.details["value"] == "probability"
        frame = scores.to_frame()
        frame = frame[frame["split"] == "train"]
        phi = frame[[f"contribution_{m}" for m in run.modalities]].to_numpy()
        extra = 0
        for sample in phi:
            for contribution in sample:
                lacking = len(sample) * (sample.mean() - contribution)
                extra += min(max(math.ceil(2 * lacking - 0.5), 0), 3)
        assert rows == len(phi) + extra
    assert extra > 0


def test_a_chosen_value_function_beside_a_scores_file_is_refused(noisy, quick, tmp_path):
    config = quick(method="sample", value="probability")
    with pytest.raises(UsageError, match="leave value out"):
        train(tmp_path / "run", open_dataset(noisy), config, scores=tmp_path / "scores.parquet")
    assert not (tmp_path / "run").exists()

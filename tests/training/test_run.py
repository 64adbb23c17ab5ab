"""The run folder."""

import json
import math
import platform
import shutil
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import DataError
from mmcoop.training.build import architecture_of
from mmcoop.training.run import Run, is_run, load_run
from mmcoop.training.train import new_run, train


@pytest.fixture(scope="module")
def trained(noisy, quick, tmp_path_factory) -> Path:
    """A finished run of five epochs; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "joint"
    train(folder, open_dataset(noisy), quick(epochs=5, lr=2e-2, seed=2))
    return folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of the finished run, to break."""
    return shutil.copytree(trained, tmp_path / "joint")


@pytest.fixture
def fresh(noisy, quick, tmp_path) -> Run:
    """A run that has just begun."""
    dataset, config = open_dataset(noisy), quick()
    run = new_run(tmp_path / "fresh", config, architecture_of(dataset, config), dataset, None)
    run.create()
    return run


def rewrite(folder: Path, change) -> None:
    """Change what `run.json` holds."""
    path = folder / "run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- what a run says of itself


def test_a_run_tells_how_it_was_trained(trained, noisy, quick):
    run = load_run(str(trained))
    dataset = open_dataset(noisy)
    assert run.folder == trained
    assert run.name == "joint"
    assert run.config == quick(epochs=5, lr=2e-2, seed=2)
    assert run.architecture == architecture_of(dataset, run.config)
    assert run.modalities == ("sound", "touch")
    assert run.dataset == {
        "path": str(noisy),
        "name": "noisy",
        "fingerprint": dataset.fingerprint,
    }
    assert run.parent is None


def test_a_finished_run_is_dated(trained):
    run = load_run(trained)
    assert run.status == "finished"
    age = datetime.now(UTC) - datetime.fromisoformat(run.finished)
    assert timedelta(0) < age < timedelta(hours=1)


def test_run_json_names_format_and_versions(trained):
    content = json.loads((trained / "run.json").read_text())
    assert content["format"] == "mmcoop run"
    assert content["format_version"] == 1
    packages = ("mmcoop", "torch", "numpy", "pyarrow")
    expected = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    assert content["versions"] == expected


def test_a_child_names_path_weights_and_cost_of_its_parent(trained, noisy, quick, tmp_path):
    parent = load_run(trained)
    child = train(tmp_path / "child", open_dataset(noisy), quick(epochs=1), parent=parent)
    expected = {"path": str(trained), "weights": parent.weights_hash, "cost": parent.cost}
    assert child.parent == load_run(tmp_path / "child").parent == expected


def test_the_whole_cost_of_a_child_is_that_of_all_it_descends_from(trained, noisy, quick, tmp_path):
    dataset, first = open_dataset(noisy), load_run(trained)
    second = train(tmp_path / "second", dataset, quick(epochs=1), parent=first)
    third = train(tmp_path / "third", dataset, quick(epochs=2), parent=second)
    assert first.whole_cost == first.cost
    line = [first.cost, second.cost, third.cost]
    for name in ("rows_encoded", "rows_valued", "seconds"):
        assert third.whole_cost[name] == pytest.approx(sum(cost[name] for cost in line)), name
    assert third.whole_cost["rows_encoded"] == (5 + 1 + 2) * 70 * 2
    assert third.whole_cost["peak_memory"] == max(cost["peak_memory"] for cost in line)


def test_the_model_has_the_best_weights_and_is_in_evaluation_mode(trained):
    run = load_run(trained)
    weights = load_file(trained / "checkpoints" / "best" / "model.safetensors")
    own = run.model.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    assert not any(module.training for module in run.model.modules())


def test_the_weights_are_read_only_when_the_model_is_asked_for(copied):
    shutil.rmtree(copied / "checkpoints")
    run = load_run(copied)
    assert run.config.epochs == 5
    with pytest.raises(DataError, match=r"the checkpoint .*best/model\.safetensors is missing"):
        _ = run.model


def test_the_metrics_have_one_row_an_epoch(trained):
    metrics = load_run(trained).metrics
    assert metrics["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert list(metrics.columns) == [
        "epoch",
        "lr",
        "loss",
        "rows",
        "rows_encoded",
        "rows_valued",
        "contribution_sound",
        "contribution_touch",
        "validation_loss",
        "validation_accuracy",
        "validation_accuracy_sound",
        "validation_accuracy_touch",
        "validation_accuracy_sound+touch",
        "validation_contribution_sound",
        "validation_contribution_touch",
        "seconds",
        "peak_memory",
    ]


def test_the_best_epoch_has_the_numbers_of_its_row(trained):
    run = load_run(trained)
    best = run.best_epoch
    row = run.metrics.set_index("epoch").loc[best["epoch"]]
    assert best == {
        "epoch": best["epoch"],
        "validation_accuracy": row["validation_accuracy"],
        "validation_loss": row["validation_loss"],
    }


def test_the_cost_is_the_sum_over_all_epochs(trained):
    run = load_run(trained)
    # 70 samples of two modalities in each of five epochs, none of them valued
    assert run.cost["rows_encoded"] == 5 * 70 * 2
    assert run.cost["rows_valued"] == 0
    assert run.cost["seconds"] == pytest.approx(run.metrics["seconds"].sum(), abs=0.051)
    # a process that has imported torch takes more than this, and this machine has less than that
    assert 100 < run.cost["peak_memory"] < 1e6


def test_a_run_that_has_just_begun_has_no_metrics_and_no_cost(fresh):
    run = load_run(fresh.folder)
    assert run.status == "running"
    assert run.finished is None
    assert run.metrics.empty
    assert run.cost == {"rows_encoded": 0, "rows_valued": 0, "seconds": 0.0, "peak_memory": 0.0}
    with pytest.raises(DataError, match=r"best/checkpoint\.json is missing"):
        _ = run.best_epoch


def test_scores_of_an_epoch_are_found_under_its_number(fresh):
    assert fresh.contributions_file(7) == fresh.folder / "contributions" / "epoch-0007.parquet"
    assert fresh.contributions_file(12345).name == "epoch-12345.parquet"


def test_a_row_of_metrics_takes_the_place_of_the_same_and_later_epochs(fresh):
    for epoch, loss in ((1, 0.5), (2, 0.4), (3, 0.3), (2, 0.25)):
        fresh.record_epoch({"epoch": epoch, "loss": loss, "contribution_sound": math.nan})
    metrics = pd.read_parquet(fresh.folder / "metrics.parquet")
    assert metrics["epoch"].tolist() == [1, 2]
    assert metrics["loss"].tolist() == [0.5, 0.25]
    assert metrics["contribution_sound"].isna().all()
    assert sorted(p.name for p in fresh.folder.iterdir()) == [
        "contributions",
        "metrics.parquet",
        "run.json",
    ]


def test_a_status_is_written_at_once_and_only_finishing_is_dated(fresh):
    fresh.set_status("finished")
    assert load_run(fresh.folder).status == "finished"
    assert load_run(fresh.folder).finished is not None
    fresh.set_status("stopped")
    assert load_run(fresh.folder).status == "stopped"
    assert load_run(fresh.folder).finished is None


def test_a_folder_is_a_run_if_it_has_a_run_json(trained, noisy, tmp_path):
    assert is_run(trained)
    assert not is_run(noisy)
    assert not is_run(tmp_path)
    assert not is_run(tmp_path / "nowhere")


# --- the data set of a run


def test_its_own_data_set_fits_wherever_it_lies(trained, noisy, tmp_path):
    shutil.copytree(noisy, tmp_path / "moved")
    load_run(trained).check_dataset(open_dataset(tmp_path / "moved"))


def test_another_data_set_is_refused_by_name_and_fingerprint(trained, noisy, tiny_dataset):
    mine, other = open_dataset(noisy).fingerprint, open_dataset(tiny_dataset).fingerprint
    with pytest.raises(DataError) as error:
        load_run(trained).check_dataset(open_dataset(tiny_dataset))
    assert str(error.value) == (
        f"the run {trained} was trained on another data set: on noisy ({mine[:12]}), while "
        f"{tiny_dataset} is tiny ({other[:12]}); give the right one with data"
    )


# --- what cannot be opened


@pytest.mark.parametrize("kind", ["nothing", "an empty folder", "a file", "a data set"])
def test_what_is_no_run_folder_is_refused(tmp_path, noisy, kind):
    folder = noisy if kind == "a data set" else tmp_path / "it"
    if kind == "an empty folder":
        folder.mkdir()
    if kind == "a file":
        folder.write_text("not a folder")
    expected = rf"^{folder} is not a run folder \(no run.json\): train one with mmcoop train$"
    with pytest.raises(DataError, match=expected):
        load_run(folder)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_a_run_of_another_format_version_is_refused(copied, number):
    rewrite(copied, lambda content: content.update(format_version=number))
    expected = f"^{copied / 'run.json'} has format version {number}: this mmcoop reads 1$"
    with pytest.raises(DataError, match=expected):
        load_run(copied)


@pytest.mark.parametrize("content", ["[]", '"run"', "3"])
def test_a_run_json_that_is_no_object_is_refused(copied, content):
    (copied / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json has format version None: this mmcoop reads 1"):
        load_run(copied)


@pytest.mark.parametrize("content", ["", "{", "\x00\xff"])
def test_a_run_json_that_is_not_json_is_refused(copied, content):
    (copied / "run.json").write_text(content)
    with pytest.raises(DataError, match=f"^{copied / 'run.json'} cannot be read: "):
        load_run(copied)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("status"), "status: "),
        (lambda c: c.pop("config"), "config: "),
        (lambda c: c.pop("parent"), "parent: "),
        (lambda c: c["model"].pop("fusion"), "model.fusion: "),
        (
            lambda c: c["model"]["modalities"]["sound"].pop("encoder"),
            "model.modalities.sound.encoder: ",
        ),
        (lambda c: c["model"].update(modalities=["sound"]), "model.modalities: "),
        (lambda c: c["model"].update(classes=4), "model.classes: "),
        (lambda c: c.update(config=[]), "config: "),
        (lambda c: c["config"].update(method="magic"), "unknown method 'magic'"),
        (lambda c: c["config"].update(epochs="many"), "setting 'epochs' is 'many'"),
        (lambda c: c["config"].update(speed=3), "unknown setting 'speed'"),
        (lambda c: c["config"].update(lr=-1.0), "lr is -1.0"),
    ],
)
def test_a_run_json_that_mmcoop_would_not_write_is_refused_with_the_reason(copied, change, reason):
    rewrite(copied, change)
    expected = f"^{copied / 'run.json'} is not what mmcoop writes: .*{reason}"
    with pytest.raises(DataError, match=expected):
        load_run(copied)


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else"])
def test_damaged_metrics_are_refused(copied, content):
    (copied / "metrics.parquet").write_bytes(content)
    with pytest.raises(
        DataError, match=f"^{copied / 'metrics.parquet'} cannot be read as the metrics of a run: ."
    ):
        _ = load_run(copied).metrics


def test_weights_of_another_architecture_are_refused(copied):
    rewrite(copied, lambda content: content["model"].update(fusion="late"))
    expected = r"best/model\.safetensors is of another architecture: 'fusion\.head"
    with pytest.raises(DataError, match=expected):
        _ = load_run(copied).model

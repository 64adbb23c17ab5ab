"""What a command works on when the user does not say."""

import json
import shutil
from pathlib import Path

import pytest

from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.training.config import TrainConfig, make_config
from mmcoop.training.run import load_run
from mmcoop.training.train import train
from mmcoop.workspace import dataset_of, enhanced_folder, find_dataset, find_run, run_folder


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory) -> Path:
    """A finished run, to make copies of."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = make_config({"epochs": 1, "batch_size": 12, "lr": 1e-3})
    train(folder, open_dataset(tiny_dataset), config)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def place_run(trained: Path, folder: str, **changes) -> None:
    """A copy of the run at `folder`, with other entries in its `run.json`."""
    shutil.copytree(trained, folder)
    path = Path(folder) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def at(hour: int, microseconds: int = 0) -> str:
    fraction = f".{microseconds:06d}" if microseconds else ""
    return f"2026-01-01T{hour:02d}:00:00{fraction}+00:00"


PARENT = {"path": "runs/joint", "weights": "0" * 64}


# --- data sets


def test_the_only_data_set_in_data_is_found(tiny_dataset):
    shutil.copytree(tiny_dataset, "data/tiny")
    found = find_dataset(None)
    assert found.folder == Path("data/tiny")
    assert found.fingerprint == open_dataset(tiny_dataset).fingerprint


def test_what_is_no_data_set_and_what_is_hidden_is_passed_over(tiny_dataset, trained):
    shutil.copytree(tiny_dataset, "data/tiny")
    shutil.copytree(tiny_dataset, "data/.other.partial")
    shutil.copytree(trained, "data/run")
    Path("data/empty").mkdir()
    Path("data/notes.txt").write_text("mine")
    assert find_dataset(None).folder == Path("data/tiny")


@pytest.mark.parametrize("there", ["no folder", "an empty folder", "other things", "a file"])
def test_no_data_set_is_an_error_that_says_how_to_get_one(there):
    if there == "a file":
        Path("data").write_text("not a folder")
    elif there != "no folder":
        Path("data").mkdir()
    if there == "other things":
        Path("data/clips").mkdir()
    expected = "^there is no data set in data/ yet: build one with mmcoop build-dataset, or name"
    with pytest.raises(DataError, match=expected):
        find_dataset(None)


def test_several_data_sets_are_an_error_that_lists_them(tiny_dataset):
    for name in ("one", "two"):
        shutil.copytree(tiny_dataset, f"data/{name}")
    expected = "^there are several data sets, choose one with data: data/one, data/two$"
    with pytest.raises(UsageError, match=expected):
        find_dataset(None)


def test_a_data_set_that_is_named_is_taken_whatever_lies_in_data(tiny_dataset):
    for name in ("one", "two"):
        shutil.copytree(tiny_dataset, f"data/{name}")
    assert find_dataset(tiny_dataset).folder == tiny_dataset
    with pytest.raises(DataError, match=r"^elsewhere is not a dataset folder"):
        find_dataset(Path("elsewhere"))


def test_the_data_set_of_a_run_is_the_one_it_was_trained_on(tiny_dataset, trained):
    for name in ("one", "two"):
        shutil.copytree(tiny_dataset, f"data/{name}")
    assert dataset_of(load_run(trained), None).folder == tiny_dataset


def test_another_data_set_may_be_named_for_a_run(tiny_dataset, trained):
    shutil.copytree(tiny_dataset, "data/moved")
    assert dataset_of(load_run(trained), Path("data/moved")).folder == Path("data/moved")


def test_where_the_data_set_of_a_run_is_gone_the_only_one_in_data_is_taken(tiny_dataset, trained):
    gone = {**json.loads((trained / "run.json").read_text())["dataset"], "path": "gone"}
    place_run(trained, "runs/joint", dataset=gone)
    with pytest.raises(DataError, match="^there is no data set in data/ yet"):
        dataset_of(load_run("runs/joint"), None)
    shutil.copytree(tiny_dataset, "data/tiny")
    assert dataset_of(load_run("runs/joint"), None).folder == Path("data/tiny")


# --- runs


def test_the_run_that_finished_last_is_found(trained):
    place_run(trained, "runs/first", finished=at(9))
    place_run(trained, "runs/second", finished=at(11))
    place_run(trained, "runs/third", finished=at(10))
    assert find_run(None).folder == Path("runs/second")


def test_a_fraction_of_a_second_counts(trained):
    place_run(trained, "runs/a", finished=at(9))
    place_run(trained, "runs/b", finished=at(9, microseconds=5))
    place_run(trained, "runs/c", finished=at(9, microseconds=4))
    assert find_run(None).folder == Path("runs/b")


def test_runs_that_have_not_finished_are_passed_over(trained):
    place_run(trained, "runs/done", finished=at(9))
    place_run(trained, "runs/killed", status="running", finished=None)
    place_run(trained, "runs/stopped", status="stopped", finished=None)
    assert find_run(None).folder == Path("runs/done")


def test_enhanced_runs_are_passed_over_on_request_only(trained):
    place_run(trained, "runs/joint", finished=at(9))
    place_run(trained, "runs/joint-sample", finished=at(10), parent=PARENT)
    assert find_run(None).folder == Path("runs/joint-sample")
    assert find_run(None, enhanced=False).folder == Path("runs/joint")


def test_what_is_no_run_and_what_is_hidden_is_passed_over(trained, tiny_dataset):
    place_run(trained, "runs/joint", finished=at(9))
    place_run(trained, "runs/.joint.old", finished=at(10))
    shutil.copytree(tiny_dataset, "runs/tiny")
    Path("runs/notes.txt").write_text("mine")
    assert find_run(None).folder == Path("runs/joint")


@pytest.mark.parametrize("there", ["no folder", "an empty folder", "other things"])
def test_no_run_at_all_is_an_error_that_says_how_to_get_one(there):
    if there != "no folder":
        Path("runs").mkdir()
    if there == "other things":
        Path("runs/notes").mkdir()
    with pytest.raises(DataError) as error:
        find_run(None)
    assert str(error.value) == (
        "no run in runs/ has finished yet: run mmcoop train, or name one with run"
    )


def test_where_only_unfinished_runs_are_they_are_named(trained):
    place_run(trained, "runs/a", status="running", finished=None)
    place_run(trained, "runs/b", status="stopped", finished=None)
    with pytest.raises(DataError) as error:
        find_run(None)
    assert str(error.value) == (
        "no run in runs/ has finished yet: go on with runs/a, runs/b (--resume), or name one "
        "with run"
    )


def test_enhanced_runs_alone_are_not_enough_where_they_are_passed_over(trained):
    place_run(trained, "runs/joint-sample", finished=at(10), parent=PARENT)
    with pytest.raises(DataError, match=r"^no run in runs/ .*run mmcoop train, or name one with"):
        find_run(None, enhanced=False)


def test_a_run_that_is_named_is_taken_enhanced_or_not(trained):
    place_run(trained, "elsewhere/mine", parent=PARENT)
    place_run(trained, "runs/joint")
    for enhanced in (True, False):
        found = find_run(Path("elsewhere/mine"), enhanced=enhanced)
        assert found.folder == Path("elsewhere/mine")


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_run_that_is_named_must_have_finished(trained, status):
    place_run(trained, "runs/joint", status=status, finished=None)
    expected = (
        "^the run runs/joint has not finished: go on with mmcoop train --resume --out runs/joint$"
    )
    with pytest.raises(DataError, match=expected):
        find_run(Path("runs/joint"))


def test_a_run_that_is_named_must_be_one():
    with pytest.raises(DataError, match=r"^runs/nowhere is not a run folder \(no run.json\)"):
        find_run(Path("runs/nowhere"))


# --- where runs go


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, "runs/joint"),
        ({"method": "sample"}, "runs/sample"),
        ({"seed": 3}, "runs/joint-seed3"),
        ({"fusion": "late"}, "runs/joint-late"),
        ({"method": "unimodal", "options": {"modality": "audio"}}, "runs/unimodal-audio"),
        (
            {"method": "unimodal", "options": {"modality": "audio"}, "fusion": "sum", "seed": 1},
            "runs/unimodal-audio-sum-seed1",
        ),
        ({"epochs": 3, "lr": 1.0}, "runs/joint"),
    ],
)
def test_a_run_is_named_after_what_sets_it_apart(settings, folder):
    assert run_folder(TrainConfig(**settings)) == Path(folder)


def test_an_enhanced_run_lies_beside_its_parent_under_its_name(trained):
    place_run(trained, "elsewhere/mine")
    parent = load_run("elsewhere/mine")
    assert enhanced_folder(parent, "sample", 0) == Path("elsewhere/mine-sample")
    assert enhanced_folder(parent, "modality", 0) == Path("elsewhere/mine-modality")


def test_the_name_of_an_enhanced_run_has_its_seed_if_it_is_not_its_parents(trained):
    config = json.loads((trained / "run.json").read_text())["config"]
    place_run(trained, "runs/joint-seed4", config={**config, "seed": 4})
    parent = load_run("runs/joint-seed4")
    assert enhanced_folder(parent, "sample", 4) == Path("runs/joint-seed4-sample")
    assert enhanced_folder(parent, "sample", 7) == Path("runs/joint-seed4-sample-seed7")


def test_an_enhancement_with_seed_0_of_a_run_with_another_seed_has_a_name_of_its_own(trained):
    """Or the two would take the same folder."""
    config = json.loads((trained / "run.json").read_text())["config"]
    place_run(trained, "runs/joint-seed4", config={**config, "seed": 4})
    parent = load_run("runs/joint-seed4")
    assert enhanced_folder(parent, "sample", 0) != enhanced_folder(parent, "sample", 4)

"""Accuracy with modalities missing, and the scores of a split."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.reader import DatasetFolder, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.evaluation import evaluate_run, valuate_run, value_run
from mmcoop.training.run import Run, load_run
from mmcoop.training.train import train


@pytest.fixture(scope="module")
def trained(noisy, quick, tmp_path_factory) -> Path:
    """A run with two modalities; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "sample"
    config = quick(method="sample", epochs=4, lr=1e-2, seed=2)
    train(folder, open_dataset(noisy), config)
    return folder


@pytest.fixture
def run(trained) -> Run:
    return load_run(trained)


@pytest.fixture(scope="module")
def dataset(noisy) -> DatasetFolder:
    return open_dataset(noisy)


@pytest.fixture(scope="module")
def three(tiny_dataset, quick, tmp_path_factory) -> Run:
    """A run with three modalities."""
    folder = tmp_path_factory.mktemp("runs") / "three"
    return train(folder, open_dataset(tiny_dataset), quick(epochs=1, lr=1e-3))


def predictions(run: Run, dataset: DatasetFolder, split: str, present: list[bool]) -> list[int]:
    """What the model answers from these modalities, asked plainly, sample by sample of a batch."""
    model = run.architecture.build()
    model.load_state_dict(run.model.state_dict())
    model.eval()
    answers: list[int] = []
    with torch.no_grad():
        for batch in load_batches(dataset.split(split), batch_size=7):
            rows = torch.tensor([present] * len(batch.labels))
            answers += model(batch.inputs, rows).argmax(1).tolist()
    return answers


def by_hand(
    run: Run, dataset: DatasetFolder, split: str
) -> tuple[list[int], dict[tuple[int, ...], list[bool]]]:
    """Labels, and whether each coalition (by its members' positions) is right on each sample."""
    n = len(run.modalities)
    labels = dataset.split(split).labels.tolist()
    right = {}
    for size in range(1, n + 1):
        for members in itertools.combinations(range(n), size):
            answers = predictions(run, dataset, split, [m in members for m in range(n)])
            right[members] = [a == b for a, b in zip(answers, labels, strict=True)]
    return labels, right


def shapley_by_permutations(
    right: dict[tuple[int, ...], list[bool]], n: int, sample: int
) -> list[float]:
    """Mean over all orders of joining of what each modality adds to |S| · 1[S is right]."""

    def worth(members: set[int]) -> int:
        return len(members) * right[tuple(sorted(members))][sample] if members else 0

    totals = [0.0] * n
    for order in itertools.permutations(range(n)):
        there: set[int] = set()
        for m in order:
            totals[m] += worth(there | {m}) - worth(there)
            there.add(m)
    return [total / math.factorial(n) for total in totals]


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# --- evaluation


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_accuracy_of_every_coalition_is_that_of_a_plain_loop(run, dataset, split):
    found = evaluate_run(run, dataset, split)
    labels, right = by_hand(run, dataset, split)
    expected = {
        "sound": share(right[(0,)]),
        "touch": share(right[(1,)]),
        "sound+touch": share(right[(0, 1)]),
    }
    assert found["coalitions"] == pytest.approx(expected, abs=1e-6)
    assert list(found["coalitions"]) == list(expected)
    assert found["accuracy"] == found["coalitions"]["sound+touch"]
    assert found["samples"] == len(labels)
    assert found["split"] == split
    assert found["run"] == str(run.folder)


def test_a_share_is_as_exact_as_a_division(run, dataset):
    """22 of 30 is 0.7333333333333333 and not the nearest float32."""
    found = evaluate_run(run, dataset)
    labels, right = by_hand(run, dataset, "test")
    assert found["accuracy"] == pytest.approx(share(right[(0, 1)]), abs=1e-12)
    assert found["classes"]["north"]["coalitions"]["sound"] == pytest.approx(
        share([hit for hit, label in zip(right[(0,)], labels, strict=True) if label == 0]),
        abs=1e-12,
    )


def test_three_modalities_have_seven_coalitions(three, tiny_dataset):
    dataset = open_dataset(tiny_dataset)
    found = evaluate_run(three, dataset)
    _, right = by_hand(three, dataset, "test")
    names = ["features", "motion", "picture"]
    expected = {"+".join(names[m] for m in members): share(r) for members, r in right.items()}
    assert found["coalitions"] == pytest.approx(expected, abs=1e-6)
    phi = np.mean([shapley_by_permutations(right, 3, k) for k in range(12)], axis=0)
    assert found["contributions"] == pytest.approx(dict(zip(names, phi, strict=True)))


def test_classes_have_their_own_accuracies_and_a_class_without_samples_has_none(run, dataset):
    found = evaluate_run(run, dataset)
    labels, right = by_hand(run, dataset, "test")
    assert list(found["classes"]) == ["north", "east", "south"]  # no "west" in the test split
    for label, name in enumerate(("north", "east", "south")):
        of_class = [k for k, other in enumerate(labels) if other == label]
        assert found["classes"][name]["samples"] == len(of_class) == 10
        expected = {
            "sound": share([right[(0,)][k] for k in of_class]),
            "touch": share([right[(1,)][k] for k in of_class]),
            "sound+touch": share([right[(0, 1)][k] for k in of_class]),
        }
        assert found["classes"][name]["coalitions"] == pytest.approx(expected, abs=1e-6)


def test_contributions_are_the_mean_shapley_values_and_their_share_below_1(run, dataset):
    found = evaluate_run(run, dataset)
    _, right = by_hand(run, dataset, "test")
    phi = np.array([shapley_by_permutations(right, 2, k) for k in range(30)])
    assert found["contributions"] == pytest.approx(
        {"sound": phi[:, 0].mean(), "touch": phi[:, 1].mean()}
    )
    expected = {"sound": (phi[:, 0] < 1).mean(), "touch": (phi[:, 1] < 1).mean()}
    assert found["low_contributing"] == pytest.approx(expected, abs=1e-6)


def test_contributions_add_up_to_n_times_the_accuracy(run, dataset):
    found = evaluate_run(run, dataset)
    total = sum(found["contributions"].values())
    assert total == pytest.approx(2 * found["accuracy"], abs=1e-6)


def test_the_cost_is_what_training_took(run, dataset):
    metrics = pd.read_parquet(run.folder / "metrics.parquet")
    assert evaluate_run(run, dataset)["cost"] == {
        "rows_encoded": metrics["rows_encoded"].sum(),
        "rows_valued": metrics["rows_valued"].sum(),
        "seconds": round(metrics["seconds"].sum(), 1),
        "peak_memory": round(metrics["peak_memory"].max(), 1),
    }
    assert metrics["rows_valued"].sum() == 3 * 70 * 2


def test_an_evaluation_is_plain_json(run, dataset):
    found = evaluate_run(run, dataset)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_test_split_is_the_default_and_the_answer_the_same_twice(run, dataset):
    assert evaluate_run(run, dataset) == evaluate_run(run, dataset, "test")


def test_a_unimodal_run_has_one_coalition(noisy, quick, tmp_path, dataset):
    config = quick(method="unimodal", options={"modality": "touch"})
    run = train(tmp_path / "run", dataset, config)
    found = evaluate_run(run, dataset)
    assert list(found["coalitions"]) == list(found["contributions"]) == ["touch"]
    # alone, a modality's contribution is 1 where it is right and 0 elsewhere
    assert found["contributions"]["touch"] == pytest.approx(found["accuracy"], abs=1e-6)
    assert found["low_contributing"]["touch"] == pytest.approx(1 - found["accuracy"], abs=1e-6)


def test_evaluating_leaves_the_run_as_it_was(run, dataset):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    evaluate_run(run, dataset)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_evaluating_does_not_change_torchs_random_state(run, dataset):
    before = torch.get_rng_state()
    evaluate_run(run, dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_work_is_tracked_batch_by_batch(run, dataset, recorder):
    evaluate_run(run, dataset, runtime=Runtime(progress=recorder))
    ((label, batches),) = recorder.tracked
    assert label == "valuing the test samples of sample"
    assert [len(batch.labels) for batch in batches] == [16, 14]


def test_samples_are_valued_in_order_with_the_evaluation_transform(run, dataset, recorder):
    valued = list(value_run(run, dataset, "validation", runtime=Runtime(progress=recorder)))
    ids = [name for batch in valued for name in batch.ids]
    assert ids == [f"validation-{i}" for i in range(30)]
    seen = torch.cat([batch.inputs["sound"] for batch in recorder.tracked[0][1]])
    stored = dataset.split("validation").read("sound", np.arange(30))
    np.testing.assert_array_equal(seen.numpy(), stored)


@pytest.mark.parametrize("split", ["training", "", "Test"])
def test_an_unknown_split_is_refused(run, dataset, split):
    expected = f"^unknown split {split!r}: choose one of train, validation, test$"
    with pytest.raises(UsageError, match=expected):
        evaluate_run(run, dataset, split)


def test_another_data_set_is_refused(run, tiny_dataset):
    with pytest.raises(DataError, match=f"^the run {run.folder} was trained on another data set"):
        evaluate_run(run, open_dataset(tiny_dataset))


def test_an_unknown_device_is_refused(run, dataset):
    with pytest.raises(UsageError, match="^device 'abacus' cannot be used here: "):
        evaluate_run(run, dataset, runtime=Runtime(device="abacus"))


def test_a_damaged_shard_is_refused(run, noisy, tmp_path):
    folder = shutil.copytree(noisy, tmp_path / "data")
    (shard,) = folder.glob("test-*.arrow")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"^the shard {shard} is damaged"):
        evaluate_run(run, open_dataset(folder))


# --- the scores of a split


@pytest.fixture
def scores(run, dataset, tmp_path) -> Path:
    valuate_run(run, dataset, "train", tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


def test_scores_have_one_row_a_sample_with_the_values_of_a_plain_loop(scores, run, dataset):
    frame = pd.read_parquet(scores)
    labels, right = by_hand(run, dataset, "train")
    answers = predictions(run, dataset, "train", [True, True])
    assert list(frame.columns) == [
        "id",
        "split",
        "group",
        "label",
        "prediction",
        "correct",
        "contribution_sound",
        "contribution_touch",
        "base_value",
        "value_sound",
        "value_touch",
        "value_sound+touch",
        "correct_sound",
        "correct_touch",
        "correct_sound+touch",
        "prediction_sound",
        "prediction_touch",
        "ties",
    ]
    assert frame["correct_sound"].tolist() == [float(r) for r in right[(0,)]]
    assert frame["prediction_touch"].tolist() == predictions(run, dataset, "train", [False, True])
    assert frame["id"].tolist() == [f"train-{i}" for i in range(70)]
    assert set(frame["split"]) == {"train"}
    assert frame["group"].tolist() == dataset.split("train").column("group").to_pylist()
    assert frame["label"].tolist() == labels
    assert frame["prediction"].tolist() == answers
    assert frame["correct"].tolist() == right[(0, 1)]
    assert frame["value_sound"].tolist() == [float(r) for r in right[(0,)]]
    assert frame["value_touch"].tolist() == [float(r) for r in right[(1,)]]
    assert frame["value_sound+touch"].tolist() == [2.0 * r for r in right[(0, 1)]]
    expected = [shapley_by_permutations(right, 2, k) for k in range(70)]
    np.testing.assert_allclose(
        frame[["contribution_sound", "contribution_touch"]], expected, atol=1e-12
    )


def test_the_contributions_of_a_row_sum_to_n_if_it_is_right_and_to_0_if_not(
    three, tiny_dataset, tmp_path
):
    out = tmp_path / "scores.parquet"
    valuate_run(three, open_dataset(tiny_dataset), "train", out)
    frame = pd.read_parquet(out)
    sums = frame[[f"contribution_{m}" for m in three.modalities]].sum(axis=1)
    np.testing.assert_allclose(sums, 3 * frame["correct"], atol=1e-12)
    assert len(frame) == 36


def test_the_summary_is_that_of_the_rows(run, dataset, tmp_path):
    summary = valuate_run(run, dataset, "train", tmp_path / "scores.parquet").summary("train")
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    assert summary.samples == 70
    for m in ("sound", "touch"):
        phi = frame[f"contribution_{m}"]
        assert summary.mean_contribution[m] == pytest.approx(phi.mean(), abs=1e-12)
        assert summary.low_contributing[m] == pytest.approx((phi < 1).mean(), abs=1e-6)
    assert summary.accuracy["sound+touch"] == pytest.approx(frame["correct"].mean(), abs=1e-6)


def test_valuing_twice_gives_the_same_bytes(scores, run, dataset, tmp_path):
    valuate_run(load_run(run.folder), dataset, "train", tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == scores.read_bytes()


def test_the_file_says_how_it_came_about(scores, run, dataset):
    details = json.loads(pq.read_schema(scores).metadata[b"mmcoop"])
    assert details.pop("versions")["mmcoop"] == version("mmcoop")
    assert details == {
        "format": "mmcoop scores",
        "modalities": ["sound", "touch"],
        "run": "sample",
        "weights": run.weights_hash,
        "dataset": {"name": "noisy", "fingerprint": dataset.fingerprint},
        "split": "train",
        "value": "paper",
        "fair_share": 1.0,
        "best": None,
        "absent": "zero",
        "estimator": "exact",
        "seed": 0,
        "classes": 4,
    }


def test_the_file_opens_with_hugging_face_datasets_offline(scores, tmp_path):
    script = (
        "import sys, json\n"
        "from datasets import load_dataset\n"
        "rows = load_dataset('parquet', data_files=sys.argv[1], cache_dir=sys.argv[2])['train']\n"
        "print(json.dumps([rows.column_names, rows.num_rows, rows[0], rows[69]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(scores), str(tmp_path / "cache")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    columns, rows, first, last = json.loads(done.stdout)
    frame = pd.read_parquet(scores)
    assert columns == list(frame.columns)
    assert rows == 70
    assert first == frame.iloc[0].to_dict()
    assert last == frame.iloc[69].to_dict()


def test_an_existing_file_is_refused_unless_it_may_be_replaced(scores, run, dataset):
    before = scores.read_bytes()
    expected = f"^{scores} exists: choose another out, or replace it with overwrite=True$"
    with pytest.raises(UsageError, match=expected):
        valuate_run(run, dataset, "test", scores)
    assert scores.read_bytes() == before
    valuate_run(run, dataset, "test", str(scores), overwrite=True)
    assert set(pd.read_parquet(scores)["split"]) == {"test"}
    assert [path.name for path in scores.parent.iterdir()] == ["scores.parquet"]


def test_a_folder_that_does_not_exist_is_refused(run, dataset, tmp_path):
    expected = f"^the folder {tmp_path / 'no'} does not exist: make it, or change out$"
    with pytest.raises(UsageError, match=expected):
        valuate_run(run, dataset, "train", tmp_path / "no" / "scores.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_refused_even_if_it_may_be_replaced(
    run, dataset, tmp_path
):
    with pytest.raises(UsageError, match=f"^{tmp_path} is a folder: give out the name of a fil"):
        valuate_run(run, dataset, "train", tmp_path, overwrite=True)


def refuse_the_data_set(
    run: Run, noisy: Path, tiny: Path, tmp_path: Path
) -> tuple[DatasetFolder, str]:
    return open_dataset(tiny), "was trained on another data set"


def refuse_the_split(
    run: Run, noisy: Path, tiny: Path, tmp_path: Path
) -> tuple[DatasetFolder, str]:
    folder = shutil.copytree(noisy, tmp_path / "data")
    next(folder.glob("train-*.arrow")).unlink()
    return open_dataset(folder), "is missing: build the data set again"


@pytest.mark.parametrize("refusal", [refuse_the_data_set, refuse_the_split])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_valuation_that_fails_leaves_what_was_there(
    run, noisy, tiny_dataset, tmp_path, refusal, overwrite
):
    wrong, message = refusal(run, noisy, tiny_dataset, tmp_path)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "scores.parquet"
    if overwrite:
        out.write_bytes(b"what was there")
    with pytest.raises(DataError, match=message):
        valuate_run(run, wrong, "train", out, overwrite=overwrite)
    assert [path.name for path in out.parent.iterdir()] == ["scores.parquet"] * overwrite
    assert not overwrite or out.read_bytes() == b"what was there"


def test_a_valuation_that_is_cut_off_midway_leaves_nothing(run, dataset, tmp_path):
    class Stop(Progress):
        def track(self, items, label, total=None):
            for number, item in enumerate(items):
                if number == 2:
                    raise KeyboardInterrupt
                yield item

    with pytest.raises(KeyboardInterrupt):
        valuate_run(
            run, dataset, "train", tmp_path / "scores.parquet", runtime=Runtime(progress=Stop())
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_missing_leave_nothing(trained, dataset, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "runs" / "sample")
    shutil.rmtree(folder / "checkpoints" / "best")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"best/model\.safetensors is missing"):
        valuate_run(load_run(folder), dataset, "train", tmp_path / "out" / "scores.parquet")
    assert list((tmp_path / "out").iterdir()) == []

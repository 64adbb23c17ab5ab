"""Comparisons as a user makes them: real processes and runs, on data of three modalities."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score

from mmcoop import evaluate_run, load_run, open_dataset
from mmcoop.comparison.folder import ComparisonSpec, is_comparison, load_comparison
from mmcoop.errors import DataError, UsageError
from mmcoop.training.evaluation import value_run

METHODS = "sample,uniform,random,unimodal"
QUICK = ("--epochs", "2", "--warmup", "1", "--batch-size", "9", "--seeds", "0-1", "--jobs", "2")
#: What differs from one time to the next.
MEASURED = ["seconds", "seconds_ci", "peak_memory", "peak_memory_ci"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmcoop", "compare", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )


def compare(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=250)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture(scope="module")
def by_epochs(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("epochs")
    out, err = compare(folder, "--data", str(tiny_dataset), "--methods", METHODS, *QUICK)
    assert re.search(r"\d+ runs \(\d+ lines of the table × \d seeds\) of up to \d+ epochs", err)
    return folder / "comparison", out


@pytest.fixture(scope="module")
def by_rows(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    compare(folder, "--data", str(tiny_dataset), "--methods", METHODS, "--match", "rows", *QUICK)
    return folder / "comparison"


def without_measured(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=[name for name in MEASURED if name in frame])


# --- what is written


def test_there_is_a_row_a_run(by_epochs):
    folder, _ = by_epochs
    runs = pd.read_parquet(folder / "runs.parquet")
    labels = ["joint", "unimodal features", "unimodal motion", "unimodal picture"]
    labels += ["sample", "uniform", "random", "joint matched"]
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == sorted(
        (label, seed) for label in labels for seed in (0, 1)
    )
    assert set(runs["fusion"]) == {"concat"}


def test_a_row_has_what_evaluating_the_run_gives(by_epochs, tiny_dataset):
    folder, _ = by_epochs
    dataset = open_dataset(tiny_dataset)
    for row in pd.read_parquet(folder / "runs.parquet").to_dict("records"):
        run = load_run(folder / "runs" / row["run"])
        found = evaluate_run(run, dataset)
        assert row["accuracy"] == found["accuracy"]
        for name, share in found["coalitions"].items():
            assert row[f"accuracy_{name}"] == share
        for name, mean in found["contributions"].items():
            assert row[f"contribution_{name}"] == pytest.approx(mean)
        assert row["rows_encoded"] == found["cost"]["rows_encoded"]
        assert row["epochs"] == len(run.metrics)
        assert row["best_epoch"] == run.best_epoch["epoch"]
        assert row["validation_accuracy"] == run.best_epoch["validation_accuracy"]
        labels, logits = [], []
        for batch in value_run(run, dataset, "test"):
            labels += batch.labels.tolist()
            logits += batch.outputs.softmax(1).tolist()
        guesses = [max(range(3), key=p.__getitem__) for p in logits]
        assert row["macro_f1"] == pytest.approx(f1_score(labels, guesses, average="macro"))
        each = [
            average_precision_score([y == c for y in labels], [p[c] for p in logits])
            for c in range(3)
        ]
        assert row["mean_average_precision"] == pytest.approx(sum(each) / 3)


def test_scores_of_the_test_samples_are_there_of_every_run(by_epochs):
    comparison = load_comparison(by_epochs[0])
    for row in comparison.runs.to_dict("records"):
        hits = comparison.hits(row["run"])
        assert len(hits) == 12
        assert hits.mean() == pytest.approx(row["accuracy"])


def test_joint_matched_has_the_rows_of_the_dearest_run_within_an_epoch(by_epochs):
    runs = pd.read_parquet(by_epochs[0] / "runs.parquet")
    rows = runs["rows_encoded"] + runs["rows_valued"]
    dearest = rows[runs["method"] != "joint matched"].max()
    an_epoch = 36 * 3
    assert dearest > 2 * an_epoch
    for own in rows[runs["method"] == "joint matched"]:
        assert dearest <= own < dearest + an_epoch


def test_matched_in_rows_every_run_has_those_of_the_dearest_at_least(by_epochs, by_rows):
    """And not more than two epochs above: the rows of an epoch of `sample` are not known before."""
    unmatched = pd.read_parquet(by_epochs[0] / "runs.parquet")
    budget = (unmatched["rows_encoded"] + unmatched["rows_valued"])[
        unmatched["method"] != "joint matched"
    ].max()
    runs = pd.read_parquet(by_rows / "runs.parquet")
    assert "joint matched" not in set(runs["method"])
    for row in runs.to_dict("records"):
        used = row["rows_encoded"] + row["rows_valued"]
        assert used > 0.9 * budget, row["run"]
        assert used < budget + 2 * used / row["epochs"], row["run"]
        if row["method"] in ("joint", "uniform"):
            assert budget <= used < budget + 36 * 3


def test_matched_runs_are_those_that_train_as_long_from_the_start(by_rows, tiny_dataset, tmp_path):
    run = load_run(by_rows / "runs" / "sample-concat-seed1")
    assert run.config.epochs > 2
    settings = ["--epochs", str(run.config.epochs), "--warmup", "1", "--batch-size", "9"]
    arguments = ["train", "--data", str(tiny_dataset), "--method", "sample", "--seed", "1"]
    script = "import sys, torch; torch.set_num_threads(1); from mmcoop.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", script, *arguments, *settings, "--patience", "0", "--out", "long"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    anew = load_run(tmp_path / "long")
    own = without_measured(run.metrics)
    pd.testing.assert_frame_equal(own, without_measured(anew.metrics), rtol=1e-4)


@pytest.mark.parametrize("match", ["rows", "epochs"])
def test_the_schedule_of_a_run_is_stretched_to_the_length_it_is_matched_to(
    tiny_dataset, tmp_path, match
):
    """Half of the run at the full learning rate, the other half at a tenth, however long it is."""
    arguments = ["--methods", "sample", "--data", str(tiny_dataset), "--match", match]
    steps = ["--schedule", "step", "--step-epochs", "3", "--lr", "1e-3"]
    settings = ["--epochs", "6", "--warmup", "1", "--batch-size", "9", "--seeds", "0"]
    compare(tmp_path, *arguments, *steps, *settings, "--jobs", "2")
    lengthened = 0
    for run in map(load_run, (tmp_path / "comparison" / "runs").iterdir()):
        rates = run.metrics["lr"].tolist()
        lengthened += len(rates) > 6
        assert sorted(set(rates)) == pytest.approx([1e-4, 1e-3])
        assert rates.count(1e-3) == pytest.approx(len(rates) / 2, abs=1), run.name
        assert rates == sorted(rates, reverse=True)
    assert lengthened


def test_where_joint_runs_use_most_rows_themselves_they_are_not_there_twice(tiny_dataset, tmp_path):
    compare(tmp_path, "--data", str(tiny_dataset), "--methods", "joint", *QUICK)
    runs = pd.read_parquet(tmp_path / "comparison" / "runs.parquet")
    assert sorted(runs["run"]) == ["joint-concat-seed0", "joint-concat-seed1"]
    assert len(list((tmp_path / "comparison" / "runs").iterdir())) == 2


def test_the_summary_is_there_in_every_form(by_epochs):
    folder, out = by_epochs
    summary = pd.read_csv(folder / "summary.csv").set_index("method")
    runs = pd.read_parquet(folder / "runs.parquet")
    for method, group in runs.groupby("method"):
        assert summary.loc[method, "accuracy"] == pytest.approx(group["accuracy"].mean())
    joint = runs[runs["method"] == "joint"].set_index("seed")["accuracy"]
    sample = runs[runs["method"] == "sample"].set_index("seed")["accuracy"]
    assert summary.loc["sample", "gain_joint"] == pytest.approx((sample - joint).mean())
    for name in ("summary.md", "summary.tex"):
        text = (folder / name).read_text()
        for method in set(runs["method"]):
            assert method in text
    assert "gain over joint matched" in out
    assert "unimodal motion" in out


def test_info_shows_it(by_epochs, mmcoop):
    folder, _ = by_epochs
    answer = mmcoop(folder.parent, "info", "comparison", "--json")
    rows = json.loads(answer.stdout)["methods"]
    assert [row["method"] for row in rows] == list(pd.read_csv(folder / "summary.csv")["method"])
    # numbers that are not there are null, as JSON wants it
    assert rows[0]["gain_joint"] is None
    assert "gain over joint matched" in mmcoop(folder.parent, "info", "comparison").stdout


# --- going on


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(by_rows, tiny_dataset, tmp_path):
    arguments = ["--data", str(tiny_dataset), "--methods", METHODS, "--match", "rows", *QUICK]
    process = start(tmp_path, *arguments)
    results = tmp_path / "comparison" / "results"
    for wanted in ("first/*.json", "*.json"):
        deadline = time.monotonic() + 120
        while not list(results.glob(wanted)) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()
        before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
        process = start(tmp_path, "--resume", "--jobs", "2")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert before
    for path, then in before.items():
        assert path.stat().st_mtime_ns == then, f"{path} was made once more"
    ours, theirs = (
        without_measured(pd.read_parquet(folder / "runs.parquet"))
        for folder in (tmp_path / "comparison", by_rows)
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_ctrl_c_stops_all_and_says_how_to_go_on(tiny_dataset, tmp_path, process):
    settings = ["--epochs", "500", "--batch-size", "4", "--seeds", "0", "--workers", "1"]
    running = start(tmp_path, "--data", str(tiny_dataset), "--methods", "uniform", *settings)
    deadline = time.monotonic() + 100
    epochs = tmp_path / "comparison/runs/joint-concat-seed0/contributions"
    while not list(epochs.glob("*2.parquet")) and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "go on with mmcoop compare --resume --out comparison" in err
    assert "Traceback" not in err
    assert is_comparison(tmp_path / "comparison")
    answer = process(tmp_path, "info", "comparison")
    assert answer.returncode == 1
    assert "has not finished: 0 runs are tested so far; resume it with mmcoop" in answer.stderr
    last = max(epochs.iterdir())
    time.sleep(1)
    assert max(epochs.iterdir()) == last  # nothing goes on behind the user's back


def test_more_methods_and_seeds_are_added_and_what_is_done_is_left(by_epochs, tmp_path):
    shutil.copytree(by_epochs[0], tmp_path / "comparison")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "comparison").glob("runs/*/run.json")}
    compare(tmp_path, "--resume", "--methods", "modality", "--seeds", "5", "--jobs", "2")
    before = pd.read_parquet(by_epochs[0] / "runs.parquet")
    after = pd.read_parquet(tmp_path / "comparison" / "runs.parquet")
    assert set(after["method"]) == {*before["method"], "modality"}
    assert set(after["seed"]) == {0, 1, 5}
    both = after.merge(before, on="run", suffixes=("", "_before"))
    same = both[both["method"] != "joint matched"]  # the dearest run may be another one now
    assert len(same) == 14
    assert (same["accuracy"] == same["accuracy_before"]).all()
    for path, then in kept.items():
        if "matched" not in path.parent.name:
            assert path.stat().st_mtime_ns == then


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--match", "rows"], "was started with match epochs, not match rows"),
        (["--tune", "3"], "was started with tune 0, not tune 3"),
        (["--lr", "1"], ", not lr 1.0: leave that out"),
        (["--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_another_comparison_is_no_going_on(by_epochs, mmcoop, arguments, message):
    answer = mmcoop(by_epochs[0].parent, "compare", "--resume", *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr


def test_where_there_is_none_it_is_said_how_to_start_one(mmcoop, tmp_path):
    answer = mmcoop(tmp_path, "compare", "--resume", "--out", "mine")
    assert answer.returncode == 1
    assert "mine is not a comparison folder (no comparison.json)" in answer.stderr
    assert "`mmcoop compare --out mine` starts one" in " ".join(answer.stderr.split())


def test_a_comparison_is_not_replaced_unasked(by_epochs, tiny_dataset, mmcoop):
    folder = by_epochs[0]
    before = sorted(folder.rglob("*"))
    answer = mmcoop(folder.parent, "compare", "--data", str(tiny_dataset))
    assert answer.returncode == 2
    message = "choose another --out, or replace it with --overwrite"
    assert message in answer.stderr
    assert sorted(folder.rglob("*")) == before


def test_another_data_set_is_refused(by_epochs, keypad, mmcoop):
    answer = mmcoop(by_epochs[0].parent, "compare", "--resume", "--data", str(keypad))
    assert answer.returncode == 1
    assert "compares on another data set (tiny," in answer.stderr


# --- seconds


def test_matched_in_seconds_every_run_goes_on_for_as_long_as_the_slowest_method(
    tiny_dataset, tmp_path
):
    arguments = ["--methods", "sample", "--match", "seconds", "--data", str(tiny_dataset)]
    quick = ["--epochs", "2", "--warmup", "1", "--batch-size", "9", "--seeds", "0"]
    compare(tmp_path, *arguments, *quick)
    first = [
        json.loads(path.read_text())["cost"]["seconds"]
        for path in (tmp_path / "comparison/results/first").iterdir()
    ]
    runs = pd.read_parquet(tmp_path / "comparison" / "runs.parquet")
    assert set(runs["method"]) == {"joint", "sample"}
    for row in runs.to_dict("records"):
        run = load_run(tmp_path / "comparison" / "runs" / row["run"])
        metrics, before = run.metrics, tmp_path / "comparison/results/first" / f"{row['run']}.json"
        slice_ = run.config.max_seconds / json.loads(before.read_text())["cost"]["seconds"]
        assert run.config.step_epochs == pytest.approx(30 * slice_)
        assert metrics["seconds"].sum() >= max(first) - 0.051
        # it ends with the epoch in which it gets there
        assert metrics["seconds"][:-1].sum() < max(first) + 0.051


def test_seconds_cannot_be_matched_where_learning_rates_need_the_end(
    tiny_dataset, tmp_path, mmcoop
):
    arguments = ["--data", str(tiny_dataset), "--match", "seconds", "--schedule", "cosine"]
    answer = mmcoop(tmp_path, "compare", *arguments)
    assert answer.returncode == 2
    assert "--match seconds: how long a run trains is not known before" in answer.stderr
    assert not list(tmp_path.iterdir())


# --- tuning, failing


def test_tuning_picks_the_best_trial_on_validation_for_all_seeds(tiny_dataset, tmp_path):
    arguments = ["--methods", "ogm", "--tune", "3", "--data", str(tiny_dataset)]
    compare(tmp_path, *arguments, *QUICK)
    folder = tmp_path / "comparison"
    trials = pd.read_parquet(folder / "trials.parquet")
    runs = pd.read_parquet(folder / "runs.parquet")
    assert len(trials) == 2 * 3
    for method, group in trials.groupby("method"):
        best = group.sort_values(
            ["validation_accuracy", "validation_loss"], ascending=[False, True], kind="stable"
        ).iloc[0]
        assert group["chosen"].sum() == 1
        assert best["chosen"]
        own = runs[runs["method"] == method]
        assert set(own["lr"]) == {best["lr"]}
        assert set(own["options"]) == {best["options"]}
    assert (trials[trials["trial"] == "0"]["lr"] == 5e-5).all()


def test_a_run_that_fails_is_left_out_and_said_to_be(tiny_dataset, tmp_path):
    arguments = ["--methods", "uniform", "--set", "uniform.weight=1e38", "--lr", "1e30"]
    quick = ["--epochs", "2", "--seeds", "0", "--optimizer", "sgd", "--batch-size", "9"]
    _, err = compare(tmp_path, *arguments, *quick, "--data", str(tiny_dataset), code=1)
    assert "no run of comparison came to its end" in err
    assert "loss" in err
    assert is_comparison(tmp_path / "comparison")


def test_methods_that_fail_alone_leave_the_others(tiny_dataset, tmp_path):
    arguments = ["--methods", "uniform", "--set", "uniform.weight=1e38", "--epochs", "2"]
    more = ["--seeds", "0", "--batch-size", "9", "--data", str(tiny_dataset)]
    out, err = compare(tmp_path, *arguments, *more)
    runs = pd.read_parquet(tmp_path / "comparison" / "runs.parquet")
    assert runs["method"].tolist() == ["joint"]  # there is nothing left to match
    assert "uniform-concat-seed0 failed: the" in out
    assert "uniform-concat-seed0 failed: the" in err


def test_a_full_disk_ends_it_at_the_first_run_that_finds_it(tiny_dataset, tmp_path, small_disk):
    with small_disk(tmp_path / "disk", 200_000) as resize:
        quick = ["--methods", "uniform,random", "--seeds", "0", "--epochs", "2", "--warmup", "1"]
        _, err = compare(tmp_path / "disk", "--data", str(tiny_dataset), *quick, code=1)
        assert err.count("no room left") == 1
        assert re.fullmatch(
            r"Error: no room left on the disk of comparison, for which more than \S+ KiB are "
            "needed: what is done is kept: make room and go on with mmcoop compare --resume --out "
            "comparison",
            err.splitlines()[-1],
        )
        folder = tmp_path / "disk" / "comparison"
        assert load_comparison(folder).failed == {}
        assert len(list((folder / "runs").glob("*"))) <= 1, "of four"
        resize(2**26)
        compare(tmp_path / "disk", "--resume")
        assert load_comparison(folder).failed == {}
        assert {*pd.read_parquet(folder / "runs.parquet")["method"]} >= {"joint", "uniform"}


# --- what cannot be meant


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "4-"], "--seeds '4-': write them as 0-4 or 0,2,5"),
        (["--seeds", "a"], "--seeds 'a': write them as 0-4 or 0,2,5"),
        (["--seeds", "5-2"], "--seeds '5-2': 5-2 goes backwards"),
        (["--seeds", ","], "--seeds ',': write them as"),
        (["--fusions", ","], "needs a seed and a fusion"),
        (["--methods", "magic"], "unknown method 'magic'"),
        (["--match", "hours"], "cannot match 'hours': choose one of epochs, rows, seconds"),
        (["--set", "alpha=1"], "--set alpha=1: write it as METHOD.NAME=VALUE"),
        (["--epochs", "0"], "epochs is 0: it must be at least 1"),
    ],
)
def test_what_cannot_be_meant_leaves_nothing(tiny_dataset, tmp_path, mmcoop, arguments, message):
    answer = mmcoop(tmp_path, "compare", "--data", str(tiny_dataset), *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert not list(tmp_path.iterdir())


def test_plans_grow():
    plan = ComparisonSpec(methods=("ogm",), seeds=(0, 1))
    assert plan.with_more(methods=("pmr", "ogm"), seeds=(1, 4)).methods == ("ogm", "pmr")
    assert plan.with_more(seeds=(1, 4)).seeds == (0, 1, 4)
    assert plan.with_more(seeds=(1, 4)).methods == ("ogm",)
    assert plan.with_more(methods=None).methods is None
    with pytest.raises(UsageError, match="-1 trials"):
        ComparisonSpec(tune=-1)


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": "mmcoop comparison"}', "nothing"])
def test_what_is_not_a_comparison_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="no comparison.json"):
        load_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(DataError, match="comparison.json"):
        load_comparison(tmp_path)

"""SIGTERM and full disks: what is done is kept, one message says how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcoop.stopping import Terminated, stop_on_sigterm
from mmcoop.training.run import load_run

LONG = ["--epochs", "100000", "--schedule", "constant", "--lr", "1e-4"]


def terminated(folder: Path, words: list[str], when: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and errors of a command that gets SIGTERM, alone, as soon as `when()`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmcoop", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=100)
    with pytest.raises(ProcessLookupError):  # soon no process of its group is left
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    return process.returncode, errors


def test_a_training_stops_and_says_how_to_resume(noisy, mmcoop, tmp_path):
    words = ["train", "--data", str(noisy), *LONG]
    last = tmp_path / "runs/joint/checkpoints/last"
    code, errors = terminated(tmp_path, words, last.is_dir)
    assert code == 143
    assert "mmcoop train --resume --out runs/joint" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["joint"]
    run = load_run(tmp_path / "runs/joint")
    assert run.status == "stopped"
    assert len(run.metrics) >= 1
    again = mmcoop(tmp_path, *words)
    assert again.returncode == 2
    assert "mmcoop train --resume --out runs/joint" in again.stderr


def test_a_comparison_stops_with_the_processes_that_train(noisy, mmcoop, tmp_path):
    words = ["compare", "--data", str(noisy), "--methods", "joint", "--seeds", "0-1", *LONG]
    runs = [tmp_path / f"comparison/runs/joint-concat-seed{seed}" for seed in (0, 1)]
    begun = [run / "checkpoints/last" for run in runs]
    code, errors = terminated(
        tmp_path, [*words, "--jobs", "2"], lambda: all(p.is_dir() for p in begun)
    )
    assert code == 143
    assert "mmcoop compare --resume --out comparison" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert [load_run(run).status for run in runs] == ["stopped"] * 2
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]
    again = mmcoop(tmp_path, *words)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_what_keeps_nothing_says_that_it_stopped(mmcoop, monkeypatch, noisy, tmp_path):
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("mmcoop.datasets.reader.open_dataset", stop)
    result = mmcoop(tmp_path, "info", str(noisy))
    assert (result.returncode, result.stderr) == (143, "Error: stopped\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_python_would_drop_still_stops():
    class Odd:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with stop_on_sigterm() as was_terminated:
        with pytest.raises(Terminated):
            odd = Odd()
            del odd
            time.sleep(10)
        assert was_terminated()


# --- a full disk

FULL = """
import resource, sys
from mmcoop.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("limit", "what"), [(100, "runs/joint"), (12_000, "checkpoints/best")])
def test_a_full_disk_is_one_message_with_the_place_and_what_is_needed(noisy, tmp_path, limit, what):
    words = ["train", "--data", str(noisy), "--epochs", "1", "--quiet"]
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: no room left on the disk of runs/joint")
    assert what in line
    assert "needed" in line
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


# --- a parent that has been trained again


def test_a_parent_that_was_trained_again_is_not_compared_with(noisy, mmcoop, tmp_path):
    def call(*words: str) -> tuple[dict, str]:
        result = mmcoop(tmp_path, *words, "--json", "--quiet")
        assert result.returncode == 0, result.stderr
        text = mmcoop(tmp_path, *words)
        assert text.returncode == 0, text.stderr
        return json.loads(result.stdout), " ".join(text.stdout.split())

    train = ["train", "--data", str(noisy), "--epochs", "1", "--lr", "1e-3", "--quiet"]
    both = ["evaluate", "--run", "runs/joint", "--run", "runs/joint-sample", "--no-classes"]
    assert mmcoop(tmp_path, *train).returncode == 0
    assert mmcoop(tmp_path, "enhance", "--epochs", "1", "--quiet").returncode == 0
    answers, text = call(*both)
    assert not any("parent_problem" in answer for answer in answers)
    assert "trained again" not in text
    answer, text = call("enhance", "--epochs", "1", "--resume")
    assert "before" in answer
    assert (
        mmcoop(tmp_path, *train, "--seed", "1", "--out", "runs/joint", "--overwrite").returncode
        == 0
    )
    answers, text = call(*both)
    assert ["parent_problem" in answer for answer in answers] == [False, True]
    assert "runs/joint has been trained again since runs/joint-sample was fine-tuned" in text
    answer, text = call("enhance", "--epochs", "1", "--resume", "--out", "runs/joint-sample")
    assert "before" not in answer
    assert "runs/joint has been trained again" in answer["parent_problem"]
    assert "runs/joint has been trained again" in text

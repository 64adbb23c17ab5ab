"""One process at a time writes a run, a data set, a scores file or a comparison."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from mmcoop.comparison.folder import ComparisonSpec
from mmcoop.comparison.runner import run_comparison
from mmcoop.comparison.starting import new_comparison
from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import MmcoopError, UsageError
from mmcoop.locks import check_unlocked, lock_file, locked
from mmcoop.recipes.keypad import Keypad
from mmcoop.training.run import load_run
from mmcoop.training.train import resume, train

HOLDER = """
import os, sys, time
from pathlib import Path
from mmcoop.locks import locked

with locked(Path(sys.argv[1])):
    # with a process that outlives a kill, as one that loads batches does, once it has started
    if len(sys.argv) == 2 or os.fork() == 0:
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock on a path until it is killed."""
    started = []

    def hold(path: Path, *more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path, *more],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_lock_is_a_file_beside_that_goes_with_it(tmp_path):
    with locked(tmp_path / "a"):
        assert list(tmp_path.iterdir()) == [tmp_path / ".a.lock"]
        check_unlocked(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_others_are_refused_with_the_process_and_since_when(holder, tmp_path):
    before = datetime.now().astimezone().replace(microsecond=0)
    process = holder(tmp_path / "a")
    for check in (lambda: check_unlocked(tmp_path / "a"), locked(tmp_path / "a").__enter__):
        with pytest.raises(UsageError, match=f"a is in use by process {process.pid} since") as told:
            check()
        since = str(told.value).partition(" since ")[2].partition(": ")[0]
        assert before <= datetime.fromisoformat(since) <= datetime.now().astimezone()
    # whatever is in the file, which a killed process or a full disk may have cut short
    for content in (b"", b"\xff", b'{"process": "\\u001b[2J"}', b"[" * 5000, b"1"):
        lock_file(tmp_path / "a").write_bytes(content)
        with pytest.raises(UsageError, match="a is in use by another process: "):
            check_unlocked(tmp_path / "a")


@pytest.mark.parametrize("more", [(), ("forks",)])
def test_a_killed_process_holds_nothing(holder, tmp_path, more):
    process = holder(tmp_path / "a", *more)
    process.kill()
    process.wait()
    assert lock_file(tmp_path / "a").exists()
    check_unlocked(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_after_the_other_gets_it(tmp_path):
    code = """
import sys, time
from pathlib import Path
from mmcoop.errors import UsageError
from mmcoop.locks import locked

path, got = Path(sys.argv[1]), 0
while got < 50:
    try:
        with locked(path):
            (path.parent / "inside").touch(exist_ok=False)
            (path.parent / "inside").unlink()
            got += 1
    except UsageError:
        time.sleep(0.0005)
"""
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "a"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        for _ in range(4)
    ]
    assert [process.wait() for process in many] == [0] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.ENOTSUP])
def test_a_disk_without_locks_does_without(tmp_path, monkeypatch, number):
    def refuse(*arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "a"), locked(tmp_path / "a"):
        assert list(tmp_path.iterdir()) == []


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "lock" not in p.name}


def test_what_one_process_works_on_no_other_one_touches_and_all_may_read(
    holder, noisy, quick, tmp_path
):
    data, run, comparison = tmp_path / "data", tmp_path / "run", tmp_path / "comparison"
    dataset = open_dataset(noisy)
    Keypad().build(data)
    train(run, dataset, quick(epochs=1))
    plan = ComparisonSpec(methods=["joint"], seeds=[0], settings={"epochs": 1})
    load_run(run).set_status("stopped")
    started = new_comparison(comparison, dataset, plan)
    before = files(tmp_path)
    for path in (data, run, comparison):
        holder(path)
    attempts = [
        (data, lambda: Keypad().build(data)),
        (data, lambda: Keypad().build(data, overwrite=True)),
        (run, lambda: train(run, dataset, quick())),
        (run, lambda: train(run, dataset, quick(), overwrite=True)),
        (run, lambda: resume(run, dataset)),
        (comparison, lambda: new_comparison(comparison, dataset, plan)),
        (comparison, lambda: new_comparison(comparison, dataset, plan, overwrite=True)),
        (comparison, lambda: run_comparison(started, dataset)),
    ]
    for path, attempt in attempts:
        with pytest.raises(UsageError, match=f"^{path} is in use by process"):
            attempt()
    assert files(tmp_path) == before
    assert load_run(run).model is not None
    open_dataset(data).verify()


def test_of_two_trainings_that_start_at_once_one_ends_well_and_one_is_refused(
    noisy, process, tmp_path
):
    words = [sys.executable, "-m", "mmcoop", "train", "--data", str(noisy), "--epochs", "40"]
    words += ["--quiet", "--out", str(tmp_path / "runs/a")]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[1] for one in both]
    assert sorted(one.returncode for one in both) == [0, 2], said
    assert any("in use by process" in text or "exists" in text for text in said)
    assert not any("Traceback" in text for text in said)
    assert load_run(tmp_path / "runs/a").status == "finished"
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs/a"]


def test_a_run_killed_while_it_was_being_replaced_is_found_again(noisy, quick, tmp_path):
    run = train(tmp_path / "a", open_dataset(noisy), quick(epochs=1))
    (tmp_path / "a").rename(tmp_path / ".a.old")
    assert load_run(tmp_path / "a").weights_hash == run.weights_hash
    (tmp_path / "a").rename(tmp_path / ".a.old")
    with pytest.raises(MmcoopError, match="exists"):
        train(tmp_path / "a", open_dataset(noisy), quick(epochs=2))
    assert resume(tmp_path / "a", open_dataset(noisy)).weights_hash == run.weights_hash
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]

"""Do killed commands end in the same bytes? Kills each command, resumes it and compares its files.

Commands are killed with SIGKILL in two ways: at a random moment, and right before each file
operation in turn (files opened for writing, renamed, removed, truncated or synchronised, folders
created and removed). The command is then repeated, with --resume if it asks for it. The names and
bytes of all files must equal those of an undisturbed run; only times and memory may differ. The
data are vectors of 60 samples, and processes are forked from one that has loaded torch, so that
many kills fit in an hour.

    python benchmarks/kills.py --kills 50
    python benchmarks/kills.py --kills 0 --every 1 --commands train valuate
"""

import argparse
import json
import multiprocessing.forkserver
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import mmcoop.comparison.runner
import mmcoop.recipes.folder
import mmcoop.reporting.comparison
import mmcoop.reporting.describe
import mmcoop.reporting.progress
import mmcoop.reporting.summaries
import mmcoop.reporting.tables
import mmcoop.reporting.valuation
import mmcoop.scores.resume
import mmcoop.training.evaluation
import mmcoop.workspace
from mmcoop.cli import main as mmcoop_main

_TRAIN = ["--epochs", "3", "--batch-size", "16", "--lr", "1e-2", "--quiet"]

#: The commands, in the order they build on each other, with where each one writes.
COMMANDS: Mapping[str, tuple[list[str], str]] = {
    "build": (
        [
            *["build-dataset", "folder", "--source", "source", "--manifest", "source/list.csv"],
            *["--modality", "sound=sound:vector", "--modality", "touch=touch:vector"],
            *["--out", "data/vectors", "--workers", "1", "--quiet"],
        ],
        "data",
    ),
    "train": (["train", *_TRAIN], "runs"),
    "enhance": (["enhance", "--run", "runs/joint", *_TRAIN], "runs"),
    "valuate": (
        [
            *["valuate", "--run", "runs/joint", "--out", "scores/all.parquet"],
            *["--split", "all", "--quiet"],
        ],
        "scores",
    ),
    "compare": (
        ["compare", "--methods", "joint,sample", "--warmup", "1", "--seeds", "0", *_TRAIN],
        "comparison",
    ),
}

# What differs between two undisturbed runs: the time they took, and when they ended.
_MEASURED = {"seconds", "seconds_ci", "peak_memory", "peak_memory_ci", "finished"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--kills", type=int, default=50, help="at random moments, of each command")
    parser.add_argument(
        "--every", type=int, default=1, help="kill before every Nth file operation; 0: before none"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start_of_processes()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        reference = undisturbed(Path(at) / "reference", arguments.commands)
        wrong = 0
        for command in arguments.commands:
            if arguments.kills:
                found = kills_at_random(reference, command, arguments.kills, arguments.seed)
                wrong += report(command, found)
            if arguments.every:
                wrong += report(command, kills_at_operations(reference, command, arguments.every))
    sys.exit(1 if wrong else 0)


def report(command: str, outcomes: list[tuple[str, str]]) -> int:
    """Print how often each outcome came, and what was wrong where it was; gives how many were."""
    counts = Counter(outcome for outcome, _ in outcomes)
    listed = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    print(f"{command}: {len(outcomes)} kills {outcomes[0][1].split(':')[0]}: {listed}", flush=True)
    wrong = [(outcome, details) for outcome, details in outcomes if outcome != "same"]
    for outcome, details in wrong:
        print(f"  {outcome} {details}", flush=True)
    return len(wrong)


def start_of_processes() -> None:
    """Load what the pools of the commands preload, once for all of them."""
    torch.set_num_threads(1)
    mmcoop.scores.resume._SECONDS = 0.0  # every batch is a part
    server = multiprocessing.forkserver._forkserver
    server.set_forkserver_preload(["mmcoop.datasets.clip_reader", "mmcoop.training.evaluation"])
    server.ensure_running()
    server.ensure_running = lambda: None  # a forked process has no right to wait for it


def undisturbed(folder: Path, commands: Collection[str]) -> Path:
    """A folder in which these commands, and those they need, have come to their end."""
    rng = np.random.default_rng(0)
    (folder / "source").mkdir(parents=True)
    (folder / "scores").mkdir()
    rows = []
    for k in range(60):
        label = k % 3
        for name, size in (("sound", 5), ("touch", 4)):
            vector = rng.normal(0, 1, size).astype(np.float32)
            vector[label] += 2
            np.save(folder / "source" / f"{name}-{k}.npy", vector)
        split = "train" if k < 36 else "validation" if k < 48 else "test"
        rows.append((f"s{k}", f"c{label}", split, f"sound-{k}.npy", f"touch-{k}.npy"))
    table = pd.DataFrame(rows, columns=["id", "label", "split", "sound", "touch"])
    table.to_csv(folder / "source/list.csv", index=False)
    for command in [name for name in COMMANDS if name in {"build", "train", *commands}]:
        words, _ = COMMANDS[command]
        code, said = wait(start(folder, words))
        if code:
            raise SystemExit(f"{command} fails undisturbed: {said}")
    return folder


def kills_at_random(reference: Path, command: str, kills: int, seed: int) -> list[tuple[str, str]]:
    """Kill the command this often, each time in a new folder, at moments drawn from its length."""
    rng = random.Random(f"{seed} {command}")
    outcomes: list[tuple[str, str]] = []
    with prepared(reference, command) as folder:
        started = time.monotonic()
        wait(start(folder, COMMANDS[command][0]))
        length = time.monotonic() - started
    while len(outcomes) < kills:
        with prepared(reference, command) as folder:
            moment = rng.uniform(0, length)
            process = start(folder, COMMANDS[command][0])
            time.sleep(moment)
            process.kill()
            if wait(process)[0] != -signal.SIGKILL:
                length *= 0.95  # it was through already
                continue
            what = f"at random moments: after {moment:.3f} of {length:.3f} s"
            outcomes.append((outcome(folder, reference, command), what))
            note(command, outcomes)
    return outcomes


def kills_at_operations(reference: Path, command: str, every: int) -> list[tuple[str, str]]:
    """Kill the command before its first file operation, its second one, … until there is none."""
    outcomes: list[tuple[str, str]] = []
    number = 1
    while True:
        with prepared(reference, command) as folder:
            process = start(folder, COMMANDS[command][0], kill_at=number)
            if wait(process)[0] != -signal.SIGKILL:
                return outcomes
            operation = (folder / "operation").read_text()
            (folder / "operation").unlink()
            what = f"at file operations: at number {number}, {operation}"
            outcomes.append((outcome(folder, reference, command), what))
            note(command, outcomes)
        number += every


def note(command: str, outcomes: list[tuple[str, str]]) -> None:
    """Say on standard error how far it is."""
    same = sum(outcome == "same" for outcome, _ in outcomes)
    print(f"{command}: {same} of {len(outcomes)} same, last {outcomes[-1]}", file=sys.stderr)


class Started:
    """A command in a process, and a group, of its own."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid, self.said = pid, said

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def start(folder: Path, words: list[str], kill_at: int | None = None) -> Started:
    """`mmcoop WORDS` in `folder`, killed before its file operation number `kill_at`."""
    said = folder.with_name(f"{folder.name}-said")
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            with said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            if kill_at is not None:
                kill_before_operation(folder, kill_at)
            mmcoop_main(words)
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        except BaseException:  # noqa: BLE001 - the child must never continue as a second harness
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(99)
    return Started(pid, said)


def wait(process: Started) -> tuple[int, str]:
    """Exit code and output of a command that has ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    return code, process.said.read_text(errors="replace")


def kill_before_operation(folder: Path, number: int) -> None:
    """Have this process killed right before it changes a file in `folder` for that many times."""
    done = 0

    def count(what: str) -> None:
        nonlocal done
        done += 1
        if done == number:
            descriptor = os.open(folder / "operation", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            count(f"{event} {details[0]}")
        elif event == "open" and isinstance(details[2], int) and details[2] & os.O_ACCMODE:
            name = os.fspath(details[0]) if not isinstance(details[0], int) else ""
            if name and Path(name).name != "operation" and not name.startswith("/dev/"):
                count(f"open {name}")

    synchronise = os.fsync

    def fsync(descriptor: int) -> None:
        count("os.fsync")
        synchronise(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


@contextmanager
def prepared(reference: Path, command: str) -> Iterator[Path]:
    """A new folder with what the command needs, as `reference` has it."""
    folder, place = reference.with_name("killed"), COMMANDS[command][1]
    folder.mkdir()
    for needed in ("source", "data", "runs", "scores"):
        if needed != place:
            (folder / needed).symlink_to(reference / needed)
    if place == "scores":
        (folder / place).mkdir()
    if command == "enhance":
        shutil.copytree(reference / "runs/joint", folder / "runs/joint")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def outcome(folder: Path, reference: Path, command: str) -> str:
    """What becomes of a killed command that is given again: "same", or what is wrong."""
    words, place = COMMANDS[command]
    time.sleep(0.05)  # the processes that it had started see that it is gone
    code, said = wait(start(folder, words))
    if code == 2 and command != "build":
        code, said = wait(start(folder, [*words, "--resume"]))
    if "Traceback" in said or code not in (0, 2 if command == "build" else 0):
        return f"fails with {code}: {said.strip()[-300:]}"
    ours, theirs = contents(folder / place), contents(reference / place)
    if command == "train":
        theirs = {name: what for name, what in theirs.items() if "joint-sample" not in name}
    if odd := ours.keys() ^ theirs.keys():
        side = "left behind" if min(odd) in ours else "missing"
        return f"{side}: {min(odd)}"
    if odd := {name for name in ours if ours[name] != theirs[name]}:
        return f"differs: {min(odd)}"
    return "same"


def contents(folder: Path) -> dict[str, Any]:
    """What is in every file, by path; of what was measured only that it is there."""
    readers: dict[str, Callable[[Path], Any]] = {
        "run.json": _json,
        "metrics.parquet": _table,
        "runs.parquet": _table,
        **{f"summary.{ending}": lambda _: None for ending in ("csv", "md", "tex")},
    }
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.parent.name == "results":
            found[name] = _json(path)
        else:
            found[name] = readers.get(path.name, lambda p: sha256(p.read_bytes()).hexdigest())(path)
    return found


def _json(path: Path) -> Any:
    def kept(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: kept(value) for key, value in content.items() if key not in _MEASURED}
        return content

    return kept(json.loads(path.read_text()))


def _table(path: Path) -> str:
    frame = pd.read_parquet(path)
    return frame.drop(columns=_MEASURED & set(frame.columns)).to_csv()


if __name__ == "__main__":
    main()

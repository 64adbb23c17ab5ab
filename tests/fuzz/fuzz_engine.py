"""Readers tried on damaged files, each in a process of its own that is watched.

A reader may return or raise an `MmcoopError` that is safe to print. Anything else is a finding: any
other exception, a crash, a hang, memory that grows by more than `GROWTH`, a raw control character.
"""

import faulthandler
import hashlib
import json
import mmap
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from mmcoop.errors import MmcoopError
from mmcoop.printable import LONGEST, printable

GROWTH = 300 * 2**20
#: Seconds of processor time, and of the clock, that one input may take.
HANG_BUSY, HANG = 10.0, 120.0
#: Address space that a worker may use beside what it has at the beginning.
_SPACE = 4 * 2**30
_PER_PROCESS = 20_000
_GROWN = 3
_SAME = 3  # findings of one place in the code that are kept

# Workers are forked from a process that has imported everything.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["fuzz_targets"])

CORPUS = Path(__file__).parent / "corpus"


@dataclass
class Result:
    """What came of a target: how many inputs were tried, how many were refused, and what failed."""

    name: str
    executions: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


def fuzz(name: str, executions: int, seed: int, fixture: Path, keep: Path = CORPUS) -> Result:
    """Try so many damaged inputs on a target. What fails is kept in `keep`, in a folder `name`."""
    result = Result(name)
    begun = time.monotonic()
    while result.executions < executions:
        order = {
            "target": name,
            "seed": seed,
            "first": result.executions,
            "executions": min(_PER_PROCESS, executions - result.executions),
        }
        _work(order, result, fixture, keep / name)
    result.seconds = time.monotonic() - begun
    return result


def replay(name: str, inputs: Sequence[Path], fixture: Path) -> Result:
    """Try inputs that are kept."""
    result = Result(name)
    done = 0
    while done < len(inputs):
        order = {"target": name, "inputs": [str(path) for path in inputs[done:]]}
        _work(order, result, fixture, None)
        done = result.executions
    return result


def _work(order: dict, result: Result, fixture: Path, keep: Path | None) -> None:
    """One worker, from its start to its end, whatever that is."""
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as name:
        folder = Path(name)
        beat = folder / "beat"
        beat.write_bytes(bytes(16))
        (folder / "order.json").write_text(json.dumps({**order, "fixture": str(fixture)}))
        (folder / "errors").touch()
        worker = _PROCESSES.Process(target=_worker, args=(folder,))
        worker.start()
        hung = _watch(worker, beat)
        tried, refused = struct.unpack("<QQ", beat.read_bytes())
        result.executions += max(tried, 1)
        result.refused += refused
        for line in (
            (folder / "findings").read_text().splitlines() if (folder / "findings").exists() else []
        ):
            finding = json.loads(line)
            result.findings.append(finding["what"])
            if keep is not None:
                _keep(keep, bytes.fromhex(finding["content"]))
        if hung or worker.exitcode not in (0, _GROWN):
            what = "hang" if hung else f"ended with {worker.exitcode}"
            tail = (folder / "errors").read_text(errors="replace")[-3000:]
            result.findings.append(f"{what}\n{tail}")
            current = folder / "current"
            if keep is not None and current.exists():
                _keep(keep, current.read_bytes())


def _watch(worker: BaseProcess, beat: Path) -> bool:
    """Wait for a worker; whether it had to be killed because an input took too long."""
    seen, busy, since = b"", 0.0, time.monotonic()
    while worker.is_alive():
        worker.join(0.2)
        now = beat.read_bytes()
        spent = _busy(worker.pid or 0)
        if now != seen:
            seen, busy, since = now, spent, time.monotonic()
            continue
        limit = 12 if now[:8] == bytes(8) else 1  # whole files are read before the first
        if spent - busy > limit * HANG_BUSY or time.monotonic() - since > limit * HANG:
            worker.kill()
            worker.join()
            return True
    return False


def _busy(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _keep(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{hashlib.sha256(content).hexdigest()[:16]}.bin").write_bytes(content)


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _worker(folder: Path) -> None:
    """Try the inputs of an order; ends with `_GROWN` where memory has grown."""
    from fuzz_targets import TARGETS

    os.environ.update(NO_COLOR="1", COLUMNS="120")
    with (folder / "errors").open("w") as errors:
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    order = json.loads((folder / "order.json").read_text())
    warnings.simplefilter("ignore")
    target = TARGETS[order["target"]](Path(order["fixture"]), folder / "work")
    for seed in target.seeds:
        target.read(seed)  # what is not damaged must be read
    with (folder / "beat").open("r+b") as file:
        beat = mmap.mmap(file.fileno(), 16)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + _SPACE, space + _SPACE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen: dict[str, int] = {}
    refused = 0
    for tried, content in enumerate(_inputs(order, target), start=1):
        (folder / "current").write_bytes(content)
        what, was_refused = _outcome(target, content)
        refused += was_refused
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > GROWTH // 1024
        what = what or ("memory has grown" if grown else "")
        if what and seen.setdefault(what, 0) < _SAME:
            seen[what] += 1
            with (folder / "findings").open("a") as file:
                file.write(json.dumps({"what": what, "content": content.hex()}) + "\n")
        beat[:] = struct.pack("<QQ", tried, refused)
        if grown:
            sys.exit(_GROWN)


def _inputs(order: dict, target):
    if "inputs" in order:
        yield from (Path(path).read_bytes() for path in order["inputs"])
        return
    for k in range(order["first"], order["first"] + order["executions"]):
        rng = random.Random(f"{order['seed']}-{k}")
        yield target.damaged(rng)


def _outcome(target, content: bytes) -> tuple[str, bool]:
    """What is wrong with how an input was taken, if anything; whether it was refused."""
    try:
        shown = target.read(content) or ""
    except MmcoopError as error:
        message = str(error)
        if len(message) > LONGEST or printable(message) != message:
            return f"raw message: {ascii(message)[:300]}", True
        return "", True
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "mmcoop" in f.filename and "fuzz" not in f.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"{type(error).__name__} at {where}: {ascii(str(error))[:200]}".split("\n")[0], False
    if printable(shown, lines=True, most=sys.maxsize) != shown:
        return "raw output", False
    return "", False

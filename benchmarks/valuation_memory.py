"""Claim: the memory of `mmcoop valuate` does not grow with the data set.

Values 1, 4 and 16 times 2,000 samples in a process of its own and prints its peak of anonymous
memory (what the program itself allocates) and of all resident memory, which also counts mapped
files. Two of the data sets are larger than the limit to which shards stay mapped. Linux only.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mmcoop import make_config, open_dataset, train
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.writer import Header, write_dataset

SAMPLES = 2000


def main() -> None:
    print("samples   data, MiB   anonymous, MiB   resident, MiB   peaks of one `mmcoop valuate`")
    first = None
    for factor in (1, 4, 16):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_samples(folder / "data", factor * SAMPLES)
            dataset = open_dataset(folder / "data")
            train(folder / "run", dataset, make_config({"epochs": 1, "batch_size": 256}))
            size = sum(f.stat().st_size for f in (folder / "data").glob("train-*")) / 2**20
            anonymous, resident = peaks(folder)
        first = first or resident
        print(
            f"{factor * SAMPLES:7,} {size:11.0f} {anonymous:16.0f} {resident:15.0f}"
            f"   resident x {resident / first:.2f}"
        )


def write_samples(folder: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    header = Header(
        name="noise",
        recipe="benchmark",
        options={},
        source="random numbers",
        classes=["0", "1"],
        modalities={
            "left": Modality("vector", (2048,), "float16", "mlp"),
            "right": Modality("vector", (2048,), "float16", "mlp"),
        },
    )
    with write_dataset(folder, header) as writer:
        for split, rows in (("train", samples), ("validation", 64), ("test", 64)):
            for k in range(rows):
                left, right = rng.normal(size=(2, 2048))
                name = f"{split}-{k}"
                writer.add(split, id=name, label=k % 2, group=name, left=left, right=right)


def peaks(folder: Path) -> tuple[float, float]:
    """Peak anonymous and resident memory, in MiB, of valuing the run in `folder`."""
    command = [sys.executable, "-m", "mmcoop", "valuate", "--quiet", "--run", str(folder / "run")]
    command += ["--data", str(folder / "data"), "--out", str(folder / "scores.parquet")]
    process = subprocess.Popen(command)
    highest = {"RssAnon": 0.0, "VmRSS": 0.0}
    while process.poll() is None:
        for line in status_of(process.pid):
            name, _, rest = line.partition(":")
            if name in highest:
                highest[name] = max(highest[name], int(rest.split()[0]) / 1024)
        time.sleep(0.005)
    if process.returncode:
        sys.exit(process.returncode)
    return highest["RssAnon"], highest["VmRSS"]


def status_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return []


if __name__ == "__main__":
    main()

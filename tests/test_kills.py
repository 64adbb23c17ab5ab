"""A short form of `benchmarks/kills.py`: commands that are killed end in the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_killed_commands_end_in_the_same_bytes_and_leave_nothing_behind():
    words = ["--commands", "train", "valuate", "--kills", "2", "--every", "11"]
    result = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks/kills.py", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == ["train", "train", "valuate", "valuate"]
    assert all(line.rpartition(": ")[2].endswith(" same") for line in said)

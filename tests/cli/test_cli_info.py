"""`mmcoop info` answers at once: torch, which takes seconds to load, is not needed to describe data
sets, runs and comparisons. It is for a scores file, whose means and intervals are computed.
"""

import subprocess
import sys

import pytest


def loads_torch(code: str, folder) -> bool:
    """Whether torch is loaded at the end of a new process that runs `code`."""
    last = "import sys\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{last}"],
        cwd=folder,
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    "path", ["data/keypad", "data/keypad/rejects.parquet", "runs/joint-sample"]
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_info_does_not_load_torch(story, path, more):
    words = ["info", path, *more]
    code = f"from mmcoop.cli import app\napp({words}, standalone_mode=False)"
    assert not loads_torch(code, story[0])


def test_a_comparison_is_read_and_shown_without_torch(tmp_path):
    code = "import mmcoop.comparison.summary, mmcoop.reporting.comparison"
    assert not loads_torch(code, tmp_path)

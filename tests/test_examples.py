"""The examples run, as their own first lines say."""

import subprocess
import sys
from pathlib import Path

from mmcoop import load_run, make_config, open_dataset, train

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run_example(name: str, *arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested():
    mine = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in mine


def test_misleading_samples(tiny_dataset, tmp_path):
    dataset = open_dataset(tiny_dataset)
    config = make_config({"epochs": 3, "lr": 1e-3, "batch_size": 8})
    run = train(tmp_path / "run", dataset, config)
    said = run_example("misleading_samples.py", run.folder)
    for modality in dataset.modalities:
        assert f"{modality} misleads on" in said
    assert "of 12 samples" in said


def test_train_from_python(keypad, tmp_path):
    said = run_example("train_from_python.py", keypad, "--out", tmp_path, "--epochs", 1)
    assert "python-joint: audio" in said
    assert "python-sample: audio" in said
    assert load_run(tmp_path / "python-sample").parent["path"] == str(tmp_path / "python-joint")

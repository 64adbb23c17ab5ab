"""The examples run, as their own first lines say."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmcoop import load_run, make_config, open_dataset, train

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


BENCHMARKS = sorted((EXAMPLES.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_find_what_they_import(path):
    """They take minutes to hours, so that they are not run here: a renamed name is seen at once."""
    try:
        assert callable(runpy.run_path(str(path))["main"])
    except ModuleNotFoundError as error:
        if error.name in ("captum", "shapiq"):
            pytest.skip(f"{error.name} is in the extra `bench`")
        raise


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


def test_value_your_own_model():
    said = run_example("value_your_own_model.py")
    assert len((EXAMPLES / "value_your_own_model.py").read_text().splitlines()) <= 30
    means = dict(zip(said.split()[:2], map(float, numbers_after("mean", said)), strict=True))
    assert means["contribution_sound"] > means["contribution_picture"] > 0.3


def test_three_modalities():
    said = run_example("three_modalities.py")
    (accuracy,) = numbers_after("accuracy from all views:", said)
    assert accuracy > 95
    means = [numbers_after(f"{view}: mean φ", said)[0] for view in ("top", "middle", "bottom")]
    # a sample's contributions sum to 3 if it is right, else to 0
    assert sum(means) == pytest.approx(3 * accuracy / 100, abs=0.02)
    assert min(means) > 0.7


def test_transformers_model():
    said = run_example("transformers_model.py")
    assert numbers_after("accuracy", said)[0] > 85
    for modality in ("text", "image"):
        telling, other = numbers_after(f"{modality}: mean φ", said)
        assert telling > other + 0.2


def test_scikit_learn_pipeline():
    zero, mean, marginal, together = re.split(
        r"\n(?=\S)", run_example("scikit_learn_pipeline.py").strip()
    )
    accuracy, samples = numbers_after("all together:", together)
    assert accuracy > 90
    assert samples == 143
    groups = ("average", "error", "worst")
    for absent, said in (("zero", zero), ("mean", mean), ("marginal, 100 draws", marginal)):
        assert said.startswith(f"input {absent}:")
        found = [numbers_after(f"  {group}: mean φ", said) for group in groups]
        assert sum(phi for phi, _ in found) == pytest.approx(3 * accuracy / 100, abs=0.03)
        # 53 of 143 diagnoses are of the rarer class
        assert [alone > 70 for _, alone in found] == [absent != "zero"] * 3


def numbers_after(start: str, said: str) -> list[float]:
    """The numbers in the line that begins with `start`."""
    (line,) = [line for line in said.splitlines() if line.startswith(start)]
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line[len(start) :])]

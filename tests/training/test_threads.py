"""How many threads are used: by the size of the model, reported, recorded, and kept."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmcoop import load_run
from mmcoop.processes import processors
from mmcoop.training.build import Architecture
from mmcoop.training.threads import batch_work, suitable_threads

SMALL = Architecture({"a": "mlp", "b": "mlp"}, {"a": (20,), "b": (30,)}, "concat", ("x", "y"))
LARGE = Architecture(
    {"a": "resnet18", "b": "resnet18"}, {"a": (1, 64, 64), "b": (2, 3, 64, 64)}, "sum", ("x", "y")
)


@pytest.mark.parametrize("architecture", [SMALL, LARGE])
def test_the_work_of_a_batch_is_what_torchs_counter_finds(architecture):
    model = architecture.build().eval()
    inputs = {m: torch.zeros(1, *shape) for m, shape in architecture.shapes.items()}
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(inputs, torch.ones(1, 2, dtype=torch.bool))
    assert batch_work(architecture, 7) == pytest.approx(7 * counted.get_total_flops(), rel=0.02)


@pytest.fixture
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_small_model_gets_one_thread_and_a_large_one_those_there_are(as_before):
    for allowed in (1, 2):
        torch.set_num_threads(allowed)
        assert suitable_threads(SMALL, 64) == 1
        assert suitable_threads(LARGE, 64) == min(allowed, processors())


def test_the_number_is_reported_recorded_and_kept_by_a_resumed_run(
    tiny_dataset, tmp_path, mmcoop, as_before
):
    arguments = ["--data", str(tiny_dataset), "--epochs", "1", "--batch-size", "9"]
    usual = mmcoop(tmp_path, "train", *arguments, "--out", "usual")
    assert "computing with 1 thread\n" in usual.stderr
    assert load_run(tmp_path / "usual").threads == 1
    mmcoop(tmp_path, "train", *arguments, "--out", "three", "--threads", "3")
    run = load_run(tmp_path / "three")
    assert run.threads == 3
    run.set_status("stopped")
    again = mmcoop(tmp_path, "train", "--resume", "--out", "three")
    assert "computing with 3 threads" in again.stderr
    assert load_run(tmp_path / "three").threads == 3
    answer = mmcoop(tmp_path, "evaluate", "--run", "three", "--threads", "2")
    assert "computing with 2 threads" in answer.stderr


def test_a_run_that_does_not_record_it_is_read_all_the_same(
    tiny_dataset, tmp_path, mmcoop, as_before
):
    mmcoop(tmp_path, "train", "--data", str(tiny_dataset), "--epochs", "1", "--out", "old")
    path = tmp_path / "old" / "run.json"
    content = json.loads(path.read_text())
    del content["threads"]
    path.write_text(json.dumps(content))
    assert load_run(tmp_path / "old").threads is None

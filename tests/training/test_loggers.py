"""Metrics of a run reach the run folder, the terminal and TensorBoard, the same numbers."""

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmcoop.datasets.reader import open_dataset
from mmcoop.errors import Interrupted
from mmcoop.progress import Progress
from mmcoop.runtime import Runtime
from mmcoop.training.loggers import TENSORBOARD
from mmcoop.training.train import resume, train


class StopAfterEpoch(Progress):
    """Ctrl-C while an epoch is validated, after its training batches."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def track(self, items, label, total=None):
        yield from items
        if label.startswith(f"epoch {self.epoch}/"):
            raise KeyboardInterrupt


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds, by tag: steps and numbers."""
    events = EventAccumulator(str(folder / TENSORBOARD))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def expected(run) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for name in run.metrics.columns.drop("epoch"):
        pairs = zip(run.metrics["epoch"], run.metrics[name], strict=True)
        if kept := [(step, number) for step, number in pairs if not math.isnan(number)]:
            found[name] = kept
    return found


@pytest.mark.parametrize("method", ["joint", "sample"])
def test_tensorboard_has_every_metric_of_every_epoch(noisy, quick, tmp_path, method):
    dataset = open_dataset(noisy)
    run = train(tmp_path / "run", dataset, quick(method=method), tensorboard=True)
    found, metrics = scalars(run.folder), expected(run)
    assert found.keys() == metrics.keys()
    for name, pairs in metrics.items():
        assert [step for step, _ in found[name]] == [step for step, _ in pairs]
        assert [n for _, n in found[name]] == pytest.approx([n for _, n in pairs], rel=1e-6)


def test_a_resumed_run_has_each_epoch_once(noisy, quick, tmp_path):
    dataset, folder = open_dataset(noisy), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(
            folder, dataset, quick(), runtime=Runtime(progress=StopAfterEpoch(2)), tensorboard=True
        )
    run = resume(folder, dataset, tensorboard=True)
    assert [step for step, _ in scalars(folder)["loss"]] == [1, 2, 3]
    assert [n for _, n in scalars(folder)["loss"]] == pytest.approx(list(run.metrics["loss"]))


def test_without_being_asked_for_there_are_no_event_files(noisy, quick, tmp_path):
    run = train(tmp_path / "run", open_dataset(noisy), quick(epochs=1))
    assert not (run.folder / TENSORBOARD).exists()


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(noisy, quick, tmp_path):
    class Broken(Progress):
        def track(self, items, label, total=None):
            raise ValueError("not mmcoop's own error")

    with pytest.raises(ValueError, match="not mmcoop's own"):
        train(tmp_path / "run", open_dataset(noisy), quick(), runtime=Runtime(progress=Broken()))
    assert not (tmp_path / "run").exists()

"""Sample-level enhancement (the paper, section on re-sampling; see `core/resampling.py`)."""

from mmcoop.core.resampling import Rows, sample_level_rows
from mmcoop.methods.base import Method


class SampleLevel(Method):
    """After the warm-up, values every training sample before each epoch and adds, for each
    low-contributing modality of each sample, rows in which only that modality is present.
    """

    has_warmup = True
    adds_rows = True

    def rows(self, epoch: int) -> Rows:
        if epoch <= self.task.warmup:
            return super().rows(epoch)
        task = self.task
        return sample_level_rows(task.value(None), task.max_extra, task.slack)

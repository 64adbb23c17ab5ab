"""Sample-level enhancement (the paper, section on re-sampling; see `core/resampling.py`)."""

from mmcoop.core.resampling import TrainingExamples, sample_level_examples
from mmcoop.methods.base import Method


class SampleLevel(Method):
    """After the warm-up, values every training sample before each epoch and adds, for each
    low-contributing modality of each sample, rows in which only that modality is present.
    """

    has_warmup = True
    adds_rows = True

    def epoch_samples(self, epoch: int) -> TrainingExamples:
        if epoch <= self.task.warmup:
            return super().epoch_samples(epoch)
        task = self.task
        return sample_level_examples(task.value(None), task.max_extra, task.slack)

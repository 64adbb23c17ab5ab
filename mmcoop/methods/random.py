"""The control of sample-level enhancement: as many extra rows, chosen without looking."""

import torch

from mmcoop.core.resampling import (
    MAX_EXTRA_ROWS,
    TrainingExamples,
    complete_examples,
    extra_rows,
    join_examples,
)
from mmcoop.core.seeds import generator
from mmcoop.methods.base import Method


class Random(Method):
    """Sample-level enhancement's number of extra rows of one modality, each of a random modality of
    a random sample. The samples are valued only to know how many. With `task.max_extra`, no sample
    is drawn more often than that.
    """

    has_warmup = True
    adds_rows = True

    def epoch_samples(self, epoch: int) -> TrainingExamples:
        if epoch <= self.task.warmup:
            return super().epoch_samples(epoch)
        most = self.task.max_extra
        extra = int(extra_rows(self.task.value(None), most, self.task.slack).sum())
        chance = generator(self.task.seed, "random rows", epoch)
        n, k = self.task.n_samples, self.task.n_modalities
        if most is None:
            sample = torch.randint(n, (extra,), generator=chance)
        else:
            # every sample is in the urn as often as it may be drawn
            often = min(most, MAX_EXTRA_ROWS * k)
            sample = torch.randperm(often * n, generator=chance)[:extra] % n
        modality = torch.randint(k, (extra,), generator=chance)
        alone = TrainingExamples(sample, torch.nn.functional.one_hot(modality, k).bool())
        return join_examples(complete_examples(n, k), alone)

"""The control of sample-level enhancement: as many extra rows, chosen without looking."""

import torch

from mmcoop.core.resampling import Rows, extra_rows, join_rows, whole_rows
from mmcoop.core.seeds import generator
from mmcoop.methods.base import Method


class Random(Method):
    """Sample-level enhancement's number of extra rows of one modality, each of a random modality of
    a random sample. The samples are valued only to know how many.
    """

    has_warmup = True

    def rows(self, epoch: int) -> Rows:
        if epoch <= self.task.warmup:
            return super().rows(epoch)
        extra = int(extra_rows(self.task.value(None)).sum())
        chance = generator(self.task.seed, "random rows", epoch)
        n, k = self.task.n_samples, self.task.n_modalities
        sample = torch.randint(n, (extra,), generator=chance)
        modality = torch.randint(k, (extra,), generator=chance)
        alone = Rows(sample, torch.nn.functional.one_hot(modality, k).bool())
        return join_rows(whole_rows(n, k), alone)

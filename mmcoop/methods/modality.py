"""Modality-level enhancement, the coarse and cheaper variant of the paper."""

from typing import ClassVar

import torch

from mmcoop.core.resampling import TrainingExamples, modality_level_examples, modality_probability
from mmcoop.core.seeds import generator
from mmcoop.errors import UsageError
from mmcoop.methods.base import Method, TrainContext
from mmcoop.methods.options import ModalityLevelOptions


class ModalityLevel(Method):
    """After the warm-up, values a random part of the training samples before each epoch, and adds
    samples with only the weaker modality present, at random, the likelier the wider the gap of
    the mean contributions.

    `fraction` of the samples is valued, in (0, 1]; `rule` and `alpha` make the probability (see
    `modality_probability`).
    """

    has_warmup = True
    adds_rows = True

    search: ClassVar = {"alpha": (0.3, 1.5)}

    def __init__(
        self,
        task: TrainContext,
        *,
        fraction: float = ModalityLevelOptions.fraction,
        rule: str = ModalityLevelOptions.rule,
        alpha: float = ModalityLevelOptions.alpha,
    ) -> None:
        super().__init__(task)
        if not 0 < fraction <= 1:
            raise UsageError(f"fraction is {fraction}: it must be above 0 and at most 1")
        modality_probability(torch.zeros(task.n_modalities), rule, alpha)  # refuses what it must
        self.fraction = fraction
        self.rule = rule
        self.alpha = alpha

    def epoch_samples(self, epoch: int) -> TrainingExamples:
        if epoch <= self.task.warmup:
            return super().epoch_samples(epoch)
        chance = generator(self.task.seed, "modality-level", epoch)
        size = max(1, round(self.fraction * self.task.n_samples))
        subset = torch.randperm(self.task.n_samples, generator=chance)[:size].sort().values
        means = self.task.value(subset).mean(0)
        probability = modality_probability(means, self.rule, self.alpha)
        return modality_level_examples(
            self.task.n_samples, probability, chance, self.task.max_extra, means
        )

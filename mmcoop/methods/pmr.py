"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcoop.core.batch import Batch
from mmcoop.core.imputers.evaluation_mode import evaluation_mode
from mmcoop.core.resampling import TrainingExamples
from mmcoop.core.seeds import generator
from mmcoop.errors import UsageError, setting
from mmcoop.methods.base import Method, TrainContext, check_not_negative
from mmcoop.methods.options import PMROptions

RULES = ("clip", "switch")


def similarity(z: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """−‖z_i − c[k]‖₂, `(batch, classes)`, of features `(batch, d)`; −∞ for a class that has no
    prototype (`known` `(classes,)` is False).
    """
    # the distance's gradient is infinite at 0
    distance = ((z.unsqueeze(1) - prototypes).square().sum(-1) + 1e-12).sqrt()
    return torch.where(known, -distance, -torch.inf)


def strengths(scores: Tensor, rule: str) -> Tensor:
    """How much each modality's prototype loss counts, `(n,)`, of scores S `(n,)`.

    clip: clip(S_max / S_m − 1, 0, 1). switch: 1 for every modality but the best one.
    """
    behind = scores.max() / scores.clamp(min=1e-8) - 1
    return behind.clamp(0, 1) if rule == "clip" else (behind > 0).to(scores.dtype)


class PMR(Method):
    """L = CE(o) + α Σ_m strength_m · CE(sim_m): the modalities that are behind are pulled to the
    prototypes of their classes.

    sim_m are negative distances to the mean features of each class, worked out before each epoch
    from `fraction` of the training samples, in evaluation mode, and averaged with the old ones by
    `momentum`. A class without a sample keeps its prototype. The last epoch with prototypes is
    `until`.
    """

    ends = ("until",)

    search: ClassVar = {"alpha": (0.1, 5.0)}

    def __init__(
        self,
        task: TrainContext,
        *,
        alpha: float = PMROptions.alpha,
        momentum: float = PMROptions.momentum,
        fraction: float = PMROptions.fraction,
        rule: str = PMROptions.rule,
        until: int = PMROptions.until,
    ) -> None:
        super().__init__(task)
        check_not_negative(alpha=alpha)
        if not 0 <= momentum < 1 or not 0 < fraction <= 1:
            raise UsageError(
                f"momentum {momentum}, fraction {fraction}: momentum is in [0, 1), fraction in "
                "(0, 1]"
            )
        if rule not in RULES:
            raise UsageError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
        if not task.model.fusion.takes_vectors:
            raise UsageError(
                "method 'pmr' needs feature vectors, which fusion "
                f"{type(task.model.fusion).__name__} does not take: choose another "
                f"{setting('fusion')}"
            )
        self.alpha = alpha
        self.momentum = momentum
        self.fraction = fraction
        self.rule = rule
        self.until = until
        for m in task.model.modalities:
            width = int(task.model.encoders[m].width)  # type: ignore[arg-type]
            self.register_buffer(f"prototypes_{m}", torch.zeros(task.n_classes, width))
        self.register_buffer("known", torch.zeros(task.n_classes, dtype=torch.bool))
        self._active = False
        self._seen: list[Tensor] = []

    known: Tensor

    def on_epoch_start(self, epoch: int) -> None:
        self._seen = []
        self._active = self.alpha > 0 and epoch <= self.until
        if self._active:
            self._renew(epoch)

    def loss(self, batch: Batch) -> Tensor:
        model = self.task.model
        features = model.encode(batch.inputs, batch.present)
        joint = F.cross_entropy(model.fuse(features, batch.present), batch.labels)
        usable = self.known[batch.labels]
        if not self._active or not usable.any():
            return joint
        labels = batch.labels[usable]
        sims = [
            similarity(features[m][usable], getattr(self, f"prototypes_{m}"), self.known)
            for m in model.modalities
        ]
        with torch.no_grad():
            right = torch.stack([s.softmax(1).gather(1, labels.unsqueeze(1)).sum() for s in sims])
            weights = strengths(right, self.rule)
        self._seen.append(weights)
        losses = torch.stack([F.cross_entropy(s, labels) for s in sims])
        return joint + self.alpha * (weights * losses).sum()

    def coefficients(self) -> dict[str, float]:
        """The mean strength of the epoch."""
        names = self.task.model.modalities
        means = torch.stack(self._seen).mean(0).tolist() if self._seen else [0.0] * len(names)
        return {f"strength_{m}": w for m, w in zip(names, means, strict=True)}

    @torch.no_grad()
    def _renew(self, epoch: int) -> None:
        size = max(1, round(self.fraction * self.task.n_samples))
        chance = generator(self.task.seed, "prototypes", epoch)
        chosen = torch.randperm(self.task.n_samples, generator=chance)[:size].sort().values
        present = torch.ones(size, self.task.n_modalities, dtype=torch.bool)
        model = self.task.model
        features: list[dict[str, Tensor]] = []
        labels: list[Tensor] = []
        with evaluation_mode(model):
            for batch in self.task.batches("train", TrainingExamples(chosen, present), None):
                features.append(model.encode(batch.inputs, batch.present))
                labels.append(batch.labels)
        every = torch.cat(labels)
        found = torch.bincount(every, minlength=self.task.n_classes) > 0
        for m in model.modalities:
            old = getattr(self, f"prototypes_{m}")
            new = class_means([f[m] for f in features], every, self.task.n_classes)
            mixed = torch.where(
                self.known.unsqueeze(1), (1 - self.momentum) * new + self.momentum * old, new
            )
            old.copy_(torch.where(found.unsqueeze(1), mixed, old))
        self.known |= found


def class_means(features: Sequence[Tensor], labels: Tensor, n_classes: int) -> Tensor:
    """Mean features of each class, `(classes, d)`; 0 for a class without a sample."""
    z = torch.cat(list(features))
    sums = z.new_zeros(n_classes, z.shape[1]).index_add(0, labels, z)
    counts = torch.bincount(labels, minlength=n_classes).clamp(min=1)
    return sums / counts.unsqueeze(1)

"""Greedy: balanced multimodal learning (Wu et al., ICML 2022)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcoop.core.batch import Batch
from mmcoop.core.models.fusions.mmtm import MMTM
from mmcoop.errors import UsageError, setting
from mmcoop.methods.base import Method, TrainContext, check_not_negative
from mmcoop.methods.options import GreedyOptions
from mmcoop.methods.unimodal_heads import unimodal_losses


class Greedy(Method):
    """Trains two branches that exchange through MMTM, L = Σ_m CE(u_m), and lets the slower one
    learn by itself for a while.

    Conditional learning speed of branch m: log₁₀(B_m / M_m), B_m and M_m the accumulated
    ‖gradient‖² / ‖weights‖² of what lets m see the other modality (its excitation and the shared
    squeeze) and of its own encoder and head. Where the fastest is ahead of the slowest by more than
    `epsilon`, for the next `steps` steps the gates of the fastest, which leans on the other
    modality, are their running mean: it sees no other modality. From the epoch after `start`.
    """

    fusions = ("mmtm", "mmtm-2x")
    search: ClassVar = {"epsilon": (0.001, 0.1)}

    def __init__(
        self,
        task: TrainContext,
        *,
        epsilon: float = GreedyOptions.epsilon,
        steps: int = GreedyOptions.steps,
        start: int = GreedyOptions.start,
    ) -> None:
        super().__init__(task)
        if not isinstance(task.model.fusion, MMTM):
            raise UsageError(
                f"method 'greedy' needs the gates of {setting('fusion', 'mmtm')} or mmtm-2x"
            )
        check_not_negative(epsilon=epsilon, steps=steps, start=start)
        if task.n_modalities < 2:
            raise UsageError("method 'greedy' needs two modalities or more")
        self.epsilon = epsilon
        self.steps = steps
        self.start = start
        n = task.n_modalities
        self.register_buffer("bypass", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("main", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        # who is re-balanced, −1 for nobody, and for how many more steps
        self.register_buffer("cared_for", torch.tensor(-1))
        self.register_buffer("left", torch.tensor(0))
        for k, exchange in enumerate(task.model.fusion.exchanges):
            for m, excite in exchange.excite.items():  # type: ignore[operator, union-attr]
                self.register_buffer(f"gates_{k}_{m}", torch.zeros(excite.out_features))
            exchange.register_forward_hook(self._hook(k))
        self._epoch = 0
        self._rebalanced = 0

    bypass: Tensor
    main: Tensor
    batches: Tensor
    cared_for: Tensor
    left: Tensor

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch = epoch
        self._rebalanced = 0

    def loss(self, batch: Batch) -> Tensor:
        model = self.task.model
        present = batch.present.to(batch.labels.device)
        self.batches += 1
        features = model.encode(batch.inputs, batch.present)
        logits = model.fusion.unimodal_logits(features, present)
        return unimodal_losses(logits, batch.labels, present).sum()

    def after_backward(self, batch: Batch) -> None:
        if int(self.left) > 0:
            self._rebalanced += 1
            self.left -= 1
            if int(self.left) == 0:
                self.cared_for.fill_(-1)
            return
        fusion = self.task.model.fusion
        assert isinstance(fusion, MMTM)
        for k, m in enumerate(self.task.model.modalities):
            exchanges = [
                p
                for exchange in fusion.exchanges
                for part in (exchange.squeeze, exchange.excite[m])  # type: ignore[index]
                for p in part.parameters()  # type: ignore[union-attr]
            ]
            own = [*self.task.model.encoders[m].parameters(), *fusion.branch_parameters(m)]
            self.bypass[k] += _relative_speed(exchanges)
            self.main[k] += _relative_speed(own)
        speed = learning_speed(self.bypass, self.main)
        ahead = speed.max() - speed.min()
        if self._epoch > self.start and self.steps and float(ahead) > self.epsilon:
            self.cared_for.copy_(speed.argmax())
            self.left.fill_(self.steps)

    def coefficients(self) -> dict[str, float]:
        """The learning speeds at the end of the epoch, and its re-balancing steps."""
        speed = learning_speed(self.bypass, self.main).tolist()
        named = {f"speed_{m}": s for m, s in zip(self.task.model.modalities, speed, strict=True)}
        return {**named, "rebalancing_steps": float(self._rebalanced)}

    def _hook(self, exchange: int) -> Any:
        def hook(module: nn.Module, inputs: Any, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
            if not (self.training and module.training):
                return dict(gates)
            replaced = {}
            for k, (m, gate) in enumerate(gates.items()):
                mean = getattr(self, f"gates_{exchange}_{m}")
                mean += (gate.detach().mean(0) - mean) / self.batches
                cared_for = int(self.left) > 0 and int(self.cared_for) == k
                replaced[m] = mean.clone().expand_as(gate) if cared_for else gate
            return replaced

        return hook


def learning_speed(bypass: Tensor, main: Tensor) -> Tensor:
    """log₁₀(B_m / M_m), `(n,)`; 0 for a branch without any gradient so far."""
    defined = (bypass > 0) & (main > 0)
    return torch.where(defined, torch.log10(bypass / main), 0.0)


def _relative_speed(parameters: list[nn.Parameter]) -> Tensor:
    """Σ‖gradient‖² / Σ‖weights‖²."""
    gradients = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None)
    weights = sum(float(p.detach().square().sum()) for p in parameters)
    return torch.tensor(gradients / weights if weights else 0.0, dtype=torch.float64)

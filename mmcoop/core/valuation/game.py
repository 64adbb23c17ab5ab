"""One batch as a game: what a model puts out for a sample and a coalition of its modalities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmcoop.core.imputers.adapters import module_of
from mmcoop.core.imputers.outputs import OutputReader
from mmcoop.core.pytree import take, tree_map
from mmcoop.errors import DataError, UsageError

#: `(inputs by modality, present (rows, n)) -> outputs (rows, …)`.
Model = Callable[[Mapping[str, Any], Tensor], Any]

# What a model is asked at once, where the user sets no limit: of a callable this many rows as fill
# 4 MiB with float32 inputs, or outputs once their size is known (more do not stay in a processor's
# cache); of the fusion of features that are encoded already this many rows.
_MAX_ELEMENTS = 2**20
_MAX_FUSED = 2**16


class BatchGame(ABC):
    """The outputs of a model for rows of one batch; a row is a sample and a coalition.

    `samples`: how many there are in the batch. Never more than `max_rows` rows are asked for at
    once.
    """

    def __init__(
        self, samples: int, max_rows: int, columns: list[int], reader: OutputReader
    ) -> None:
        self._reader = reader
        self.samples = samples
        self.max_rows = max(1, max_rows)
        self._columns = columns
        self._shape: tuple[int, ...] | None = None

    def table(self, coalitions: Tensor) -> Iterator[Tensor]:
        """Outputs of every sample with each of the coalitions, bool `(k, n)`: `(samples, g, …)` for
        one group of g coalitions after the other, in order.
        """
        for group in torch.split(
            coalitions[:, self._columns], max(1, self.max_rows // max(1, self.samples))
        ):
            if len(group):
                yield self._table(group)

    def rows(self, sample: Tensor, present: Tensor) -> Tensor:
        """Outputs `(rows, …)` of rows: int `(rows,)`, positions in the batch, and what is present
        there, bool `(rows, n)`.
        """
        return self._in_parts(sample, present[:, self._columns])

    def parts(self, sample: Tensor, present: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """TrainingExamples, this many of them at a time as are asked for at once."""
        return zip(
            torch.split(sample, self.max_rows), torch.split(present, self.max_rows), strict=True
        )

    def _table(self, coalitions: Tensor) -> Tensor:
        """Outputs `(samples, k, …)`, asked for coalition by coalition."""
        k = len(coalitions)
        sample = torch.arange(self.samples).repeat(k)
        present = coalitions.repeat_interleave(self.samples, 0)
        outputs = self._in_parts(sample, present)
        return outputs.reshape(k, self.samples, *outputs.shape[1:]).transpose(0, 1)

    def _in_parts(self, sample: Tensor, present: Tensor) -> Tensor:
        parts = [self._rows(some, here) for some, here in self.parts(sample, present)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @abstractmethod
    def _rows(self, sample: Tensor, present: Tensor) -> Tensor:
        """Outputs of this many rows as may be asked for at once."""

    def _checked(self, outputs: Any, rows: int) -> Tensor:
        tensor = self._reader(outputs, rows)
        shape = tuple(tensor.shape)
        if shape[1:] != (self._shape or shape[1:]):
            raise DataError(
                f"the model gave outputs of shape {shape} for {rows} rows, and of shape "
                f"{(rows, *(self._shape or ()))} before: expected the same for every coalition"
            )
        self._shape = shape[1:]
        return tensor


class CalledGame(BatchGame):
    """The game of any callable, which is given the inputs of every row.

    Each call is given copies, so that a model may work in place.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, Any],
        samples: int,
        modalities: Sequence[str],
        max_batch: int | None,
        reader: OutputReader,
    ) -> None:
        elements = max(1, sum(_elements(x) for x in inputs.values()) // max(1, samples))
        most = max_batch or max(samples, _MAX_ELEMENTS // elements)
        super().__init__(samples, most, _columns(model, modalities), reader)
        self._limited = max_batch is not None
        self._model = model
        self._inputs = inputs
        self._device = device_of(model)

    def _rows(self, sample: Tensor, present: Tensor) -> Tensor:
        inputs = {m: take(x, sample) for m, x in self._inputs.items()}
        outputs = self._checked(self._model(inputs, present.to(self._device)), len(sample))
        if not self._limited:
            most = _MAX_ELEMENTS // max(1, outputs.shape[1:].numel())
            self.max_rows = min(self.max_rows, max(1, self.samples, most))
        return outputs


class EncodedGame(BatchGame):
    """The game of a model that encodes each modality of each sample once (`MultimodalModel`).

    Inputs and features are given as copies, so that encoders and fusion may work in place.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        samples: int,
        modalities: Sequence[str],
        max_batch: int | None,
        reader: OutputReader,
    ) -> None:
        super().__init__(samples, max_batch or _MAX_FUSED, _columns(model, modalities), reader)
        self._model = model
        encoded = []
        for some in self._samples():
            present = torch.ones(len(some), len(modalities), dtype=torch.bool)
            encoded.append(model.encode(self._of(inputs, some), present))
        self._features = {m: torch.cat([part[m] for part in encoded]) for m in encoded[0]}

    def _table(self, coalitions: Tensor) -> Tensor:
        return torch.cat([self._logits(some, coalitions) for some in self._samples()])

    def _logits(self, some: Tensor, coalitions: Tensor) -> Tensor:
        features = self._of(self._features, some)
        logits: Tensor = self._model.coalition_logits(features, coalitions)
        if logits.dim() < 2 or logits.shape[:2] != (len(some), len(coalitions)):
            raise DataError(
                f"the model gave outputs of shape {tuple(logits.shape)} for {len(some)} samples "
                f"and {len(coalitions)} coalitions: expected (samples, coalitions, classes)"
            )
        return logits

    def _rows(self, sample: Tensor, present: Tensor) -> Tensor:
        features = {m: take(z, sample) for m, z in self._features.items()}
        return self._checked(self._model.fuse(features, present), len(sample))

    def _samples(self) -> tuple[Tensor, ...]:
        """All samples, this many of them at a time as rows may be asked for."""
        return torch.split(torch.arange(self.samples), self.max_rows)

    def _of(self, parts: Mapping[str, Any], some: Tensor) -> Mapping[str, Any]:
        """A copy of the inputs or features of some of the samples."""
        return {m: take(x, some) for m, x in parts.items()}


def batch_game(
    model: Any,
    inputs: Mapping[str, Any],
    samples: int,
    modalities: Sequence[str],
    max_batch: int | None = None,
    reader: OutputReader | None = None,
) -> BatchGame:
    """The game of one batch: `inputs` by modality, of this many samples.

    A model with `encode(inputs, present)`, `coalition_logits(features, coalitions)` and
    `fuse(features, present)`, as `MultimodalModel` has, encodes once; any other callable is given
    the inputs of every row. `max_batch` limits the rows asked for at once; `reader` finds the
    predictions in what the model returns.
    """
    reader = reader or OutputReader()
    if all(hasattr(model, name) for name in ("encode", "coalition_logits", "fuse")):
        return EncodedGame(model, inputs, samples, modalities, max_batch, reader)
    return CalledGame(model, inputs, samples, modalities, max_batch, reader)


def device_of(model: Any) -> torch.device | None:
    """Where the parameters of what is called are; None where it has none."""
    module = module_of(model)
    parameter = None if module is None else next(module.parameters(), None)
    return None if parameter is None else parameter.device


def _columns(model: Any, modalities: Sequence[str]) -> list[int]:
    """Which of `modalities` the model reads in each column of `present`: it may have an order of
    its own.

    Raises `UsageError` where it says that its modalities are others.
    """
    own = getattr(model, "modalities", None)
    if not isinstance(own, tuple | list):
        return list(range(len(modalities)))
    if sorted(own) != sorted(modalities):
        raise UsageError(
            f"the model's modalities are {', '.join(own)}, not {', '.join(modalities)}"
        )
    return [list(modalities).index(m) for m in own]


def _elements(x: Any) -> int:
    count = 0

    def add(tensor: Tensor) -> Tensor:
        nonlocal count
        count += tensor.numel()
        return tensor

    tree_map(add, x)
    return count

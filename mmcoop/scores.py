"""Scores: what every modality contributed to every sample, in memory and as a Parquet file.

`docs/formats.md` describes the file.
"""

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mmcoop.core.coalitions import check_modalities, coalition_names
from mmcoop.core.valuation import Model, ValuedBatch, value_batches
from mmcoop.errors import DataError, UsageError
from mmcoop.files import whole_file

#: How an absent modality may be represented, and how contributions may be worked out.
ABSENCES = ("zero",)
ESTIMATORS = ("exact",)

_METADATA_KEY = b"mmcoop"
_ROW_GROUP = 8192


@dataclass(frozen=True)
class Valuation:
    """The valuation of some samples; tensors have samples first.

    `ids`: their ids. `labels`, `predictions`: int64 `(samples,)`. `values`: float64
    `(samples, 2**n)`, one column a coalition (bit m of the column's number is the m-th modality).
    `contributions`: float64 `(samples, n)`; a row sums to the value of the grand coalition.
    `details`: how they were worked out, as written into the file.
    """

    modalities: tuple[str, ...]
    ids: list[str]
    labels: Tensor
    predictions: Tensor
    values: Tensor
    contributions: Tensor
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One row a sample, with the columns of the scores file."""
        frame: pd.DataFrame = self._table().to_pandas()
        return frame

    def save(self, path: Path | str) -> None:
        """Write a scores file, whole or not at all, in place of what is at `path`."""
        table = self._table()
        with scores_file(Path(path), self.modalities, self.details) as writer:
            writer.write(table)

    def _table(self) -> pa.Table:
        return _table(
            self.modalities,
            None,
            self.ids,
            self.labels,
            self.predictions,
            self.values,
            self.contributions,
        )


def valuate(
    model: Model,
    batches: Iterable[Any],
    *,
    modalities: Sequence[str],
    value: str = "paper",
    absent: str = "zero",
    estimator: str = "exact",
) -> Valuation:
    """What every modality contributed to every sample.

    `model` is any callable `(inputs: dict[str, Tensor], present: bool (batch, n)) -> logits
    (batch, classes)`, or a model that encodes once for all coalitions (see
    `mmcoop.core.valuation.value_batches`). A batch has `inputs`, `labels` and, if it likes,
    `ids`, as attributes or keys; samples without ids are numbered from 0. `modalities` names the
    columns of `present`, in order.

    `value` names the value function ("paper": |S| where the prediction from S is right, else 0);
    `absent` says how the model represents an absent modality ("zero"), and is recorded with the
    scores; `estimator` is "exact": all 2**n coalitions, n up to 12.

    Raises `UsageError` for an unknown name, `DataError` for a batch or logits that do not fit,
    ids that are not one a sample, and when there is no batch at all.
    """
    names = check_modalities(modalities)
    for kind, name, legal in (
        ("absence", absent, ABSENCES),
        ("estimator", estimator, ESTIMATORS),
    ):
        if name not in legal:
            raise UsageError(f"unknown {kind} {name!r}: choose one of {', '.join(legal)}")
    found = list(value_batches(model, batches, modalities=names, value=value))
    if not found:
        raise DataError("there is no batch to value")
    ids: list[str] = []
    for batch in found:
        if batch.ids is not None and len(batch.ids) != len(batch.labels):
            raise DataError(f"a batch of {len(batch.labels)} samples has {len(batch.ids)} ids")
        start = len(ids)
        ids += batch.ids or [str(k) for k in range(start, start + len(batch.labels))]
    return Valuation(
        modalities=names,
        ids=ids,
        labels=torch.cat([batch.labels for batch in found]),
        predictions=torch.cat([batch.predictions for batch in found]),
        values=torch.cat([batch.values for batch in found]),
        contributions=torch.cat([batch.contributions for batch in found]),
        details=valuation_details(value, absent, estimator),
    )


def valuation_details(
    value: str = "paper", absent: str = "zero", estimator: str = "exact"
) -> dict[str, Any]:
    """How scores were worked out, for their file: names and versions."""
    return {
        "value": value,
        "absent": absent,
        "estimator": estimator,
        "versions": versions(),
    }


@cache
def versions() -> Mapping[str, str]:
    """Versions of what decides the numbers."""
    packages = {name: version(name) for name in ("mmcoop", "torch", "numpy", "pyarrow")}
    return {"python": platform.python_version(), **packages}


class ScoresWriter:
    """Receives valued batches and writes them in row groups as they come."""

    def __init__(self, path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
        self._modalities = modalities
        metadata = {
            _METADATA_KEY: json.dumps(
                {"format": "mmcoop scores", "modalities": list(modalities), **details},
                sort_keys=True,
            )
        }
        self._writer = pq.ParquetWriter(path, _schema(modalities).with_metadata(metadata))
        self._waiting: list[pa.Table] = []

    def add(self, split: str, batch: ValuedBatch) -> None:
        """Append the samples of one batch, which must have ids."""
        assert batch.ids is not None
        self.write(
            _table(
                self._modalities,
                split,
                batch.ids,
                batch.labels,
                batch.predictions,
                batch.values,
                batch.contributions,
            )
        )

    def write(self, table: pa.Table) -> None:
        """Append rows of the file's own columns."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is waiting and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=_ROW_GROUP)
            self._waiting = []


@contextmanager
def scores_file(
    path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]
) -> Iterator[ScoresWriter]:
    """A scores file to write into; it appears, whole, when the block ends well."""
    with whole_file(path) as temporary:
        writer = ScoresWriter(temporary, modalities, details)
        try:
            yield writer
        finally:
            writer.close()


def read_scores_details(path: Path) -> dict[str, Any]:
    """What a scores file says of itself; `DataError` where it is not a scores file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        details = json.loads(metadata.get(_METADATA_KEY, "null"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a scores file of mmcoop: {error}") from None
    if not isinstance(details, dict):
        raise DataError(f"{path} is not a scores file of mmcoop: it has no details of a valuation")
    return details


def _schema(modalities: tuple[str, ...]) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("split", pa.string()),
            ("label", pa.int64()),
            ("prediction", pa.int64()),
            ("correct", pa.bool_()),
            *((f"contribution_{m}", pa.float64()) for m in modalities),
            *((f"value_{c}", pa.float64()) for c in coalition_names(modalities)[1:]),
        ]
    )


def _table(
    modalities: tuple[str, ...],
    split: str | None,
    ids: Sequence[str],
    labels: Tensor,
    predictions: Tensor,
    values: Tensor,
    contributions: Tensor,
) -> pa.Table:
    columns: list[Any] = [
        list(ids),
        pa.array([split] * len(ids), pa.string()),
        labels.numpy(),
        predictions.numpy(),
        (labels == predictions).numpy(),
        *np.ascontiguousarray(contributions.numpy().T),
        *np.ascontiguousarray(values[:, 1:].numpy().T),
    ]
    return pa.table(columns, schema=_schema(modalities))

"""`Scores`: valued samples, in memory or in a file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow.types import is_boolean, is_floating, is_integer, is_list, is_null
from rich.table import Table
from rich.text import Text
from scipy.stats import t as student
from torch import Tensor

from mmcoop.core.modalities import check_modalities
from mmcoop.core.seeds import derive_seed
from mmcoop.core.valuation.bootstrap import REPLICATES
from mmcoop.datasets.reader import SPLITS
from mmcoop.errors import DataError, said
from mmcoop.locks import locked
from mmcoop.names import normalised
from mmcoop.printable import printable
from mmcoop.reading.arrow_tables import (
    opened_parquet,
    parquet_schema,
    read_parquet,
    stream_parquet,
    to_frame,
)
from mmcoop.reading.scores import POSITIONS, read_scores_details
from mmcoop.scores.summary import Summary, low_contributing
from mmcoop.scores.table import (
    ROW_GROUP,
    ScoresWriter,
    TableLayout,
    check_scores_name,
    numbers,
    scores_file,
    values_table,
)

#: The name of the summary over all samples, and of a valuation of every split.
ALL_SPLITS = "all"


class Scores:
    """Valued samples: a table with one row per sample, and how the values were computed.

    Returned by `mmcoop.valuate`, opened from a scores file by `Scores.open`, or made by
    `Scores.from_values`. Scores opened from a file are read column by column, on first use. Means
    and intervals use memory for a few thousand samples at most, regardless of the file's size.

    Attributes:
        modalities: Names of the modalities, in column order.
        details: How the values were computed, as in the file's metadata
            (`docs/reference/scores.md`).
        path: The file, or None for scores in memory.

    Example:
        >>> scores = mmcoop.Scores.open("scores.parquet")
        >>> scores.contributions.mean(0)
        >>> scores.to_frame().sort_values("contribution_audio").head()
    """

    def __init__(
        self, table: pa.Table | Path, modalities: Sequence[str], details: Mapping[str, Any]
    ) -> None:
        self._table = None if isinstance(table, Path) else table
        self.path = table if isinstance(table, Path) else None
        self.modalities = tuple(modalities)
        self.details = dict(details)
        with self._read():
            self._schema = parquet_schema(table) if isinstance(table, Path) else table.schema
            self.layout = TableLayout.of(self._schema, self.modalities)

    @classmethod
    def open(cls, path: Path | str) -> "Scores":
        """Open a scores file.

        Raises:
            DataError: The file is missing, damaged, or not a scores file.
        """
        path = Path(path)
        details = read_scores_details(path)
        modalities = details.pop("modalities")
        details.pop("format", None)
        return cls(path, modalities, details)

    @classmethod
    def from_values(
        cls,
        modalities: Sequence[str],
        ids: Sequence[str],
        values: Tensor,
        *,
        labels: Tensor | None = None,
        predictions: Tensor | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> "Scores":
        """Make scores from coalition values computed elsewhere.

        Args:
            modalities: Names of the n modalities; n is 1 to 12.
            ids: Sample ids.
            values: Coalition values, `(samples, 2**n)`. Bit m of a column's index is set if the
                m-th modality is present.
            labels: Class numbers, int64 `(samples,)`, or float targets.
            predictions: Predictions from all modalities, in the same form as `labels`.
            details: How the values were computed, to be recorded with them.

        Returns:
            Scores in memory.
        """
        names = check_modalities(modalities)
        table = values_table(names, ids, values.double(), labels, predictions)
        return cls(table, names, details or {})

    @staticmethod
    def create(
        path: Path, modalities: tuple[str, ...], details: Mapping[str, Any]
    ) -> AbstractContextManager[ScoresWriter]:
        """Open a new scores file to append valued batches to.

        The file appears when the `with` block ends without an error.

        Raises:
            DataError: Nothing was appended.
        """
        return scores_file(path, modalities, details)

    def save(self, path: Path | str) -> None:
        """Write the scores to `path` atomically, replacing an existing file."""
        path = Path(path)
        check_scores_name(path)
        with locked(path), scores_file(path, self.modalities, self.details) as writer:
            for table in self._chunks():
                writer.write(table)

    def __len__(self) -> int:
        if self._table is not None:
            return len(self._table)
        assert self.path is not None
        with self._read(), opened_parquet(self.path) as file:
            return int(file.metadata.num_rows)

    def to_frame(self) -> pd.DataFrame:
        """Convert to pandas: one row per sample, with the columns of the scores file."""
        if self._table is not None:
            frame: pd.DataFrame = self._table.to_pandas()
            return frame
        assert self.path is not None
        with self._read():
            return to_frame(read_parquet(self.path), self.path)

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns."""
        return list(self._schema.names)

    @property
    def ids(self) -> list[str]:
        """Sample ids. If `details["ids"]` is "positions", they are positions instead."""
        return self._texts("id")

    @property
    def groups(self) -> list[str] | None:
        """The group of each sample; None without groups. Samples of a group are dependent."""
        return self._texts("group") if self.layout.grouped else None

    @property
    def dependent_groups(self) -> list[str] | None:
        """The `groups` if any of them has several samples; None if all samples are independent."""
        groups = self.groups
        return groups if groups is not None and len({*groups}) < len(groups) else None

    @property
    def splits(self) -> list[str] | None:
        """The split of each sample; None if it is not recorded."""
        column = self._column("split") if "split" in self._schema.names else None
        return None if column is None or column.null_count else column.to_pylist()

    @property
    def labels(self) -> Tensor | None:
        """Labels: class numbers, int64 `(samples,)`; float64 for regression; `(samples, labels)`
        for multi-label tasks. None if there are none.
        """
        return self._tensor("label")

    @property
    def predictions(self) -> Tensor | None:
        """Predictions from all modalities, in the form of `labels`. The first of tied classes; −1
        where no class is predicted.
        """
        return self._tensor("prediction")

    @property
    def correct(self) -> Tensor | None:
        """Correctness of each prediction, float64 `(samples,)` in [0, 1]: 1/k if the label is one
        of k tied classes (½ in files of earlier versions). None without classes or labels.
        """
        if self.layout.classes:
            found = self._numbers([f"correct_{self.layout.coalitions[-1]}"])[:, 0]
            return None if bool(found.isnan().any()) else found
        column = self._column("correct") if "correct" in self._schema.names else None
        if column is None or not is_boolean(column.type) or column.null_count == len(column):
            return None
        found = column.cast(pa.int8()).to_numpy().astype(np.float64)
        return torch.from_numpy(found).nan_to_num(nan=0.5)

    @property
    def contributions(self) -> Tensor:
        """Shapley values φ, float64 `(samples, n)`. Each row sums to the value of the grand
        coalition minus that of the empty one.
        """
        return self._numbers([f"contribution_{m}" for m in self.modalities])

    @property
    def values(self) -> Tensor:
        """Values of the `coalitions`, float64 `(samples, k)`."""
        return self._numbers(self.layout.value_columns)

    @property
    def coalitions(self) -> Tensor:
        """The modalities of each column of `values`, bool `(k, n)`.

        Either all 2ⁿ coalitions, where bit m of a column's index is the m-th modality, or, if
        coalitions were sampled, the `anchor_coalitions`.
        """
        with self._read():
            return self.layout.members

    @property
    def stderr(self) -> Tensor | None:
        """Standard errors of the contributions, float64 `(samples, n)`; None if they are exact."""
        if not self.layout.drawn:
            return None
        return self._numbers([f"stderr_{m}" for m in self.modalities])

    @property
    def draws(self) -> Tensor | None:
        """Number of sampled pairs behind each sample's contributions, int64 `(samples,)`; None if
        the contributions are exact.
        """
        return self._tensor("draws")

    @property
    def fair_share(self) -> float | None:
        """The contribution below which a modality is low-contributing; None if every sample has a
        fair share of its own.
        """
        share = self.details.get("fair_share")
        if share is None and self.details.get("value") == "paper":
            return 1.0
        if isinstance(share, int | float) and not isinstance(share, bool):
            return float(share)
        return None

    def interval(self, level: float = 0.95) -> Tensor:
        """Confidence interval of each contribution, for the error of sampling coalitions.

        Args:
            level: Confidence level, between 0 and 1.

        Returns:
            Lower and upper ends, float64 `(samples, n, 2)`, from Student's t distribution with
            `draws − 1` degrees of freedom. Both ends of an exact contribution are equal.
        """
        contributions, stderr, draws = self.contributions, self.stderr, self.draws
        half = torch.zeros_like(contributions)
        if stderr is not None and draws is not None:
            drawn = draws > 1
            quantile = torch.from_numpy(student.ppf((1 + level) / 2, (draws[drawn] - 1).numpy()))
            half[drawn] = quantile.unsqueeze(1) * stderr[drawn]
        return torch.stack([contributions - half, contributions + half], dim=-1)

    def means(self, level: float = 0.95, replicates: int = REPLICATES) -> pd.DataFrame:
        """Mean contributions with bootstrap intervals.

        Args:
            level: Confidence level, between 0 and 1.
            replicates: Replicates of the bootstrap.

        Returns:
            One row per modality: `mean`, the ends `low` and `high` of its interval, and
            `low_contributing`, the share of samples on which the modality is low-contributing.
            The bootstrap resamples groups if samples have them, else samples.
        """
        summary = self.summary(replicates=replicates, seed=0)
        rows = []
        for m in self.modalities:
            low, high = summary.interval(f"contribution_{m}", level)
            rows.append((m, summary.mean_contribution[m], low, high, summary.low_contributing[m]))
        columns = ["modality", "mean", "low", "high", "low_contributing"]
        return pd.DataFrame(rows, columns=columns).set_index("modality")

    def summary(
        self, split: str = ALL_SPLITS, replicates: int = REPLICATES, seed: int | None = None
    ) -> Summary:
        """Means over all samples or one split, with bootstrap intervals.

        Args:
            split: The name of a split, or `all`.
            replicates: Replicates of the bootstrap; 0 for no intervals.
            seed: Seed of the bootstrap; None derives it from the seed of the valuation.
        """
        return self._summaries([split], replicates, seed)[split]

    def summaries(self, replicates: int = REPLICATES) -> dict[str, Summary]:
        """Summaries by split, then one of all samples, `all`, unless all are of a single split."""
        found: set[str | None] = set()
        if "split" in self._schema.names:
            for table in self._chunks(["split"]):
                found.update(table["split"].unique().to_pylist())
        names = [name for name in SPLITS if name in found]
        if len(found) != 1 or not names:
            names.append(ALL_SPLITS)
        return self._summaries(names, replicates)

    def _summaries(
        self, names: Sequence[str], replicates: int, seed: int | None = None
    ) -> dict[str, Summary]:
        own = self.details.get("seed") or 0
        with self._read():
            found = {
                name: Summary(
                    self.layout,
                    self.details.get("classes", 0),
                    fair_share=self.fair_share,
                    replicates=replicates,
                    seed=derive_seed(own, name) if seed is None else seed,
                )
                for name in names
            }
            for table in self._chunks():
                for name, summary in found.items():
                    part = table
                    if name != ALL_SPLITS:
                        part = table.filter(pc.equal(table["split"], name))
                    if len(part):
                        summary.add(part)
        return found

    def by_id(self) -> pd.DataFrame:
        """Contributions indexed by sample id.

        Returns:
            One row per sample: `split`, `label` (NaN if missing), and the contribution of each
            modality in a column of that name.

        Raises:
            DataError: The ids are positions, which do not identify samples of a dataset.
        """
        self.check_ids()
        frame = pd.DataFrame(self.contributions.numpy(), columns=list(self.modalities))
        label = np.full(len(frame), np.nan)
        if "label" in self._schema.names and is_integer(self._schema.field("label").type):
            label = self._numbers(["label"])[:, 0].numpy()
        split = self._column("split").to_pylist() if "split" in self._schema.names else None
        frame.insert(0, "split", pd.Series(split, dtype="object"))
        frame.insert(1, "label", label)
        frame.index = pd.Index(map(normalised, self.ids), name="id")
        return frame

    def check_ids(self) -> None:
        """Check that ids identify samples of a dataset.

        Raises:
            DataError: The ids are positions.
        """
        if self.details.get("ids") == POSITIONS:
            raise DataError(
                f"{self.path or 'these scores'} has positions for ids (its samples were valued "
                "without any), which do not say which samples of a data set they are: value them "
                "again with ids"
            )

    def _chunks(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows, one row group at a time."""
        if self._table is not None:
            table = self._table if columns is None else self._table.select(list(columns))
            for start in range(0, len(table), ROW_GROUP):
                yield table.slice(start, ROW_GROUP)
            return
        assert self.path is not None
        with self._read():
            yield from stream_parquet(self.path, ROW_GROUP, columns)

    def _column(self, name: str) -> pa.Array:
        """A column of the table."""
        if name not in self._schema.names:
            raise self._not_scores(f"it has no column {name!r}")
        parts = [table[name].combine_chunks() for table in self._chunks([name])]
        kind = self._schema.field(name).type
        return pa.chunked_array(parts, kind).combine_chunks() if parts else pa.array([], kind)

    def _texts(self, name: str) -> list[str]:
        found: list[str] = self._column(name).to_pylist()
        if not all(isinstance(text, str) for text in found):
            raise self._not_scores(f"{name} has no text in some rows")
        return found

    def _numbers(self, columns: Sequence[str]) -> Tensor:
        with self._read():
            parts = [numbers(table, columns) for table in self._chunks(columns)]
        return torch.cat(parts) if parts else torch.zeros(0, len(columns), dtype=torch.float64)

    def _tensor(self, name: str) -> Tensor | None:
        """A column of numbers, or of equally long lists of numbers; None if any is missing."""
        if name not in self._schema.names:
            return None
        column = self._column(name)
        if is_null(column.type) or column.null_count:
            return None
        if is_list(column.type):
            flat, rows = column.flatten(), len(column)
            if not rows or len(flat) % rows or not _is_number(flat.type):
                raise self._not_scores(f"{name} has no numbers, or not equally many in each row")
            return torch.from_numpy(flat.to_numpy(zero_copy_only=False).copy()).view(rows, -1)
        if not _is_number(column.type):
            raise self._not_scores(f"{name} has no numbers")
        return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy())

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Report errors in the block as damage to the scores, naming their file if there is one."""
        try:
            yield
        except (DataError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise self._not_scores(said(error)) from None

    def _not_scores(self, why: str) -> DataError:
        if self.path is None:
            return DataError(f"the scores are damaged: {why}")
        prefix = f"{self.path} is not a scores file of mmcoop: "
        return DataError(prefix + why.removeprefix(prefix))

    def __repr__(self) -> str:
        means = zip(self.modalities, self.contributions.mean(0).tolist(), strict=True)
        shown = ", ".join(f"{m} {mean:.3g}" for m, mean in means)
        return f"<Scores: {self._heading()}: mean φ {shown}>"

    def __rich__(self) -> Table:
        table = Table(title=Text(self._heading()), title_justify="left")
        table.add_column("modality", overflow="fold")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for modality, *cells in self._cells():
            table.add_row(Text(modality), *cells)
        return table

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{escape(head)}</th>" for head in ("modality", *_HEADINGS))
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in self._cells()
        )
        return (
            f"<table><caption>{escape(self._heading())}</caption>"
            f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _heading(self) -> str:
        value = printable(str(self.details.get("value", "")), most=100)
        return f"{len(self):,} samples" + (f", value {value}" if value else "")

    def _cells(self) -> Iterator[tuple[str, str, str]]:
        phi = self.contributions
        low = low_contributing(phi, self.fair_share).double()
        for k, name in enumerate(self.modalities):
            mean, share = float(phi[:, k].mean()), float(low[:, k].mean())
            yield printable(name, most=100), f"{mean:.3f}", f"{100 * share:.1f} %"


_HEADINGS = ("mean φ", "low-contributing")


def _is_number(kind: pa.DataType) -> bool:
    return bool(is_integer(kind) or is_floating(kind))

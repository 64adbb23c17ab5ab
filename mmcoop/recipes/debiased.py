"""debiased: the part of another data set on which no modality leads on average.

The paper made MM-Debiased so, by picking classes and samples; here a valuation picks them. What
is picked is `mmcoop.datasets.debiasing`'s to decide, this file reads, copies and reports.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmcoop.datasets.debiasing import (
    Balance,
    BalancedSubset,
    balance,
    balanced_subset,
    check_demands,
)
from mmcoop.datasets.reader import SPLITS, DatasetFolder, Split, open_dataset
from mmcoop.datasets.writer import Header, check_new_dataset, write_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.files import sha256
from mmcoop.names import normalised
from mmcoop.progress import SILENT, Progress
from mmcoop.scores.scores import Scores
from mmcoop.settings import option, required

# Rows are copied this many at a time: little memory, few reads.
_ROWS = 256

_REMEDY = "value every split: mmcoop valuate --split all --out all-scores.parquet"


@dataclass(frozen=True)
class Debiased:
    """The largest part of another dataset to which modalities contribute equally on average.

    --scores has the contributions to every sample: train on the dataset, then run
    `mmcoop valuate --split all --out all-scores.parquet`. In every split, the mean contributions of
    the selected samples differ by at most --tolerance, while contributions still differ from sample
    to sample, so that a method that only shifts averages gains nothing. A class may be dropped, in
    all splits at once.
    """

    source: Path = required("Dataset folder to select from", flag="--from", metavar="FOLDER")
    scores: Path = required("Scores of all its samples (mmcoop valuate --split all)")
    tolerance: float = option(0.02, "Largest gap between mean contributions")
    class_ratio: float = option(2.0, "Largest class size over the smallest")
    min_spread: float = option(0.5, "Share of the contributions' spread to keep")
    seed: int = option(0, "Random seed of the choice among equal samples")

    def build(self, folder: Path, *, overwrite: bool = False, progress: Progress = SILENT) -> None:
        check_demands(self.tolerance, self.class_ratio, self.min_spread)
        if self.source.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{folder} contains the dataset to select from: choose another folder")
        check_new_dataset(folder, overwrite)
        dataset = open_dataset(self.source)
        parts = {split: dataset.split(split) for split in SPLITS}
        scored, modalities = _read_scores(self.scores, dataset)
        samples = _matched(scored, parts, self.scores)
        contributions = samples[modalities].to_numpy()
        progress.note(f"choosing among {len(samples):,} samples of {len(dataset.classes)} classes")
        subset = balanced_subset(
            contributions,
            samples.label.to_numpy(),
            samples.split.to_numpy(),
            tolerance=self.tolerance,
            class_ratio=self.class_ratio,
            min_spread=self.min_spread,
            seed=self.seed,
            modalities=modalities,
        )
        samples["kept"] = subset.kept
        kept_labels = np.unique(samples.label[samples.kept])
        balances = {}
        for split in SPLITS:
            mine = samples[samples.split == split]
            balances[split] = [
                balance(some[modalities].to_numpy(), some.label.to_numpy())
                for some in (mine, mine[mine.kept])
            ]
        report = _report(balances, modalities, dataset.classes, subset)
        header = Header(
            name=f"{dataset.name}-debiased",
            recipe="debiased",
            options={
                **asdict(self),
                "source": str(self.source),
                "source_fingerprint": dataset.fingerprint,
                "scores": str(self.scores),
                "scores_sha256": sha256(self.scores),
            },
            classes=[dataset.classes[label] for label in kept_labels],
            modalities=dataset.modalities,
            source=f"the data set {dataset.name}: {dataset.source}",
            columns=dataset.columns,
            defaults=dataset.defaults,
            report=report,
            shared_groups=bool(dataset.leakage),
        )
        with write_dataset(folder, header, overwrite=overwrite) as writer:
            for split, part in parts.items():
                kept = np.flatnonzero(samples.kept[samples.split == split])
                rows = progress.track(_rows(part, kept), f"copying {split} samples", len(kept))
                for row in rows:
                    label = int(np.searchsorted(kept_labels, row.pop("label")))
                    writer.add(split, label=label, **row)
        for line in _lines(report):
            progress.note(line)


def _read_scores(path: Path, dataset: DatasetFolder) -> tuple[pd.DataFrame, list[str]]:
    """`id, split, label` and, under its modality's name, each contribution; and these names."""
    given = Scores.open(path)
    modalities = list(given.modalities)
    found = given.details.get("dataset") or {}
    fingerprint = found.get("fingerprint", dataset.fingerprint)
    scores = given.by_id().reset_index()
    if fingerprint != dataset.fingerprint:
        raise DataError(
            f"{path} has scores of another data set than {dataset.folder}: make them with "
            f"mmcoop valuate --data {dataset.folder} --split all, from a run trained on it"
        )
    if len(modalities) < 2:
        raise DataError(
            f"{path} has scores of one modality ({', '.join(modalities)}): there is nothing to "
            "balance it with; value a run of two modalities or more"
        )
    twice = scores.id[scores.id.duplicated()]
    if len(twice):
        raise DataError(f"{path} has two scores of sample {twice.iloc[0]!r}: {_REMEDY}")
    odd = scores.id[~np.isfinite(scores[modalities].to_numpy()).all(axis=1)]
    if len(odd):
        raise DataError(
            f"{path}: contributions to {len(odd):,} samples, {odd.iloc[0]!r} for one, are NaN or "
            "infinite: value the samples again"
        )
    return scores, modalities


def _matched(scores: pd.DataFrame, parts: Mapping[str, Split], path: Path) -> pd.DataFrame:
    """The scores of a data set's samples in the order of its rows, split by split."""
    by_id = scores.set_index("id")
    rows = []
    for split, part in parts.items():
        ids = pd.Index(map(normalised, part.table["id"].to_pylist()))
        missing = ids[~ids.isin(by_id.index)]
        if len(missing) == len(ids):
            raise DataError(f"{path} has no scores of the {split} split: {_REMEDY}")
        if len(missing):
            raise DataError(
                f"{path} has no scores of {len(missing):,} {split} samples, {missing[0]!r} for "
                f"one: {_REMEDY}"
            )
        mine = by_id.loc[ids].reset_index(names="id")
        labels = part.labels
        for differs, what in (
            (mine.label.to_numpy() != labels, "class"),
            ((mine.split.fillna(split) != split).to_numpy(), "split"),
        ):
            if differs.any():
                raise DataError(
                    f"{path} has another {what} of sample {ids[differs][0]!r} than the data set: "
                    "these scores are of other samples"
                )
        rows.append(mine.assign(split=split, label=labels))
    samples: pd.DataFrame = pd.concat(rows, ignore_index=True)
    unknown = scores.id[~scores.id.isin(samples.id)]
    if len(unknown):
        raise DataError(
            f"{path} has scores of {len(unknown):,} samples, {unknown.iloc[0]!r} for one, that are "
            "not in the data set"
        )
    return samples


def _rows(part: Split, index: np.ndarray) -> Iterator[dict[str, Any]]:
    """The samples of a split at the positions `index`, as `DatasetWriter.add` takes them."""
    dataset = part.dataset
    about = part.table.select(["id", "label", "group", *dataset.columns]).take(pa.array(index))
    for start in range(0, len(index), _ROWS):
        chunk = index[start : start + _ROWS]
        content = {name: part.read(name, chunk) for name in dataset.modalities}
        for k, row in enumerate(about.slice(start, len(chunk)).to_pylist()):
            yield row | {name: stored[k] for name, stored in content.items()}


def _report(
    balances: Mapping[str, list[Balance]],
    modalities: list[str],
    classes: list[str],
    subset: BalancedSubset,
) -> dict[str, Any]:
    """What changed, for people: `balances` are of every split, before and after."""

    def facts(each: Balance) -> dict[str, float]:
        means = zip(modalities, each.means, strict=True)
        numbers = {
            "samples": each.samples,
            "gap": each.gap,
            "spread": each.spread,
            "class_ratio": each.class_ratio,
            **{f"contribution_{name}": mean for name, mean in means},
        }
        return {name: round(number, 4) for name, number in numbers.items()}

    def class_sizes(when: int) -> dict[str, int]:
        sizes = sum((Counter(both[when].by_class) for both in balances.values()), Counter())
        return {name: sizes[label] for label, name in enumerate(classes)}

    before, after = class_sizes(0), class_sizes(1)
    return {
        "debiased": {
            split: {"before": facts(both[0]), "after": facts(both[1])}
            for split, both in balances.items()
        },
        "largest": {"samples": int(subset.kept.sum()), "bound": subset.bound},
        "classes_dropped": [name for name, size in after.items() if not size],
        "samples_by_class": {"before": before, "after": after},
    }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines to print."""
    for split, facts in report["debiased"].items():
        yield f"{split}: {_changes(facts)}"
    size = report["largest"]
    yield f"{size['samples']:,} samples kept; no balanced subset has more than {size['bound']:,}"
    yield f"samples by class: {_changes(report['samples_by_class'])}"
    if report["classes_dropped"]:
        yield f"classes dropped: {', '.join(report['classes_dropped'])}"


def _changes(numbers: Mapping[str, Mapping[str, float]]) -> str:
    before, after = numbers["before"], numbers["after"]
    return ", ".join(f"{name} {before[name]:,} → {after[name]:,}" for name in after)

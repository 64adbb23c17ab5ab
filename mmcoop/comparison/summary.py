"""Runs → one row per method: means over seeds, and gains over the controls with their tests."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmcoop.comparison.folder import MATCHED_BASELINE, Comparison
from mmcoop.comparison.statistics import LEVEL, holm, mcnemar, mean_interval, paired_t
from mmcoop.errors import DataError

#: What every method is set beside, where it is among the runs.
REFERENCES = ("joint", MATCHED_BASELINE, "uniform", "random", "ensemble")

_NOT_MEASURES = ("run", "method", "fusion", "seed", "lr", "options")


def summarise(comparison: Comparison) -> pd.DataFrame:
    """One row per method and fusion, in the order of the runs.

    `method, fusion, seeds` (their number); of every measure of `runs.parquet` its mean and, as
    `…_ci`, half the width of its 95 % confidence interval over seeds. And for each of `REFERENCES`
    (with the same fusion, or the first there is), over the seeds that both have: `gain_…` in
    accuracy and `gain_…_ci`, `p_seeds_…` (paired t-test), `p_samples_…` (McNemar's over the test
    samples, by group where they have groups), both corrected for the number of rows (Holm), and
    `significant_…`, whether both are below 0.05. NaN where there is nothing to compare, or too few
    seeds.
    """
    runs = comparison.runs
    measures = [name for name in runs.columns if name not in _NOT_MEASURES]
    groups = {key: group.set_index("seed") for key, group in _by_case(runs)}
    step = 1 / len(comparison.hits(runs["run"].iloc[0]))  # of accuracies on this many test samples
    rows = []
    for (method, fusion), group in groups.items():
        row: dict[str, object] = {"method": method, "fusion": fusion, "seeds": len(group)}
        for name in measures:
            known = group[name].dropna().tolist()
            if known:
                stepped = step if name.startswith("accuracy") else 0.0
                row[name], row[f"{name}_ci"] = mean_interval(known, stepped)
        rows.append(row)
    summary = pd.DataFrame(rows)
    for reference in REFERENCES:
        _set_gains(summary, comparison, groups, reference, step)
    return summary


def _by_case(runs: pd.DataFrame) -> Sequence[tuple[tuple[str, str], pd.DataFrame]]:
    grouped = runs.groupby(["method", "fusion"], sort=False)
    return [((str(key[0]), str(key[1])), group) for key, group in grouped]


def _set_gains(
    summary: pd.DataFrame,
    comparison: Comparison,
    groups: dict[tuple[str, str], pd.DataFrame],
    reference: str,
    step: float,
) -> None:
    found = [fusion for method, fusion in groups if method == reference]
    if not found:
        return
    at: list[int] = []
    gains: list[float] = []
    halves: list[float] = []
    p_seeds: list[float] = []
    p_samples: list[float] = []
    for position, ((method, fusion), ours) in enumerate(groups.items()):
        if method == reference:
            continue
        theirs = groups[reference, fusion if fusion in found else found[0]]
        seeds = [seed for seed in ours.index if seed in theirs.index]
        if not seeds:
            continue
        a, b = ours.loc[seeds], theirs.loc[seeds]
        gain, half = mean_interval((a["accuracy"] - b["accuracy"]).tolist(), step)
        at.append(position)
        gains.append(gain)
        halves.append(half)
        p_seeds.append(paired_t(a["accuracy"].tolist(), b["accuracy"].tolist(), step))
        first = a["run"].iloc[0]
        samples = comparison.hits(first).index
        clusters = comparison.groups(first)
        p_samples.append(
            mcnemar(
                _hits(comparison, a["run"], samples),
                _hits(comparison, b["run"], samples),
                None if clusters is None else clusters.loc[samples].to_numpy(),
            )
        )
    if not at:
        return
    p_seeds, p_samples = holm(p_seeds), holm(p_samples)
    significant = [max(ps) < LEVEL for ps in zip(p_seeds, p_samples, strict=True)]
    name = reference.replace(" ", "_")
    for column, numbers, nothing in (
        (f"gain_{name}", gains, math.nan),
        (f"gain_{name}_ci", halves, math.nan),
        (f"p_seeds_{name}", p_seeds, math.nan),
        (f"p_samples_{name}", p_samples, math.nan),
        (f"significant_{name}", significant, False),
    ):
        summary[column] = nothing
        summary.loc[at, column] = numbers


def _hits(comparison: Comparison, runs: pd.Series, samples: pd.Index) -> np.ndarray:
    """Whether each run predicts each of the test samples right, `(runs, samples)`."""
    found = []
    for run in runs:
        hits = comparison.hits(run)
        if set(hits.index) != set(samples):
            raise DataError(
                f"{comparison.folder} is damaged: the scores of {run} are of other test samples "
                "than those of the run it is compared with"
            )
        found.append(hits.loc[samples].to_numpy())
    return np.stack(found)

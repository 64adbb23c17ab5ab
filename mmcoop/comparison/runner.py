"""Working a comparison off: trials, the runs, and as many more epochs as it takes to match them."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from mmcoop.comparison.folder import BASELINE, MATCHED_BASELINE, Comparison, ComparisonSpec, layers
from mmcoop.comparison.jobs import Job, run_jobs
from mmcoop.comparison.run_specs import RunSpec, make_run_specs
from mmcoop.comparison.tuning import best_trial, trial_spec
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, Interrupted
from mmcoop.files import atomic_write
from mmcoop.locks import locked
from mmcoop.runtime import DEFAULT_RUNTIME, Runtime
from mmcoop.training.config import TrainConfig, shrunk_warmup


def run_comparison(
    comparison: Comparison,
    dataset: DatasetFolder,
    *,
    jobs: int = 1,
    threads: int | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Comparison:
    """Do the runs of a comparison that are not done, and test them.

    `jobs` of them at once, each in a process of its own with `threads` threads, by default one for
    a small model and else its share of the processors. Stopped or killed, the same call resumes. A
    run that fails is left out and reported.

    Raises `DataError` for a dataset other than the one it was started on, and if no run is left,
    `NoRoom` as soon as the disk is full, `Interrupted` on Ctrl-C.
    """
    folder, plan = comparison.folder, comparison.plan
    if dataset.fingerprint != comparison.dataset["fingerprint"]:
        raise DataError(
            f"{folder} compares on another data set ({comparison.dataset['name']}, "
            f"{comparison.dataset['fingerprint'][:12]}) than {dataset.folder}"
        )
    settings = layers(dataset, plan)
    cases, left_out = make_run_specs(dataset, plan.methods, plan.fusions, plan.options, *settings)
    for name, reason in left_out.items():
        runtime.progress.note(f"{name} is left out: {reason}")
    usual = dataset.defaults.get("train", {})
    for case in cases:
        if note := shrunk_warmup(case.config(*settings), usual, plan.settings):
            runtime.progress.note(note)
    work = _Work(folder, dataset, plan, settings, jobs, threads, runtime)
    with locked(folder), comparison.disk_room():
        comparison.save()  # with the methods and seeds that were added
        try:
            done = work.all(cases)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; what is done is kept: go on with mmcoop compare --resume --out {folder}"
            ) from None
        rows = [_row(label, fusion, job) for (label, fusion, _), job in done.items() if job.done]
        failed = {path.name: why for path, why in work.failed.items()}
        comparison = replace(comparison, left_out=left_out, failed=failed)
        comparison.save()
        if not rows:
            raise DataError(f"no run of {folder} came to its end: {next(iter(failed.values()))}")
        with atomic_write(folder / "runs.parquet") as path:
            pd.DataFrame(rows).to_parquet(path, index=False)
    return comparison


# Epochs of a run that seconds end.
_NO_LIMIT = 1_000_000

#: Label, fusion and seed of a run.
_Key = tuple[str, str, int]


@dataclass
class _Work:
    folder: Path
    dataset: DatasetFolder
    plan: ComparisonSpec
    layers: Sequence[Mapping[str, Any]]
    at_once: int
    threads: int | None
    runtime: Runtime
    failed: dict[Path, str] = field(default_factory=dict)

    def all(self, cases: Sequence[RunSpec]) -> dict[_Key, Job]:
        """Everything; the jobs of the runs that are reported."""
        if self.plan.tune:
            cases = self.tune(cases)
        first = self.first(cases)
        if self.plan.match == "epochs":
            return first | self.matched_baseline(first)
        return self.matched(first)

    def tune(self, cases: Sequence[RunSpec]) -> list[RunSpec]:
        """Each case with what was best on validation among this many trials of the first seed."""
        seed = self.plan.seeds[0]
        trials: dict[tuple[str, int], tuple[RunSpec, Job]] = {}
        for case in cases:
            lr = case.config(*self.layers).lr
            for k in range(self.plan.tune):
                tried = trial_spec(case, k, seed, lr)
                name = f"{case.name}-trial{k}"
                trials[case.name, k] = (
                    tried,
                    Job(
                        folder=self.folder / "trials" / name,
                        config=tried.config(*self.layers, {"seed": seed}),
                        result=self.folder / "results" / "trials" / f"{name}.json",
                    ),
                )
        self._do([job for _, job in trials.values()], "trials")
        chosen, rows = [], []
        for case in cases:
            own = [trials[case.name, k] for k in range(self.plan.tune)]
            done = [(tried, job.outcome) for tried, job in own if job.done]
            best = best_trial([outcome for _, outcome in done]) if done else 0
            chosen.append(done[best][0] if done else case)
            rows += [
                {
                    "method": case.label,
                    "fusion": case.fusion,
                    "trial": outcome["run"].rpartition("-trial")[2],
                    "lr": outcome["config"]["lr"],
                    "options": str(outcome["config"]["options"]),
                    "validation_accuracy": outcome["validation"]["accuracy"],
                    "validation_loss": outcome["validation"]["loss"],
                    "rows": _rows_of(outcome),
                    "chosen": k == best,
                }
                for k, (_, outcome) in enumerate(done)
            ]
        with atomic_write(self.folder / "trials.parquet") as path:
            pd.DataFrame(rows).to_parquet(path, index=False)
        return chosen

    def first(self, cases: Sequence[RunSpec]) -> dict[_Key, Job]:
        """Every case with every seed, for as many epochs as the settings say."""
        self.runtime.progress.note(self._foreseen(cases))
        jobs = {}
        for seed in self.plan.seeds:  # seed by seed: cut off, what is there can be compared
            for case in cases:
                job = self._reported(f"{case.name}-seed{seed}", self._config(case, seed))
                if self.plan.match != "epochs":  # it resumes from here before it is tested
                    first = self.folder / "results" / "first" / job.result.name
                    job = replace(job, result=first, scores=None)
                jobs[case.label, case.fusion, seed] = job
        self._do(jobs.values(), "runs")
        return jobs

    def _foreseen(self, cases: Sequence[RunSpec]) -> str:
        """What is ahead, for whoever waits for it."""
        lines, seeds = len(cases), len(self.plan.seeds)
        epochs = max(self._config(case, self.plan.seeds[0]).epochs for case in cases)
        longer = {
            "epochs": "enhancement adds rows to its epochs, and joint training is there a second "
            "time, with as many rows as the dearest run",
            "rows": "then all go on to the rows of the dearest run",
            "seconds": "then all go on to the seconds of the slowest method",
        }[self.plan.match]
        return (
            f"{lines * seeds} runs ({lines} lines of the table × {seeds} "
            f"{'seeds' if seeds > 1 else 'seed'}) of up to {epochs} epochs of "
            f"{len(self.dataset.split('train')):,} samples; {longer}"
        )

    def matched(self, first: Mapping[_Key, Job]) -> dict[_Key, Job]:
        """The same runs, each as long as it takes to use up what the most expensive one did."""
        jobs = {
            key: self._reported(first[key].folder.name, config)
            for key, config in _matching_configs(first, self.plan.match).items()
        }
        if longer := [key for key, job in jobs.items() if job.result.is_file() and not job.done]:
            self.runtime.progress.note(
                f"{len(longer)} runs that were finished go on: a dearer one has been added"
            )
        self._do(jobs.values(), f"runs matched in {self.plan.match}")
        return jobs

    def matched_baseline(self, first: Mapping[_Key, Job]) -> dict[_Key, Job]:
        """Joint runs as long as it takes to use up the rows that the most expensive run did.

        Of a fusion whose joint runs use most rows themselves there are none.
        """
        matching = _matching_configs(first, "rows")
        lengthened = {
            fusion
            for (label, fusion, seed), longer in matching.items()
            if label == BASELINE and longer.epochs > first[label, fusion, seed].outcome["epochs"]
        }
        jobs = {}
        for (label, fusion, seed), longer in matching.items():
            if label == BASELINE and fusion in lengthened:
                short = first[label, fusion, seed]
                name = f"{MATCHED_BASELINE.replace(' ', '-')}-{fusion}-seed{seed}"
                job = self._reported(name, replace(longer, patience=0))
                job = replace(job, shorter=short.folder)
                jobs[MATCHED_BASELINE, fusion, seed] = job
        self._do(jobs.values(), f"{BASELINE} runs matched in rows")
        return jobs

    def _reported(self, name: str, config: TrainConfig) -> Job:
        """A run that is tested."""
        return Job(
            folder=self.folder / "runs" / name,
            config=config,
            result=self.folder / "results" / f"{name}.json",
            scores=self.folder / "scores" / f"{name}.parquet",
        )

    def _config(self, case: RunSpec, seed: int) -> TrainConfig:
        own: dict[str, Any] = {"seed": seed}
        if self.plan.match != "epochs":
            own["patience"] = 0  # what is matched is used up
        return case.config(*self.layers, own)

    def _do(self, jobs: Any, label: str) -> None:
        self.failed |= run_jobs(
            list(jobs),
            self.dataset,
            at_once=self.at_once,
            runtime=self.runtime,
            threads=self.threads,
            label=label,
        )


def _matching_configs(first: Mapping[_Key, Job], match: str) -> dict[_Key, TrainConfig]:
    """How each run is trained to use as much as the most expensive one: the rows of the run with
    most, or the seconds of the case with the highest mean over its seeds. Its schedule is
    stretched to its new length.
    """
    done = {key: job.outcome for key, job in first.items() if job.done}
    if match == "seconds":
        by_case: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (label, fusion, _), outcome in done.items():
            by_case[label, fusion].append(outcome["cost"]["seconds"])
        slowest = max((fmean(times) for times in by_case.values()), default=0.0)
        limit = float(f"{slowest:.3g}")
        return {
            key: replace(
                first[key].config.stretched(limit / outcome["cost"]["seconds"]),
                epochs=_NO_LIMIT,
                max_seconds=limit,
            )
            for key, outcome in done.items()
        }
    budget = max(map(_rows_of, done.values()), default=0)
    matching = {}
    for key, outcome in done.items():
        more = math.ceil((budget - _rows_of(outcome)) / outcome["last_epoch_rows"])
        epochs, config = outcome["epochs"] + more, first[key].config
        matching[key] = replace(config.stretched(epochs / config.epochs), epochs=epochs)
    return matching


def _rows_of(outcome: Mapping[str, Any]) -> int:
    """A row that is only valued counts as one that is learnt from."""
    return int(outcome["cost"]["rows_encoded"] + outcome["cost"]["rows_valued"])


def _row(label: str, fusion: str, job: Job) -> dict[str, Any]:
    outcome = job.outcome
    test, config = outcome["test"], outcome["config"]
    return {
        "run": outcome["run"],
        "method": label,
        "fusion": fusion,
        "seed": config["seed"],
        "epochs": outcome["epochs"],
        "best_epoch": outcome["best_epoch"],
        "validation_accuracy": outcome["validation"]["accuracy"],
        "accuracy": test["accuracy"],
        "macro_f1": test["macro_f1"],
        "mean_average_precision": test["mean_average_precision"],
        **{f"accuracy_{name}": share for name, share in test["coalitions"].items()},
        **{f"contribution_{m}": mean for m, mean in test["contributions"].items()},
        **outcome["cost"],
        "lr": config["lr"],
        "options": str(config["options"]),
    }

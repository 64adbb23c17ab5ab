"""`mmcoop compare`: methods side by side, over seeds, with statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mmcoop.cli import options
from mmcoop.cli.options import Computing, Resuming, option, options_of
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.methods import METHODS
from mmcoop.training.config import TrainConfig

Epochs: Any = options_of(TrainConfig, ["epochs"], panel="Training", unset=True)
Method: Any = options_of(TrainConfig, ["warmup", "max_extra", "value"], panel="Method", unset=True)

_SETTINGS = ["epochs", "warmup", "max_extra", "value", *options.TRAINING]


@dataclass(kw_only=True)
class Compare(Computing, Resuming, options.TrainingOptions, Epochs, Method):
    """Compare training methods on a dataset, over several seeds.

    Tests the best epoch of each run once and writes `runs.parquet`, `summary.csv`, `summary.md`
    and `summary.tex`. Every method is compared with joint training of the same length, joint
    training of the same cost, and the controls `uniform`, `random` and `ensemble` if they are among
    the methods. Use three seeds or more: tests over seeds need them.

    Examples:

    - `mmcoop compare`

    - `mmcoop compare --methods sample,uniform --seeds 0-1 --epochs 10 --warmup 3`

    - `mmcoop compare --methods sample,modality,uniform,random --match rows --jobs 2`

    - `mmcoop compare --methods sample,greedy --fusions concat,mmtm --seeds 0-2`

    - `mmcoop compare --tune 10 --set ogm.alpha=0.8`

    - `mmcoop compare --resume --seeds 5-9`
    """

    data: options.Data = None
    out: Annotated[Path, option("Comparison folder.", metavar="FOLDER")] = Path("comparison")
    methods: Annotated[
        str | None, option("Methods, by commas. \\[default: all]", metavar="NAME,…")
    ] = None
    fusions: Annotated[
        str | None, option("Fusions, by commas. \\[default: concat]", metavar="NAME,…")
    ] = None
    seeds: Annotated[str | None, option("Seeds. \\[default: 0-4]", metavar="0-4|0,2,5")] = None
    match: Annotated[
        str | None,
        option("Equal epochs, rows or seconds. \\[default: epochs]", metavar="NAME"),
    ] = None
    tune: Annotated[
        int | None, option("Tuning trials per method. \\[default: 0]", min=0, metavar="N")
    ] = None
    jobs: Annotated[int, option("Runs at the same time.", min=1, metavar="N")] = 1
    encoder: options.Encoder = None
    set: Annotated[
        list[str] | None,
        option(
            "Option of a method. \\[repeatable]",
            "--set",
            panel="Method",
            metavar="METHOD.NAME=VALUE",
        ),
    ] = None

    def run(self) -> None:
        from mmcoop.comparison.folder import ComparisonSpec, load_comparison
        from mmcoop.comparison.runner import run_comparison
        from mmcoop.comparison.starting import new_comparison
        from mmcoop.comparison.summary import summarise
        from mmcoop.reporting.comparison import comparison_tables, summary_rows, write_comparison
        from mmcoop.workspace import find_dataset

        what, chosen = self._compared(), self._chosen()
        if self.resume:
            comparison = load_comparison(self.out)
            dataset = find_dataset(self.data or Path(comparison.dataset["path"]))
            for name, asked in chosen.items():
                if asked != getattr(comparison.plan, name):
                    raise UsageError(
                        f"{self.out} was started with {_said(getattr(comparison.plan, name), name)}"
                        f", not {_said(asked, name)}: leave that out, or start again with "
                        "--overwrite"
                    )
            comparison = comparison.with_more(**what)
        else:
            dataset = find_dataset(self.data)
            plan = ComparisonSpec(**what, **chosen)
            comparison = new_comparison(self.out, dataset, plan, overwrite=self.overwrite)
        comparison = run_comparison(
            comparison,
            dataset,
            jobs=self.jobs,
            threads=self.threads,
            runtime=self.runtime,
        )
        summary = summarise(comparison)
        write_comparison(comparison, summary)
        answer = {"comparison": str(self.out), "methods": summary_rows(summary)}
        tables = comparison_tables(comparison, summary)
        report(answer, tables, as_json=self.as_json, quiet=self.quiet)

    def _compared(self) -> dict[str, Any]:
        """Methods, fusions and seeds, as far as they were given."""
        what: dict[str, Any] = {}
        if self.methods is not None:
            names = _names(self.methods)
            what["methods"] = None if names == ("all",) else names
        if self.fusions is not None:
            what["fusions"] = _names(self.fusions)
        if self.seeds is not None:
            what["seeds"] = _seeds(self.seeds)
        return what

    def _chosen(self) -> dict[str, Any]:
        """The rest of what a comparison is started with, as far as it was given."""
        chosen = options.given(self, ["match", "tune"])
        if self.set is not None:
            chosen["options"] = _method_options(self.set)
        settings = options.given(self, _SETTINGS)
        if encoders := options.parse_pairs("encoder", self.encoder):
            settings["encoders"] = encoders
        return {**chosen, "settings": settings} if settings else chosen


def _said(chosen: Any, name: str) -> str:
    """`{"lr": 0.1}` → "lr 0.1", `"rows"` → "match rows"."""
    if not isinstance(chosen, dict):
        return f"{name} {chosen}"
    return ", ".join(_said(value, key) for key, value in chosen.items()) or f"no {name}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _seeds(text: str) -> tuple[int, ...]:
    """`0-4` or `0,2,5` → numbers; `UsageError` for anything else."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else not last)):
            raise UsageError(f"--seeds {text!r}: write them as 0-4 or 0,2,5")
        if last and int(last) < int(first):
            raise UsageError(f"--seeds {text!r}: {part.strip()} goes backwards")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))


def _method_options(pairs: list[str]) -> dict[str, dict[str, str]]:
    """`["ogm.alpha=1"]` → `{"ogm": {"alpha": "1"}}`."""
    result: dict[str, dict[str, str]] = {}
    for name, value in options.parse_pairs("set", pairs).items():
        method, dot, option = name.partition(".")
        if not (method and dot and option):
            raise UsageError(f"--set {name}={value}: write it as METHOD.NAME=VALUE")
        result.setdefault(METHODS.check(method), {})[option] = value
    return result

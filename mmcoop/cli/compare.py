"""`mmcoop compare`: methods side by side, over seeds, with statistics."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import UsageError
from mmcoop.methods import METHODS

# those of `mmcoop train` but for what is compared
_SETTINGS = {
    name: what
    for name, what in {**options.MODEL_SETTINGS, **options.SETTINGS}.items()
    if name not in ("fusion", "seed")
}
_LISTS = ("methods", "fusions")


@options.with_options(
    {
        "methods": options.setting(
            str,
            f"Separated by commas: {', '.join(METHODS)}. joint is always among them. "
            "\\[default: all]",
            panel="What is compared",
        ),
        "fusions": options.setting(
            str,
            f"Separated by commas: {', '.join(FUSIONS)}. A method that only some of them carry "
            "is trained with those, or with its usual one. \\[default: concat]",
            panel="What is compared",
        ),
        "seeds": options.setting(
            str, "As 0-4 or 0,2,5. \\[default: 0-4]", panel="What is compared"
        ),
        "match": options.setting(
            str,
            "epochs: all train as many epochs, and joint is there a second time, with as many rows "
            "as the dearest method; rows, seconds: all go on until they have used as many as the "
            "dearest method does for its epochs, with schedules as long as the runs. "
            "\\[default: epochs]",
            panel="What is compared",
        ),
        "tune": options.setting(
            int,
            "Trials a method of learning rate and method options, judged on validation with the "
            "first seed. \\[default: 0, everything at its default]",
            panel="What is compared",
            min=0,
        ),
        "set": options.setting(
            list[str],
            "METHOD.NAME=VALUE: an option of a method, may be repeated.",
            "--set",
            panel="What is compared",
        ),
        "warmup": options.WARMUP,
        "max_extra": options.MAX_EXTRA,
        **_SETTINGS,
    }
)
def compare(
    data: options.Data = None,
    out: Annotated[Path, typer.Option("--out", help="The comparison folder to make.")] = Path(
        "comparison"
    ),
    jobs: Annotated[
        int,
        typer.Option("--jobs", min=1, help="Runs at once; they share the processors."),
    ] = 1,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the comparison at --out; methods, fusions and seeds that are given "
            "are added to it.",
        ),
    ] = False,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Compare training methods on a data set: accuracy, gains, and what they are worth.

    Trains every method with every seed, tests the best epoch of each run once, and writes
    `runs.parquet`, `summary.csv`, `summary.md` and `summary.tex`. Every method is set beside joint
    training, joint training with as many rows as the dearest method, and those of three controls
    that are among --methods: every modality's own loss added equally (`uniform`), extra rows at
    random (`random`) and unimodal models, averaged (`ensemble`). Fewer than three seeds are no
    test over seeds, and five seldom show a small gain to be significant. What is not given is as
    the data set advises for training; methods have the defaults that docs/methods.md gives the
    sources of.

    Examples:

    - `mmcoop compare`: all methods on the data set in `data/`, five seeds

    - `mmcoop compare --methods sample,uniform --seeds 0-1 --epochs 10 --warmup 3`: a first look

    - `mmcoop compare --methods sample,modality,uniform,random --match rows --jobs 2`

    - `mmcoop compare --methods sample,greedy --fusions concat,mmtm --seeds 0-2`

    - `mmcoop compare --tune 10 --set ogm.alpha=0.8`

    - `mmcoop compare --resume --seeds 5-9`: goes on, with five more seeds
    """
    from mmcoop.comparison.folder import ComparisonSpec, load_comparison
    from mmcoop.comparison.runner import run_comparison
    from mmcoop.comparison.starting import new_comparison
    from mmcoop.comparison.summary import summarise
    from mmcoop.reporting.comparison import comparison_tables, summary_rows, write_comparison
    from mmcoop.workspace import find_dataset

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    chosen = options.given(settings)
    what: dict[str, Any] = {name: _names(chosen.pop(name)) for name in _LISTS if name in chosen}
    if "seeds" in chosen:
        what["seeds"] = _seeds(chosen.pop("seeds"))
    if what.get("methods") == ("all",):
        what["methods"] = None
    plan_settings: dict[str, Any] = {
        name: chosen.pop(name) for name in ("match", "tune") if name in chosen
    }
    if "set" in chosen:
        plan_settings["options"] = _method_options(chosen.pop("set"))
    if chosen:
        plan_settings["settings"] = chosen
    if resume:
        comparison = load_comparison(out)
        dataset = find_dataset(data or Path(comparison.dataset["path"]))
        for name, asked in plan_settings.items():
            if asked != getattr(comparison.plan, name):
                raise UsageError(
                    f"{out} was started with {_said(getattr(comparison.plan, name), name)}, not "
                    f"{_said(asked, name)}: leave that out, or start anew with --overwrite"
                )
        comparison = comparison.with_more(**what)
    else:
        dataset = find_dataset(data)
        plan = ComparisonSpec(**what, **plan_settings)
        comparison = new_comparison(out, dataset, plan, overwrite=overwrite)
    comparison = run_comparison(
        comparison,
        dataset,
        jobs=jobs,
        device=device,
        workers=workers,
        threads=threads,
        progress=options.progress(quiet),
    )
    summary = summarise(comparison)
    write_comparison(comparison, summary)
    answer = {"comparison": str(out), "methods": summary_rows(summary)}
    report(answer, comparison_tables(comparison, summary), as_json=as_json, quiet=quiet)


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
    for name, value in options.parse_pairs("--set", pairs).items():
        method, dot, option = name.partition(".")
        if not (method and dot and option):
            raise UsageError(f"--set {name}={value}: write it as METHOD.NAME=VALUE")
        result.setdefault(METHODS.check(method), {})[option] = value
    return result

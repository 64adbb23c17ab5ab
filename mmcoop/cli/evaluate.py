"""`mmcoop evaluate`: accuracy of every coalition of modalities."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.errors import UsageError


def evaluate(
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="The run to evaluate; repeat it to set runs side by side. "
            "\\[default: the one that finished last in runs/]",
        ),
    ] = None,
    data: options.RunData = None,
    split: Annotated[
        str, typer.Option("--split", help="Which samples: train, validation or test.")
    ] = "test",
    classes: Annotated[
        bool, typer.Option("--classes/--no-classes", help="Show accuracy by class too.")
    ] = True,
    utilisation: Annotated[
        bool,
        typer.Option(
            "--utilisation",
            help="Show how much each branch uses the other modalities; runs with --fusion mmtm or "
            "mmtm-2x. Takes a pass over the training samples.",
        ),
    ] = False,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate runs on the test split: what is left when modalities are missing.

    Gives the accuracy of every coalition of modalities, as a whole and by class, the mean
    contributions, with 95 % bootstrap intervals, and what the training took; of several runs also
    the difference of each to the first, with a paired test. Of the commands that train or score,
    only this one and `valuate --split test` read the test split.

    Examples:

    - `mmcoop evaluate`

    - `mmcoop evaluate --run runs/joint --run runs/joint-sample`: before and after

    - `mmcoop evaluate --run runs/joint --json`

    - `mmcoop evaluate --run runs/greedy-mmtm --utilisation`
    """
    from mmcoop.comparison.differences import difference
    from mmcoop.core.valuation.utilisation import exchanging_fusion
    from mmcoop.reporting.tables import class_table, evaluation_legend, evaluation_table
    from mmcoop.training.evaluation import evaluation_of
    from mmcoop.training.run import replaced_parent
    from mmcoop.training.threads import suitable_threads, use_threads
    from mmcoop.workspace import dataset_of, find_run

    runs = [find_run(path) for path in run] if run else [find_run(None)]
    if len({one.dataset["fingerprint"] for one in runs}) > 1:
        listed = ", ".join(f"{one.folder} ({one.dataset['name']})" for one in runs)
        raise UsageError(
            f"these runs were trained on different data sets: {listed}; evaluate them one by one"
        )
    if utilisation:  # every run is checked before the first is evaluated
        for each in runs:
            exchanging_fusion(each.model)
    shown = options.progress(quiet)
    # chosen before any is set: what suits a run does not depend on the run before it
    suitable = [
        threads or suitable_threads(each.architecture, each.config.batch_size) for each in runs
    ]
    found = []
    for k, each in enumerate(runs):
        if k == 0 or suitable[k] != suitable[k - 1]:
            use_threads(suitable[k], shown)
        found.append(
            evaluation_of(
                each,
                dataset_of(each, data),
                split,
                utilisation=utilisation,
                device=device,
                workers=workers,
                progress=shown,
            )
        )
    evaluations = [one.answer for one in found]
    for one in found[1:]:
        one.answer["difference"] = difference(found[0], one)
    problems = [replaced_parent(one, runs) for one in runs]
    for evaluation, problem in zip(evaluations, problems, strict=True):
        evaluation |= {"parent_problem": problem} if problem else {}
    of_groups = f" of {groups:,} groups" if (groups := evaluations[0]["groups"]) else ""
    title = f"{split} split, {evaluations[0]['samples']:,} samples{of_groups}:"
    tables: list[Any] = [title, evaluation_table(evaluations), *evaluation_legend(evaluations)]
    if classes:
        tables.append(class_table(evaluations))
    tables += filter(None, problems)
    answer = evaluations[0] if len(evaluations) == 1 else evaluations
    report(answer, tables, as_json=as_json, quiet=quiet)

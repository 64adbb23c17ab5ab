"""`mmcoop evaluate`: accuracy of every coalition of modalities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mmcoop.cli import options
from mmcoop.cli.options import Computing, option
from mmcoop.cli.output import report
from mmcoop.errors import UsageError


@dataclass(kw_only=True)
class Evaluate(Computing):
    """Evaluate runs on the test split, with modalities missing too.

    Prints the accuracy of every coalition of modalities and the mean contributions, with 95 %
    bootstrap intervals, and the cost of training. Several runs are compared with the first by a
    paired test. Apart from `compare` and `valuate --split test`, no other command reads the test
    split.

    Examples:

    - `mmcoop evaluate`

    - `mmcoop evaluate --run runs/joint --run runs/joint-sample`

    - `mmcoop evaluate --run runs/joint --json`

    - `mmcoop evaluate --run runs/greedy-mmtm --utilisation`
    """

    runs: Annotated[
        list[Path] | None,
        option(
            "Run folder. \\[repeatable; default: the last one in runs/]", "--run", metavar="FOLDER"
        ),
    ] = None
    data: options.RunData = None
    split: Annotated[str, option("train, validation or test.", metavar="NAME")] = "test"
    classes: Annotated[bool, option("Print accuracy per class too.", "--classes/--no-classes")] = (
        True
    )
    utilisation: Annotated[
        bool,
        option("Print how much branches use each other (mmtm, mmtm-2x).", "--utilisation"),
    ] = False

    def run(self) -> None:
        from mmcoop.comparison.differences import difference
        from mmcoop.core.valuation.utilisation import exchanging_fusion
        from mmcoop.reporting.tables import class_table, evaluation_legend, evaluation_table
        from mmcoop.training.evaluation import evaluation_of
        from mmcoop.training.run import replaced_parent
        from mmcoop.training.threads import suitable_threads, use_threads
        from mmcoop.workspace import dataset_of, find_run

        runs = [find_run(path) for path in self.runs] if self.runs else [find_run(None)]
        if len({one.dataset["fingerprint"] for one in runs}) > 1:
            listed = ", ".join(f"{one.folder} ({one.dataset['name']})" for one in runs)
            raise UsageError(
                f"these runs were trained on different datasets: {listed}; evaluate them one by one"
            )
        if self.utilisation:  # every run is checked before the first is evaluated
            for each in runs:
                exchanging_fusion(each.model)
        shown = self.progress
        # chosen before any is set: what suits a run does not depend on the run before it
        suitable = [
            self.threads or suitable_threads(each.architecture, each.config.batch_size)
            for each in runs
        ]
        found = []
        for k, each in enumerate(runs):
            if k == 0 or suitable[k] != suitable[k - 1]:
                use_threads(suitable[k], shown)
            found.append(
                evaluation_of(
                    each,
                    dataset_of(each, self.data),
                    self.split,
                    utilisation=self.utilisation,
                    runtime=self.runtime,
                )
            )
        evaluations = [one.answer for one in found]
        for one in found[1:]:
            one.answer["difference"] = difference(found[0], one)
        problems = [replaced_parent(one, runs) for one in runs]
        for evaluation, problem in zip(evaluations, problems, strict=True):
            evaluation |= {"parent_problem": problem} if problem else {}
        first = evaluations[0]
        of_groups = f" of {groups:,} groups" if (groups := first["groups"]) else ""
        title = f"{self.split} split, {first['samples']:,} samples{of_groups}:"
        tables: list[Any] = [title, evaluation_table(evaluations), *evaluation_legend(evaluations)]
        if self.classes:
            tables.append(class_table(evaluations))
        tables += filter(None, problems)
        answer = first if len(evaluations) == 1 else evaluations
        report(answer, tables, as_json=self.as_json, quiet=self.quiet)

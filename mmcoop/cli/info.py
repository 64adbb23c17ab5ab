"""`mmcoop info`: what a folder or file is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mmcoop.cli.options import option
from mmcoop.cli.output import report


@dataclass(kw_only=True)
class Info:
    """Describe a dataset, run or comparison folder, or a scores or rejects file.

    Examples:

    - `mmcoop info data/keypad --verify`

    - `mmcoop info data/keypad --preview keypad.png`

    - `mmcoop info data/folder/rejects.parquet`

    - `mmcoop info runs/joint`

    - `mmcoop info comparison`

    - `mmcoop info scores.parquet --json`
    """

    path: Annotated[Path, typer.Argument(help="A folder or file made by mmcoop.")]
    verify: Annotated[bool, option("Check a dataset's shards by sha256.", "--verify")] = False
    preview: Annotated[
        Path | None, option("Draw samples of a dataset (.png, .pdf).", metavar="FILE")
    ] = None
    overwrite: Annotated[bool, option("Replace what is at --preview.", "--overwrite")] = False
    as_json: Annotated[bool, option("Print the result as JSON.", "--json")] = False

    def run(self) -> None:
        from mmcoop.comparison.folder import is_comparison, load_comparison
        from mmcoop.datasets.reader import is_dataset, is_rejects, open_dataset, read_rejects
        from mmcoop.errors import DataError, UsageError
        from mmcoop.files import check_path
        from mmcoop.reporting.describe import dataset_facts, run_facts, scores_facts
        from mmcoop.reporting.tables import facts_table, rejects_table
        from mmcoop.training.run import is_run, load_run

        path = self.path
        check_path(path)
        if is_dataset(path):
            dataset = open_dataset(path)
            facts = dataset_facts(dataset)
            if self.verify:
                dataset.verify()
                facts["sha256"] = "every shard is as it was written"
            if self.preview is not None:
                from mmcoop.reporting.preview import check_preview, draw_preview

                check_preview(self.preview, self.overwrite)
                draw_preview(dataset, self.preview)
                facts["preview"] = str(self.preview)
        elif self.preview is not None and path.exists():
            raise UsageError(f"--preview is for datasets, and {path} is not one")
        elif is_run(path):
            facts = run_facts(load_run(path))
        elif is_comparison(path):
            from mmcoop.comparison.summary import summarise
            from mmcoop.reporting.comparison import comparison_tables, summary_rows

            comparison = load_comparison(path)
            if not comparison.has_runs:
                raise DataError(
                    f"the comparison {path} has not finished: {comparison.runs_tested} runs are "
                    f"tested so far; resume it with mmcoop compare --resume --out {path}"
                )
            summary = summarise(comparison)
            answer = {"comparison": str(path), "methods": summary_rows(summary)}
            report(
                answer, comparison_tables(comparison, summary), as_json=self.as_json, quiet=False
            )
            return
        elif is_rejects(path):
            rejects = read_rejects(path)
            rows = [reject._asdict() for reject in rejects]
            report(rows, [rejects_table(rejects)], as_json=self.as_json, quiet=False)
            return
        elif path.is_file():
            from mmcoop.reporting.valuation import valuation_report
            from mmcoop.scores.scores import Scores

            scores = Scores.open(path)
            facts = scores_facts(scores)
            names = ("run", "model", "cross_fit")
            found, tables = valuation_report(scores, {k: facts[k] for k in names if k in facts})
            tables.insert(0, facts_table(facts))
            report({**facts, "summary": found}, tables, as_json=self.as_json, quiet=False)
            return
        elif path.exists():
            raise DataError(
                f"{path} is not a dataset (dataset.json), run (run.json) or comparison folder "
                "(comparison.json)"
            )
        else:
            raise DataError(f"{path} does not exist")
        report(facts, [facts_table(facts)], as_json=self.as_json, quiet=False)

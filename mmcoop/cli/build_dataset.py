"""`mmcoop build-dataset`: one subcommand per recipe, made from the recipe's own settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from mmcoop.cli.options import Printing, Writing, option, options_of
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.recipes import DEFAULT_RECIPE, RECIPES


@dataclass(kw_only=True)
class Build(Printing, Writing):
    """The options of every recipe, beside its own."""

    recipe: ClassVar[type]
    out: Path

    def run(self) -> None:
        self.build(self.chosen)
        self.report_built({})

    @property
    def chosen(self) -> Any:
        """The recipe, with the settings that were given."""
        return self.recipe(**{f.name: getattr(self, f.name) for f in fields(self.recipe)})

    def build(self, chosen: Any, **more: Any) -> None:
        chosen.build(self.out, overwrite=self.overwrite, progress=self.progress, **more)

    def report_built(self, more: Mapping[str, Any]) -> None:
        from mmcoop.datasets.reader import open_dataset
        from mmcoop.reporting.describe import dataset_facts
        from mmcoop.reporting.tables import facts_table

        facts = {**dataset_facts(open_dataset(self.out)), **more}
        tables: list[Any] = [f"built {self.out}:", facts_table(facts)]
        report(facts, tables, as_json=self.as_json, quiet=self.quiet)


@dataclass(kw_only=True)
class BuildFromClips(Build):
    """The options of recipes that read clips, which do not decide what is built."""

    workers: Annotated[
        int | None,
        option(
            "Processes that read clips. \\[default: all processors]",
            min=1,
            panel="Computing",
            metavar="N",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        option("Report what would be built, and what is missing.", "--dry-run", panel="Output"),
    ] = False
    write_missing: Annotated[
        Path | None, option("List missing clips in a CSV file.", panel="Output", metavar="FILE")
    ] = None

    def run(self) -> None:
        from mmcoop.datasets.source_files import check_source
        from mmcoop.datasets.writer import check_new_dataset
        from mmcoop.files import check_new_file
        from mmcoop.recipes.clip_recipe import write_missing

        chosen = self.chosen
        check_source(chosen.source)
        if self.write_missing is not None:
            check_new_file(self.write_missing, self.overwrite, "write_missing")
        if not self.dry_run:
            check_new_dataset(self.out, self.overwrite)  # reading the lists takes a while
        listing = chosen.checked(chosen.listing())
        written = {}
        if self.write_missing is not None:
            write_missing(self.write_missing, listing)
            count = f"{len(listing.missing):,} missing clips"
            written["written"] = f"{count} to {self.write_missing}"
        if self.dry_run:
            self.report_plan(chosen, listing, written)
            return
        self.build(chosen, listing=listing, workers=self.workers)
        self.report_built(written)

    def report_plan(self, chosen: Any, listing: Any, written: Mapping[str, Any]) -> None:
        """Print what would be built, and why it would fail if it would."""
        from mmcoop.errors import MmcoopError
        from mmcoop.reporting.listing import listing_facts
        from mmcoop.reporting.tables import facts_table

        facts = {**listing_facts(listing, chosen.limit), **written}
        try:
            chosen.plan(listing)
        except MmcoopError as error:
            facts["the_build_would_fail"] = error.on_command_line()
        report(facts, [facts_table(facts)], as_json=self.as_json, quiet=self.quiet)


class RecipeGroup(TyperGroup):
    """The recipes as subcommands, loaded when asked for; the default one needs no name.

    Raises `UsageError` if no recipe is named and an option is given that the default one lacks.
    """

    _listed: Mapping[str, TyperCommand] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names_no_recipe = not args or args[0].startswith("-")
        if names_no_recipe and not {"--help", "-h"}.intersection(args):
            known = {name for p in recipe_command(DEFAULT_RECIPE).params for name in p.opts}
            given = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
            if odd := [name for name in given if name not in known]:
                raise UsageError(
                    f"{odd[0]} is not an option of {DEFAULT_RECIPE}, the default recipe: name one "
                    f"of {', '.join(RECIPES)} (mmcoop build-dataset RECIPE {odd[0]} …)"
                )
            args = [DEFAULT_RECIPE, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(RECIPES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = RECIPES.check(cmd_name)
        return self._listed[name] if self._listed else recipe_command(name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # a list of the recipes needs none of them: loading them takes seconds
        self._listed = {
            name: TyperCommand(name, help=f"{entry.summary[0].upper()}{entry.summary[1:]}.")
            for name, entry in RECIPES.items()
        }
        super().format_help(ctx, formatter)


app = typer.Typer(cls=RecipeGroup, rich_markup_mode="markdown")


@app.callback(subcommand_metavar="[RECIPE] [OPTIONS]")
def build_dataset() -> None:
    """Build a dataset: a folder to train on, in `data/`.

    The default recipe, `keypad`, needs no other files. Each recipe has its own options:
    `mmcoop build-dataset RECIPE --help`.

    Examples:

    - `mmcoop build-dataset`

    - `mmcoop build-dataset keypad --seed 1 --out data/keypad-1`

    - `mmcoop build-dataset av-digits --source recordings --snr-audio -10 10`

    - `mmcoop build-dataset folder --source clips --workers 2`

    - `mmcoop build-dataset mm-debiased --source clips --list MM-Debiased.json --dry-run`
    """


def recipe_command(name: str) -> Any:
    """The subcommand of one recipe."""
    from mmcoop.workspace import DATA

    recipe = RECIPES.load(name)
    base = BuildFromClips if hasattr(recipe, "listing") else Build
    out = Annotated[Path, option("Dataset folder to create.", metavar="FOLDER")]
    command = make_dataclass(
        recipe.__name__,
        [("out", out, field(default=DATA / name))],
        bases=(base, options_of(recipe)),
        namespace={"recipe": recipe, "__doc__": getdoc(recipe)},
        kw_only=True,
    )
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(command)
    return typer.main.get_command(single)

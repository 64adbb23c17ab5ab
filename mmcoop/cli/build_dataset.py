"""`mmcoop build-dataset`: one subcommand a recipe, made from the recipe's own options."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from inspect import Parameter, getdoc
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.recipes import DEFAULT_RECIPE, RECIPES

#: The options of a recipe that reads clips which do not decide what is built.
RUNNING: dict[str, Any] = {
    "workers": options.setting(
        int,
        "Processes that read clips. \\[default: one a processor]",
        panel="Running",
        min=1,
    ),
    "dry_run": (
        Annotated[
            bool,
            typer.Option(
                "--dry-run",
                help="Only say what would be found and what is missing.",
                rich_help_panel="Running",
            ),
        ],
        False,
    ),
    "write_missing": options.setting(
        Path,
        "Write the clips without a file to this CSV, with their start and end in seconds, for a "
        "download tool; those of a manifest with the path of the file. --overwrite replaces a file "
        "that is there; in a dry run nothing else.",
        panel="Running",
    ),
}


class RecipeGroup(TyperGroup):
    """The recipes as subcommands, loaded when asked for; the default one needs no name.

    Raises `UsageError` where none is named and an option is given that the default one lacks.
    """

    _listed: Mapping[str, TyperCommand] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names_no_recipe = not args or args[0].startswith("-")
        if names_no_recipe and not {"--help", "-h"}.intersection(args):
            known = {name for p in recipe_command(DEFAULT_RECIPE).params for name in p.opts}
            given = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
            if odd := [name for name in given if name not in known]:
                raise UsageError(
                    f"{odd[0]} is no option of {DEFAULT_RECIPE}, which is built where no recipe is "
                    f"named: name one of {', '.join(RECIPES)} (mmcoop build-dataset RECIPE "
                    f"{odd[0]} …)"
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
    """Build a data set: a folder that trains, in `data/`.

    Without a recipe, builds `keypad`, which needs nothing from outside. Every recipe has options
    of its own: `mmcoop build-dataset RECIPE --help`.

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
    hints = get_type_hints(recipe)
    parameters = {
        field.name: (
            Annotated[
                hints[field.name],
                typer.Option(
                    *filter(None, [field.metadata["flag"]]),
                    help=field.metadata["help"],
                    rich_help_panel="Recipe",
                ),
            ],
            Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(recipe)
    }

    reads_clips = hasattr(recipe, "listing")
    if reads_clips:
        parameters |= RUNNING

    @options.with_options(parameters)
    def command(
        out: Annotated[Path, typer.Option("--out", help="The dataset folder to make.")] = DATA
        / name,
        overwrite: options.Overwrite = False,
        as_json: options.Json = False,
        quiet: options.Quiet = False,
        **settings: Any,
    ) -> None:
        from mmcoop.datasets.reader import open_dataset
        from mmcoop.datasets.source_files import check_source
        from mmcoop.datasets.writer import check_new_dataset
        from mmcoop.errors import MmcoopError
        from mmcoop.files import check_new_file
        from mmcoop.recipes.clip_recipe import write_missing
        from mmcoop.reporting.describe import dataset_facts
        from mmcoop.reporting.listing import listing_facts
        from mmcoop.reporting.tables import facts_table

        running = {name: settings.pop(name) for name in RUNNING if name in settings}
        more: dict[str, Any] = {}
        written: dict[str, Any] = {}
        chosen = recipe(**settings)
        if reads_clips:
            check_source(chosen.source)
            missing_file = running["write_missing"]
            if missing_file is not None:
                check_new_file(missing_file, overwrite, "--write-missing")
            if not running["dry_run"]:
                check_new_dataset(out, overwrite)  # reading the lists takes a while
            listing = chosen.checked(chosen.listing())
            if missing_file is not None:
                write_missing(missing_file, listing)
                written["written"] = f"{len(listing.missing):,} missing clips to {missing_file}"
            if running["dry_run"]:
                facts = listing_facts(listing, chosen.limit) | written
                try:
                    chosen.plan(listing)
                except MmcoopError as error:
                    facts["the_build_would_fail"] = str(error)
                report(facts, [facts_table(facts)], as_json=as_json, quiet=quiet)
                return
            more = {"listing": listing, "workers": running["workers"]}
        chosen.build(out, overwrite=overwrite, progress=options.progress(quiet), **more)
        facts = dataset_facts(open_dataset(out)) | written
        report(facts, [f"built {out}:", facts_table(facts)], as_json=as_json, quiet=quiet)

    command.__doc__ = getdoc(recipe)
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(command)
    return typer.main.get_command(single)

"""`mmcoop build-dataset`: one subcommand a recipe, made from the recipe's own options."""

from dataclasses import MISSING, fields
from inspect import Parameter, getdoc
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from mmcoop.cli import options
from mmcoop.cli.output import report
from mmcoop.datasets.recipes import DEFAULT_RECIPE, RECIPES


class RecipeGroup(TyperGroup):
    """The recipes as subcommands, loaded when asked for; the default one needs no name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names_no_recipe = not args or args[0].startswith("-")
        if names_no_recipe and "--help" not in args:
            args = [DEFAULT_RECIPE, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(RECIPES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return recipe_command(RECIPES.check(cmd_name))


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
                typer.Option(help=field.metadata["help"], rich_help_panel="Recipe"),
            ],
            Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(recipe)
    }

    @options.with_options(parameters)
    def command(
        out: Annotated[Path, typer.Option("--out", help="The dataset folder to make.")] = DATA
        / name,
        overwrite: options.Overwrite = False,
        as_json: options.Json = False,
        quiet: options.Quiet = False,
        **settings: Any,
    ) -> None:
        from mmcoop.datasets.store import open_dataset
        from mmcoop.reporting.describe import dataset_facts
        from mmcoop.reporting.tables import facts_table

        recipe(**settings).build(out, overwrite=overwrite, progress=options.progress(quiet))
        facts = dataset_facts(open_dataset(out))
        report(facts, [f"built {out}:", facts_table(facts)], as_json=as_json, quiet=quiet)

    command.__doc__ = getdoc(recipe)
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(command)
    return typer.main.get_command(single)

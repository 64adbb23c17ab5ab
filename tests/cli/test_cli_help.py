"""Help reads like documentation, and is there at once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from mmcoop.cli import app
from mmcoop.cli.build_dataset import recipe_command
from mmcoop.datasets.recipes import RECIPES

root = typer.main.get_command(app)
COMMANDS = ["build-dataset", "train", "valuate", "enhance", "evaluate", "info"]


def test_the_commands_are_listed_in_the_order_of_their_use(mmcoop, tmp_path):
    said = mmcoop(tmp_path, "--help").stdout
    listed = said[said.index("Commands") :]
    places = [listed.index(f" {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(mmcoop, tmp_path, name):
    result = mmcoop(tmp_path, name, "--help")
    assert result.returncode == 0
    assert f"mmcoop {name}" in result.stdout[result.stdout.index("Examples") :]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name):
    command = root.get_command(None, name)
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_has_help_for_itself_and_its_options(name):
    command = recipe_command(name)
    assert len(command.help) > 100
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_help_lists_the_recipes(mmcoop, tmp_path):
    said = mmcoop(tmp_path, "build-dataset", "--help").stdout
    for name in RECIPES:
        assert name in said


def test_the_version_is_that_of_the_package(mmcoop, tmp_path):
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    stated = tomllib.loads(pyproject.read_text())["project"]["version"]
    result = mmcoop(tmp_path, "--version")
    assert (result.returncode, result.stdout) == (0, f"mmcoop {stated}\n")


def test_help_does_not_load_torch():
    program = "import sys, mmcoop, mmcoop.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

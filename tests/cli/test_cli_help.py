"""Help reads like documentation, and is there at once."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from mmcoop.cli import app
from mmcoop.cli.build_dataset import recipe_command
from mmcoop.core.choices import ABSENT, CLASS_VALUES, ESTIMATORS, INDICES, INTERACTIONS, VALUES
from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.methods import METHODS
from mmcoop.recipes import RECIPES

root = typer.main.get_command(app)
COMMANDS = ["build-dataset", "train", "valuate", "enhance", "evaluate", "compare", "info"]

#: The options of `mmcoop valuate` in the order they are shown, by panel.
PANELS = {
    "Options": "run data split out cross-fit help",
    "Output": "overwrite resume json quiet",
    "Computing": "device workers threads",
    "Value of a coalition": "value absent features draws",
    "Sampled coalitions": "estimator budget tolerance max-batch seed",
    "Extra columns": "interactions index groups emap",
    "Your own model": "model output weights modality batch-size",
}


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


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_recipes(mmcoop, tmp_path, option):
    said = mmcoop(tmp_path, "build-dataset", option).stdout
    assert re.findall(r"^│ ([a-z]\S+) ", said, flags=re.MULTILINE) == list(RECIPES)


def test_the_options_of_valuate_are_in_panels_in_order(mmcoop, tmp_path):
    said = mmcoop(tmp_path, "valuate", "--help").stdout
    panels = re.split(r"╭─ (.+?) ─+╮", said)[1:]
    shown = dict(zip(panels[::2], panels[1::2], strict=True))
    assert list(shown) == list(PANELS)
    for name, options in PANELS.items():
        found = re.findall(r"^│ --([a-z-]+)", shown[name], flags=re.MULTILINE)
        assert found == options.split(), name


def test_help_of_valuate_has_every_name_that_may_be_chosen_and_no_other_value(mmcoop, tmp_path):
    said = mmcoop(tmp_path, "valuate", "--help").stdout
    words = set(re.findall(r"[a-z][a-z-]+", said))
    for table in (CLASS_VALUES, ESTIMATORS, ABSENT, INDICES, INTERACTIONS):
        assert table.keys() <= words
    assert not words & (VALUES.keys() - CLASS_VALUES.keys())  # of labels that no dataset has


@pytest.mark.parametrize("name", ["train", "valuate"])
def test_help_of_the_longest_commands_fits_two_screens(mmcoop, tmp_path, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert len(mmcoop(tmp_path, name, "--help").stdout.splitlines()) <= 80


@pytest.mark.parametrize(
    ("option", "registry"),
    [("--list-methods", METHODS), ("--list-fusions", FUSIONS), ("--list-encoders", ENCODERS)],
)
def test_lists_have_a_line_for_each_name_with_its_paper(mmcoop, tmp_path, option, registry):
    result = mmcoop(tmp_path, "train", option)
    lines = result.stdout.splitlines()
    assert (result.returncode, len(lines)) == (0, len(registry))
    for line, (name, entry) in zip(lines, registry.items(), strict=True):
        assert line.split()[0] == name
        assert entry.source in line


@pytest.mark.parametrize(
    "words",
    [[], *([name] for name in COMMANDS)],
    ids=lambda words: words[0] if words else "mmcoop",
)
def test_help_does_not_load_torch(words):
    program = (
        "import sys, mmcoop.cli\n"
        "try:\n"
        "    mmcoop.cli.main([*sys.argv[1:], '--help'])\n"
        "finally:\n"
        "    print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "Usage: mmcoop" in done.stdout


def test_the_version_is_that_of_the_package(mmcoop, tmp_path):
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    stated = tomllib.loads(pyproject.read_text())["project"]["version"]
    result = mmcoop(tmp_path, "--version")
    assert (result.returncode, result.stdout) == (0, f"mmcoop {stated}\n")

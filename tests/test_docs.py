"""The documentation speaks of what is there."""

import pkgutil
import re
import runpy
import shlex
from dataclasses import asdict
from doctest import DocTestParser, DocTestRunner
from pathlib import Path

import pytest
import typer

import mmcoop
from mmcoop.cli import app
from mmcoop.cli.build_dataset import recipe_command
from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.methods import METHODS
from mmcoop.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
root = typer.main.get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors_of(linked), f"{target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_code_block_exists_with_its_options(page):
    for line in commands_of(page):
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("-"):
            continue
        command = root.get_command(None, words[0])
        if words[0] == "build-dataset":
            recipe = words[1] if len(words) > 1 and not words[1].startswith("-") else "keypad"
            command = recipe_command(recipe)
        legal = {name for p in command.params for name in getattr(p, "opts", [])}
        for word in words:
            if word.startswith("--") and word != "--help":
                assert word in legal, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_session_in_python_gives_what_the_page_says(page):
    text = page.read_text().replace("```", "")  # or the end of a block would be taken for output
    session = DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    report: list[str] = []
    assert DocTestRunner().run(session, out=report.append).failed == 0, "".join(report)


def test_every_page_can_be_found():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    decisions = (ROOT / "docs/decisions/README.md").read_text()
    listed = re.findall(r"[\w/-]+\.md", navigation)
    listed += [f"decisions/{name}" for name in re.findall(r"\((\d+[\w-]+\.md)\)", decisions)]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_the_page_on_the_command_line_is_what_the_commands_say():
    reference = ROOT / "docs/reference"
    generated = runpy.run_path(str(reference / "cli.py"))["page"]()
    assert (reference / "cli.md").read_text() == generated, "run make docs-cli"


def test_the_page_on_the_library_has_every_public_name():
    page = (ROOT / "docs/reference/api.md").read_text()
    assert sorted(re.findall(r"^::: mmcoop\.(\w+)$", page, flags=re.MULTILINE)) == mmcoop.__all__


@pytest.mark.parametrize("page", ["api.md", "extension-points.md"])
def test_everything_on_a_generated_page_exists(page):
    text = (ROOT / "docs/reference" / page).read_text()
    for name in re.findall(r"^::: (.+)$", text, flags=re.MULTILINE):
        assert pkgutil.resolve_name(name).__doc__, name


def test_the_page_on_settings_has_each_with_its_default():
    page = (ROOT / "docs/reference/settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\|", page, flags=re.MULTILINE))
    defaults = asdict(mmcoop.TrainConfig())
    assert rows == {name: "" if value == {} else str(value) for name, value in defaults.items()}


def test_the_readme_shows_every_command():
    shown = {shlex.split(line, comments=True)[1] for line in commands_of(ROOT / "README.md")}
    assert {"build-dataset", "train", "valuate", "enhance", "evaluate"} <= shown


def commands_of(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("mmcoop ")]


@pytest.mark.parametrize("table", [RECIPES, METHODS, FUSIONS, ENCODERS], ids=lambda t: t.kind)
def test_every_name_a_user_may_pick_leads_to_a_documented_thing(table):
    for name, entry in table.items():
        thing = table.load(name)
        assert thing.__doc__, name
        assert entry.summary, name

"""Pages, docstrings and comments are plain English, without phrases that read as if translated."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
#: Modules whose docstrings and comments are checked.
MODULES = sorted((ROOT / "mmcoop").rglob("*.py"))

_UNIT = (
    "modality|sample|epoch|coalition|row|class|split|method|run|batch|seed|fold|file|step|frame|"
    "recipe|processor|trial|channel|label|clip|page|subcommand|fusion"
)

#: Phrases, and what to write instead. None of them is plain English in a technical text.
PHRASES = {
    rf"\b(?:a|an|one) (?!(?:as|at|by|in|of|on|out|to|with)\b)\w+ an? (?:{_UNIT})\b": "one … per …",
    rf"\b(?:rows|trials|draws|examples|seconds|times|epochs) an? (?:{_UNIT})\b": "… per …",
    r"\bcoalitions a sample\b": "… per …",
    r"\bso many\b": "this many",
    r"\btold\b|\b(?:is|are|was|were) said of\b": "reported, printed, recorded",
    r"\b(?:go|goes|gone|went) on\b|\bgoing on with\b|\bbegun\b": "resume, continue, start",
    r"\banew\b": "again",
    r"\bone's own\b": "user-defined",
    r"\bif (?:they|you|one) likes?\b": "optionally",
    r"\bdear(?:er|est)?\b": "expensive",
    r"\bamiss\b": "wrong",
    r"\balike\b": "equal",
    r"\bon the whole\b|\bwhole rows?\b|\bwhole or not\b|\bsamples? whole\b": "complete, on average",
    r"\bnot given is\b|\bdata ?set advises\b": "unset options default to …",
    r"\b(?:stand|stands|stood|standing) in for\b|\bwhat stands in\b|\bstand-in\b": "replaces",
    r"\bchance decides\b|\bother chance\b": "random seed",
    r"\b(?:is|are|being|be) worth\b(?! (?:it|noting|knowing)\b)|\bworth its size\b": "value",
    r"\bcare[sd]? for\b": "re-balances",
    r"\bsets in\b(?=[.,;:)]|$)": "starts",
    r"\blooked in too\b": "is searched as well",
}


def found_in(text: str) -> list[str]:
    """Every phrase of `text` that should be written in another way, with its surroundings."""
    text = re.sub(r"\s+", " ", text)
    return [
        f"'{text[max(0, match.start() - 30) : match.end() + 30]}': write {instead!r}"
        for phrase, instead in PHRASES.items()
        for match in re.finditer(phrase, text, flags=re.IGNORECASE)
    ]


def explanations(source: str) -> list[str]:
    """The docstrings and comments of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = "\n".join(t.string.lstrip("#: ") for t in tokens if t.type == tokenize.COMMENT)
    return [*(ast.get_docstring(node) or "" for node in nodes), comments]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("one row a modality", True),
        ("one row per modality", False),
        ("the unmatched one in an epoch already trained", False),
        ("32 rows an\nepoch", True),
        ("What stands in for an absent modality", True),
        ("which parts stand in which split", False),
        ("a coalition is worth its size", True),
        ("it is worth knowing that values differ", False),
    ],
)
def test_phrases_are_found_where_they_are_meant(text, found):
    assert bool(found_in(text)) is found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_reads_as_if_translated(page):
    assert found_in(page.read_text()) == []


def test_explanations_are_docstrings_and_comments():
    source = '"""One row a modality."""\nx = "told"  # so\n# many rows\n'
    docstring, comments = explanations(source)
    assert found_in(docstring)
    assert found_in(comments)
    assert "told" not in docstring + comments


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_or_comment_reads_as_if_translated(path):
    assert [found for text in explanations(path.read_text()) for found in found_in(text)] == []

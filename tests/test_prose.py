"""The documentation is plain English: phrases that read as if translated do not occur."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

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

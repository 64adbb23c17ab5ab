"""Items that could not be added to a dataset, and the reasons."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from mmcoop.errors import DataError
from mmcoop.printable import printable

#: How many examples a report lists.
FIRST = 5

#: The reasons in `rejects.parquet`, and what each means.
REASONS = {
    "missing": "no file was found for it",
    "duplicate": "it was asked for more than once",
    "name": "its file is not named as the recipe expects, or its path is not UTF-8",
    "outside-folder": "its path leaves the source folder",
    "unknown-class": "its class is not one of the data set's",
    "unreadable": "its file is empty, damaged or not of the kind expected",
    "no-audio": "its file has no sound",
    "no-video": "its file has no picture",
    "orientation": "its display matrix turns its pictures by an angle that is no multiple of 90°",
    "timestamps": "its timestamps do not tell which sound belongs to which picture",
    "outside-file": "its window begins after the end of its file",
    "too-short": "there is less of it than is needed",
    "too-large": "its file, its picture or its length is beyond the limit",
    "timeout": "reading it took longer than the limit",
    "crashed": "the process that read it died",
    "wrong-shape": "its array has another shape than the first one",
    "not-a-number": "it has numbers that are NaN or infinite",
}

#: Notes on clips that were added despite a defect (column `notes`), and what each means.
NOTES = {
    "cut-short": "it has less than its file states",
    "silent-sound": "all samples of its sound are equal",
    "sound-cut": "its sound lasts longer than the spectrogram",
}


class Reject(NamedTuple):
    """A rejected item: its id, one of `REASONS`, and details."""

    id: str
    reason: str
    detail: str = ""


class Unusable(DataError):
    """An item cannot be added to a dataset, for one of `REASONS`, with details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return printable(self.detail)


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Number of rejects by reason, sorted by name."""
    return dict(sorted(Counter(reject.reason for reject in rejects).items()))


def why_not(rejects: Collection[Reject]) -> str:
    """Summarise rejects for a message, " (5 rejected: …)": counts by reason, and the first id."""
    if not rejects:
        return ""
    first = min(rejects)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in count_reasons(rejects).items())
    return (
        f" ({len(rejects):,} rejected: {reasons}; the first: {first.id}, {first.reason}: "
        f"{first.detail})"
    )

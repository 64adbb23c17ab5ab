"""The fixture `recorder`: a record of what training goes through."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from mmcoop.progress import Item, Progress


class Recorder(Progress):
    """Keeps what training goes through, as a progress bar would be shown it.

    `tracked`: `(label, items)` in the order they came; `notes`: the lines worth reading.
    """

    def __init__(self) -> None:
        self.tracked: list[tuple[str, list[Any]]] = []
        self.notes: list[str] = []

    def track(self, items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
        kept: list[Any] = []
        self.tracked.append((label, kept))
        for item in items:
            kept.append(item)
            yield item

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epochs(self) -> list[list[Any]]:
        """The batches that were trained on, epoch by epoch."""
        return [items for label, items in self.tracked if label.startswith("epoch ")]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()

"""How long-running work reports progress: silent here, drawn by the command line's subclass."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Progress:
    """Receives progress and shows nothing."""

    def track(
        self,
        items: Iterable[Item],
        label: str,
        total: int | None = None,
        status: Callable[[], str] | None = None,
    ) -> Iterator[Item]:
        """Yield `items` unchanged while reporting progress.

        Args:
            items: The items.
            label: What is being done.
            total: Their number, if `items` has no length.
            status: Returns additional status text; called from time to time.
        """
        yield from items

    def note(self, text: str) -> None:
        """Report one line of text, such as the result of an epoch."""


SILENT = Progress()

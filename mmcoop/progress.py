"""How long work reports on itself. Silent here; the command line passes one that draws."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Progress:
    """Told what is going on, says nothing."""

    def track(
        self,
        items: Iterable[Item],
        label: str,
        total: int | None = None,
        status: Callable[[], str] | None = None,
    ) -> Iterator[Item]:
        """Yield `items` unchanged; `total` is their number where `items` has no length.

        `status` is asked now and then for what else there is to say.
        """
        yield from items

    def note(self, text: str) -> None:
        """One line worth reading on its own, such as an epoch's result."""


SILENT = Progress()

"""Progress in the terminal, on standard error: bars where there is one, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from mmcoop.printable import printable
from mmcoop.progress import Item, Progress
from mmcoop.reporting.terminal import Terminal

# Without a terminal, work that takes longer than this says so, and again every so often.
_PLAIN_SECONDS = 10.0


class TerminalProgress(Progress):
    """Draws bars on a terminal; writes a plain line now and then where there is none."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True)

    def track(
        self,
        items: Iterable[Item],
        label: str,
        total: int | None = None,
        status: Callable[[], str] | None = None,
    ) -> Iterator[Item]:
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self._console.is_terminal:
            yield from self._bar(items, label, total, status or str)
        else:
            yield from _lines(items, label, total, status or str)

    def note(self, text: str) -> None:
        self._console.print(printable(text), soft_wrap=True)

    def _bar(
        self, items: Iterable[Item], label: str, total: int | None, status: Callable[[], str]
    ) -> Iterator[Item]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
        )
        with RichProgress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(printable(label), total=total, status="")
            for item in progress.track(items, total=total, task_id=task):
                yield item
                progress.update(task, status=printable(status()))


def _lines(
    items: Iterable[Item], label: str, total: int | None, status: Callable[[], str]
) -> Iterator[Item]:
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said >= _PLAIN_SECONDS:
            said = time.monotonic()
            of = f" of {total}" if total else ""
            more = f" ({said_too})" if (said_too := status()) else ""
            print(printable(f"{label}: {done}{of}{more}"), file=sys.stderr, flush=True)

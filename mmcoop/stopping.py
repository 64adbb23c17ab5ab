"""SIGTERM stops work as Ctrl-C does: the state is saved, and the process says how to resume."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGTERM, signal
from threading import Timer, current_thread, main_thread
from typing import Any

#: Exit code of a process that SIGTERM stopped: 128 + 15, as shells report it.
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, for everything that ends well on Ctrl-C."""


@contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """In the block SIGTERM raises `Terminated`; gives a function that says whether it came.

    Does nothing outside of the main thread, which alone may handle signals.
    """
    seen = []

    def stop(*_: object) -> None:
        seen.append(True)
        raise Terminated

    if current_thread() is not main_thread():
        yield lambda: False
        return

    def again(problem: Any) -> None:
        """Python drops what is raised in `__del__`, where the signal may find it."""
        if problem.exc_type is Terminated:
            Timer(0.05, os.kill, (os.getpid(), SIGTERM)).start()
        else:
            report(problem)

    before, report = signal(SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield lambda: bool(seen)
    finally:
        signal(SIGTERM, before)
        sys.unraisablehook = report

"""SIGTERM stops work like Ctrl-C: the state is saved, and a message explains how to resume."""

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
    """The process received SIGTERM. Handled by all code that handles Ctrl-C."""


@contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Make SIGTERM raise `Terminated` in the block.

    Has no effect outside the main thread, which alone can handle signals.

    Yields:
        A function that returns whether SIGTERM was received.
    """
    seen = []

    def stop(*_: object) -> None:
        seen.append(True)
        raise Terminated

    if current_thread() is not main_thread():
        yield lambda: False
        return

    def again(problem: Any) -> None:
        """Send the signal again if it came during `__del__`, whose exceptions Python discards."""
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

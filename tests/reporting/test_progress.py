"""Progress: bars on a terminal, plain lines elsewhere, and the items as they were."""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress

import pytest

from mmcoop.progress import SILENT
from mmcoop.reporting.progress import TerminalProgress


class Clock:
    """A clock that the work itself moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def work(self, tracked: Iterable[int], *seconds: float) -> list[int]:
        """Work so long on each of the items; returns them."""
        done = []
        for item, duration in zip(tracked, seconds, strict=True):
            self.now += duration
            done.append(item)
        return done


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch) -> None:
    """What standard error is decides, and no variable that the tests were started with."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def terminal(written: list[str]) -> Iterator[None]:
    """Standard error is a pseudo-terminal; what it was sent is appended to `written`."""
    outside, inside = os.openpty()
    with os.fdopen(inside, "w") as stream, redirect_stderr(stream):
        yield
        stream.flush()
        os.set_blocking(outside, False)
        with suppress(BlockingIOError):
            while part := os.read(outside, 65536):
                written.append(part.decode())
    os.close(outside)


# --- nothing at all


def test_the_silent_one_yields_the_items_and_says_nothing(capfd):
    items = [object(), object()]
    assert list(SILENT.track(items, "work")) == items
    assert list(SILENT.track(iter(items), "work", total=2)) == items
    assert list(SILENT.track(items, "work", 2, lambda: "never asked")) == items
    SILENT.note("done")
    assert capfd.readouterr() == ("", "")


# --- without a terminal


def test_items_come_unchanged_and_in_order_without_a_terminal(capsys):
    items = [object() for _ in range(5)]
    assert [id(x) for x in TerminalProgress().track(items, "work")] == [id(x) for x in items]
    assert list(TerminalProgress().track(iter("abc"), "work")) == ["a", "b", "c"]
    assert list(TerminalProgress().track([], "work")) == []
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing_and_long_work_a_plain_line_now_and_then(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    short = TerminalProgress().track(range(3), "short")
    assert clock.work(short, 4, 4, 1.9) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    long = TerminalProgress().track(iter(range(6)), "valuing", total=6)
    assert clock.work(long, 4, 4, 4, 9, 0.5, 1) == [0, 1, 2, 3, 4, 5]
    out, err = capsys.readouterr()
    assert out == ""
    # a line whenever ten seconds have gone since the one before
    assert err == "valuing: 3 of 6\nvaluing: 6 of 6\n"


def test_the_total_is_the_length_of_the_items_and_left_out_where_there_is_none(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    clock.work(TerminalProgress().track([7, 8, 9], "sized"), 11, 11, 11)
    assert capsys.readouterr().err == "sized: 1 of 3\nsized: 2 of 3\nsized: 3 of 3\n"
    clock.work(TerminalProgress().track(iter([7, 8]), "stream"), 11, 11)
    assert capsys.readouterr().err == "stream: 1\nstream: 2\n"


def test_a_plain_line_ends_with_what_else_there_is_to_say(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    asked = []

    def status() -> str:
        asked.append(clock.now)
        return f"{len(asked)} rejected"

    long = TerminalProgress().track(iter(range(5)), "reading clips", 5, status)
    assert clock.work(long, 4, 4, 4, 9, 2) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == (
        "reading clips: 3 of 5 (1 rejected)\nreading clips: 5 of 5 (2 rejected)\n"
    )
    assert asked == [1012, 1023], "asked when there is a line to write"
    clock.work(TerminalProgress().track("a", "stream", status=lambda: ""), 11)
    assert capsys.readouterr().err == "stream: 1 of 1\n"


def test_the_status_is_that_after_the_work_on_the_item(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    done: list[int] = []
    for item in TerminalProgress().track([7, 8], "work", status=lambda: f"{done}"):
        done.append(item)
        clock.now += 11
    assert capsys.readouterr().err == "work: 1 of 2 ([7])\nwork: 2 of 2 ([7, 8])\n"


def test_items_are_taken_one_at_a_time():
    taken = []

    def source():
        for item in range(3):
            taken.append(item)
            yield item

    tracked = TerminalProgress().track(source(), "work")
    assert taken == []
    next(tracked)
    assert taken == [0]


def test_notes_go_to_standard_error_in_one_line_as_they_are(capsys):
    note = "epoch 1/3: [bold]loss[/bold] 0.5 " + "and so on " * 40
    TerminalProgress().note(note)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == note + "\n"


def test_an_error_in_the_work_comes_through():
    def broken():
        yield 1
        raise ValueError("broken clip")

    with pytest.raises(ValueError, match="broken clip"):
        list(TerminalProgress().track(broken(), "work"))


# --- on a terminal


def test_a_terminal_shows_a_bar_that_goes_when_the_work_is_done():
    items = [object() for _ in range(4)]
    seen, written = [], []
    with terminal(written):
        for item in TerminalProgress().track(items, "epoch 2/3"):
            seen.append(item)
            time.sleep(0.15)
    text = "".join(written)
    assert seen == items
    assert "epoch 2/3" in text
    assert "━" in text
    assert "/4" in text
    # the last it does is to wipe the line it was on
    assert text.rstrip().endswith("\x1b[2K")


def test_a_terminal_shows_the_status_behind_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    done: list[int] = []
    written: list[str] = []
    with terminal(written):
        tracked = TerminalProgress().track(range(4), "reading", 4, lambda: f"{len(done)} rejected")
        for item in tracked:
            done.append(item)
            time.sleep(0.15)
    text = "".join(written)
    assert re.search(r"━ ([123])/4 .* [123] rejected", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))
    assert text.rstrip().endswith("\x1b[2K")


def test_a_terminal_shows_notes_as_they_are():
    written: list[str] = []
    with terminal(written):
        TerminalProgress().note("epoch 1/3: [bold]loss[/bold] 0.5")
    assert "".join(written) == "epoch 1/3: [bold]loss[/bold] 0.5\r\n"


def test_a_terminal_shows_a_bar_for_items_of_unknown_number():
    written: list[str] = []
    with terminal(written):
        assert list(TerminalProgress().track(iter("ab"), "reading")) == ["a", "b"]
    assert "reading" in "".join(written)


def test_an_error_in_the_work_comes_through_on_a_terminal_and_the_bar_goes():
    def broken():
        yield 1
        raise ValueError("broken clip")

    written: list[str] = []
    with terminal(written), pytest.raises(ValueError, match="broken clip"):
        list(TerminalProgress().track(broken(), "work"))
    assert "".join(written).rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in "".join(written)  # the cursor is back
